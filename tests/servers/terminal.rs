//! In a terminal: the app may use it, and Ctrl-C ends everything.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::http::get;
use crate::harness::{Launch, PROGRAM, children, descendants, is_alive, tests_directory, venv, wait_for, wait_until};

/// An app that asks for input at the terminal, and sets its modes, as a debugger does.
const APP: &str = "\
import termios

from lifespan import serve_lifespan

async def app(scope, receive, send):
    if scope['type'] == 'lifespan':
        return await serve_lifespan(receive, send)
    said = b'nothing'
    if scope['path'] == '/ask':
        with open('/dev/tty') as terminal:
            termios.tcsetattr(terminal, termios.TCSADRAIN, termios.tcgetattr(terminal))
            print('who is there?', flush=True)
            said = terminal.readline().strip().encode()
    await send({'type': 'http.response.start', 'status': 200, 'headers': [(b'content-length', b'%d' % len(said))]})
    await send({'type': 'http.response.body', 'body': said})
";

/// A launcher in its own terminal, and its output there.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    screen: BufReader<ChildStdout>,
    seen: String,
    launch: Launch,
}

impl Terminal {
    /// It has a minute and a half.
    fn start(server: &str) -> Option<Self> {
        let launch = Launch::app(&venv()?, server, &[]);
        fs::write(launch.directory.path().join("asks.py"), APP).unwrap();
        let inner = format!("exec {PROGRAM} --server {server} --workers 1 asks:app");
        let mut command = Command::new("timeout");
        command.args(["-k", "1", "90", "script", "-qefc", &inner, "/dev/null"]).env_clear();
        command.envs(launch.command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let path = format!("{}:{}", launch.directory.path().display(), tests_directory("apps").display());
        command.env("NO_COLOR", "1").env("PYTHONPATH", path).current_dir(launch.directory.path());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (keys, screen) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Some(Self { child, keys, screen, seen: String::new(), launch })
    }

    /// Reads until this is shown.
    #[track_caller]
    fn expect(&mut self, text: &str) {
        let from = self.seen.len();
        while !self.seen[from..].contains(text) {
            assert_ne!(self.screen.read_line(&mut self.seen).unwrap(), 0, "no {text:?} in {}", self.seen);
        }
    }

    fn type_keys(&mut self, keys: &[u8]) {
        self.keys.write_all(keys).unwrap();
    }

    fn launcher(&self) -> Pid {
        let only = |pid| wait_for("a child", || children(pid).first().copied());
        only(only(Pid::from_raw(self.child.id().cast_signed())))
    }

    fn ends_with(&mut self, status: i32) {
        self.expect("exit status=0");
        assert_eq!(self.child.wait().unwrap().code(), Some(status), "{}", self.seen);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        for pid in descendants(Pid::from_raw(self.child.id().cast_signed())) {
            let _ = kill(pid, Signal::SIGKILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn an_app_may_ask_at_the_terminal_and_ctrl_c_ends_it_all(server: &str) {
    let Some(mut terminal) = Terminal::start(server) else { return };
    terminal.expect(" ready ");
    let all = descendants(terminal.launcher());
    let port = terminal.launch.port;
    let client = std::thread::spawn(move || get(port, "/ask").unwrap().body);
    terminal.expect("who is there?");
    terminal.type_keys(b"nobody\n");
    assert_eq!(client.join().unwrap(), "nobody");
    terminal.type_keys(b"\x03");
    terminal.ends_with(0);
    wait_until("everything to end", || !all.iter().any(|pid| is_alive(*pid)));
}

crate::for_both_servers!(an_app_may_ask_at_the_terminal_and_ctrl_c_ends_it_all);

/// They are known although no process group shows to which generation they belong.
#[test]
fn in_a_terminal_workers_that_lost_their_main_process_serve_until_there_is_another() {
    let Some(mut terminal) = Terminal::start("gunicorn") else { return };
    terminal.expect(" ready generation=1");
    let main = children(terminal.launcher())[0];
    kill(main, Signal::SIGKILL).unwrap();
    terminal.expect("its workers keep serving");
    terminal.expect(" ready generation=2");
    assert_eq!(get(terminal.launch.port, "/").unwrap().status, 200);
    terminal.type_keys(b"\x03");
    terminal.ends_with(0);
}
