//! `docker run -it`: the keys of a terminal have the right effect.

use std::fs::File;
use std::io::Write;
use std::process::Stdio;

use nix::pty::{Winsize, openpty};

use super::engine::{Container, image, launch};
use crate::harness::wait_until;

const CTRL_C: &str = "\u{3}";
const CTRL_Z: &str = "\u{1a}";

/// A container whose terminal is ours.
struct Session {
    container: Container,
    keyboard: File,
}

impl Session {
    fn start(arguments: &[&str]) -> Option<Self> {
        let (mut launch, name) = launch(&image()?, &["--interactive", "--tty", "--env=NO_COLOR=1"], arguments);
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let terminal = openpty(Some(&size), None).unwrap();
        launch.command.stdin(Stdio::from(terminal.slave));
        let container = Container { running: launch.start(), name };
        Some(Self { container, keyboard: terminal.master.into() })
    }

    fn screen(&self) -> String {
        self.container.running.out()
    }

    #[track_caller]
    fn wait_screen(&self, text: &str) {
        wait_until(text, || self.screen().contains(text));
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }
}

fn ctrl_c_stops_it_well(server: &str) {
    let Some(mut session) = Session::start(&["--server", server, "--workers", "2", "hello:app"]) else { return };
    session.wait_screen(" ready ");
    session.press(CTRL_C);
    assert_eq!(session.container.running.wait(), 0, "{}", session.screen());
    assert!(session.screen().contains("exit status=0"), "{}", session.screen());
}

/// The expected text on the screen differs from the typed text, which is echoed.
#[test]
fn a_shell_has_job_control() {
    let Some(mut session) = Session::start(&["init", "--", "bash", "--norc"]) else { return };
    session.press("echo begin-$((40 + 2)) $-; stty size\r");
    session.wait_screen("begin-42 ");
    session.press("sleep 600\r");
    wait_until("it to sleep", || session.container.processes().iter().any(|seen| seen.name == "sleep"));
    session.press(CTRL_Z);
    session.wait_screen("Stopped");
    session.press("fg; echo over-$((40 + 3))\r");
    wait_until("it to go on", || {
        session.container.processes().iter().any(|seen| seen.name == "sleep" && seen.state == 'S')
    });
    session.press(CTRL_C);
    session.press("echo interrupted-$((40 + 4))\r");
    session.wait_screen("interrupted-44");
    session.press("exit 7\r");
    assert_eq!(session.container.running.wait(), 7, "{}", session.screen());
    assert!(!session.screen().contains("no job control"), "{}", session.screen());
}

crate::for_both_servers!(ctrl_c_stops_it_well);
