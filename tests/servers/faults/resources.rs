//! A system without memory, descriptors, writable files or readers of the log: supervision continues.

use std::fs::File;
use std::io::Write;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::process::Command;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::ask::{all_are_ready, ask};
use crate::harness::http::{answer, get, request};
use crate::harness::{Launch, Running, children, is_root, skipped, tests_directory, venv, wait_until};

/// A user that exists on no system.
const NOBODY_AT_ALL: &[&str] = &["setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups"];

/// Whether the test may change to other users and make namespaces; reports if not.
fn may_change_user() -> bool {
    if !is_root() {
        skipped("only root may change to another user");
    }
    is_root()
}

/// Limits a resource of a running process: the syntax is that of `prlimit`.
fn limit(pid: Pid, what: &str) {
    let user = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(format!("/proc/{pid}")).unwrap()).to_string();
    // As its own user: root may not have the capability for others.
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "prlimit"]);
    let status = command.args(["--pid", &pid.to_string(), what]).status().unwrap();
    assert!(status.success(), "{what}");
}

fn is_serving(running: &Running) -> bool {
    get(running.port, "/").is_ok_and(|answer| answer.status == 200)
}

/// Kills all processes of the server.
fn kill_server(running: &Running) {
    for pid in running.descendants() {
        let _ = kill(pid, Signal::SIGKILL);
    }
}

/// A launcher with this many spare file descriptors, whose server is ready.
fn with_descriptors(spare: usize, fates: &str, budget: &str) -> Running {
    let mut running = Launch::fake("gunicorn", fates, &["--stop-timeout", budget]).start();
    running.wait_log("ready generation=");
    running.descendants();
    let directory = format!("/proc/{}/fd", running.pid());
    let open = || std::fs::read_dir(&directory).unwrap().flatten();
    let used: Vec<usize> = open().map(|fd| fd.file_name().to_str().unwrap().parse().unwrap()).collect();
    // The kernel uses the lowest free number, below the limit.
    let highest = (0..).filter(|number| !used.contains(number)).nth(spare).unwrap();
    limit(running.pid(), &format!("--nofile={highest}:"));
    running
}

#[test]
fn when_the_system_refuses_a_process_it_waits_and_tries_again() {
    if !may_change_user() {
        return;
    }
    let mut running =
        Launch::fake("gunicorn", "serve", &[]).without("XDG_RUNTIME_DIR").through(NOBODY_AT_ALL).start();
    running.wait_log("ready generation=");
    limit(running.pid(), "--nproc=1:");
    kill_server(&running);
    running.wait_log_count("cannot start another process", 3);
    limit(running.pid(), "--nproc=1000:");
    running.wait_log_count("ready generation=", 2);
    assert!(is_serving(&running));
    assert_eq!(running.stop(), 0, "{}", running.log());
    running.assert_nothing_left();
}

#[test]
fn a_stop_while_the_system_refuses_processes_is_clean() {
    if !may_change_user() {
        return;
    }
    let mut running = Launch::fake("gunicorn", "serve", &[]).through(NOBODY_AT_ALL).start();
    running.wait_log("ready generation=");
    limit(running.pid(), "--nproc=1:");
    kill_server(&running);
    running.wait_log("cannot start another process");
    assert_eq!(running.stop(), 0, "{}", running.log());
}

#[test]
fn without_a_file_descriptor_it_waits_and_tries_again() {
    let mut running = with_descriptors(0, "serve", "20s");
    kill_server(&running);
    running.wait_log_count("cannot start another process", 3);
    limit(running.pid(), "--nofile=1024:");
    running.wait_log_count("ready generation=", 2);
    assert!(is_serving(&running));
    assert_eq!(running.stop(), 0, "{}", running.log());
    running.assert_nothing_left();
}

#[test]
fn with_hardly_a_file_descriptor_a_stop_is_clean() {
    for spare in 0..3 {
        let mut running = with_descriptors(spare, "serve", "20s");
        assert_eq!(running.stop(), 0, "{spare}: {}", running.log());
        running.assert_nothing_left();
    }
}

#[test]
fn with_hardly_a_file_descriptor_what_ignores_term_is_still_killed() {
    for spare in 0..3 {
        let mut running = with_descriptors(spare, "deaf-main deaf-worker", "1s");
        assert_eq!(running.stop(), 143, "{spare}: {}", running.log());
        running.assert_nothing_left();
    }
}

#[test]
fn with_hardly_a_file_descriptor_workers_that_lost_their_main_process_are_not_left() {
    for spare in 0..3 {
        let mut running = with_descriptors(spare, "deaf-worker", "1s");
        kill(running.children()[0], Signal::SIGKILL).unwrap();
        running.wait_log("its workers keep serving");
        running.wait_log("cannot start another process");
        assert_eq!(running.stop(), 143, "{spare}: {}", running.log());
        running.assert_nothing_left();
    }
}

#[test]
fn a_client_that_comes_while_the_system_refuses_processes_is_answered_later() {
    let mut running = with_descriptors(0, "serve", "20s");
    kill_server(&running);
    running.wait_log_count("cannot start another process", 3);
    let mut client = TcpStream::connect(("127.0.0.1", running.port)).unwrap();
    request(&mut client, "/");
    limit(running.pid(), "--nofile=1024:");
    running.wait_log_count("ready generation=", 2);
    answer(client).unwrap_or_else(|error| panic!("{error}: {}", running.log()));
}

#[test]
fn attempts_that_the_system_refuses_leave_no_descriptor_open() {
    let mut running = Launch::fake("gunicorn", "serve", &[]).start();
    running.wait_log("ready generation=");
    let directory = format!("/proc/{}/fd", running.pid());
    let open = || std::fs::read_dir(&directory).unwrap().count();
    let before = open();
    // Enough for the preparation, but not for all of the start.
    limit(running.pid(), &format!("--nofile={}:", before + 3));
    kill_server(&running);
    running.wait_log_count("cannot start another process", 5);
    limit(running.pid(), "--nofile=1024:");
    running.wait_log_count("ready generation=", 2);
    wait_until("the probe to be over", || open() <= before);
}

/// Respawns and stops, whatever has happened to standard error.
#[track_caller]
fn goes_on(mut running: Running) {
    wait_until("an answer", || is_serving(&running));
    let first = running.notes("starts").len();
    kill_server(&running);
    wait_until("the next generation", || running.notes("starts").len() > first && is_serving(&running));
    assert_eq!(running.stop(), 0);
    running.assert_nothing_left();
}

#[test]
fn a_closed_standard_error_changes_nothing() {
    goes_on(Launch::fake("gunicorn", "serve", &[]).through(&["sh", "-c", "exec \"$@\" 2>&-", "sh"]).start());
}

#[test]
fn closed_standard_streams_change_nothing() {
    goes_on(Launch::fake("gunicorn", "serve", &[]).through(&["sh", "-c", "exec \"$@\" <&- >&- 2>&-", "sh"]).start());
}

#[test]
fn a_standard_error_on_a_full_disk_changes_nothing() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    goes_on(Launch::fake("gunicorn", "serve", &[]).start_with_stderr(full));
}

#[test]
fn a_standard_error_whose_reader_has_left_changes_nothing() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    goes_on(Launch::fake("gunicorn", "serve", &[]).start_with_stderr(OwnedFd::from(writer)));
}

/// A completely full pipe, for writers that wait.
fn full_pipe() -> (std::io::PipeReader, OwnedFd) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let flags = OFlag::from_bits_truncate(fcntl(&writer, FcntlArg::F_GETFL).unwrap());
    fcntl(&writer, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).unwrap();
    while writer.write(&[b'x'; 4096]).is_ok() {}
    while writer.write(b"x").is_ok() {}
    fcntl(&writer, FcntlArg::F_SETFL(flags)).unwrap();
    (reader, writer.into())
}

#[test]
fn an_unread_standard_error_changes_nothing() {
    let (_reader, writer) = full_pipe();
    goes_on(Launch::fake("gunicorn", "serve", &[]).start_with_stderr(writer));
}

#[test]
fn with_an_unread_standard_error_it_still_gives_up() {
    let (_reader, writer) = full_pipe();
    let mut running = Launch::fake("gunicorn", "exit=3", &[]).start_with_stderr(writer);
    assert_eq!(running.wait(), 3);
    running.assert_nothing_left();
}

#[test]
fn with_an_unread_standard_error_bad_settings_are_still_refused() {
    let (_reader, writer) = full_pipe();
    let mut running = Launch::fake("gunicorn", "serve", &["--workers", "none"]).start_with_stderr(writer);
    assert_eq!(running.wait(), 78);
}

#[test]
fn an_inherited_standard_error_is_never_made_non_blocking() {
    let (_reader, writer) = full_pipe();
    let ours = writer.try_clone().unwrap();
    let mut running = Launch::fake("gunicorn", "serve", &[]).start_with_stderr(writer);
    wait_until("an answer", || is_serving(&running));
    let flags = OFlag::from_bits_truncate(fcntl(&ours, FcntlArg::F_GETFL).unwrap());
    assert!(!flags.contains(OFlag::O_NONBLOCK));
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_user_without_an_entry_in_a_directory_that_is_not_theirs_is_served() {
    if !may_change_user() {
        return;
    }
    // The directory belongs to root, and so does $XDG_RUNTIME_DIR.
    goes_on(Launch::fake("gunicorn", "serve", &[]).through(NOBODY_AT_ALL).start());
}

#[test]
fn no_home_and_no_path_change_nothing() {
    goes_on(Launch::fake("gunicorn", "serve", &[]).without("HOME").without("PATH").start());
}

/// Runs it where only the fake server's files are writable.
fn read_only(server: &str) -> Launch {
    let script = "for place in /tmp /run /var/tmp /dev/shm; do \
                    [ ! -d $place ] || mount --bind -o ro $place $place || mount -o bind,remount,ro $place; \
                  done; \
                  mount --bind -o rw \"$FAKE_STATE\" \"$FAKE_STATE\" 2>/dev/null; \
                  mount -o bind,remount,rw \"$FAKE_STATE\"; cd \"$PWD\"; exec \"$@\"";
    Launch::fake(server, "serve", &[])
        .without("XDG_RUNTIME_DIR")
        .through(&["unshare", "--mount", "sh", "-c", script, "sh"])
}

#[test]
fn no_writable_directory_at_all_changes_nothing() {
    if !may_change_user() {
        return;
    }
    for server in ["gunicorn", "granian"] {
        goes_on(read_only(server).start());
    }
}

/// A generation without the guard is probed over a private socket, for which a directory is needed for a moment.
#[test]
fn without_a_directory_for_a_private_socket_it_starts_and_keeps_the_old_generation_at_a_reload() {
    if !may_change_user() {
        return;
    }
    let mut running = read_only("gunicorn").start();
    running.wait_log("ready generation=1");
    assert!(running.log().contains("readiness is probed where clients go"), "{}", running.log());
    running.signal(Signal::SIGHUP);
    running.wait_log("reload failed, the old generation was kept");
    assert!(running.log().contains("beside another one cannot be known"), "{}", running.log());
    assert!(is_serving(&running));
    assert_eq!(running.stop(), 0, "{}", running.log());
    running.assert_nothing_left();
}

#[test]
fn an_idle_launcher_does_not_wake_up() {
    let mut running = Launch::fake("gunicorn", "serve", &[]).start();
    running.wait_log("ready generation=");
    let wakeups = || -> u64 {
        let status = crate::harness::status_line(running.pid(), "voluntary_ctxt_switches");
        status.parse().unwrap()
    };
    // It settles first; from then on nothing happens for a whole second.
    let mut last = (std::time::Instant::now(), wakeups());
    wait_until("a second without a wake-up", || {
        let now = wakeups();
        if now != last.1 {
            last = (std::time::Instant::now(), now);
        }
        last.0.elapsed() > std::time::Duration::from_secs(1)
    });
}

/// No thread can be started: the kernel refuses it, as a seccomp profile does, or when a user has too many.
fn without_threads(launch: Launch) -> Launch {
    let script = "import ctypes, os, platform, struct, sys\n\
        clone, clone3 = {'x86_64': (56, 435), 'aarch64': (220, 435)}[platform.machine()]\n\
        code = [(0x20, 0, 0, 0), (0x15, 0, 1, clone3), (0x06, 0, 0, 0x50026), (0x15, 0, 3, clone),\n\
        \x20       (0x20, 0, 0, 16), (0x45, 0, 1, 0x10000), (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7fff0000)]\n\
        filter = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *line) for line in code))\n\
        program = ctypes.create_string_buffer(struct.pack('HxxxxxxP', len(code), ctypes.addressof(filter)))\n\
        libc = ctypes.CDLL(None, use_errno=True)\n\
        assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0, ctypes.get_errno()\n\
        os.execv(sys.argv[1], sys.argv[1:])\n";
    launch.through(&["/usr/bin/env", "python3", "-c", script])
}

#[test]
fn without_a_thread_lines_are_written_and_a_reload_works() {
    let mut running = without_threads(Launch::fake("gunicorn", "serve", &[])).start();
    running.wait_log("ready generation=1");
    for generation in [2, 3] {
        assert_eq!(ask(&running, &["reload"]).code, Some(0), "{}", running.log());
        running.wait_log(&format!("ready generation={generation}"));
    }
    assert_eq!(running.log().matches("cannot create a thread").count(), 1, "{}", running.log());
    assert_eq!(running.stop(), 0, "{}", running.log());
    assert!(running.log().contains("exit status=0"), "{}", running.log());
}

#[test]
fn without_a_thread_a_problem_is_reported() {
    let finished = without_threads(Launch::fake("gunicorn", "serve", &["--workers", "none"])).finish();
    assert_eq!(finished.code, 78);
    assert!(finished.log.contains("none"), "{}", finished.log);
}

#[test]
fn without_a_thread_a_standard_error_that_nobody_reads_changes_nothing() {
    let (_reader, writer) = full_pipe();
    goes_on(without_threads(Launch::fake("gunicorn", "serve", &[])).start_with_stderr(writer));
}

/// As under an old kernel, or with a seccomp profile that refuses these calls.
fn without_newer_system_calls_it_supervises_all_the_same(server: &str) {
    let Some(venv) = venv() else { return };
    let filter = tests_directory("apps").join("without_calls.py");
    let calls = [libc::SYS_pidfd_open, libc::SYS_memfd_create, libc::SYS_close_range, libc::SYS_faccessat2];
    let all = calls.map(|call| call.to_string()).join(",");
    for refused in [calls[0].to_string(), calls[1].to_string(), all] {
        let wrapper = ["python3", filter.to_str().unwrap(), &refused];
        let mut running = Launch::app(&venv, server, &["--workers", "2"]).through(&wrapper).in_turn().start();
        running.wait_log("ready generation=1");
        wait_until("all workers", || all_are_ready(&running));
        kill(children(running.children()[0])[0], Signal::SIGKILL).unwrap();
        running.wait_log("worker exit generation=1");
        wait_until("its successor", || all_are_ready(&running));
        running.signal(Signal::SIGHUP);
        running.wait_log("ready generation=2");
        assert!(is_serving(&running), "{refused}");
        assert_eq!(running.stop(), 0, "{}", running.log());
        running.assert_nothing_left();
    }
}

crate::for_both_servers!(without_newer_system_calls_it_supervises_all_the_same);
