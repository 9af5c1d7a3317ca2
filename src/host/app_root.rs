//! The working directory that `APP_ROOT` names, and why it may not be used.

use std::path::Path;

/// The outcome for `APP_ROOT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppRoot {
    /// It is the working directory, or it is not set.
    Taken,
    /// The app is in the current directory, but not in `APP_ROOT`.
    Left,
    /// It cannot be the working directory, for this reason.
    Unusable(&'static str),
}

impl AppRoot {
    /// Looks at the directory. Images that set `APP_ROOT` themselves may have the app in a folder below it, which is
    /// the current directory.
    #[must_use]
    pub fn look(app_root: Option<&Path>, current: &Path, app: &str) -> Self {
        let Some(root) = app_root.map(|root| current.join(root)) else { return Self::Taken };
        match root.metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Self::Unusable("does not exist"),
            Err(_) => return Self::Unusable("cannot be entered"),
            Ok(metadata) if !metadata.is_dir() => return Self::Unusable("is not a directory"),
            Ok(_) => {}
        }
        if nix::unistd::access(&root, nix::unistd::AccessFlags::X_OK).is_err() {
            return Self::Unusable("cannot be entered");
        }
        let module = app.split(':').next().unwrap_or_default();
        if has(current, module) && !has(&root, module) { Self::Left } else { Self::Taken }
    }
}

/// Whether a directory has the module, as a package or a file.
fn has(directory: &Path, module: &str) -> bool {
    if module.contains('/') {
        let path = directory.join(module);
        return path.is_file() || path.with_extension("py").is_file() || path.join("__init__.py").is_file();
    }
    let path = module.split('.').fold(directory.to_owned(), |path, part| path.join(part));
    let package = path.join("__init__.py");
    let mut file = path.into_os_string();
    file.push(".py");
    Path::new(&file).is_file() || package.is_file()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_app_decides_where_the_work_is_done() {
        let tree = tempfile::tempdir().unwrap();
        let (root, src) = (tree.path(), tree.path().join("src"));
        fs::create_dir_all(src.join("pkg")).unwrap();
        for file in ["main.py", "pkg/__init__.py", "pkg/web.py", "my-app.py"] {
            fs::write(src.join(file), "").unwrap();
        }
        fs::write(root.join("above.py"), "").unwrap();
        for app in ["main:app", "pkg", "pkg.web:app", "my-app:app", "pkg/web:app", "./main.py"] {
            assert_eq!(AppRoot::look(Some(root), &src, app), AppRoot::Left, "{app}");
        }
        for app in ["above:app", "nowhere:app", "bash"] {
            assert_eq!(AppRoot::look(Some(root), &src, app), AppRoot::Taken, "{app}");
        }
        fs::write(root.join("main.py"), "").unwrap();
        assert_eq!(AppRoot::look(Some(root), &src, "main:app"), AppRoot::Taken, "it is in both");
        assert_eq!(AppRoot::look(None, &src, "main:app"), AppRoot::Taken);
        assert_eq!(AppRoot::look(Some(Path::new("..")), &src, "pkg:app"), AppRoot::Left);
    }

    #[test]
    fn what_is_no_directory_cannot_be_worked_in() {
        let tree = tempfile::tempdir().unwrap();
        fs::write(tree.path().join("file"), "").unwrap();
        let look = |name: &str| AppRoot::look(Some(Path::new(name)), tree.path(), "main:app");
        assert_eq!(look("nowhere"), AppRoot::Unusable("does not exist"));
        assert_eq!(look("file"), AppRoot::Unusable("is not a directory"));
    }
}
