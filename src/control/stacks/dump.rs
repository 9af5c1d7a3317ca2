//! What Python's faulthandler, and the guard in the same form, write about threads. The form is the same from Python 3.10 on;
//! 3.14 adds a thread's name.

use super::{Frame, ThreadStack};

/// The threads in it. What is not understood is left out.
pub(super) fn threads(text: &str) -> Vec<ThreadStack> {
    let mut threads: Vec<ThreadStack> = Vec::new();
    for line in text.lines() {
        if let Some(id) = head(line) {
            threads.push(ThreadStack { id: id.to_owned(), name: None, frames: Vec::new(), is_cut: false });
        } else if let Some(thread) = threads.last_mut() {
            thread.frames.extend(frame(line));
            thread.is_cut |= line == "  ...";
        }
    }
    // The most recent call is the first one there.
    for thread in &mut threads {
        thread.frames.reverse();
    }
    threads
}

/// The number of the thread that begins with this line: `Current thread 0x00007f0123456789 (most recent call first):`. If
/// there is only the main thread, it has none.
fn head(line: &str) -> Option<&str> {
    if line == "Stack (most recent call first):" {
        return Some("main thread");
    }
    let rest = line.strip_prefix("Current thread ").or_else(|| line.strip_prefix("Thread "))?;
    rest.strip_suffix("(most recent call first):")?.split(' ').next().filter(|id| id.starts_with("0x"))
}

/// `  File "/app/main.py", line 7 in wait`
fn frame(line: &str) -> Option<Frame> {
    let (file, rest) = line.strip_prefix("  File \"")?.rsplit_once("\", line ")?;
    let (number, function) = rest.split_once(" in ")?;
    Some(Frame { file: file.to_owned(), line: number.parse().unwrap_or(0), function: function.to_owned() })
}
