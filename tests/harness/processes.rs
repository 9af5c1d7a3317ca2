//! Processes, as `/proc` shows them.

use std::fs;

use nix::unistd::Pid;

/// The running children of a process.
pub fn children(pid: Pid) -> Vec<Pid> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|text| text.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap())).collect::<Vec<_>>())
        .filter(|pid| is_alive(*pid))
        .collect()
}

/// The running descendants of a process.
pub fn descendants(pid: Pid) -> Vec<Pid> {
    children(pid).into_iter().flat_map(|child| std::iter::once(child).chain(descendants(child))).collect()
}

/// Whether all threads of a process are stopped. A thread may accept a client after the first one has stopped.
pub fn is_stopped(pid: Pid) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut states = threads.filter_map(|thread| thread.file_name().to_str()?.parse().ok());
    states.all(|thread| state(Pid::from_raw(thread)) == Some('T'))
}

/// The state letter of a process; none if it no longer exists.
pub fn state(pid: Pid) -> Option<char> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text[text.rfind(')')? + 2..].chars().next()
}

/// Whether a process exists and is not a zombie.
pub fn is_alive(pid: Pid) -> bool {
    state(pid).is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// Whether it is in the middle of writing to its standard error.
pub fn waits_to_write(pid: Pid) -> bool {
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    call.starts_with(&format!("{} 0x2 ", libc::SYS_write))
}

/// A line of `/proc/PID/status`.
pub fn status_line(pid: Pid, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

/// What has not been read at a port: connections that were not accepted, bytes of requests that were not read.
pub fn unread(port: u16) -> u64 {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let waiting = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let here = fields[1].ends_with(&format!(":{port:04X}"));
        // The queue of received bytes; for a listening socket, the connections to be accepted.
        here.then(|| u64::from_str_radix(fields[4].split_once(':').unwrap().1, 16).unwrap())
    };
    table.lines().skip(1).filter_map(waiting).sum()
}
