//! Threads, event loop, interface and kind of task of Granian's workers.

use super::Args;
use crate::host::Interface;
use crate::plan::flags::GRANIAN_RLOOP;
use crate::plan::server::install;
use crate::plan::threads::{Handlers, Threads};
use crate::plan::{app, request_limit};
use crate::problem::Problem;
use crate::settings::Setting;
use crate::settings::value::{Int, Loop, RuntimeMode, TaskImpl, Value};

/// With more workers than this, each of them uses several threads.
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
            let native_mode = !mode_given && self.is_set_natively("--threading-mode", "GRANIAN_THREADING_MODE", &[]);
            let native_threads = !threads_given && self.is_set_natively("--threads", "GRANIAN_THREADS", &[]);
            if !native_mode {
                self.pair("--threading-mode", old);
            }
            if !native_threads {
                self.pair("--threads", threads);
            }
        }
        mode
    }

    /// The protocol between Granian and the app: the one that is set, else the app's own if its text shows it.
    pub(super) fn interface(&self) -> String {
        let is_wsgi = app::presumed_interface(self.inputs.app, self.inputs.host) == Some(Interface::Wsgi);
        let own = if is_wsgi { "wsgi" } else { "asgi" };
        let told = self.native_value("--interface", "GRANIAN_INTERFACE");
        told.map_or_else(|| own.to_owned(), |(value, _)| value.to_ascii_lowercase())
    }

    /// Checks that the interface is the app's, as far as the app's text shows that.
    pub(super) fn check_interface(&mut self) {
        let Some((told, origin)) = self.native_value("--interface", "GRANIAN_INTERFACE") else { return };
        let app = self.inputs.app;
        let interface = told.to_ascii_lowercase();
        let (kind, instead) = match (&*interface, app::shown_interface(app, self.inputs.host)) {
            ("asgi" | "asginl" | "rsgi", Some(Interface::Wsgi)) => ("a WSGI", "wsgi"),
            ("wsgi", Some(Interface::Asgi)) => ("an ASGI", "asgi"),
            _ => return,
        };
        let message = format!("interface {interface} does not fit {}, which is {kind} app", app.text);
        let hint = format!("use GRANIAN_INTERFACE={instead} (-- --interface {instead}), or remove it");
        self.findings.problem(Problem::setting(message, &origin).hint(hint));
    }

    /// What handles requests in a worker. An ASGI app is called in the event loop, and Granian ends with an error if it
    /// is given more than one such thread.
    pub(super) fn handlers(&mut self) -> Handlers {
        let setting = self.settings().granian_blocking_threads.clone();
        if self.interface() == "wsgi" {
            let threads = self.threads(&setting);
            self.pair("--blocking-threads", threads.number);
            return Handlers::Threads(threads);
        }
        if setting.value.0 != 1 {
            let message = format!("blocking_threads = {} does not work with an ASGI app", setting.value.0);
            let hint = "use 1 or remove it; for a WSGI app, set GRANIAN_INTERFACE=wsgi";
            self.findings.problem(Problem::setting(message, &setting.origin).hint(hint));
        }
        self.pair("--blocking-threads", setting.value.0);
        Handlers::Unlimited
    }

    fn threads(&mut self, setting: &Setting<Int<1, 1024>>) -> Threads {
        if setting.is_explicit() {
            self.findings.decide("blocking-threads", setting.value.0.to_string(), setting.origin.to_string());
            return Threads { number: setting.value.0, origin: Some(setting.origin.clone()) };
        }
        let backpressure = self.settings().granian_backpressure.value;
        let threads = Threads::for_backpressure(Some(request_limit::most(backpressure)));
        let because = format!("backpressure is {}, and two more refuse requests", backpressure.show());
        self.findings.decide("blocking-threads", threads.number.to_string(), because);
        threads
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
