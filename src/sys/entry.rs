//! What has to happen before anything else in the program, including the Rust runtime.
//!
//! The binary includes this file as its own module because the constructor must not end up in the test programs,
//! whose children would inherit the blocked signals.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use mcp_launch::sys::{SignalState, is_ignored};

static BLOCKED: AtomicU64 = AtomicU64::new(0);
static IGNORED: AtomicU64 = AtomicU64::new(0);

/// Blocks every signal. If we are PID 1, the kernel drops a signal that is neither caught nor blocked, so signals must
/// wait until the handlers are installed. Also records the inherited state, before the runtime ignores SIGPIPE.
extern "C" fn block_signals() {
    // SAFETY: zeroed signal sets and actions are valid, all pointers are to local variables, and nothing else runs
    // yet.
    unsafe {
        let (mut all, mut old): (libc::sigset_t, libc::sigset_t) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, &raw mut old);
        let (mut blocked, mut ignored) = (0, 0);
        for signal in 1..=64 {
            if libc::sigismember(&raw const old, signal) == 1 {
                blocked |= 1 << (signal - 1);
            }
            if is_ignored(signal) {
                ignored |= 1 << (signal - 1);
            }
        }
        BLOCKED.store(blocked, Relaxed);
        IGNORED.store(ignored, Relaxed);
    }
}

// SAFETY: the loader calls the functions in this section once, before main, and ignores their results.
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = block_signals;

/// The signal state that the program was started with.
pub fn inherited() -> SignalState {
    SignalState { blocked: BLOCKED.load(Relaxed), ignored: IGNORED.load(Relaxed) }
}
