//! What a worker reports besides the fields of its slot: its memory, and the requests that were open at its last
//! heartbeat. It is read when the worker has ended. `report.py` writes it.

use std::time::Duration;

use super::{Scoreboard, Slot};

/// The space of each worker.
pub const SPACE: usize = 4096;
/// Where the two halves for texts begin, of which one is written while the other one is valid.
pub const HALVES: usize = 40;
/// The size of each, including the field for the length of its text.
pub const HALF: usize = (SPACE - HALVES) / 2;

/// What a worker reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its memory, if it could be told.
    pub memory: Option<Memory>,
    /// The oldest requests that were open, the oldest first. Event streams and web sockets are not among them.
    pub requests: Vec<OpenRequest>,
}

/// Memory of a worker, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Resident, shared pages included.
    pub resident: u64,
    /// The most that was ever resident.
    pub peak: u64,
    /// How much the former has grown per minute, over the last five minutes, if it lived for half a minute.
    pub growth: Option<i64>,
}

/// A request that was open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenRequest {
    /// The heartbeat before which it began, on the clock of [`now`](super::now).
    pub began: Duration,
    /// Its method.
    pub method: String,
    /// Its path, without the query and without what may be a secret.
    pub path: String,
}

impl Report {
    /// What the space contains.
    #[must_use]
    pub fn new(resident: u64, peak: u64, growth: i64, text: &[u8]) -> Self {
        let growth = Some(growth).filter(|growth| *growth != i64::MIN);
        let memory = (resident > 0).then_some(Memory { resident, peak, growth });
        Self { memory, requests: text.split(|byte| *byte == b'\n').filter_map(request).collect() }
    }
}

impl Scoreboard {
    /// What the worker with this slot last reported in words, if no other one has taken its slot since.
    #[must_use]
    pub fn report(&self, slot: &Slot) -> Option<Report> {
        self.slot(slot.index).filter(|now| (now.pid, now.claimed) == (slot.pid, slot.claimed))?;
        let at = self.space(slot.index);
        let half = match self.memory.word(at) {
            valid @ (1 | 2) => Some(at + HALVES + HALF * (valid as usize - 1)),
            _ => None,
        };
        let text = half.map(|half| self.text(half, HALF)).unwrap_or_default();
        let [resident, peak, growth] = [8, 16, 24].map(|offset| self.memory.long(at + offset));
        Some(Report::new(resident, peak, growth.cast_signed(), &text))
    }

    /// Where the space for a report begins; the one after the last is the text.
    pub(super) const fn space(&self, index: usize) -> usize {
        self.counts(self.slots) + SPACE * index
    }
}

/// A request in a line. Whatever a worker has written there, nothing but printable characters comes out.
fn request(line: &[u8]) -> Option<OpenRequest> {
    let line: String =
        line.iter().map(|byte| if matches!(byte, b' '..=b'~') { char::from(*byte) } else { '?' }).collect();
    let mut words = line.splitn(3, ' ');
    let began = Duration::from_nanos(words.next()?.parse().ok()?);
    Some(OpenRequest { began, method: words.next()?.to_owned(), path: words.next()?.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests_are_lines_and_unknown_memory_is_none() {
        let report = Report::new(100, 200, -5, b"7000000000 GET /a b\n8000000000 POST /\\xe9\n");
        assert_eq!(report.memory, Some(Memory { resident: 100, peak: 200, growth: Some(-5) }));
        let shown: Vec<_> = report.requests.iter().map(|it| (it.began.as_secs(), &*it.method, &*it.path)).collect();
        assert_eq!(shown, [(7, "GET", "/a b"), (8, "POST", "/\\xe9")]);
        assert_eq!(Report::new(1, 1, i64::MIN, b"").memory.unwrap().growth, None);
        assert_eq!(Report::new(0, 0, i64::MIN, b""), Report { memory: None, requests: Vec::new() });
    }

    proptest! {
        #[test]
        fn whatever_is_written_there_is_printable(text: Vec<u8>) {
            for request in Report::new(1, 1, 1, &text).requests {
                prop_assert!((request.method + &request.path).bytes().all(|byte| matches!(byte, b' '..=b'~')));
            }
        }
    }
}
