//! What workers are doing, as `mcp-launch stacks` shows it. The launcher passes on what they have written; it is
//! understood here, by the command.

mod dump;
mod text;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::protocol::{StackAnswer, StackState};
pub(super) use text::lines_of_frames;
pub use text::text;

/// What one worker is doing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WorkerStacks {
    /// Whose worker it is.
    pub generation: u32,
    /// Its process.
    pub pid: i32,
    /// Whether it has answered.
    pub state: StackState,
    /// What is missing, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// How long ago its event loop last ran.
    pub heartbeat_seconds_ago: Option<f64>,
    /// Its open requests, the oldest first; none if its interpreter has not answered.
    pub requests: Option<Vec<OpenRequest>>,
    /// How many more there are.
    pub requests_left_out: u64,
    /// How many tasks its event loop has; none if it has no event loop, or its interpreter has not answered.
    pub tasks: Option<u64>,
    /// Where they are: each different stack once, the most frequent first.
    pub task_stacks: Vec<TaskStack>,
    /// How many more different stacks there are.
    pub task_stacks_left_out: u64,
    /// How many tasks, and requests in them, were not looked at: it would have taken too long.
    pub tasks_not_looked_at: u64,
    /// Where its threads are.
    pub threads: Vec<ThreadStack>,
    /// Whether there are more than these.
    pub threads_left_out: bool,
}

/// An open request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpenRequest {
    /// `GET`; `websocket` for a web socket.
    pub method: String,
    /// Its path, without the query and without segments that may be secrets.
    pub path: String,
    /// Since it began.
    pub age_seconds: Option<f64>,
    /// The task in which it is handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The thread in which it is handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<String>,
}

/// Where tasks are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskStack {
    /// How many of them are there.
    pub count: u64,
    /// The names of some.
    pub names: Vec<String>,
    /// The tasks that the first one waits for.
    pub waits_for: Vec<String>,
    /// The frames, the most recent call last.
    pub frames: Vec<Frame>,
    /// How many outer frames are not shown.
    pub left_out: u64,
}

/// Where a thread is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ThreadStack {
    /// Its number: `0x00007f0123456789`, or `main thread`.
    pub id: String,
    /// Its name, if the interpreter has told it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The frames, the most recent call last.
    pub frames: Vec<Frame>,
    /// Whether outer frames are not shown.
    pub is_cut: bool,
}

impl ThreadStack {
    /// Its innermost frames in one line, that one first, with at most this many.
    #[must_use]
    pub fn innermost_first(&self, most: usize) -> String {
        let frames = self.frames.iter().rev().take(most);
        let frames = frames.map(|frame| format!("{} ({}:{})", frame.function, frame.file, frame.line));
        frames.collect::<Vec<_>>().join(" < ")
    }
}

/// A frame of a stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// The file of the code.
    pub file: String,
    /// The line that is executed.
    pub line: u64,
    /// The function.
    pub function: String,
}

/// What the interpreter has written: `stacks.py` has the other end.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Told {
    /// The threads' names, by their numbers in hexadecimal.
    names: BTreeMap<String, String>,
    tasks: Option<u64>,
    not_looked_at: u64,
    stacks: Vec<TaskStack>,
    stacks_left_out: u64,
    requests: Option<Vec<OpenRequest>>,
    requests_left_out: u64,
    problem: Option<String>,
}

impl WorkerStacks {
    /// Understands the answer of a worker.
    #[must_use]
    pub fn read(answer: &StackAnswer) -> Self {
        let told = match serde_json::from_str::<Told>(&answer.tasks) {
            _ if answer.tasks.is_empty() => Told::default(),
            Ok(told) => told,
            Err(error) => Told { problem: Some(format!("its answer is not understood: {error}")), ..Told::default() },
        };
        let mut threads = dump::threads(&answer.threads);
        for thread in &mut threads {
            let number = thread.id.trim_start_matches("0x").trim_start_matches('0');
            thread.name = told.names.get(number).cloned();
        }
        Self {
            generation: answer.generation,
            pid: answer.pid,
            state: answer.state,
            why: why(answer, told.problem.as_deref()),
            heartbeat_seconds_ago: answer.heartbeat_seconds_ago,
            requests: told.requests,
            requests_left_out: told.requests_left_out,
            tasks: told.tasks,
            task_stacks: told.stacks,
            task_stacks_left_out: told.stacks_left_out,
            tasks_not_looked_at: told.not_looked_at,
            threads,
            threads_left_out: answer.is_cut || answer.threads.lines().any(|line| line == "..."),
        }
    }
}

/// What is missing, and why.
fn why(answer: &StackAnswer, problem: Option<&str>) -> Option<String> {
    let why = match answer.state {
        StackState::Running if answer.threads.is_empty() => "it cannot write where its threads are",
        StackState::Running => return problem.map(str::to_owned),
        StackState::Blocked => "its event loop, or its interpreter, stands still: no tasks and requests",
        StackState::Stopped => "it is stopped, by SIGSTOP or a debugger: it cannot answer until it continues",
        StackState::Ended => "it has ended",
        StackState::Silent => "it has not answered in time",
        StackState::Unreachable => "the guard is not in it, or has not begun yet",
    };
    Some(why.to_owned())
}

#[cfg(test)]
mod tests;
