//! Asks the launcher in a thread of its own, so that keys work while it does not answer.

use std::io::{PipeReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::control::ask::Launcher;
use crate::control::protocol::Status;
use crate::problem::{Exit, Problem};

/// The thread, and the ways to it.
#[derive(Debug)]
pub(super) struct Asker {
    questions: Sender<()>,
    answers: Receiver<Result<Status, Problem>>,
    /// Has a byte for each answer.
    ready: PipeReader,
    /// Whether an answer is being waited for.
    is_asking: bool,
}

impl Asker {
    /// Starts the thread. It ends with the program.
    pub(super) fn start(launcher: Launcher) -> Result<Self, Problem> {
        let failed = |error| Problem::new(Exit::No, format!("cannot start a thread: {error}"));
        let (ready, mut is_ready) = std::io::pipe().map_err(failed)?;
        let (questions, questions_there) = channel();
        let (answers_there, answers) = channel();
        let work = move || {
            while questions_there.recv().is_ok() {
                let is_sent = answers_there.send(super::ask(&launcher)).is_ok();
                if !is_sent || is_ready.write_all(b"+").is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("asker".to_owned()).spawn(work).map_err(failed)?;
        Ok(Self { questions, answers, ready, is_asking: false })
    }

    /// Asks, unless the answer before is still awaited.
    pub(super) fn ask(&mut self) {
        if !self.is_asking {
            self.is_asking = self.questions.send(()).is_ok();
        }
    }

    /// The answer, once the descriptor is readable.
    pub(super) fn answer(&mut self) -> Option<Result<Status, Problem>> {
        let _ = self.ready.read(&mut [0]);
        self.is_asking = false;
        self.answers.try_recv().ok()
    }
}

impl AsFd for Asker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }
}
