//! A directory tree to be probed: a machine's `/proc` and `/sys`, an image's `/usr`, a project.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use mcp_launch::host::{Host, Query, probe};
use tempfile::TempDir;

use crate::harness::write_program;

pub struct Tree(TempDir);

impl Tree {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap()).directory("project")
    }

    /// A machine with four processors and 16 GiB; `cgroup` and `mountinfo` are its files of these names.
    pub fn machine(cgroup: &str, mountinfo: &str) -> Self {
        Self::new()
            .file("proc/self/status", "Name:\tx\nCpus_allowed:\tf\nCpus_allowed_list:\t0-3\n")
            .file("sys/devices/system/cpu/online", "0-3\n")
            .file("proc/meminfo", "MemTotal:       16777216 kB\nMemFree:         8000000 kB\n")
            .file("proc/sys/net/core/somaxconn", "4096\n")
            .file("proc/self/cgroup", cgroup)
            .file("proc/self/mountinfo", mountinfo)
    }

    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(path)
    }

    pub fn file(self, path: &str, text: &str) -> Self {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    pub fn directory(self, path: &str) -> Self {
        fs::create_dir_all(self.path(path)).unwrap();
        self
    }

    pub fn executable(self, path: &str, text: &str) -> Self {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        write_program(&path, text);
        self
    }

    /// A symbolic link; a target in the tree is written with a leading `@/`.
    pub fn link(self, path: &str, target: &str) -> Self {
        let target = target.strip_prefix("@/").map_or_else(|| PathBuf::from(target), |inside| self.path(inside));
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
        self
    }

    /// A virtual environment with Python 3.12 whose packages are `NAME-VERSION`.
    pub fn venv(mut self, path: &str, packages: &[&str]) -> Self {
        self = self
            .file(&format!("{path}/pyvenv.cfg"), "home = /usr/bin\nversion = 3.12.4\n")
            .executable(&format!("{path}/bin/python"), "");
        self.packages(&format!("{path}/lib/python3.12/site-packages"), packages)
    }

    pub fn packages(mut self, directory: &str, packages: &[&str]) -> Self {
        self = self.directory(directory);
        for package in packages {
            self = self.directory(&format!("{directory}/{package}.dist-info"));
        }
        self
    }

    /// A console script for an interpreter in the tree.
    pub fn script(self, path: &str, interpreter: &str) -> Self {
        let line = format!("#!{}\nimport sys\n", self.path(interpreter).display());
        self.executable(path, &line)
    }

    /// A query that sees only the tree: started in `project`, home in `home`, nothing on `PATH`.
    pub fn query(&self) -> Query {
        let mut query = Query::new(&BTreeMap::new(), self.path("project"));
        self.0.path().clone_into(&mut query.root);
        query.home = Some(self.path("home").into());
        query.path = Some(self.path("empty").into());
        query
    }

    /// A query with these directories of the tree on `PATH`.
    pub fn query_with_path(&self, directories: &[&str]) -> Query {
        let path = std::env::join_paths(directories.iter().map(|directory| self.path(directory))).unwrap();
        Query { path: Some(path), ..self.query() }
    }

    pub fn probe(&self) -> Host {
        probe(&self.query())
    }
}
