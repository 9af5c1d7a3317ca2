//! How a generation is stopped: TERM to its main process, TERM to what is left, KILL. Pure.

use std::time::{Duration, Instant};

/// The timetable of a generation's stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopSequence {
    /// When the main process gets TERM.
    ask_at: Instant,
    /// When the processes that the main process has not ended get TERM themselves.
    rest_at: Instant,
    /// When everything gets KILL.
    kill_at: Instant,
    /// When we stop waiting even for processes that KILL does not end (in an uninterruptible sleep).
    abandon_at: Instant,
    done: Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Done {
    Nothing,
    Asked,
    AskedRest,
    Killed,
    Abandoned,
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopStep {
    /// TERM to the main process.
    Ask,
    /// TERM to every process but the main one.
    AskRest,
    /// KILL to every process.
    Kill,
    /// Continue as if it had ended.
    Abandon,
}

/// How much of the budget is reserved for the last two steps, unless the budget is very short.
const REST_MARGIN: Duration = Duration::from_secs(1);
const KILL_MARGIN: Duration = Duration::from_millis(400);
/// How long the processes that the main process leaves behind may take: they have no requests to finish.
const LEFT_BEHIND: Duration = Duration::from_secs(2);
/// A killed process ends at once unless the kernel prevents it.
const ABANDON_AFTER: Duration = Duration::from_secs(5);

impl StopSequence {
    /// The timetable for a generation that has just been asked to stop and must have ended at `deadline`.
    #[must_use]
    pub fn new(now: Instant, deadline: Instant) -> Self {
        Self { done: Done::Asked, ..Self::lingering(now, now, deadline) }
    }

    /// The timetable for a generation that continues until `ask_at` with the connections that it has.
    #[must_use]
    pub fn lingering(now: Instant, ask_at: Instant, deadline: Instant) -> Self {
        let budget = deadline.saturating_duration_since(now);
        let before = |margin: Duration| deadline.checked_sub(margin.min(budget / 4)).unwrap_or(deadline);
        let kill_at = before(KILL_MARGIN);
        Self {
            ask_at: ask_at.min(kill_at),
            rest_at: before(REST_MARGIN).min(kill_at),
            kill_at,
            abandon_at: kill_at + ABANDON_AFTER,
            done: Done::Nothing,
        }
    }

    /// No more waiting.
    pub fn hurry(&mut self, now: Instant) {
        self.ask_at = self.ask_at.min(now);
        self.rest_at = self.rest_at.min(now);
        self.kill_at = self.kill_at.min(now);
        self.abandon_at = self.abandon_at.min(now + ABANDON_AFTER);
    }

    /// The timetable for processes that have lost their main process and serve: they are asked now, and have the whole
    /// time to finish their requests.
    #[must_use]
    pub fn orphaned(now: Instant, deadline: Instant) -> Self {
        Self { rest_at: now, ..Self::new(now, deadline) }
    }

    /// The main processes have ended: the others are asked now, and have the rest of the time.
    pub fn ask_rest(&mut self, now: Instant) {
        self.done = self.done.max(Done::Asked);
        self.rest_at = self.rest_at.min(now);
    }

    /// The main process has ended as requested: the processes that it left behind are asked now, and have a short time.
    pub fn main_ended(&mut self, now: Instant) {
        self.ask_rest(now);
        self.kill_at = self.kill_at.min(now + LEFT_BEHIND);
        self.abandon_at = self.abandon_at.min(self.kill_at + ABANDON_AFTER);
    }

    /// Whether the main process has been asked already.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.done >= Done::Asked
    }

    /// When the next step is due; none if there is none.
    #[must_use]
    pub const fn next(&self) -> Option<Instant> {
        match self.done {
            Done::Nothing => Some(self.ask_at),
            Done::Asked => Some(self.rest_at),
            Done::AskedRest => Some(self.kill_at),
            Done::Killed => Some(self.abandon_at),
            Done::Abandoned => None,
        }
    }

    /// Whether KILL was needed.
    #[must_use]
    pub fn killed(&self) -> bool {
        self.done >= Done::Killed
    }

    /// The step that is due.
    pub fn due(&mut self, now: Instant) -> Option<StopStep> {
        let (at, next, step) = match self.done {
            Done::Nothing => (self.ask_at, Done::Asked, StopStep::Ask),
            Done::Asked => (self.rest_at, Done::AskedRest, StopStep::AskRest),
            Done::AskedRest => (self.kill_at, Done::Killed, StopStep::Kill),
            Done::Killed => (self.abandon_at, Done::Abandoned, StopStep::Abandon),
            Done::Abandoned => return None,
        };
        (at <= now).then(|| {
            self.done = next;
            step
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When this step comes, after those before it.
    fn comes(leave: &mut StopSequence, wanted: StopStep) -> Instant {
        loop {
            let at = leave.next().expect("it has not come yet");
            if leave.due(at).expect("it is due") == wanted {
                return at;
            }
        }
    }

    #[test]
    fn the_steps_come_in_order_and_inside_the_budget() {
        let now = crate::test_time::start();
        for budget in [1, 100, 2_000, 25_000].map(Duration::from_millis) {
            let mut leave = StopSequence::new(now, now + budget);
            let mut steps = Vec::new();
            while let Some(at) = leave.next() {
                let step = leave.due(at).expect("it is due");
                assert!(step == StopStep::Abandon || at <= now + budget, "{step:?} is late for {budget:?}");
                steps.push(step);
            }
            assert_eq!(steps, [StopStep::AskRest, StopStep::Kill, StopStep::Abandon]);
        }
    }

    #[test]
    fn a_short_budget_is_left_to_the_main_process_for_the_most_part() {
        let now = crate::test_time::start();
        let leave = StopSequence::new(now, now + Duration::from_millis(400));
        assert!(leave.next() >= Some(now + Duration::from_millis(300)));
    }

    #[test]
    fn what_kill_does_not_end_is_given_up_five_seconds_later() {
        let now = crate::test_time::start();
        let leave = StopSequence::new(now, now + Duration::from_secs(25));
        let (mut main_ended, mut hurried) = (leave.clone(), leave.clone());
        main_ended.main_ended(now);
        hurried.hurry(now);
        for mut leave in [leave, main_ended, hurried] {
            let killed = comes(&mut leave, StopStep::Kill);
            assert_eq!(comes(&mut leave, StopStep::Abandon), killed + ABANDON_AFTER);
        }
    }

    #[test]
    fn it_tells_whether_the_main_process_was_asked_and_whether_kill_was_needed() {
        let now = crate::test_time::start();
        let mut leave = StopSequence::lingering(now, now + Duration::from_secs(1), now + Duration::from_secs(25));
        assert_eq!((leave.is_asked(), leave.killed()), (false, false));
        for (step, is_killed) in [(StopStep::Ask, false), (StopStep::AskRest, false), (StopStep::Kill, true)] {
            comes(&mut leave, step);
            assert_eq!((leave.is_asked(), leave.killed()), (true, is_killed), "{step:?}");
        }
    }

    #[test]
    fn one_that_lingers_is_asked_later_and_ends_as_early() {
        let now = crate::test_time::start();
        let mut leave = StopSequence::lingering(now, now + Duration::from_secs(1), now + Duration::from_secs(25));
        assert_eq!(leave.due(now), None);
        assert_eq!(leave.next(), Some(now + Duration::from_secs(1)));
        assert_eq!(leave.due(now + Duration::from_secs(1)), Some(StopStep::Ask));
        assert!(leave.next() < Some(now + Duration::from_secs(25)));
    }

    #[test]
    fn what_the_main_process_leaves_behind_has_two_seconds_and_not_the_whole_budget() {
        let now = crate::test_time::start();
        let mut leave = StopSequence::new(now, now + Duration::from_secs(25));
        leave.main_ended(now);
        assert_eq!(leave.due(now), Some(StopStep::AskRest));
        assert_eq!(leave.next(), Some(now + Duration::from_secs(2)));
        let mut orphans = StopSequence::orphaned(now, now + Duration::from_secs(25));
        assert_eq!(orphans.due(now), Some(StopStep::AskRest));
        assert!(orphans.next() > Some(now + Duration::from_secs(20)), "they serve");
    }

    #[test]
    fn hurry_kills_now() {
        let now = crate::test_time::start();
        let mut leave = StopSequence::new(now, now + Duration::from_secs(25));
        assert_eq!(leave.due(now), None);
        leave.hurry(now);
        assert_eq!(leave.due(now), Some(StopStep::AskRest));
        assert_eq!(leave.due(now), Some(StopStep::Kill));
        assert!(leave.killed());
    }
}
