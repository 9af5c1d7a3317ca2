//! `mcp-launch init -- CMD`: as good an init as tini and dumb-init.

use std::process::{Command, Stdio};

use crate::harness::{self, Launch, PROGRAM, copy_program, is_root, skipped, wait_for, wait_until, write_program};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn init(script: &str) -> Launch {
    Launch::new(&["init", "--", "sh", "-c", script])
}

#[test]
fn every_exit_status_is_passed_on() {
    for status in 0..=255 {
        assert_eq!(init(&format!("exit {status}")).finish().code, status);
    }
}

#[test]
fn death_by_a_signal_is_128_and_its_number() {
    for signal in [1, 2, 3, 6, 9, 11, 15, 34, 40, 64] {
        // dash knows no real-time signals, Python does.
        let script = format!("import os; os.kill(os.getpid(), {signal})");
        let finished = Launch::new(&["init", "python3", "-c", &script]).finish();
        assert_eq!(finished.code, 128 + signal, "signal {signal}: {}", finished.log);
    }
}

#[test]
fn a_command_that_is_not_there_is_127_and_one_that_cannot_run_is_126() {
    let finished = Launch::new(&["init", "--", "no-such-command"]).finish();
    assert_eq!(finished.code, 127, "{}", finished.log);
    assert!(finished.log.contains("no-such-command"), "{}", finished.log);
    let finished = Launch::new(&["init", "/no/such/command"]).finish();
    assert_eq!(finished.code, 127, "{}", finished.log);
    assert!(finished.log.contains("/no/such/command: there is no such file"), "{}", finished.log);
    let launch = Launch::new(&["init", "./plain"]);
    std::fs::write(launch.directory.path().join("plain"), "no program").unwrap();
    let finished = launch.finish();
    assert_eq!(finished.code, 126, "{}", finished.log);
    assert_eq!(Launch::new(&["init", "/"]).finish().code, 126);
}

#[test]
fn a_script_without_a_first_line_runs_in_the_shell() {
    let launch = Launch::new(&["init", "./script", "7"]);
    let path = launch.directory.path().join("script");
    write_program(&path, "exit $1\n");
    assert_eq!(launch.finish().code, 7);
}

#[test]
fn arguments_and_environment_arrive_as_they_are() {
    let launch =
        Launch::new(&["init", "--", "sh", "-c", r#"printf '%s|' "$@" "$WEIRD""#, "-", "--help", "-x", "a b", ""]);
    let finished = launch.env("WEIRD", "x\ny").finish();
    assert_eq!(finished.out, "--help|-x|a b||x\ny|");
}

#[test]
fn the_command_works_where_init_was_started_and_init_holds_no_directory() {
    let launch = init("pwd; readlink /proc/$PPID/cwd; ./here");
    let here = launch.directory.path().join("here");
    write_program(&here, "#!/bin/sh\necho here");
    let directory = launch.directory.path().canonicalize().unwrap();
    assert_eq!(launch.finish().out, format!("{}\n/\nhere\n", directory.display()));
}

#[test]
fn every_signal_that_can_be_is_forwarded() {
    // Not with handlers: Python may notice a signal only when the next one comes, if it comes at an unlucky moment.
    let catch = "import signal\n\
        wanted = [s for s in range(1, 65) if s not in (9, 17, 19, 20, 21, 22, 32, 33)]\n\
        signal.pthread_sigmask(signal.SIG_BLOCK, wanted)\n\
        print('ready', *wanted, flush=True)\n\
        while True:\n    print(int(signal.sigwait(wanted)), flush=True)\n";
    let mut running = Launch::new(&["init", "python3", "-c", catch]).start();
    let first = wait_for("it to listen", || running.out().lines().next().map(str::to_owned));
    let wanted: Vec<i32> = first.split(' ').skip(1).map(|number| number.parse().unwrap()).collect();
    assert!(wanted.len() > 50);
    for signal in wanted {
        let status = Command::new("kill").args([&format!("-{signal}"), &running.pid().to_string()]).status().unwrap();
        assert!(status.success());
        wait_until(&format!("signal {signal}"), || running.out().lines().any(|line| line == signal.to_string()));
    }
    kill(running.children()[0], Signal::SIGKILL).unwrap();
    assert_eq!(running.wait(), 137);
}

#[test]
fn stop_signals_stop_the_command_and_the_init_together() {
    // It waits for the signals itself and is stopped all the same. As above, not with handlers.
    let script = "import signal\n\
        wanted = [18, 20, 21, 22]\n\
        signal.pthread_sigmask(signal.SIG_BLOCK, wanted)\n\
        print('ready', flush=True)\n\
        while True: print(int(signal.sigwait(wanted)), flush=True)\n";
    let mut running = Launch::new(&["init", "python3", "-c", script]).start();
    wait_until("it to listen", || running.out().starts_with("ready"));
    let command = running.children()[0];
    let are = |state: char| [running.pid(), command].into_iter().all(|pid| harness::state(pid) == Some(state));
    for (count, signal) in [Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU].into_iter().enumerate() {
        running.signal(signal);
        wait_until(&format!("both to stop on {signal}"), || are('T'));
        running.signal(Signal::SIGCONT);
        wait_until("the command to go on", || running.out().lines().skip(1).count() == count + 1);
        wait_until("both to go on", || harness::state(running.pid()) != Some('T'));
    }
    assert!(running.out().lines().skip(1).all(|line| line == "18"), "{}", running.out());
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait(), 143);
}

#[test]
fn what_is_left_behind_sees_term_and_no_cont() {
    let left = "import signal, os\n\
        wanted = [signal.SIGTERM, signal.SIGCONT]\n\
        signal.pthread_sigmask(signal.SIG_BLOCK, wanted)\n\
        open('there', 'w').close()\n\
        signal.sigwait([signal.SIGTERM])\n\
        print(signal.sigtimedwait([signal.SIGCONT], 0.3), flush=True)\n";
    let script = "python3 -c \"$1\" & while [ ! -e there ]; do sleep 0.02; done";
    let finished = Launch::new(&["init", "--", "sh", "-c", script, "-", left]).finish();
    assert_eq!((finished.code, finished.out.as_str()), (0, "None\n"), "{}", finished.log);
}

#[test]
fn the_command_starts_with_the_signal_state_that_init_had() {
    let script = "grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status";
    let mut plain = Launch::new(&[]);
    // Started in the same way as the launcher, so that both start from the same state.
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).current_dir("/").env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    plain.command = command;
    assert_eq!(init(script).finish().out, plain.finish().out);
    let ignored = "trap '' HUP PIPE; exec ";
    let direct = Command::new("sh").args(["-c", &format!("{ignored} sh -c \"{script}\"")]).output().unwrap();
    let through =
        Command::new("sh").args(["-c", &format!("{ignored} {PROGRAM} init -- sh -c \"{script}\"")]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&through.stdout), String::from_utf8_lossy(&direct.stdout));
    assert!(String::from_utf8_lossy(&direct.stdout).contains("1001"), "{direct:?}");
}

#[test]
fn orphans_are_reaped() {
    let mut running = init("(sh -c 'exit 0' & echo $! ; exec true) ; (sleep 300 & echo $!) ; sleep 300").start();
    let orphan = wait_for("the orphan", || running.out().lines().nth(1)?.parse().ok().map(Pid::from_raw));
    wait_until("its adoption", || running.children().contains(&orphan));
    kill(orphan, Signal::SIGKILL).unwrap();
    wait_until("its reaping", || harness::state(orphan).is_none());
    // The command is a shell, which a signal does not end before its own child: so init is the one that waits.
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait(), 143);
}

/// Shows that the test above can fail: without a process that adopts and reaps, a zombie remains.
#[test]
fn without_an_init_an_orphan_of_a_careless_parent_stays_a_zombie() {
    let mut parent = Command::new("sh")
        .args(["-c", "sleep 300 & echo $!; exec sleep 301"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(parent.stdout.take().unwrap()), &mut text).unwrap();
    let child = Pid::from_raw(text.trim().parse().unwrap());
    let command = format!("/proc/{}/cmdline", parent.id());
    wait_until("a parent that reaps nobody", || std::fs::read(&command).unwrap() == *b"sleep\x00301\x00");
    kill(child, Signal::SIGKILL).unwrap();
    wait_until("a zombie", || harness::state(child) == Some('Z'));
    parent.kill().unwrap();
    parent.wait().unwrap();
}

#[test]
fn what_the_command_leaves_behind_is_ended_however_it_resists() {
    let script = "setsid sh -c 'trap \"\" TERM; echo $$; while :; do sleep 1; done' & \
                  sh -c 'kill -STOP $$' & sleep 0.3; exit 5";
    let mut running = init(script).start();
    let stubborn = wait_for("the stubborn one", || running.out().lines().next()?.parse().ok().map(Pid::from_raw));
    assert_eq!(running.wait(), 5);
    assert!(!harness::is_alive(stubborn));
}

#[test]
fn as_pid_1_it_forwards_reaps_and_stops() {
    if !is_root() {
        skipped("only root may make a PID namespace");
        return;
    }
    let script = "trap 'echo got TERM; exit 9' TERM; echo $$ $PPID; while :; do sleep 0.05; done";
    let mut launch = Launch::new(&[]);
    launch.command = Command::new("unshare");
    launch.command.args([
        "--pid",
        "--fork",
        "--mount-proc",
        "--kill-child",
        PROGRAM,
        "init",
        "--",
        "sh",
        "-c",
        script,
    ]);
    let mut running = launch.start();
    wait_until("the shell", || running.out().starts_with("2 1\n"));
    let init = running.children()[0];
    kill(init, Signal::SIGTERM).unwrap();
    assert_eq!(running.wait(), 9);
    assert!(running.out().contains("got TERM"));
}

#[test]
fn in_a_terminal_ctrl_c_reaches_the_command_and_it_can_read() {
    // `script` gives the program a terminal; the command reads from it, and then Ctrl-C is typed there.
    let inner = format!(
        "{PROGRAM} init -- sh -c 'trap \"echo interrupted; exit 3\" INT; read line; echo got $line; while :; do sleep 0.05; done'"
    );
    let mut child = Command::new("script")
        .args(["-qefc", &inner, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut expect = |text: &str| {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            assert_ne!(std::io::BufRead::read_line(&mut stdout, &mut line).unwrap(), 0, "no {text:?}");
        }
    };
    std::io::Write::write_all(&mut stdin, b"hello\n").unwrap();
    expect("got hello");
    std::io::Write::write_all(&mut stdin, b"\x03").unwrap();
    expect("interrupted");
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn a_signal_does_not_wait_for_the_exec_of_the_command() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("program");
    copy_program("/bin/true", &program);
    // Opening it in order to execute it waits for a process that has a lease on it.
    let script = "import fcntl, signal, subprocess, sys\n\
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGIO])\n\
        file = open(sys.argv[1])\n\
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n\
        init = subprocess.Popen(\n\
            [sys.argv[2], 'init', '--', sys.argv[1]],\n\
            preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGIO]))\n\
        signal.sigtimedwait([signal.SIGIO], 20)\n\
        init.send_signal(signal.SIGTERM)\n\
        print(init.wait(20))\n";
    let mut command = Command::new("python3");
    command.args(["-c", script]).arg(&program).arg(PROGRAM);
    let output = command.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "143\n", "{}", String::from_utf8_lossy(&output.stderr));
}
