//! The live view, on a terminal of its own; and as plain text where there is none.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, Termios, tcgetattr};
use nix::unistd::Pid;

use crate::harness::ask::{ask, command};
use crate::harness::http::get;
use crate::harness::{LONG, Launch, Running, children, state, venv, wait_for, wait_until};

fn start() -> Option<Running> {
    let mut running = Launch::app(&venv()?, "gunicorn", &["--workers", "2"]).start();
    running.wait_log(" ready ");
    Some(running)
}

/// `mcp-launch top` on a terminal.
struct Terminal {
    child: Child,
    /// Where keys are typed.
    keys: File,
    /// The program's end, which stays open so that its modes can be seen afterwards.
    end: OwnedFd,
    before: Termios,
    output: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn start(running: &Running, columns: u16, rows: u16) -> Self {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(&size, None).unwrap();
        let before = tcgetattr(&slave).unwrap();
        let mut top = command(running, &["top", "--interval", "100ms"]);
        let io = || Stdio::from(slave.try_clone().unwrap());
        // A process group of its own in a session with others, as a shell would start it: it can be suspended.
        let child = top.env("TERM", "xterm").stdin(io()).stdout(io()).stderr(io()).process_group(0).spawn().unwrap();
        let output = Arc::<Mutex<Vec<u8>>>::default();
        let (into, mut screen) = (Arc::clone(&output), File::from(master.try_clone().unwrap()));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = screen.read(&mut buffer) {
                into.lock().unwrap().extend_from_slice(&buffer[..length]);
            }
        });
        Self { child, keys: File::from(master), end: slave, before, output }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    fn type_keys(&mut self, keys: &[u8]) {
        self.keys.write_all(keys).unwrap();
    }

    /// As the window of a terminal does.
    fn resize(&self, columns: u16, rows: u16) {
        let stty = ["rows", &rows.to_string(), "cols", &columns.to_string()].map(str::to_owned);
        let io = Stdio::from(self.end.try_clone().unwrap());
        assert!(Command::new("stty").args(stty).stdin(io).status().unwrap().success());
        kill(self.pid(), Signal::SIGWINCH).unwrap();
    }

    /// What it shows, once that is so.
    #[track_caller]
    fn wait(&self, what: &str, condition: impl Fn(&[String]) -> bool) -> Vec<String> {
        let deadline = Instant::now() + LONG;
        loop {
            let lines = shown(&self.output.lock().unwrap());
            if condition(&lines) {
                return lines;
            }
            assert!(Instant::now() < deadline, "no {what}: {lines:#?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[track_caller]
    fn wait_text(&self, text: &str) -> Vec<String> {
        self.wait(&format!("{text:?}"), |lines| lines.iter().any(|line| line.contains(text)))
    }

    /// Whether the terminal is as it was before, and shows what it showed.
    fn is_given_back(&self) -> bool {
        let output = self.output.lock().unwrap();
        let last = |sequence: &[u8]| output.windows(sequence.len()).rposition(|part| part == sequence);
        let left = |enter: &[u8], leave: &[u8]| last(leave) > last(enter);
        tcgetattr(&self.end).unwrap() == self.before
            && left(b"\x1b[?1049h", b"\x1b[?1049l")
            && left(b"\x1b[?25l", b"\x1b[?25h")
            && left(b"\x1b[?7l", b"\x1b[?7h")
    }

    #[track_caller]
    fn ends_with(mut self, status: i32) -> String {
        let ended = wait_for("its end", || self.child.try_wait().unwrap());
        assert_eq!(ended.code(), Some(status));
        wait_until("the terminal to be given back", || self.is_given_back());
        String::from_utf8_lossy(&self.output.lock().unwrap()).into_owned()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last complete screen, as a terminal would show it: each begins at the top left corner.
fn shown(output: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(output);
    let screens: Vec<&str> = text.split("\u{1b}[H").collect();
    // The last one may be incomplete, unless it is the only one.
    let last = screens[1..].iter().rev().find(|screen| screen.contains("quit")).copied().unwrap_or_default();
    let bare = |line: &str| {
        let mut parts = line.split("\u{1b}[");
        let first = parts.next().unwrap_or_default().to_owned();
        let rest =
            parts.map(|part| part.split_once(|end: char| end.is_ascii_alphabetic()).map_or("", |(_, rest)| rest));
        first + &rest.collect::<String>()
    };
    // The terminal adds a carriage return.
    last.split("\r\n").map(|line| bare(line.trim_end_matches('\r'))).collect()
}

#[test]
fn the_live_view_shows_workers_and_events_and_follows_keys_and_the_window() {
    let Some(running) = start() else { return };
    let mut terminal = Terminal::start(&running, 120, 30);
    terminal.wait_text("workers 2/2");
    for _ in 0..3 {
        get(running.port, "/slow?s=0.05").unwrap();
    }
    let workers = children(running.children()[0]);
    // The column P50.
    let is_timed = |line: &String| line.split_whitespace().nth(6).is_some_and(|cell| cell.ends_with("ms"));
    let is_worker = |line: &String| workers.iter().any(|pid| line.trim_start().starts_with(&pid.to_string()));
    let lines = terminal.wait("a latency", |lines| lines.iter().any(|line| is_worker(line) && is_timed(line)));
    assert_eq!(lines.len(), 30);
    assert!(lines[0].starts_with("mcp-launch ") && lines[0].contains("serving, ready"), "{lines:#?}");
    assert!(lines[1].contains(" requests/s, ") && lines[1].contains("p99 "), "{lines:#?}");
    assert!(!tcgetattr(&terminal.end).unwrap().local_flags.contains(LocalFlags::ECHO));

    terminal.type_keys(b"\x1b[C");
    terminal.wait_text("sort by GEN");
    terminal.type_keys(b"<");
    terminal.wait_text("sort by WORKER");
    let of_worker = |lines: &[String]| lines.iter().position(|line| line.contains(&workers[0].to_string()));
    let (first, last) = (workers.iter().min().unwrap().to_string(), workers.iter().max().unwrap().to_string());
    let order = |lines: &[String]| -> Vec<String> {
        let numbers = lines.iter().filter_map(|line| line.split_whitespace().next().map(str::to_owned));
        numbers.filter(|number| *number == first || *number == last).collect()
    };
    assert_eq!(
        order(&terminal.wait("the workers", |lines| of_worker(lines).is_some())),
        [first.clone(), last.clone()]
    );
    terminal.type_keys(b"r");
    terminal.wait("the other order", |lines| order(lines) == [last.clone(), first.clone()]);

    terminal.resize(50, 9);
    terminal.wait("a small screen", |lines| lines.len() == 9 && lines.iter().all(|line| line.chars().count() <= 50));
    terminal.resize(100, 40);
    terminal.wait("a large screen", |lines| lines.len() == 40);

    kill(workers[0], Signal::SIGKILL).unwrap();
    terminal.wait_text(&format!("worker {} ended: killed by SIGKILL", workers[0]));
    terminal.type_keys(b"q");
    terminal.ends_with(0);
}

#[test]
fn the_terminal_is_given_back_however_it_ends() {
    let Some(mut running) = start() else { return };
    let begin = || {
        let terminal = Terminal::start(&running, 100, 30);
        terminal.wait_text("serving, ready");
        terminal
    };
    let mut terminal = begin();
    terminal.type_keys(b"\x03");
    terminal.ends_with(0);
    for (signal, status) in [(Signal::SIGTERM, 143), (Signal::SIGHUP, 129), (Signal::SIGINT, 130)] {
        let terminal = begin();
        kill(terminal.pid(), signal).unwrap();
        terminal.ends_with(status);
    }

    let mut terminal = begin();
    terminal.type_keys(b"\x1a");
    wait_until("the shell to have the terminal", || state(terminal.pid()) == Some('T') && terminal.is_given_back());
    kill(terminal.pid(), Signal::SIGCONT).unwrap();
    wait_until("it to go on", || !terminal.is_given_back());

    // It does not wait for a launcher that is silent.
    running.signal(Signal::SIGSTOP);
    terminal.type_keys(b"q");
    terminal.ends_with(0);
    running.signal(Signal::SIGCONT);

    let terminal = begin();
    running.stop();
    let output = terminal.ends_with(3);
    assert!(output.trim_end().ends_with(" any more"), "{output:?}");
}

#[test]
fn without_a_terminal_it_is_plain_text() {
    let Some(running) = start() else { return };
    let is_table = |text: &str| text.contains("WORKER GEN STATE") && !text.contains('\u{1b}');
    let once = ask(&running, &["top"]);
    assert!(once.code == Some(0) && is_table(&once.out), "{once:?}");
    assert_eq!(once.out.matches("mcp-launch ").count(), 1);
    // A share of the CPU, as two looks show it.
    let worker = children(running.children()[0])[0].to_string();
    let row: Vec<&str> = once.out.lines().find(|line| line.contains(&worker)).unwrap().split_whitespace().collect();
    assert!(row[8].parse::<f64>().is_ok(), "{row:?}");

    let mut command = command(&running, &["top", "--interval", "100ms"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while text.matches("mcp-launch ").count() < 3 {
        let length = out.read(&mut buffer).unwrap();
        assert_ne!(length, 0, "{text}");
        text += &String::from_utf8_lossy(&buffer[..length]);
    }
    drop(out);
    assert_eq!(wait_for("its end", || child.try_wait().unwrap()).code(), Some(0), "nobody reads it any more");

    let dumb = openpty(None, None).unwrap();
    let mut command = crate::harness::ask::command(&running, &["top", "--interval", "100ms", "--once"]);
    let status = command.env("TERM", "dumb").stdout(Stdio::from(dumb.slave.try_clone().unwrap())).status().unwrap();
    assert!(status.success());
    let mut screen = vec![0; 4096];
    let length = File::from(dumb.master).read(&mut screen).unwrap();
    assert!(is_table(&String::from_utf8_lossy(&screen[..length])));
}
