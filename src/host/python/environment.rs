//! What the location of an interpreter says about it: virtual environment, version, directories of packages.
//!
//! The rules are those of Python's own `getpath` and `site`, and of the distributions that changed them.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::super::{Interpreter, Query, Version};

/// Describes the interpreter at `path`.
pub(super) fn interpreter(path: PathBuf, found_by: String, query: &Query) -> Interpreter {
    // Python looks next to the program and one directory above, without following symbolic links.
    let venv = path.ancestors().skip(1).take(2).find_map(|directory| {
        let text = fs::read_to_string(directory.join("pyvenv.cfg")).ok()?;
        Some((directory.to_owned(), Config::parse(&text)))
    });
    let Some((venv, config)) = venv else {
        let base = Base::of(&path);
        let site_packages = base.site_packages(query);
        let is_free_threaded = is_free_threaded(&path, &site_packages);
        return Interpreter { path, version: base.version, is_free_threaded, venv: None, site_packages, found_by };
    };
    let version =
        config.version.or_else(|| version_in_name(&fs::canonicalize(&path).ok()?)).or_else(|| version_in_lib(&venv));
    let mut site_packages = packages_below(&venv, version);
    if config.system_site_packages
        && let Some(home) = config.home
    {
        site_packages.extend(Base { version, ..Base::of(&home.join("python3")) }.site_packages(query));
    }
    let is_free_threaded = is_free_threaded(&path, &site_packages);
    Interpreter { path, version, is_free_threaded, venv: Some(venv), site_packages, found_by }
}

/// Whether the name of the program, or of the library that has its packages, ends as that of a free-threaded Python:
/// `python3.14t`.
fn is_free_threaded(path: &Path, site_packages: &[PathBuf]) -> bool {
    let says_so = |path: &Path| version_in_name(path).is_some() && path.as_os_str().as_bytes().ends_with(b"t");
    fs::canonicalize(path).is_ok_and(|program| says_so(&program))
        || site_packages.first().and_then(|packages| packages.parent()).is_some_and(says_so)
}

/// Whether both are the same interpreter with the same packages.
pub(super) fn same(one: &Interpreter, other: &Interpreter) -> bool {
    let program = |interpreter: &Interpreter| fs::canonicalize(&interpreter.path).ok();
    one.venv == other.venv && program(one) == program(other)
}

/// The keys of `pyvenv.cfg` that matter.
#[derive(Debug, Default, PartialEq, Eq)]
struct Config {
    /// The directory of the base interpreter.
    home: Option<PathBuf>,
    version: Option<(u32, u32)>,
    system_site_packages: bool,
}

impl Config {
    /// Reads `key = value` lines. The version is `version` where `venv` wrote it, `version_info` where virtualenv
    /// or uv did.
    fn parse(text: &str) -> Self {
        let mut config = Self::default();
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            let value = value.trim();
            match key.trim().to_ascii_lowercase().as_str() {
                "home" => config.home = Some(value.into()),
                "version" | "version_info" => {
                    config.version = value.parse().ok().map(|Version(major, minor, _)| (major, minor));
                }
                "include-system-site-packages" => config.system_site_packages = value.eq_ignore_ascii_case("true"),
                _ => {}
            }
        }
        config
    }
}

/// An interpreter outside any virtual environment.
struct Base {
    /// `/usr`, `/usr/local`, or its own directory.
    prefix: PathBuf,
    version: Option<(u32, u32)>,
}

impl Base {
    /// Follows symbolic links, as Python does: `/usr/local/bin/python3` may belong to another prefix.
    fn of(path: &Path) -> Self {
        let program = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let prefix = program.ancestors().nth(2).unwrap_or(Path::new("/")).to_owned();
        let version = version_in_name(&program).or_else(|| version_in_name(path)).or_else(|| version_in_lib(&prefix));
        Self { prefix, version }
    }

    /// The directories that exist, in the order in which Python searches them: the user's, the local ones of Debian
    /// and Fedora, the prefix's own, Debian's.
    fn site_packages(&self, query: &Query) -> Vec<PathBuf> {
        let user = query.in_home(".local").map(|local| packages_below(&local, self.version)).unwrap_or_default();
        let local = packages_below(&self.prefix.join("local"), self.version);
        let own = packages_below(&self.prefix, self.version);
        let debian = Some(self.prefix.join("lib/python3/dist-packages")).filter(|directory| directory.is_dir());
        user.into_iter().chain(local).chain(own).chain(debian).collect()
    }
}

/// The package directories in `prefix`. Fedora also has them in `lib64`, which elsewhere is only a link; Debian calls
/// them `dist-packages`; a free-threaded Python has a `t` in its name.
fn packages_below(prefix: &Path, version: Option<(u32, u32)>) -> Vec<PathBuf> {
    let Some((major, minor)) = version else { return Vec::new() };
    let mut found = Vec::new();
    for lib in ["lib", "lib64"] {
        let lib = prefix.join(lib);
        if lib.ends_with("lib64") && fs::read_link(&lib).is_ok() {
            continue;
        }
        for threading in ["", "t"] {
            let library = lib.join(format!("python{major}.{minor}{threading}"));
            let directories = ["site-packages", "dist-packages"].map(|name| library.join(name));
            found.extend(directories.into_iter().filter(|directory| directory.is_dir()));
        }
    }
    found
}

/// The version in a program's name: `python3.11`, `python3.14t`, `platform-python3.6`.
fn version_in_name(program: &Path) -> Option<(u32, u32)> {
    let name = program.file_name()?.to_str()?;
    let (major, minor) = name.rsplit_once("python")?.1.split_once('.')?;
    Some((major.parse().ok()?, minor.trim_end_matches('t').parse().ok()?))
}

/// The newest version that a prefix has a library for, for an interpreter that is only called `python3`.
fn version_in_lib(prefix: &Path) -> Option<(u32, u32)> {
    let libraries = fs::read_dir(prefix.join("lib")).ok()?.filter_map(Result::ok);
    libraries.filter_map(|entry| version_in_name(Path::new(&entry.file_name()))).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_of_every_tool_is_read() {
        let venv = Config::parse("home = /usr/bin\ninclude-system-site-packages = true\nversion = 3.11.7\n");
        assert_eq!(
            venv,
            Config { home: Some("/usr/bin".into()), version: Some((3, 11)), system_site_packages: true }
        );
        let uv = Config::parse("home=/opt/py/bin\r\nuv = 0.9.1\r\nversion_info = 3.14.0\r\n");
        assert_eq!((uv.version, uv.system_site_packages), (Some((3, 14)), false));
        assert_eq!(Config::parse("version_info = 3.12.1.final.0").version, Some((3, 12)));
        assert_eq!(Config::parse("nonsense\n= 1\n"), Config::default());
    }

    #[test]
    fn a_python_without_gil_is_known_by_its_name_or_its_library() {
        let packages = |library: &str| vec![Path::new("/venv/lib").join(library).join("site-packages")];
        assert!(is_free_threaded(Path::new("/missing/python"), &packages("python3.14t")));
        assert!(!is_free_threaded(Path::new("/missing/python"), &packages("python3.14")));
        assert!(!is_free_threaded(Path::new("/missing/python"), &[]));
        let directory = tempfile::tempdir().unwrap();
        let (program, link) = (directory.path().join("python3.13t"), directory.path().join("python"));
        fs::write(&program, "").unwrap();
        std::os::unix::fs::symlink(&program, &link).unwrap();
        assert!(is_free_threaded(&link, &packages("python3.13")));
    }

    #[test]
    fn names_tell_versions() {
        for (name, version) in [
            ("/usr/bin/python3.11", Some((3, 11))),
            ("python3.14t", Some((3, 14))),
            ("/usr/libexec/platform-python3.6", Some((3, 6))),
            ("python3", None),
            ("python", None),
            ("python3.11-config", None),
            ("pypy", None),
        ] {
            assert_eq!(version_in_name(Path::new(name)), version, "{name}");
        }
    }
}
