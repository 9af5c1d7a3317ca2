use super::*;

/// What faulthandler writes: Python 3.10 to 3.13, then 3.14, which knows names.
const DUMP: &str = "\
Thread 0x00007f11d9dfe6c0 (most recent call first):
  File \"/usr/lib/python3.11/threading.py\", line 320 in wait
  ...

Current thread 0x00007f11da0b5040 [python] (most recent call first):
  File \"/app/a \", line 3.py\", line 12 in inner
  File \"/app/main.py\", line 7 in <module>
  <no Python frame>
";

fn answer(state: StackState) -> StackAnswer {
    StackAnswer {
        generation: 1,
        pid: 42,
        state,
        heartbeat_seconds_ago: Some(0.25),
        threads: DUMP.to_owned(),
        is_cut: false,
        tasks: String::new(),
    }
}

fn frame(file: &str, line: u64, function: &str) -> Frame {
    Frame { file: file.to_owned(), line, function: function.to_owned() }
}

#[test]
fn threads_are_read_as_faulthandler_writes_them() {
    let worker = WorkerStacks::read(&answer(StackState::Blocked));
    let [first, second] = &worker.threads[..] else { panic!("{:?}", worker.threads) };
    assert_eq!((first.id.as_str(), first.is_cut), ("0x00007f11d9dfe6c0", true));
    assert_eq!(first.frames, [frame("/usr/lib/python3.11/threading.py", 320, "wait")]);
    assert!(!second.is_cut);
    assert_eq!(second.frames, [frame("/app/main.py", 7, "<module>"), frame("/app/a \", line 3.py", 12, "inner")]);
    assert!(worker.requests.is_none() && worker.why.is_some());
}

/// What the guard writes: `tests/guard/stacks_test.py` has the same keys.
#[test]
fn a_reader_sees_requests_tasks_and_threads() {
    let tasks = r#"{"names":{"7f11da0b5040":"MainThread"},"tasks":3,"not_looked_at":0,
        "stacks":[{"count":2,"names":["Task-3","Task-4"],"waits_for":["Task-9"],"left_out":1,
            "frames":[{"file":"/app/main.py","line":7,"function":"wait"}]}],
        "stacks_left_out":1,
        "requests":[{"method":"GET","path":"/slow","age_seconds":3.21,"task":"Task-3"}],"requests_left_out":7}"#;
    let mut answer = StackAnswer { tasks: tasks.to_owned(), ..answer(StackState::Running) };
    answer.threads = answer.threads.replace("/app/main.py", "/app/\u{1b}[31m.py");
    let text = text(&[WorkerStacks::read(&answer)]);
    let expected = "\
worker 42  generation 1  heartbeat 0.2s ago  running
  8 open requests
    GET /slow  3.2s  in Task-3
    and 7 more (younger)
  3 tasks
    2 tasks: Task-3, Task-4, waiting for Task-9
      [1 frame left out]
      File \"/app/main.py\", line 7, in wait
    and 1 more (different stacks)
  2 threads
    0x00007f11d9dfe6c0
      [more frames left out]
      File \"/usr/lib/python3.11/threading.py\", line 320, in wait
    MainThread 0x00007f11da0b5040
      File \"/app/\u{fffd}[31m.py\", line 7, in <module>
      File \"/app/a \", line 3.py\", line 12, in inner
";
    assert_eq!(text, expected);
}

#[test]
fn what_is_not_understood_is_said() {
    let answer = StackAnswer { tasks: "{\"tasks\":-1}".to_owned(), ..answer(StackState::Running) };
    assert!(WorkerStacks::read(&answer).why.is_some_and(|why| why.contains("its answer is not understood")));
}
