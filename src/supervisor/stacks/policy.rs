//! When a worker that was asked what it is doing has answered, and what follows if it has not. Pure.
//!
//! Each is asked in two ways at once: by a signal, on which its interpreter writes where its threads are, and by a number
//! in shared memory, which it notices with its next heartbeat and answers with what else there is to tell. Workers that
//! work answer both within half a second, and one whose event loop is blocked by Python code the first. One whose
//! interpreter stands still gets another signal, whose handler needs no interpreter; it could crash a worker in which
//! Python runs.

use std::time::Duration;

/// How long workers have for both of their answers.
pub const PATIENCE: Duration = Duration::from_millis(700);
/// How long they have if nobody waits for what only the interpreter knows.
pub const BRIEFLY: Duration = Duration::from_millis(400);
/// How long the interpreter has for the signal, if its main thread does not run.
const NOTICES_WITHIN: Duration = Duration::from_millis(50);
/// In so many looks one after the other the main thread was not running.
const LOOKS: u32 = 3;
/// With so much time on a processor, an interpreter that executes Python code would have noticed the signal.
const ENOUGH_CPU: Duration = Duration::from_millis(50);
/// A heartbeat with a thread of its own that is so late is waiting for the interpreter.
const LATE: Duration = Duration::from_secs(1);

/// What is known of a worker's interpreter that has not reacted to a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Interpreter {
    /// In how many looks its main thread was not running, the last ones.
    pub asleep: u32,
    /// How long its main thread has run since the question.
    pub cpu: Duration,
    /// The age of the heartbeat, if that has a thread of its own.
    pub heartbeat: Option<Duration>,
}

impl Interpreter {
    /// Whether the interpreter stands still, this long after the question: its main thread is in code in C, or no thread
    /// gets it.
    #[must_use]
    pub fn stands_still(&self, since: Duration) -> bool {
        match self.heartbeat {
            Some(age) => age >= LATE,
            None => since >= NOTICES_WITHIN && (self.asleep >= LOOKS || self.cpu >= ENOUGH_CPU),
        }
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
    fn an_interpreter_that_may_be_running_is_not_interrupted() {
        let (soon, later) = (NOTICES_WITHIN / 2, PATIENCE);
        for (interpreter, at_once, at_last) in [
            (Interpreter::default(), false, false),
            (Interpreter { asleep: LOOKS - 1, cpu: ENOUGH_CPU / 2, heartbeat: None }, false, false),
            (Interpreter { asleep: LOOKS, ..Interpreter::default() }, false, true),
            (Interpreter { cpu: ENOUGH_CPU, ..Interpreter::default() }, false, true),
            // The others may run although the main thread does not.
            (Interpreter { asleep: LOOKS, cpu: ENOUGH_CPU, heartbeat: Some(LATE / 2) }, false, false),
            (Interpreter { heartbeat: Some(LATE), ..Interpreter::default() }, true, true),
        ] {
            assert_eq!((interpreter.stands_still(soon), interpreter.stands_still(later)), (at_once, at_last));
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
