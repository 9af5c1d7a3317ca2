//! The facts about this machine: the only reader of cgroups, `PATH`, interpreters and versions.
//!
//! [`probe`] looks once and returns plain data, from which the plan is made without looking again. It starts no process
//! and never fails: what cannot be read becomes a note, and the limit concerned counts as not set.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

mod activation;
mod app;
mod app_root;
mod cgroup;
mod cpu;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod gunicorn;
mod instance;
mod limit_files;
mod limits;
mod memory;
pub mod python;
mod python_source;
mod query;
pub(crate) mod regular_file;
mod root;
mod runtime;
mod search;
mod version;

pub use activation::{Activation, PassedSocket};
pub use app_root::AppRoot;
pub use instance::Instance;
pub use memory::OomKills;
pub use python_source::{Assigned, Assignments, Interface, Literal};
pub use query::{GunicornFile, Query};
pub use runtime::{runtime_directories, writable_runtime_directories};
pub use version::Version;

use cgroup::Cgroups;
use root::Root;
use search::SearchPath;

/// Finds a command as a shell does: a path is used as it is, a name is looked up on `PATH`.
#[must_use]
pub fn find_program(name: &OsStr, env: &Environment) -> Program {
    let path = env.get(OsStr::new("PATH")).filter(|path| !path.is_empty());
    SearchPath::new(path.map(OsString::as_os_str), Path::new("")).find(name)
}

/// Looks at the machine.
#[must_use]
pub fn probe(query: &Query) -> Host {
    let mut notes = Vec::new();
    let root = Root::new(&query.root);
    let cgroups = Cgroups::read(&root, &mut notes);
    let cpu = cpu::cpu(&root, &cgroups, &mut notes);
    let memory = memory::memory(&root, &cgroups, &mut notes);
    let path = SearchPath::new(query.path.as_deref(), &query.cwd);
    let (python, path_files) = python::python(query, &path, &mut notes);
    let gunicorn = gunicorn::settings(query, &python, &path_files);
    let gunicorn_runs = !query.prefer_granian && (python.has("gunicorn") || !python.has("granian"));
    let said = gunicorn.as_ref().filter(|_| gunicorn_runs);
    let app = gunicorn::app(query, said, &python, &path_files, &path);
    Host {
        cpu,
        memory,
        python,
        interfaces: app::interfaces(app.file.as_deref(), query.app.as_deref()),
        left_app_root: query.app_root.clone().filter(|_| query.leaves_app_root),
        app,
        limits: limits::limits(&root, &mut notes),
        activation: Activation::None,
        memory_directory: limits::memory_directory(&root),
        gunicorn_config: query.gunicorn_config(),
        gunicorn_settings: gunicorn,
        notes,
        arch: std::env::consts::ARCH,
    }
}

/// The current memory use on each level of the cgroup path that limits it; empty without limits. `root` is the
/// directory that contains `/proc` and `/sys`.
#[must_use]
pub fn memory_use(root: &Path) -> Vec<MemoryUse> {
    // What cannot be read was reported when the limits were read.
    let mut notes = Vec::new();
    let root = Root::new(root);
    memory::memory_use(&root, &Cgroups::read(&root, &mut notes), &mut notes)
}

/// The files that are written to when a limit changes from which the number of workers is computed. `root` is the
/// directory that contains `/proc` and `/sys`.
#[must_use]
pub fn limit_files(root: &Path) -> Vec<PathBuf> {
    let mut notes = Vec::new();
    let root = Root::new(root);
    limit_files::limit_files(&root, &Cgroups::read(&root, &mut notes), &mut notes)
}

/// The counter of processes that the kernel killed for lack of memory, if there is one.
#[must_use]
pub fn oom_kills(root: &Path) -> Option<OomKills> {
    let mut notes = Vec::new();
    let root = Root::new(root);
    OomKills::find(&root, &Cgroups::read(&root, &mut notes), &mut notes)
}

/// The environment variables that the program was started with.
pub type Environment = BTreeMap<OsString, OsString>;

/// Everything that the plan needs to know about the machine.
#[derive(Debug, Clone, Default)]
pub struct Host {
    /// What limits the processors.
    pub cpu: Cpu,
    /// What limits the memory.
    pub memory: Memory,
    /// The interpreter, its packages and the servers' programs.
    pub python: Python,
    /// What is known about the application without importing it.
    pub app: AppFacts,
    /// `APP_ROOT`, if the server works in the current directory instead because the application is there.
    pub left_app_root: Option<PathBuf>,
    /// Which protocol the objects of the application's module speak, as far as its text shows.
    pub interfaces: BTreeMap<String, Interface>,
    /// Open files and the accept queue.
    pub limits: Limits,
    /// The sockets that systemd passes to this process: they are looked at separately, when it starts.
    pub activation: Activation,
    /// A directory in memory (tmpfs) for files that must never reach a disk.
    pub memory_directory: Option<PathBuf>,
    /// The Gunicorn configuration file that was found in the usual places.
    pub gunicorn_config: Option<PathBuf>,
    /// What the configuration file that Gunicorn gets says, as far as its text shows; none without such a text.
    pub gunicorn_settings: Option<Assignments>,
    /// What could not be read and what was assumed instead, for the log and for `explain`.
    pub notes: Vec<String>,
    /// The processor architecture, as Rust names it (`x86_64`, `s390x`).
    pub arch: &'static str,
}

/// What limits the processors.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cpu {
    /// Processors in this process's affinity mask, at least 1.
    pub affinity: u32,
    /// The smallest quota on the cgroup path.
    pub quota: Option<CpuQuota>,
    /// What the CPU weight grants under contention, if a weight was set.
    pub weight: Option<CpuWeight>,
}

/// A limit on processor time.
#[derive(Debug, Clone, PartialEq)]
pub struct CpuQuota {
    /// Cores' worth of time.
    pub cores: f64,
    /// The file that it was read from.
    pub source: PathBuf,
}

/// A share of the CPUs that Kubernetes or Docker set from a request (1024 shares are one core).
#[derive(Debug, Clone, PartialEq)]
pub struct CpuWeight {
    /// Cores' worth of time that were requested.
    pub cores: f64,
    /// The file that it was read from.
    pub source: PathBuf,
}

/// What limits the memory.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Memory {
    /// The machine's memory in bytes; 0 if unknown.
    pub total: u64,
    /// The smallest limit on the cgroup path, if it is below [`Self::total`].
    pub limit: Option<MemoryLimit>,
    /// Whether the kernel kills the whole cgroup when one of its processes exceeds the limit (`memory.oom.group`,
    /// which Kubernetes sets).
    pub oom_group: bool,
}

/// The use of memory in a cgroup that limits it, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryUse {
    /// Where the kernel starts to reclaim memory by force: the smaller of `memory.max` and `memory.high`.
    pub limit: u64,
    /// Everything charged to the group and its descendants, page cache included.
    pub current: u64,
    /// How much of that the kernel can reclaim when memory is short: page cache that no process has mapped, and its own
    /// caches.
    pub reclaimable: u64,
}

/// A limit on memory.
#[derive(Debug, Clone, PartialEq)]
pub struct MemoryLimit {
    /// In bytes.
    pub bytes: u64,
    /// The file that it was read from.
    pub source: PathBuf,
}

/// Python as it is installed, determined without starting it.
#[derive(Debug, Clone, Default)]
pub struct Python {
    /// The interpreter that the server will run in.
    pub interpreter: Option<Interpreter>,
    /// Where it was looked for, for the error message.
    pub searched: Vec<String>,
    /// The installed packages that matter here, under their normalized names (`uvicorn-worker`).
    pub packages: BTreeMap<String, Version>,
    /// The program `gunicorn`.
    pub gunicorn: Program,
    /// The program `granian`.
    pub granian: Program,
}

impl Python {
    /// The program of this name, if it is a server's.
    #[must_use]
    pub fn program(&self, name: &str) -> &Program {
        match name {
            "gunicorn" => &self.gunicorn,
            "granian" => &self.granian,
            _ => &Program::Missing,
        }
    }

    /// Whether a server is installed, as a program or as a package.
    #[must_use]
    pub fn has(&self, server: &str) -> bool {
        *self.program(server) != Program::Missing || self.packages.contains_key(server)
    }
}

/// A Python interpreter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interpreter {
    /// The program.
    pub path: PathBuf,
    /// Major and minor version, if the layout shows it.
    pub version: Option<(u32, u32)>,
    /// Whether it has no GIL (PEP 703), if its name or layout shows it.
    pub is_free_threaded: bool,
    /// The virtual environment that it belongs to.
    pub venv: Option<PathBuf>,
    /// Where its packages are.
    pub site_packages: Vec<PathBuf>,
    /// Why this one was chosen: `VIRTUAL_ENV`, `./.venv`, `PATH` and so on.
    pub found_by: String,
}

/// A server's console script.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Program {
    /// It exists and is executable.
    Found(PathBuf),
    /// It exists but cannot be used.
    NotExecutable {
        /// Its path.
        path: PathBuf,
        /// "is a directory", "is not executable", …
        why: String,
    },
    /// It does not exist.
    #[default]
    Missing,
}

/// What is known about the application without importing it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AppFacts {
    /// The file of its module, if it was found on the import path.
    pub file: Option<PathBuf>,
    /// For an APP without `:attribute`: which of `app` and `application` the module's text defines.
    pub attributes: Vec<String>,
    /// A program on PATH with the name of APP, if that cannot be a module.
    pub program: Option<PathBuf>,
}

/// Limits that a busy server runs into.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Open files now.
    pub open_files: u64,
    /// Maximum number of open files.
    pub open_files_max: u64,
    /// `net.core.somaxconn`: the kernel reduces every backlog to this.
    pub somaxconn: Option<u64>,
    /// Whether files can be created in `/dev/shm`.
    pub dev_shm_writable: bool,
    /// Whether a process cannot open its own descriptors by a path (`/proc/self/fd`).
    pub no_own_descriptors: bool,
}
