//! Ctrl-C and similar signals: recorded by a handler, and checked by all code that waits.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::signal::Signal;

/// The last signal that asked us to stop.
#[derive(Debug, Clone)]
pub struct Interrupt(Arc<AtomicUsize>);

impl Interrupt {
    /// Installs the handlers.
    ///
    /// # Errors
    /// If the kernel refuses to install one.
    pub fn install() -> io::Result<Self> {
        // If our parent ignored it, the kernel would reap our children for us, and their exit statuses would be lost.
        crate::sys::reset(Signal::SIGCHLD as i32);
        let noted = Arc::<AtomicUsize>::default();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
            let number = signal as i32;
            signal_hook::flag::register_usize(number, Arc::clone(&noted), usize::try_from(number).unwrap_or(0))?;
        }
        Ok(Self(noted))
    }

    /// The signal, if one arrived since the start or the last [`Self::clear`].
    #[must_use]
    pub fn signal(&self) -> Option<u8> {
        u8::try_from(self.0.load(Ordering::Relaxed)).ok().filter(|signal| *signal != 0)
    }

    /// Acts as if this signal had arrived.
    pub fn note(&self, signal: u8) {
        self.0.store(signal.into(), Ordering::Relaxed);
    }

    /// Forgets it, so that the next one is seen.
    pub fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}
