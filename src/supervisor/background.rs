//! Work that may take long, such as reading files over the network or deriving a key from a passphrase: a thread does
//! it, and the loop continues in the meantime.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::eventfd::{EfdFlags, EventFd};
use tracing::warn;

use crate::sys::{ALL_SIGNALS, set_mask};

/// Work in a thread. If it is dropped, the thread continues, and its result is lost.
#[derive(Debug)]
pub(super) struct Job<T> {
    result: Receiver<T>,
    done: Option<Arc<EventFd>>,
}

/// The progress of a job.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress<T> {
    /// It is not done yet.
    Working,
    /// It is done, with this result.
    Done(T),
    /// The thread has ended without a result.
    Failed,
}

/// Wakes the loop when the thread ends, whichever way.
struct Wake(Arc<EventFd>);

impl Drop for Wake {
    fn drop(&mut self) {
        let _ = self.0.write(1);
    }
}

impl<T: Send + 'static> Job<T> {
    /// Runs it in a thread. If no thread can be created, it runs at once while the loop waits, which is logged once.
    pub(super) fn start(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Self {
        Self::start_with(work, |thread| {
            let builder = std::thread::Builder::new().name(name.to_owned());
            builder.spawn(thread).map(drop)
        })
    }

    fn start_with(
        work: impl FnOnce() -> T + Send + 'static,
        spawn: impl FnOnce(Box<dyn FnOnce() + Send>) -> std::io::Result<()>,
    ) -> Self {
        let (sender, result) = channel();
        // If the thread cannot be started, its closure is lost, so the work is kept outside of it.
        let work = Arc::new(Mutex::new(Some(move || _ = sender.send(work()))));
        let take = |work: &Mutex<Option<_>>| work.lock().unwrap_or_else(PoisonError::into_inner).take();
        let events = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        let started = events.map_err(std::io::Error::from).and_then(|events| {
            let done = Arc::new(events);
            let (work, wake) = (Arc::clone(&work), Wake(Arc::clone(&done)));
            spawn(Box::new(move || {
                // Signals are handled by the loop, and processes that are started here must not inherit handlers.
                set_mask(ALL_SIGNALS);
                let _wake = wake;
                if let Some(work) = take(&work) {
                    work();
                }
            }))
            .map(|()| done)
        });
        let done = started.map_err(|error| say_once(&error)).ok();
        if done.is_none()
            && let Some(work) = take(&work)
        {
            work();
        }
        Self { result, done }
    }

    /// What becomes readable when it is done; none if it is done already.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.done.as_ref().map(|done| done.as_fd())
    }

    /// Its progress, with the result when it is done. Call it until then.
    pub(super) fn progress(&self) -> Progress<T> {
        match self.result.try_recv() {
            Ok(result) => Progress::Done(result),
            Err(TryRecvError::Empty) => Progress::Working,
            Err(TryRecvError::Disconnected) => Progress::Failed,
        }
    }
}

fn say_once(error: &std::io::Error) {
    static SAID: AtomicBool = AtomicBool::new(false);
    if !SAID.swap(true, Relaxed) {
        warn!(%error, "cannot create a thread: while the settings are read, nothing else is done");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, poll};
    use std::sync::mpsc::channel;

    fn wait<T: Send + 'static>(job: &Job<T>) {
        let mut done = [PollFd::new(job.descriptor().unwrap(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut done, 20_000_u16).unwrap(), 1, "it is told when it is done");
    }

    #[test]
    fn the_result_is_reported_and_not_waited_for() {
        let (go_on, waits) = channel();
        let job = Job::start("test", move || waits.recv().unwrap());
        assert_eq!(job.progress(), Progress::Working);
        go_on.send(7).unwrap();
        wait(&job);
        assert_eq!(job.progress(), Progress::Done(7));
    }

    #[test]
    fn a_panic_in_a_thread_is_reported() {
        let job = Job::<u8>::start("test", || panic!("as the test has it"));
        wait(&job);
        assert_eq!(job.progress(), Progress::Failed);
    }

    #[test]
    fn without_a_thread_it_is_done_at_once() {
        let refused = |_| Err(std::io::ErrorKind::WouldBlock.into());
        let job = Job::start_with(|| std::thread::current().id(), refused);
        assert!(job.descriptor().is_none());
        assert_eq!(job.progress(), Progress::Done(std::thread::current().id()));
    }
}
