//! A server that starts in no time, for scripts/bench and scripts/stress-signals: what is measured around it is the
//! launcher.
//!
//! It writes the time at which it began (CLOCK_MONOTONIC, in nanoseconds) and its pid to standard output. What it does
//! then is in the variable FAKE_SERVER:
//! - nothing: it ends, with status 0;
//! - `serve`: it answers every request on the listening sockets that its arguments name as Gunicorn's do
//!   (`--bind fd://3`), until a signal ends it;
//! - `serve-with-workers`: it also starts as many processes as `--workers` says.

#![no_main]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::FromRawFd;
use std::process::{Command, Stdio};

#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

unsafe extern "C" {
    fn clock_gettime(clock: i32, time: *mut Timespec) -> i32;
}

const CLOCK_MONOTONIC: i32 = 1;

fn now() -> i64 {
    let mut time = Timespec { seconds: 0, nanoseconds: 0 };
    // SAFETY: the pointer is to a local of the layout that every 64-bit Linux has.
    unsafe { clock_gettime(CLOCK_MONOTONIC, &raw mut time) };
    time.seconds * 1_000_000_000 + time.nanoseconds
}

/// The C library's entry, without Rust's own preparations before it: they take time that is not the launcher's.
// SAFETY: no other symbol of this name is linked.
#[unsafe(no_mangle)]
pub extern "C" fn main() -> i32 {
    let began = now();
    // One write, so that the lines of several servers on one pipe stay whole.
    let line = format!("{began} {}\n", std::process::id());
    let _ = std::io::stdout().write_all(line.as_bytes());
    match std::env::var("FAKE_SERVER").as_deref() {
        Ok("serve-with-workers") => start_workers(),
        Ok("serve") => {}
        _ => return 0,
    }
    let sockets = std::env::args().filter_map(|argument| argument.strip_prefix("fd://")?.parse().ok());
    for descriptor in sockets {
        std::thread::spawn(move || serve(descriptor));
    }
    loop {
        std::thread::park();
    }
}

/// Their number follows the word `--workers`; what they write is not to be taken for a start of the server.
fn start_workers() {
    let count = std::env::args().skip_while(|argument| argument != "--workers").nth(1);
    for _ in 0..count.and_then(|count| count.parse().ok()).unwrap_or(1) {
        let worker = Command::new("/proc/self/exe").env("FAKE_SERVER", "serve").stdout(Stdio::null()).spawn();
        worker.expect("a worker");
    }
}

fn serve(descriptor: i32) {
    // SAFETY: nothing else in this program uses the descriptor; if it is not open, accepting fails.
    let listener = unsafe { TcpListener::from_raw_fd(descriptor) };
    for client in listener.incoming() {
        let Ok(mut client) = client else { return };
        let _ = client.read(&mut [0; 1024]);
        let _ = client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    }
}
