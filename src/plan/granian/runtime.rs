//! Threads, event loop, interface and kind of task of Granian's workers.

use super::Args;
use crate::host::Interface;
use crate::plan::app;
use crate::plan::flags::GRANIAN_RLOOP;
use crate::plan::server::install;
use crate::problem::Problem;
use crate::settings::value::{Loop, RuntimeMode, TaskImpl};

/// With more workers than this, they share their work better between threads than they do alone.
const MOST_SINGLE_THREADED: u32 = 8;

impl Args<'_> {
    pub(super) fn runtime(&mut self) -> RuntimeMode {
        let (setting, threads) = (&self.settings().granian_runtime_mode, &self.settings().granian_runtime_threads);
        let (threads_given, threads, workers) = (threads.is_explicit(), threads.value.0, self.inputs.workers);
        let (mode_given, value, origin) = (setting.is_explicit(), setting.value, setting.origin.to_string());
        let (mode, because) = match value {
            RuntimeMode::Auto if workers > MOST_SINGLE_THREADED => {
                (RuntimeMode::Mt, format!("auto: {workers} workers are more than {MOST_SINGLE_THREADED}"))
            }
            RuntimeMode::Auto => {
                (RuntimeMode::St, format!("auto: {workers} workers are not more than {MOST_SINGLE_THREADED}"))
            }
            mode => (mode, origin),
        };
        self.findings.decide("runtime-mode", mode.word(), because);
        if self.has("--runtime-mode") {
            self.pair("--runtime-mode", mode.word());
            self.pair("--runtime-threads", threads);
        } else {
            // The same under its older name.
            let old = if mode == RuntimeMode::Mt { "runtime" } else { "workers" };
            let told_mode = !mode_given && self.is_told("--threading-mode", "GRANIAN_THREADING_MODE", &[]);
            let told_threads = !threads_given && self.is_told("--threads", "GRANIAN_THREADS", &[]);
            if !told_mode {
                self.pair("--threading-mode", old);
            }
            if !told_threads {
                self.pair("--threads", threads);
            }
        }
        mode
    }

    /// The protocol between Granian and the app: the one that is asked for, else the app's own if its text tells.
    pub(super) fn interface(&self) -> String {
        let is_wsgi = app::interface(self.inputs.app, self.inputs.host) == Some(Interface::Wsgi);
        let own = if is_wsgi { "wsgi" } else { "asgi" };
        self.told("--interface", "GRANIAN_INTERFACE").unwrap_or_else(|| own.to_owned())
    }

    /// An ASGI app is called in the event loop, and Granian ends with an error if it is given more threads than that.
    pub(super) fn blocking_threads(&mut self) {
        let threads = self.settings().granian_blocking_threads.clone();
        let is_wsgi = self.interface().eq_ignore_ascii_case("wsgi");
        if is_wsgi && !threads.is_explicit() {
            return;
        }
        if threads.value.0 != 1 && !is_wsgi {
            let message = format!("blocking_threads = {} does not work with an ASGI app", threads.value.0);
            self.findings.problem(Problem::setting(message, &threads.origin).hint("use 1, or remove it"));
        }
        self.pair("--blocking-threads", threads.value.0);
    }

    pub(super) fn event_loop(&mut self) -> Loop {
        let python = &self.inputs.host.python;
        let setting = self.settings().granian_loop.clone();
        let wanted = setting.value;
        let package = match wanted {
            Loop::Uvloop => "uvloop",
            Loop::Rloop => "rloop",
            Loop::Asyncio | Loop::Auto => return wanted,
        };
        if wanted == Loop::Rloop && self.inputs.version.is_some_and(|version| version < GRANIAN_RLOOP) {
            let message = format!("rloop needs granian {GRANIAN_RLOOP} or newer");
            let problem = Problem::setting(message, &setting.origin).hint(install(python, "-U 'granian[rloop]'"));
            self.findings.problem(problem);
        }
        // Without an interpreter we cannot know what is installed.
        if python.interpreter.is_none() || python.packages.contains_key(package) {
            return wanted;
        }
        let command = install(python, &format!("'granian[{package}]'"));
        if setting.is_explicit() {
            let message = format!("loop = {wanted} needs {package}, which is not installed");
            self.findings.problem(Problem::setting(message, &setting.origin).hint(command));
            return wanted;
        }
        self.findings
            .warn(format!("{package} is not installed, so the event loop is asyncio, which is slower; {command}"));
        self.findings.decide("loop", Loop::Asyncio.word(), format!("{package} is not installed"));
        Loop::Asyncio
    }

    pub(super) fn task_impl(&mut self) -> TaskImpl {
        let setting = self.settings().granian_task_impl.clone();
        let python = self.inputs.host.python.interpreter.as_ref().and_then(|interpreter| interpreter.version);
        let mut task_impl = setting.value;
        if task_impl == TaskImpl::Auto {
            self.findings.warn(format!(
                "task_impl = auto (from {}) is not an option of this Granian; using asyncio",
                setting.origin
            ));
            task_impl = TaskImpl::Asyncio;
        }
        if task_impl == TaskImpl::Rust && python.is_some_and(|version| version >= (3, 12)) {
            self.findings.warn(format!(
                "task_impl = rust (from {}) does not work on Python 3.12 and later; using asyncio",
                setting.origin
            ));
            task_impl = TaskImpl::Asyncio;
        } else if task_impl == TaskImpl::Rust {
            self.findings.warn(format!(
                "task_impl = rust (from {}) breaks FastAPI apps: their plain def endpoints return 500",
                setting.origin
            ));
        }
        if self.has("--task-impl") {
            self.pair("--task-impl", task_impl.word());
        } else if self.has("--opt") {
            self.flag(if task_impl == TaskImpl::Rust { "--opt" } else { "--no-opt" });
        }
        task_impl
    }
}
