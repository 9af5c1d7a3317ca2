//! For people.

use std::fmt::Write;

use super::{Frame, OpenRequest, TaskStack, ThreadStack, WorkerStacks};

/// The whole text.
#[must_use]
pub fn text(workers: &[WorkerStacks]) -> String {
    let texts: Vec<String> = workers.iter().map(worker).collect();
    texts.join("\n")
}

fn worker(worker: &WorkerStacks) -> String {
    let beat = worker.heartbeat_seconds_ago.map_or_else(String::new, |ago| format!("  heartbeat {ago:.1}s ago"));
    let why = worker.why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
    let state = worker.state.word();
    let mut text = format!("worker {}  generation {}{beat}  {state}{why}\n", worker.pid, worker.generation);
    if let Some(requests) = &worker.requests {
        let _ = writeln!(text, "  {}", number(requests.len() as u64 + worker.requests_left_out, "open request"));
        text.extend(requests.iter().map(line_of));
        text += &more(worker.requests_left_out, "younger");
    }
    if let Some(tasks) = worker.tasks {
        let _ = writeln!(text, "  {}", number(tasks, "task"));
        text += &more(worker.tasks_not_looked_at, "not looked at, which would have taken too long");
        text.extend(worker.task_stacks.iter().map(lines_of_tasks));
        text += &more(worker.task_stacks_left_out, "different stacks");
    }
    if !worker.threads.is_empty() {
        let _ = writeln!(text, "  {}", number(worker.threads.len() as u64, "thread"));
        text.extend(worker.threads.iter().map(lines_of_thread));
        text += if worker.threads_left_out { "    and more threads\n" } else { "" };
    }
    text
}

fn line_of(request: &OpenRequest) -> String {
    let OpenRequest { method, path, age_seconds, task, thread } = request;
    let age = age_seconds.map_or_else(String::new, |age| format!("  {age:.1}s"));
    let place = task.as_ref().map(|name| format!("  in {name}"));
    let place = place.or_else(|| thread.as_ref().map(|id| format!("  in thread {id}")));
    format!("    {} {}{age}{}\n", plain(method), plain(path), plain(&place.unwrap_or_default()))
}

fn lines_of_tasks(stack: &TaskStack) -> String {
    let TaskStack { count, names, waits_for, .. } = stack;
    let several = if *count > 1 { format!("{count} tasks: ") } else { String::new() };
    let more = if *count > names.len() as u64 { ", …" } else { "" };
    let waits =
        if waits_for.is_empty() { String::new() } else { format!(", waiting for {}", plain(&waits_for.join(", "))) };
    let mut text = format!("    {several}{}{more}{waits}\n", plain(&names.join(", ")));
    if stack.left_out > 0 {
        let _ = writeln!(text, "      [{} left out]", number(stack.left_out, "frame"));
    }
    text + &lines_of_frames(&stack.frames, "      ")
}

fn lines_of_thread(thread: &ThreadStack) -> String {
    let name = thread.name.as_ref().map_or_else(String::new, |name| format!("{} ", plain(name)));
    let cut = if thread.is_cut { "      [more frames left out]\n" } else { "" };
    format!("    {name}{}\n{cut}{}", thread.id, lines_of_frames(&thread.frames, "      "))
}

/// A line for each frame, as Python writes it.
pub(in crate::control) fn lines_of_frames(frames: &[Frame], indent: &str) -> String {
    let line = |frame: &Frame| {
        format!("{indent}File \"{}\", line {}, in {}\n", plain(&frame.file), frame.line, plain(&frame.function))
    };
    frames.iter().map(line).collect()
}

fn more(count: u64, what: &str) -> String {
    if count == 0 { String::new() } else { format!("    and {count} more ({what})\n") }
}

fn number(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A text for a terminal, which must not obey it.
fn plain(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}
