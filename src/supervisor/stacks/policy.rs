//! When a worker that was asked what it is doing has answered, and what follows if it has not. Pure.
//!
//! Each is asked in two ways at once: by a signal, on which its interpreter writes where its threads are, and by a number
//! in shared memory, which it notices with its next heartbeat and answers with what else there is to tell. Workers that
//! work answer both within half a second, and one whose event loop is blocked by Python code the first. One whose
//! interpreter stands still gets another signal, whose handler needs no interpreter: it could crash a worker if it looked at
//! a thread in which Python runs.

use std::time::Duration;

/// How long workers have for both of their answers.
pub const PATIENCE: Duration = Duration::from_millis(700);
/// How long they have if nobody waits for what only the interpreter knows.
pub const BRIEFLY: Duration = Duration::from_millis(400);
/// How long the interpreter has for the signal, if its main thread does not run.
const NOTICES_WITHIN: Duration = Duration::from_millis(50);
/// With so much time on a processor, an interpreter that executes Python code would have noticed the signal.
const ENOUGH_CPU: Duration = Duration::from_millis(50);
/// Threads that have not run for so long are not running.
const QUIET: Duration = Duration::from_millis(30);
/// A thread that waits for the interpreter looks for it every 5 ms (`sys.getswitchinterval`), and gets it soon from one that
/// executes Python code.
const WAITS: u64 = 6;
/// A heartbeat with a thread of its own that is so late is waiting for the interpreter.
const LATE: Duration = Duration::from_secs(1);

/// What is known of a worker's interpreter that has not reacted to a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Interpreter {
    /// How long its main thread has not been running, the last time.
    pub asleep: Duration,
    /// How long its main thread has run since the question.
    pub cpu: Duration,
    /// How often its main thread has waited since the question.
    pub waits: u64,
    /// How long no other thread has run, the last time.
    pub others_asleep: Duration,
    /// The age of the heartbeat, if that has a thread of its own.
    pub heartbeat: Option<Duration>,
}

/// The threads that certainly do not execute Python code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Still {
    /// All.
    All,
    /// The main thread: it is in code in C.
    Main,
}

impl Interpreter {
    /// Which threads stand still, so long after the question; none if that is not known.
    #[must_use]
    pub fn still(&self, since: Duration) -> Option<Still> {
        if let Some(age) = self.heartbeat {
            // It gets the interpreter unless somebody keeps it in code in C.
            return (age >= LATE).then_some(Still::All);
        }
        let is_still = self.asleep >= QUIET || self.cpu >= ENOUGH_CPU;
        if since < NOTICES_WITHIN || !is_still {
            return None;
        }
        let waits_for_interpreter = self.asleep >= QUIET && self.waits >= WAITS;
        Some(if waits_for_interpreter || self.others_asleep >= QUIET { Still::All } else { Still::Main })
    }
}

/// What is seen of a worker that was asked.
#[allow(clippy::struct_excessive_bools, reason = "each is an observation of its own")]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sample {
    /// Whether its process has ended.
    pub is_gone: bool,
    /// Whether it is stopped by a signal, so that it cannot answer.
    pub is_stopped: bool,
    /// Whether the guard is in it, and has told where it answers.
    pub can_answer: bool,
    /// Whether it has a handler for one of the signals.
    pub takes_signal: bool,
    /// Whether it has written where its threads are.
    pub has_dumped: bool,
    /// Whether its interpreter has answered.
    pub has_answered: bool,
}

/// How a worker took the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Both of its answers are there.
    Running,
    /// Only a signal handler has answered: its event loop, or its interpreter, stands still.
    Blocked,
    /// It is stopped by a signal.
    Stopped,
    /// It has ended.
    Ended,
    /// It has not answered within the time that it had.
    Silent,
    /// It cannot answer: the guard is not in it, or has not begun.
    Unreachable,
}

/// The state of a worker that was asked so long ago and has so long to answer; none if it is too early to tell.
#[must_use]
pub fn judge(sample: Sample, since: Duration, patience: Duration) -> Option<State> {
    let is_late = since >= patience;
    match (sample.has_dumped || !sample.takes_signal, sample.has_answered) {
        _ if sample.is_gone => Some(State::Ended),
        _ if !sample.can_answer => Some(State::Unreachable),
        (true, true) => Some(State::Running),
        _ if sample.is_stopped => Some(State::Stopped),
        _ if !is_late => None,
        (_, true) => Some(State::Running),
        _ if sample.has_dumped => Some(State::Blocked),
        _ => Some(State::Silent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_may_be_executing_python_code_is_not_looked_at() {
        let (soon, later, none) = (NOTICES_WITHIN / 2, PATIENCE, Interpreter::default());
        let asleep = Interpreter { asleep: QUIET, ..none };
        let busy = Interpreter { cpu: ENOUGH_CPU, ..none };
        for (interpreter, at_once, at_last) in [
            (none, None, None),
            (
                Interpreter { asleep: QUIET / 2, cpu: ENOUGH_CPU / 2, waits: WAITS, others_asleep: QUIET, ..none },
                None,
                None,
            ),
            (asleep, None, Some(Still::Main)),
            (busy, None, Some(Still::Main)),
            (Interpreter { others_asleep: QUIET, ..asleep }, None, Some(Still::All)),
            (Interpreter { others_asleep: QUIET, ..busy }, None, Some(Still::All)),
            (Interpreter { waits: WAITS, ..asleep }, None, Some(Still::All)),
            (Interpreter { asleep: QUIET, others_asleep: QUIET, heartbeat: Some(LATE / 2), ..none }, None, None),
            (Interpreter { heartbeat: Some(LATE), ..none }, Some(Still::All), Some(Still::All)),
        ] {
            assert_eq!((interpreter.still(soon), interpreter.still(later)), (at_once, at_last), "{interpreter:?}");
        }
    }

    #[test]
    fn nobody_is_waited_for_who_cannot_answer_and_nobody_for_ever() {
        let asked = Sample { can_answer: true, takes_signal: true, ..Sample::default() };
        let (soon, late) = (Duration::from_millis(50), PATIENCE);
        for (sample, early, at_last) in [
            (asked, None, State::Silent),
            (Sample { is_gone: true, ..asked }, Some(State::Ended), State::Ended),
            (Sample { can_answer: false, ..asked }, Some(State::Unreachable), State::Unreachable),
            (Sample { is_stopped: true, ..asked }, Some(State::Stopped), State::Stopped),
            (Sample { has_dumped: true, ..asked }, None, State::Blocked),
            (Sample { has_answered: true, ..asked }, None, State::Running),
            (Sample { has_answered: true, takes_signal: false, ..asked }, Some(State::Running), State::Running),
            (Sample { has_answered: true, has_dumped: true, ..asked }, Some(State::Running), State::Running),
        ] {
            assert_eq!(
                (judge(sample, soon, PATIENCE), judge(sample, late, PATIENCE)),
                (early, Some(at_last)),
                "{sample:?}"
            );
        }
    }
}
