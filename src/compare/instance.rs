//! A launcher with one of the servers, as our child process: started, queried, measured, stopped.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::client;
use super::measure::{Failure, Memory, Subject};
use super::process::{Child, GLANCE, Order};
use super::{Terms, Trouble};
use crate::control::ask::{Launcher, PATIENCE};
use crate::control::find::Wanted;
use crate::control::protocol::{Answer, Request, Status};
use crate::problem::Exit;
use crate::proc::memory::Footprint;
use crate::proc::process::descendants;
use crate::proc::usage::cpu_with_reaped;

/// How long a server is observed to see whether it is busy: less than a tenth of a core counts as idle.
const QUIET: Duration = Duration::from_millis(200);
/// How long a server may take to finish its backlog.
const SETTLING: Duration = Duration::from_secs(10);

/// A launcher that runs. It is stopped when it is dropped.
pub(super) struct Instance<'a> {
    terms: &'a Terms,
    child: Child,
    socket: PathBuf,
    /// Where the server listens.
    pub address: SocketAddr,
    started: Instant,
}

impl<'a> Instance<'a> {
    /// Starts it, and returns when the server's future address is known.
    pub fn start(terms: &'a Terms, subject: &Subject, more: &[String]) -> Result<Self, Trouble> {
        let socket = terms.next_socket();
        let mut argv = vec![OsString::from("mcp-launch")];
        argv.extend(subject.flags.iter().cloned());
        argv.extend(more.iter().map(OsString::from));
        argv.push(format!("--socket={}", socket.display()).into());
        argv.extend(subject.operands.iter().cloned());
        let order = Order {
            program: &terms.program,
            argv: &argv,
            env: &terms.env,
            script: None,
            death_signal: Signal::SIGTERM,
            signals: terms.signals,
        };
        let started = Instant::now();
        let child = Child::start(&order).map_err(|why| Trouble::failed(Exit::NotExecutable, why))?;
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut instance = Self { terms, child, socket, address, started };
        instance.address = instance.wait_for("it does not report its address", |instance| {
            instance.status()?.address.parse().ok().filter(|address: &SocketAddr| address.port() != 0)
        })?;
        Ok(instance)
    }

    /// Waits until the condition returns something, the launcher ends, or time is up.
    pub fn wait_for<T>(
        &mut self,
        otherwise: &str,
        mut condition: impl FnMut(&Self) -> Option<T>,
    ) -> Result<T, Trouble> {
        let deadline = Instant::now() + self.terms.startup_timeout + Duration::from_secs(10);
        loop {
            self.terms.go_on()?;
            if let Some(failure) = self.ended() {
                return Err(Trouble::Failed(failure));
            }
            if let Some(value) = condition(self) {
                return Ok(value);
            }
            if Instant::now() > deadline {
                return Err(Trouble::failed(Exit::NotReady, otherwise));
            }
            std::thread::sleep(GLANCE);
        }
    }

    /// Waits for a response that is worth measuring. Returns the time since the start.
    pub fn wait_for_answer(&mut self) -> Result<Duration, Trouble> {
        let request = self.terms.request_bytes();
        // Long enough to wait in the queue of a booting server, short enough to notice Ctrl-C.
        let patience = Duration::from_secs(1);
        let what = format!("no successful response to {}", self.terms.options.request);
        self.wait_for(&what, |instance| {
            let answer = client::ask(instance.address, &request, patience);
            answer.is_ok_and(|answer| answer.is_good()).then(|| instance.started.elapsed())
        })
    }

    /// Waits until all its workers are ready.
    pub fn wait_until_ready(&mut self) -> Result<(), Trouble> {
        self.wait_for("it does not become ready", |instance| {
            let status = instance.status()?;
            let whole = |it: &crate::control::protocol::Generation| it.workers.len() >= it.workers_planned as usize;
            (status.launcher.ready && status.generations.iter().all(whole)).then_some(())
        })
    }

    /// The status that it reports.
    pub fn status(&self) -> Option<Status> {
        match self.connect()?.ask(&Request::Status, Some(PATIENCE)) {
            Ok(Answer::Status(status)) => Some(status),
            _ => None,
        }
    }

    /// A connection to its control socket.
    pub fn connect(&self) -> Option<Launcher> {
        let wanted = Wanted { socket: Some(self.socket.clone()), ..Wanted::default() };
        Launcher::find(&wanted, &self.terms.env, PATIENCE).ok()
    }

    /// Since its start, in seconds.
    pub fn age(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// The memory use of it and all its descendants.
    pub fn memory(&self) -> Memory {
        let pss = |pid| Footprint::read(pid).map_or(0, |footprint| footprint.pss);
        let all = descendants(self.child.pid);
        let workers: Vec<u64> = self.status().map_or_else(Vec::new, |status| {
            let workers = status.generations.iter().flat_map(|generation| &generation.workers);
            workers.map(|worker| pss(nix::unistd::Pid::from_raw(worker.pid))).collect()
        });
        Memory {
            total: pss(self.child.pid) + all.iter().map(|process| pss(process.pid)).sum::<u64>(),
            worker: workers.iter().sum::<u64>() / u64::try_from(workers.len()).unwrap_or(1).max(1),
        }
    }

    /// CPU time of it and all its current and former descendants.
    pub fn cpu(&self) -> Duration {
        let all = descendants(self.child.pid).into_iter().map(|process| process.pid).chain([self.child.pid]);
        all.filter_map(cpu_with_reaped).sum()
    }

    /// Waits until it has finished what disconnected clients have left behind, but not forever: an app may always be
    /// busy.
    pub fn settle(&self) -> Result<(), Trouble> {
        let deadline = Instant::now() + SETTLING;
        let mut before = self.cpu();
        while Instant::now() < deadline {
            std::thread::sleep(QUIET);
            self.terms.go_on()?;
            let now = self.cpu();
            if now.saturating_sub(before) < QUIET / 10 {
                break;
            }
            before = now;
        }
        Ok(())
    }

    /// Why it ended, if it has.
    pub fn ended(&mut self) -> Option<Failure> {
        let status = self.child.ended()?;
        let log = self.child.log();
        let exit = status.code().and_then(|code| u8::try_from(code).ok()).map_or(Exit::No, exit_of);
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit status {code}"),
            (None, signal) => format!("ended by signal {}", signal.unwrap_or_default()),
        };
        Some(Failure { why: format!("{} ({how})", last_words(&log)), exit })
    }

    /// Asks it to stop.
    pub fn terminate(&self) {
        self.child.signal(Signal::SIGTERM);
    }

    fn stop(&mut self) {
        self.terminate();
        let deadline = Instant::now() + self.terms.stop_timeout + Duration::from_secs(5);
        // A second request means that the user does not want to wait.
        self.terms.interrupt.clear();
        let mut in_a_hurry = false;
        while self.child.ended().is_none() && Instant::now() < deadline {
            if self.terms.interrupt.signal().is_some() && !std::mem::replace(&mut in_a_hurry, true) {
                self.terminate();
            }
            std::thread::sleep(GLANCE);
        }
    }
}

impl Drop for Instance<'_> {
    fn drop(&mut self) {
        let asked = self.terms.interrupt.signal();
        self.stop();
        if let Some(signal) = asked {
            self.terms.interrupt.note(signal);
        }
        // A launcher that had to be killed leaves it behind.
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// Describes how a launcher ended.
fn exit_of(status: u8) -> Exit {
    let known = [Exit::Usage, Exit::NotReady, Exit::Taken, Exit::Settings, Exit::NotExecutable, Exit::NotFound];
    known.into_iter().find(|exit| exit.code() == status).unwrap_or(Exit::No)
}

/// What a launcher that ended reported: its problems, else why the app failed, else errors, else its last line.
fn last_words(log: &str) -> String {
    let plain = without_colours(log);
    let problems: Vec<&str> = plain.lines().filter_map(|line| line.strip_prefix("mcp-launch: ")).collect();
    if !problems.is_empty() {
        return problems.join("; ");
    }
    if let Some((_, why)) = plain.lines().rev().find_map(|line| line.split_once(" why=")) {
        // Quoted as in Rust and JSON; other fields may follow.
        let quoted = serde_json::Deserializer::from_str(why).into_iter::<String>().next();
        return quoted.and_then(Result::ok).unwrap_or_else(|| why.trim().to_owned());
    }
    let lines = || plain.lines().map(str::trim).filter(|line| !line.is_empty()).rev();
    let ours = lines().find_map(|line| line.split_once(" ERROR ")).map(|(_, text)| text.trim());
    // What the server itself reported about an error, such as an unknown flag.
    let theirs = lines().find(|line| !line.contains(" ERROR ") && line.to_ascii_lowercase().contains("error"));
    match (theirs, ours) {
        (Some(theirs), Some(ours)) => format!("{theirs}; {ours}"),
        (one, other) => one.or(other).or_else(|| lines().next()).unwrap_or("it ended").to_owned(),
    }
}

fn without_colours(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        plain += before;
        rest = after.split_once('m').map_or("", |(_, after)| after);
    }
    plain + rest
}

/// A name for a control socket.
pub(super) fn socket_name(directory: &Path, number: usize) -> PathBuf {
    directory.join(format!("mcp-launch-compare-{}-{number}.sock", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_are_those_that_explain() {
        let failed = "\u{1b}[2m2026\u{1b}[0m \u{1b}[33m WARN\u{1b}[0m server exit why=\"E: \\\"x\\\"\"\n2026 ERROR giving up\nbye\n";
        for (log, wanted) in [
            (failed, "E: \"x\""),
            ("2026 ERROR giving up status=1\nbye\n\n", "giving up status=1"),
            ("gunicorn: error: no --x\n2026 ERROR giving up\n", "gunicorn: error: no --x; giving up"),
            ("a\nmcp-launch: granian is not installed\nmcp-launch: x\n", "granian is not installed; x"),
            ("a\nlast\n\n", "last"),
            ("", "it ended"),
        ] {
            assert_eq!(last_words(log), wanted, "{log:?}");
        }
    }

    #[test]
    fn statuses_that_mean_something_stay() {
        assert_eq!(
            [127, 78, 69, 3, 0].map(exit_of),
            [Exit::NotFound, Exit::Settings, Exit::NotReady, Exit::No, Exit::No]
        );
    }
}
