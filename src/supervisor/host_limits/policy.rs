//! When a changed limit is applied. Pure: the input is the limits of the plan and the current ones.

use std::time::{Duration, Instant};

use crate::ids::GenerationId;

/// If no limit has changed for this long, it has its new value: quota and period are written one after the other.
const SETTLED: Duration = Duration::from_secs(2);
/// If limits keep changing, they are checked after this long.
const UNSETTLED: Duration = Duration::from_secs(10);
/// The interval between two adjustments. After one that failed, it doubles each time, up to the longest.
pub const APART: Duration = Duration::from_mins(1);
const LONGEST: Duration = Duration::from_hours(1);
/// Before a worker is asked to end: time in which its clients notice that it leaves.
const LEAVES: Duration = Duration::from_secs(2);

/// A number of workers, and its limits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sized {
    /// The number of workers.
    pub workers: u32,
    /// The cores that can be used.
    pub cores: f64,
    /// The memory limit in bytes.
    pub memory: Option<u64>,
    /// Whether the number follows from the limits.
    pub is_computed: bool,
}

impl Sized {
    fn has_less_memory_than(&self, other: &Self) -> bool {
        self.memory.is_some_and(|memory| other.memory.is_none_or(|before| memory < before))
    }

    fn has_limits_of(&self, other: &Self) -> bool {
        (self.cores, self.memory) == (other.cores, other.memory)
    }
}

/// The generation that serves, as far as a smaller memory limit is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serving {
    /// Which.
    pub generation: GenerationId,
    /// Whether workers can be taken from it one by one.
    pub is_resizable: bool,
}

/// The result of a check of the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Keep,
    /// The number of workers is to be adjusted, by a reload.
    Adjust,
    /// There is less memory: so many workers are to be taken away first, which needs no memory, as a reload does.
    TakeAway(u32),
    /// The number was set and does not change, which is to be reported.
    Report,
}

/// When the limits are checked, and what was done about them.
#[derive(Debug, Default)]
pub struct Follower {
    /// When the next check is due, and since when there have been changes.
    due: Option<(Instant, Instant)>,
    /// The last adjustment.
    adjusted: Option<Adjusted>,
    /// The limits that were reported last.
    reported: Option<Sized>,
    /// The generation from which workers were taken away, and how many were left to it.
    left: Option<(GenerationId, u32)>,
}

#[derive(Debug, Clone, Copy)]
struct Adjusted {
    to: Sized,
    at: Instant,
    pause: Duration,
}

impl Follower {
    /// A limit was written to.
    pub fn changed(&mut self, now: Instant) {
        let since = self.due.map_or(now, |(_, since)| since);
        self.due = Some(((now + SETTLED).min(since + UNSETTLED), since));
    }

    /// When the next check is due.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.due.map(|(at, _)| at)
    }

    /// Whether a check is due, which is then taken.
    pub fn take_due(&mut self, now: Instant) -> bool {
        self.due.take_if(|(at, _)| *at <= now).is_some()
    }

    /// Makes a check due at this time.
    pub fn look_at(&mut self, at: Instant) {
        self.due = Some((at, at));
    }

    /// Compares the limits of the plan with the current ones.
    pub fn judge(&mut self, serving: Serving, in_force: &Sized, found: &Sized, now: Instant) -> Verdict {
        let taken_from = self.left.filter(|(generation, _)| *generation == serving.generation);
        self.left = taken_from;
        let has_all = taken_from.is_none();
        if found.has_limits_of(in_force) && has_all {
            self.reported = None;
            return Verdict::Keep;
        }
        if !found.is_computed {
            let is_new = self.reported.is_none_or(|reported| !reported.has_limits_of(found));
            self.reported = Some(*found);
            return if is_new { Verdict::Report } else { Verdict::Keep };
        }
        let running = taken_from.map_or(in_force.workers, |(_, left)| left);
        if serving.is_resizable && found.workers < running && found.has_less_memory_than(in_force) {
            self.left = Some((serving.generation, found.workers));
            return Verdict::TakeAway(running - found.workers);
        }
        if found.workers == in_force.workers && has_all {
            return Verdict::Keep;
        }
        if let Some(last) = self.adjusted.filter(|last| now < last.at + last.pause) {
            self.look_at(last.at + last.pause);
            return Verdict::Keep;
        }
        let pause = match self.adjusted.filter(|last| last.to == *found) {
            Some(failed) => (failed.pause * 2).min(LONGEST),
            None => APART,
        };
        self.adjusted = Some(Adjusted { to: *found, at: now, pause });
        // If the adjustment fails, it is tried again.
        self.look_at(now + pause);
        Verdict::Adjust
    }
}

/// Workers that are being taken away, one by one.
#[derive(Debug, Clone, Copy)]
pub struct Removal {
    /// From which generation.
    pub generation: GenerationId,
    /// How many it had when the current one was asked to leave, and how many more are to leave after that.
    had: usize,
    more: u32,
    progress: Removing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Removing {
    /// Its oldest worker is to leave.
    Begin,
    /// That was asked to leave, and closes its connections.
    Leaving { until: Instant },
    /// The main process was asked to end it.
    Ending { until: Instant },
}

/// The next step of a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Ask the oldest worker to leave.
    Retire,
    /// Have the main process end it.
    End,
    /// Nothing at the moment.
    Wait,
    /// All are gone.
    Done,
}

impl Removal {
    /// The removal of so many workers.
    #[must_use]
    pub const fn new(generation: GenerationId, workers: u32) -> Self {
        Self { generation, had: 0, more: workers, progress: Removing::Begin }
    }

    /// When the next step is due even if no worker ends.
    #[must_use]
    pub const fn next(&self) -> Option<Instant> {
        match self.progress {
            Removing::Begin => None,
            Removing::Leaving { until } | Removing::Ending { until } => Some(until),
        }
    }

    /// The next step, if the generation has so many workers, which may take so long to finish their requests.
    pub fn step(&mut self, workers: usize, grace: Duration, now: Instant) -> Step {
        match self.progress {
            Removing::Begin if self.more == 0 => Step::Done,
            Removing::Begin => {
                self.more -= 1;
                self.had = workers;
                self.progress = Removing::Leaving { until: now + LEAVES.min(grace / 2) };
                Step::Retire
            }
            Removing::Leaving { until } if until <= now => {
                self.progress = Removing::Ending { until: now + grace };
                Step::End
            }
            Removing::Ending { until } if workers < self.had || until <= now => {
                self.progress = Removing::Begin;
                self.step(workers, grace, now)
            }
            Removing::Leaving { .. } | Removing::Ending { .. } => Step::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_time::start;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    const SERVING: Serving = Serving { generation: GenerationId(1), is_resizable: true };

    fn computed(cores: f64) -> Sized {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let workers = cores.max(1.0) as u32;
        Sized { workers, cores, memory: None, is_computed: true }
    }

    #[test]
    fn a_change_is_looked_at_once_it_has_settled_and_one_that_never_does_after_a_while() {
        let (mut follower, start) = (Follower::default(), start());
        assert_eq!(follower.next(), None, "nothing to wait for");
        follower.changed(start);
        follower.changed(start + SECOND);
        assert_eq!(follower.next(), Some(start + SECOND + SETTLED));
        (2..20).for_each(|second| follower.changed(start + SECOND * second));
        assert_eq!(follower.next(), Some(start + UNSETTLED));
        assert!(follower.take_due(start + UNSETTLED) && follower.next().is_none());
    }

    #[test]
    fn a_computed_number_is_adjusted_at_most_once_a_minute() {
        let (mut follower, start) = (Follower::default(), start());
        assert_eq!(follower.judge(SERVING, &computed(1.0), &computed(1.0), start), Verdict::Keep);
        assert_eq!(follower.judge(SERVING, &computed(1.0), &computed(2.0), start), Verdict::Adjust);
        assert_eq!(follower.judge(SERVING, &computed(2.0), &computed(1.0), start + SECOND), Verdict::Keep);
        assert_eq!(follower.next(), Some(start + APART));
        assert_eq!(follower.judge(SERVING, &computed(2.0), &computed(1.0), start + APART), Verdict::Adjust);
    }

    #[test]
    fn an_adjustment_that_fails_is_tried_again_less_and_less_often() {
        let (mut follower, mut now) = (Follower::default(), start());
        let mut pauses = Vec::new();
        for _ in 0..8 {
            assert_eq!(follower.judge(SERVING, &computed(1.0), &computed(2.0), now), Verdict::Adjust);
            let next = follower.next().unwrap();
            pauses.push((next - now).as_secs() / 60);
            now = next;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn a_number_that_was_set_stays_which_is_reported_once_for_each_limit() {
        let (mut follower, now) = (Follower::default(), start());
        let set = |cores| Sized { is_computed: false, workers: 4, ..computed(cores) };
        let verdicts = [2.0, 2.0, 1.0, 4.0, 2.0].map(|cores| follower.judge(SERVING, &set(4.0), &set(cores), now));
        assert_eq!(verdicts, [Verdict::Report, Verdict::Keep, Verdict::Report, Verdict::Keep, Verdict::Report]);
    }

    /// A worker for each 100 bytes.
    fn fitting(memory: u64) -> Sized {
        let workers = u32::try_from(memory / 100).unwrap();
        Sized { workers, cores: 4.0, memory: Some(memory), is_computed: true }
    }

    #[test]
    fn less_memory_takes_workers_away_before_a_reload_that_makes_it_last() {
        let (mut follower, start) = (Follower::default(), start());
        let mut judge =
            |serving, in_force, found, now| follower.judge(serving, &fitting(in_force), &fitting(found), now);
        assert_eq!(judge(SERVING, 400, 200, start), Verdict::TakeAway(2));
        assert_eq!(judge(SERVING, 400, 100, start + SECOND), Verdict::TakeAway(1), "even less");
        assert_eq!(judge(SERVING, 400, 100, start + SECOND * 2), Verdict::Adjust);
        let next = Serving { generation: GenerationId(2), ..SERVING };
        assert_eq!(judge(next, 100, 100, start + SECOND * 9), Verdict::Keep);
        assert_eq!(judge(next, 100, 400, start + APART * 2), Verdict::Adjust, "more of them need a reload");
    }

    #[test]
    fn workers_that_were_taken_away_come_back_with_the_memory() {
        let (mut follower, start) = (Follower::default(), start());
        assert_eq!(follower.judge(SERVING, &fitting(400), &fitting(200), start), Verdict::TakeAway(2));
        assert_eq!(follower.judge(SERVING, &fitting(400), &fitting(400), start + SECOND), Verdict::Adjust);
    }

    #[test]
    fn where_none_can_be_taken_away_and_with_fewer_cores_there_is_a_reload() {
        let fixed = Serving { is_resizable: false, ..SERVING };
        assert_eq!(Follower::default().judge(fixed, &fitting(400), &fitting(200), start()), Verdict::Adjust);
        assert_eq!(Follower::default().judge(SERVING, &computed(4.0), &computed(2.0), start()), Verdict::Adjust);
        let fewer_cores = Sized { workers: 2, cores: 2.0, ..fitting(400) };
        assert_eq!(Follower::default().judge(SERVING, &fitting(400), &fewer_cores, start()), Verdict::Adjust);
    }

    #[test]
    fn the_next_one_leaves_when_the_one_before_has_ended_or_has_had_its_time() {
        let (mut removal, start, grace) = (Removal::new(GenerationId(1), 2), start(), SECOND * 10);
        assert_eq!(removal.step(8, grace, start), Step::Retire);
        assert_eq!(removal.step(8, grace, start + SECOND), Step::Wait, "its clients notice it");
        assert_eq!(removal.step(8, grace, start + LEAVES), Step::End);
        assert_eq!(removal.step(8, grace, start + LEAVES + SECOND), Step::Wait, "it finishes its requests");
        let now = start + LEAVES + SECOND * 2;
        assert_eq!(removal.step(7, grace, now), Step::Retire, "it has ended");
        assert_eq!(removal.step(7, grace, now + LEAVES), Step::End);
        assert_eq!(removal.step(7, grace, now + LEAVES + grace / 2), Step::Wait);
        assert_eq!(removal.step(7, grace, now + LEAVES + grace), Step::Done, "it has had its time");
    }

    #[test]
    fn with_a_short_grace_its_clients_have_half_of_it_to_notice() {
        let (mut removal, start) = (Removal::new(GenerationId(1), 1), start());
        assert_eq!(removal.step(8, LEAVES, start), Step::Retire);
        assert_eq!(removal.step(8, LEAVES, start + LEAVES / 2), Step::End);
    }

    proptest! {
        #[test]
        fn workers_are_taken_away_one_by_one(number in 0..6_u32, are_prompt: bool) {
            let (mut removal, mut now) = (Removal::new(GenerationId(1), number), start());
            let (mut workers, mut retired, mut ended) = (8, 0, 0);
            for _ in 0..1000 {
                match removal.step(workers, SECOND * 10, now) {
                    Step::Retire => retired += 1,
                    Step::End => {
                        ended += 1;
                        workers -= usize::from(are_prompt);
                    }
                    Step::Wait => now = removal.next().unwrap(),
                    Step::Done => break,
                }
                prop_assert!(ended <= retired && retired <= ended + 1);
            }
            prop_assert_eq!((retired, ended), (number, number));
        }

        #[test]
        fn limits_that_flap_are_followed_rarely_and_the_last_one_in_the_end(
            changes in prop::collection::vec((1..20_u64, 1..5_u32), 1..100),
        ) {
            let (mut follower, mut now) = (Follower::default(), start());
            let (mut in_force, mut limit, mut adjusted) = (computed(1.0), 1.0, Vec::new());
            let mut look = |follower: &mut Follower, now: Instant, limit: f64| {
                if follower.take_due(now) && follower.judge(SERVING, &in_force, &computed(limit), now) == Verdict::Adjust {
                    adjusted.push(now);
                    in_force = computed(limit);
                }
                in_force
            };
            for (seconds, cores) in changes {
                for _ in 0..seconds {
                    now += SECOND;
                    look(&mut follower, now, limit);
                }
                limit = f64::from(cores);
                follower.changed(now);
            }
            let mut last = computed(1.0);
            for _ in 0..80 {
                now += SECOND;
                last = look(&mut follower, now, limit);
            }
            prop_assert_eq!(last, computed(limit));
            prop_assert!(adjusted.windows(2).all(|pair| pair[1] - pair[0] >= APART));
        }
    }
}
