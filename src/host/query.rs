//! The input of the probe: where to look, and what has been set.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::Environment;

/// Everything that the probe does not read from the machine itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The directory that contains `/proc` and `/sys`; `/` except in tests.
    pub root: PathBuf,
    /// `PATH`. Without one the usual directories are searched, as `execvp` does.
    pub path: Option<OsString>,
    /// `HOME`.
    pub home: Option<OsString>,
    /// `PYTHONPATH`: Python searches it before its own directories.
    pub python_path: Option<OsString>,
    /// `PYENV_VERSION`: the Python that pyenv's shims stand for.
    pub pyenv_version: Option<OsString>,
    /// The directory that we were started in, absolute.
    pub cwd: PathBuf,
    /// The setting `virtual_env`.
    pub virtual_env: Option<PathBuf>,
    /// The setting `python`: a path, or a name to be found on `PATH`.
    pub python: Option<PathBuf>,
    /// The setting `app_root`.
    pub app_root: Option<PathBuf>,
    /// Whether the server works in the current directory although `app_root` is set.
    pub leaves_app_root: bool,
    /// APP as it was written.
    pub app: Option<String>,
    /// Whether it was set explicitly. If not, `wsgi_app` of Gunicorn's configuration file is the app.
    pub app_is_named: bool,
    /// Gunicorn's configuration file.
    pub gunicorn_file: GunicornFile,
    /// The working directory on Gunicorn's command line (`chdir`).
    pub gunicorn_directory: Option<PathBuf>,
    /// What Gunicorn's command line adds to the import path, separated by commas (`pythonpath`).
    pub gunicorn_python_path: Option<String>,
    /// Whether Granian's interpreter counts instead of Gunicorn's if `PATH` has both and they differ.
    pub prefer_granian: bool,
}

/// Which configuration file Gunicorn gets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum GunicornFile {
    /// The one that is found.
    #[default]
    Found,
    /// One that is named, in one of Gunicorn's forms: a path, `file:PATH`, `python:MODULE`.
    Named(OsString),
    /// None.
    None,
}

impl Query {
    /// A query about this machine. An empty variable counts as unset.
    #[must_use]
    pub fn new(env: &Environment, cwd: PathBuf) -> Self {
        let variable = |name: &str| env.get(OsStr::new(name)).filter(|value| !value.is_empty()).cloned();
        Self {
            root: PathBuf::from("/"),
            path: variable("PATH"),
            home: variable("HOME"),
            python_path: variable("PYTHONPATH"),
            pyenv_version: variable("PYENV_VERSION"),
            cwd,
            virtual_env: None,
            python: None,
            app_root: None,
            leaves_app_root: false,
            app: None,
            app_is_named: true,
            gunicorn_file: GunicornFile::Found,
            gunicorn_directory: None,
            gunicorn_python_path: None,
            prefer_granian: false,
        }
    }

    /// `APP_ROOT` as an absolute path.
    pub(super) fn app_root(&self) -> Option<PathBuf> {
        self.app_root.as_ref().map(|root| self.cwd.join(root))
    }

    /// The server's working directory.
    pub(super) fn working_directory(&self) -> PathBuf {
        self.app_root().filter(|_| !self.leaves_app_root).unwrap_or_else(|| self.cwd.clone())
    }

    /// A file or directory in the home directory, if there is one.
    pub(super) fn in_home(&self, path: impl AsRef<Path>) -> Option<PathBuf> {
        self.home.as_ref().map(|home| Path::new(home).join(path))
    }

    /// The directories of `PYTHONPATH`; an empty entry is the working directory.
    pub(super) fn python_path(&self) -> Vec<PathBuf> {
        let directory = self.working_directory();
        let path = self.python_path.as_deref().unwrap_or_default();
        std::env::split_paths(path).filter(|_| !path.is_empty()).map(|entry| directory.join(entry)).collect()
    }

    /// The first existing Gunicorn configuration file in the places that the gateway and Gunicorn use. The last is
    /// where Gunicorn itself looks once it works in `APP_ROOT`.
    pub(super) fn gunicorn_config(&self) -> Option<PathBuf> {
        let app_root = self.app_root();
        let in_app_root = |name: &str| app_root.as_ref().map(|root| root.join(name));
        [
            in_app_root("gunicorn.config.py"),
            Some(self.cwd.join("gunicorn.config.py")),
            Some(self.cwd.join("gunicorn.conf.py")),
            in_app_root("gunicorn.conf.py"),
        ]
        .into_iter()
        .flatten()
        .find(|path| path.is_file())
    }
}
