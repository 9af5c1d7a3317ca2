use super::*;

fn write(board: &Scoreboard, index: usize, pid: u32, state: u32, claimed: u64) {
    let at = SLOT * (index + 1);
    board.memory.set_word(at + slot::PID, pid);
    board.memory.set_word(at + slot::STATE, state);
    board.memory.set_long(at + slot::CLAIMED, claimed);
}

#[test]
fn a_new_one_has_no_workers() {
    assert_eq!(Scoreboard::new(1, 2).unwrap().slots(), []);
}

/// What workers find at the beginning, and what they write into their slots: every number in the byte order of the
/// machine, the magic as text.
#[test]
fn the_bytes_are_those_of_the_layout() {
    use std::os::unix::fs::FileExt;
    let board = Scoreboard::new(3, 2).unwrap();
    let file = std::fs::File::from(board.descriptor().try_clone_to_owned().unwrap());
    let mut header = [0; 20];
    file.read_exact_at(&mut header, 0).unwrap();
    let [little, big] = [*b"MCPLGRD1\x03\0\0\0\x18\0\0\0\x03\0\0\0", *b"MCPLGRD1\0\0\0\x03\0\0\0\x18\0\0\0\x03"];
    let is_big = cfg!(target_endian = "big");
    assert_eq!(header, if is_big { big } else { little });
    // Process 258, ready, claimed at 1.000000002 s.
    let little = [2, 1, 0, 0, 2, 0, 0, 0, 2, 0xca, 0x9a, 0x3b, 0, 0, 0, 0];
    let big = [0, 0, 1, 2, 0, 0, 0, 2, 0, 0, 0, 0, 0x3b, 0x9a, 0xca, 2];
    file.write_all_at(if is_big { &big } else { &little }, SLOT as u64).unwrap();
    let slots = board.slots();
    assert_eq!((slots.len(), slots[0].pid, slots[0].state), (1, Pid::from_raw(258), State::Ready));
    assert_eq!(slots[0].claimed, Duration::from_nanos(1_000_000_002));
}

#[test]
fn of_a_number_that_was_used_twice_the_later_worker_counts() {
    let board = Scoreboard::new(1, 2).unwrap();
    write(&board, 0, 7, 3, 100);
    write(&board, 3, 7, 1, 200);
    write(&board, 5, 9, 2, 150);
    let found: Vec<_> = board.slots().iter().map(|slot| (slot.pid.as_raw(), slot.state)).collect();
    assert_eq!(found, [(7, State::Starting), (9, State::Ready)]);
}

#[test]
fn what_a_failing_process_wrote_is_read_as_one_line() {
    use std::os::fd::AsRawFd;
    let board = Scoreboard::new(1, 2).unwrap();
    assert_eq!(board.failure(), None);
    let path = format!("/proc/{}/fd/{}", std::process::id(), board.descriptor().as_raw_fd());
    let script = "import os, struct, sys\n\
        file = os.open(sys.argv[1], os.O_RDWR)\n\
        text = 'no module\\nnamed é'.encode()\n\
        end = os.fstat(file).st_size\n\
        os.pwrite(file, struct.pack('I', len(text)) + text, end - 1024)\n";
    assert!(std::process::Command::new("python3").args(["-c", script, &path]).status().unwrap().success());
    assert_eq!(board.failure().as_deref(), Some("no modulenamed é"));
    board.memory.set_word(board.space(board.slots), u32::MAX);
    assert!(board.failure().is_some_and(|text| text.len() <= TEXT));
}

#[test]
fn one_worker_or_all_of_them_are_asked_to_leave() {
    let board = Scoreboard::new(1, 2).unwrap();
    write(&board, 0, 7, 2, 1);
    write(&board, 1, 9, 2, 1);
    let told = |index: usize| board.memory.long(SLOT * (index + 1) + slot::LEAVE_BY);
    let (by, spread) = (Duration::from_secs(5), Duration::from_millis(1500));
    board.retire_worker(Pid::from_raw(9), by, spread);
    board.retire_worker(Pid::from_raw(11), by * 2, spread);
    assert_eq!([told(0), told(1)], [0, 5_000_000_000]);
    assert_eq!(board.memory.word(SLOT * 2 + slot::SPREAD), 1500);
    board.retire(Duration::from_nanos(3), spread);
    assert_eq!([told(0), told(1), board.memory.long(header::LEAVE_BY)], [3; 3]);
    assert_eq!(board.memory.word(header::SPREAD), 1500);
    board.retire(Duration::ZERO, Duration::ZERO);
    assert_eq!([told(0), told(1), board.memory.long(header::LEAVE_BY)], [0; 3]);
}

#[test]
fn nonsense_in_a_slot_is_no_worker() {
    let board = Scoreboard::new(1, 2).unwrap();
    write(&board, 0, u32::MAX, 2, 1);
    write(&board, 1, 5, 77, 1);
    write(&board, 2, 0, 2, 1);
    assert_eq!(board.slots(), []);
}

/// The last slot's counts, written as `latency.py` writes them, are those of its owner; and the bounds are the same.
#[test]
fn what_a_worker_has_counted_is_read() {
    use std::os::fd::AsRawFd;
    let board = Scoreboard::new(1, 1).unwrap();
    let last = board.slots - 1;
    write(&board, last, 7, 2, 1);
    let path = format!("/proc/{}/fd/{}", std::process::id(), board.descriptor().as_raw_fd());
    let script = "import struct, sys, time\n\
        namespace = {'time': time, 'ADAPTS': False, '_REJECTED': 0, '_LATEST': 0, '_EARLIER': 48, '_deque': __import__('collections').deque}\n\
        exec(sys.stdin.read(), namespace)\n\
        counts = [0] * 96\n\
        latencies = namespace['_Latencies']()\n\
        latencies.begin(10**9, counts)\n\
        latencies.recent += [bound for bound in namespace['_BOUNDS']] + [101.0]\n\
        latencies.publish(5 * 10**9, 50, None, [4])\n\
        with open(sys.argv[1], 'r+b') as board:\n\
        \tboard.seek(int(sys.argv[2]))\n\
        \tboard.write(struct.pack('=96Q', *counts))\n";
    let mut command = std::process::Command::new("python3");
    command.args(["-c", script, &path, &board.counts(last).to_string()]);
    let mut child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, include_bytes!("../latency.py")).unwrap();
    drop(input);
    assert!(child.wait().unwrap().success());
    let [(slot, durations)] = board.durations()[..] else { panic!("one worker") };
    assert_eq!((slot.pid, durations.buckets), (Pid::from_raw(7), [1; durations::BUCKETS]));
    assert!((durations.sum.as_secs_f64() - durations::BOUNDS.iter().sum::<f64>() - 101.0).abs() < 1e-6);
    let window = board.window(&slot, Duration::from_secs(6));
    assert_eq!((window.served, window.rejected, window.durations), (10.0, 0.8, durations));
}
