//! A server that starts instantly, for scripts/bench and scripts/stress-signals, so that only the launcher is
//! measured.
//!
//! It prints the time at which it began (CLOCK_MONOTONIC, in nanoseconds) and its pid. The variable FAKE_SERVER says
//! what it does then:
//! - unset: it exits with status 0;
//! - `serve`: it answers every request on the listening sockets that it inherits (LISTEN_FDS), until
//!   a signal ends it;
//! - `serve-with-workers`: it also starts as many processes as `--workers` says.

#![no_main]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::FromRawFd;
use std::process::{Command, Stdio};

#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

unsafe extern "C" {
    fn clock_gettime(clock: i32, time: *mut Timespec) -> i32;
    fn accept(socket: i32, address: *mut u8, length: *mut u32) -> i32;
}

const CLOCK_MONOTONIC: i32 = 1;

fn now() -> i64 {
    let mut time = Timespec { seconds: 0, nanoseconds: 0 };
    // SAFETY: the pointer is to a local variable with the layout of every 64-bit Linux.
    unsafe { clock_gettime(CLOCK_MONOTONIC, &raw mut time) };
    time.seconds * 1_000_000_000 + time.nanoseconds
}

/// The C library's entry point, without Rust's runtime setup, whose time would distort the measurement.
// SAFETY: no other symbol with this name is linked.
#[unsafe(no_mangle)]
pub extern "C" fn main() -> i32 {
    let began = now();
    // A single write, so that lines of several servers on one pipe are not mixed.
    let line = format!("{began} {}\n", std::process::id());
    let _ = std::io::stdout().write_all(line.as_bytes());
    match std::env::var("FAKE_SERVER").as_deref() {
        Ok("serve-with-workers") => start_workers(),
        Ok("serve") => {}
        _ => return 0,
    }
    for descriptor in sockets() {
        std::thread::spawn(move || serve(descriptor));
    }
    loop {
        std::thread::park();
    }
}

/// The listening sockets that it inherits. Releases until 2026-11-25 named them in the arguments.
fn sockets() -> Vec<i32> {
    let count = std::env::var("LISTEN_FDS").ok().and_then(|count| count.parse().ok()).unwrap_or(0);
    let named = std::env::args().filter_map(|argument| argument.strip_prefix("fd://")?.parse().ok());
    (3..3 + count).chain(named).collect()
}

/// Their number follows `--workers`. Their output must not be mistaken for the start of a server.
fn start_workers() {
    let count = std::env::args().skip_while(|argument| argument != "--workers").nth(1);
    for _ in 0..count.and_then(|count| count.parse().ok()).unwrap_or(1) {
        let worker = Command::new("/proc/self/exe")
            .env("FAKE_SERVER", "serve")
            .env_remove("LISTEN_FDS")
            .stdout(Stdio::null())
            .spawn();
        worker.expect("a worker");
    }
}

fn serve(descriptor: i32) {
    loop {
        // Of TCP or Unix, which does not matter here.
        // SAFETY: without a place for the address, none is written.
        let client = unsafe { accept(descriptor, std::ptr::null_mut(), std::ptr::null_mut()) };
        if client < 0 {
            return;
        }
        // SAFETY: the kernel has just opened it for this program, and nothing else uses its number.
        let mut client = unsafe { File::from_raw_fd(client) };
        let _ = client.read(&mut [0; 1024]);
        let _ = client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    }
}
