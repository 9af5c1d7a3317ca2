//! The terminal: its modes, its size, and giving it back as it was, in whatever way the program ends.

use std::io::IsTerminal;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{InputFlags, LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

use crate::sys;

/// Another screen, which leaves what was there before untouched; no cursor, no line breaks.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";
/// Back again. The first byte cancels a sequence of which only a part was written.
const LEAVE: &[u8] = b"\x18\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l";
/// The size of a terminal of which nobody has said it.
const USUAL_SIZE: (u16, u16) = (80, 24);
/// How long a terminal that does not take output is waited for.
const PATIENCE: Duration = Duration::from_millis(300);

/// The modes that the terminal had before, while it has ours.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Whether there is a terminal that can be drawn on.
pub(super) fn is_usable() -> bool {
    let is_dumb = std::env::var_os("TERM").is_some_and(|kind| kind == "dumb");
    !is_dumb && std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// The terminal while it is ours.
#[derive(Debug)]
pub(super) struct Terminal {
    input: std::io::Stdin,
    output: std::io::Stdout,
}

impl Terminal {
    /// Takes it.
    pub(super) fn enter() -> nix::Result<Self> {
        static HOOK: Once = Once::new();
        // The release does not unwind.
        HOOK.call_once(|| {
            let usual = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                give_back();
                usual(panic);
            }));
        });
        let terminal = Self { input: std::io::stdin(), output: std::io::stdout() };
        terminal.take()?;
        Ok(terminal)
    }

    /// Takes it again, for instance after the user had a shell.
    pub(super) fn take(&self) -> nix::Result<()> {
        let mut before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
        let modes = match before.as_ref() {
            Some(modes) => modes.clone(),
            None => tcgetattr(&self.input)?,
        };
        let mut ours = modes.clone();
        // Keys come one by one and unseen. Those that send signals come as keys too: in a container there may be no
        // shell that made us the foreground process.
        ours.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG | LocalFlags::IEXTEN);
        ours.input_flags.remove(InputFlags::IXON);
        *before = Some(modes);
        tcsetattr(&self.input, SetArg::TCSANOW, &ours)?;
        drop(before);
        write_soon(self.output.as_fd(), ENTER);
        Ok(())
    }

    /// Gives it back for a while.
    #[allow(clippy::unused_self, reason = "only who has it can give it back")]
    pub(super) fn release(&self) {
        give_back();
    }

    /// Its columns and rows.
    pub(super) fn size(&self) -> (usize, usize) {
        let (columns, rows) = sys::terminal::size(self.output.as_fd()).unwrap_or(USUAL_SIZE);
        (columns.into(), rows.into())
    }

    pub(super) fn input(&self) -> BorrowedFd<'_> {
        self.input.as_fd()
    }

    pub(super) fn output(&self) -> BorrowedFd<'_> {
        self.output.as_fd()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        give_back();
    }
}

/// Restores the terminal, if it is ours. A panic calls this, too, perhaps while the lock is held.
fn give_back() {
    let Ok(mut before) = BEFORE.try_lock() else { return };
    if let Some(modes) = before.take() {
        write_soon(std::io::stdout().as_fd(), LEAVE);
        let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, &modes);
    }
}

/// Writes, unless the terminal does not take it for a while.
fn write_soon(output: BorrowedFd<'_>, mut bytes: &[u8]) {
    let deadline = Instant::now() + PATIENCE;
    while !bytes.is_empty() {
        match sys::write::write_now(output, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::EAGAIN | Errno::EINTR) if Instant::now() < deadline => {
                let mut fds = [PollFd::new(output, PollFlags::POLLOUT)];
                let _ = poll(&mut fds, PollTimeout::from(20_u8));
            }
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Read;
    use std::process::{Command, Stdio};

    /// Says to this test that it is the one that runs on the terminal.
    const VARIABLE: &str = "MCP_LAUNCH_TEST_PANICS";

    #[test]
    fn a_panic_gives_the_terminal_back_and_is_seen() {
        if std::env::var_os(VARIABLE).is_some() {
            // The release does not unwind, so nothing is dropped there.
            std::mem::forget(Terminal::enter().unwrap());
            panic!("by intention");
        }
        let pty = nix::pty::openpty(None, None).unwrap();
        let before = tcgetattr(&pty.slave).unwrap();
        let io = || Stdio::from(pty.slave.try_clone().unwrap());
        let mut command = Command::new(std::env::current_exe().unwrap());
        let name = "top::terminal::tests::a_panic_gives_the_terminal_back_and_is_seen";
        command.args(["--exact", name, "--nocapture"]).env(VARIABLE, "yes");
        let status = command.stdin(io()).stdout(io()).stderr(io()).status().unwrap();
        assert!(!status.success());
        assert_eq!(tcgetattr(&pty.slave).unwrap(), before);
        drop(command);
        drop(pty.slave);
        let mut output = Vec::new();
        // It ends with an error because the other end is closed.
        let _ = File::from(pty.master).read_to_end(&mut output);
        let output = String::from_utf8_lossy(&output);
        let at = |text: &str| output.find(text).unwrap_or_else(|| panic!("no {text:?} in {output:?}"));
        assert!(at("\u{1b}[?1049h") < at("\u{1b}[?1049l") && at("\u{1b}[?1049l") < at("by intention"), "{output:?}");
    }
}
