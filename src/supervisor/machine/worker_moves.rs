//! One generation replaces another worker by worker, if the memory has no room for both. Pure.
//!
//! It begins when the new generation is ready with one worker next to all of the old one, and never needs more memory
//! than that: TTOU to the old main process, and once that worker's process has ended, TTIN to the new one. There are
//! never fewer workers than before. Both generations serve in the meantime, each on its own socket, and the BPF program
//! distributes new clients in proportion to their workers. Sending all of them to the new one would overload its first
//! worker, and so would the kernel's hash, which gives every socket the same share.
//!
//! A worker that is asked to leave closes connections that it has accepted but not read from yet. So before each TTOU,
//! new clients only go to the new generation, for as long as any generation lingers and until the worker no longer
//! waits for clients (its epoll sets show this). If the new generation fails in between, the old one gets its workers
//! back as soon as the memory of the other is free.

use std::time::{Duration, Instant};

use crate::ids::GenerationId;

/// The workers of a generation, counted from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headcount {
    /// Those whose processes exist, including those that finish their last requests.
    pub alive: u32,
    /// Those that accept new clients.
    pub accepting: u32,
}

/// How long each step may take.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// From sending new clients elsewhere to the end of the next worker.
    pub linger: Duration,
    /// For a worker to finish its requests.
    pub drain: Duration,
    /// For a worker to be ready.
    pub boot: Duration,
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// Send new clients only to the new generation.
    SteerToNew,
    /// Take a worker from the old generation.
    Take,
    /// Distribute new clients among this many workers of each.
    Share {
        /// The number of workers of the old generation.
        old: u32,
        /// The number of workers of the new one.
        new: u32,
    },
    /// End the old generation's worker that is still finishing.
    Hurry,
    /// Give the new generation a worker.
    Give,
    /// The new generation is ready to serve alone: stop the old one.
    Settle,
    /// The new generation cannot take over: keep the old one.
    Abort,
}

/// The progress. Workers are counted by what was requested, not by what is seen: the servers do as requested.
#[derive(Debug)]
pub struct StepwiseReplacement {
    /// The generation that is replaced.
    pub old: GenerationId,
    /// The one that replaces it.
    pub new: GenerationId,
    pace: Pace,
    old_workers: u32,
    new_workers: u32,
    /// How many were taken from the old generation, to be given back if it must continue.
    taken: u32,
    /// How many workers the new generation is to have in the end.
    goal: u32,
    stage: ReplacementStage,
}

#[derive(Debug, Clone, Copy)]
enum ReplacementStage {
    /// New clients go to the new generation.
    Steered {
        until: Instant,
    },
    /// A worker of the old generation was asked to leave.
    Taking {
        deadline: Instant,
        shared: bool,
    },
    /// The new generation was asked to start one more.
    Giving {
        deadline: Instant,
    },
    Over,
}

impl StepwiseReplacement {
    /// The first step. `old` and `new` are the generations with their workers; the new one is ready.
    #[must_use]
    pub fn start(
        old: (GenerationId, u32),
        new: (GenerationId, u32),
        goal: u32,
        pace: Pace,
        now: Instant,
    ) -> (Self, Vec<Move>) {
        let mut steps = Self {
            old: old.0,
            new: new.0,
            pace,
            old_workers: old.1.max(1),
            new_workers: new.1,
            taken: 0,
            goal: goal.max(1),
            stage: ReplacementStage::Over,
        };
        let moves = steps.go_on(now);
        (steps, moves)
    }

    /// The workers that were taken from the old generation.
    #[must_use]
    pub const fn taken(&self) -> u32 {
        self.taken
    }

    /// The old generation's workers and the new one's.
    #[must_use]
    pub const fn workers(&self) -> (u32, u32) {
        (self.old_workers, self.new_workers)
    }

    /// How many workers the new generation is to have in the end.
    #[must_use]
    pub const fn goal(&self) -> u32 {
        self.goal
    }

    /// A change of the number of workers was requested.
    pub fn adjust(&mut self, workers: i32) {
        self.goal = self.goal.saturating_add_signed(workers).max(1);
    }

    /// When something is due even if nothing is seen before.
    #[must_use]
    pub const fn next(&self) -> Option<Instant> {
        match self.stage {
            ReplacementStage::Steered { until } => Some(until),
            ReplacementStage::Taking { deadline, .. } | ReplacementStage::Giving { deadline } => Some(deadline),
            ReplacementStage::Over => None,
        }
    }

    /// Records the number of workers of a generation.
    pub fn seen(&mut self, generation: GenerationId, seen: Headcount, now: Instant) -> Vec<Move> {
        match self.stage {
            ReplacementStage::Taking { deadline, shared } if generation == self.old => {
                let mut moves = Vec::new();
                if !shared && seen.accepting <= self.old_workers {
                    self.stage = ReplacementStage::Taking { deadline, shared: true };
                    moves.push(self.share());
                }
                if seen.alive <= self.old_workers {
                    moves.extend(self.give(now));
                }
                moves
            }
            ReplacementStage::Giving { .. } if generation == self.new && seen.accepting >= self.new_workers => {
                self.go_on(now)
            }
            _ => Vec::new(),
        }
    }

    /// What is due because time has passed.
    pub fn due(&mut self, now: Instant) -> Vec<Move> {
        if self.next().is_none_or(|next| next > now) {
            return Vec::new();
        }
        match self.stage {
            ReplacementStage::Steered { .. } => {
                self.old_workers -= 1;
                self.taken += 1;
                self.stage = ReplacementStage::Taking { deadline: now + self.pace.drain, shared: false };
                vec![Move::Take]
            }
            ReplacementStage::Taking { .. } => {
                let mut moves = vec![Move::Hurry];
                moves.extend(self.give(now));
                moves
            }
            ReplacementStage::Giving { .. } => {
                self.stage = ReplacementStage::Over;
                vec![Move::Abort]
            }
            ReplacementStage::Over => Vec::new(),
        }
    }

    fn share(&self) -> Move {
        Move::Share { old: self.old_workers, new: self.new_workers }
    }

    /// A worker of the old generation has ended, or is as good as ended.
    fn give(&mut self, now: Instant) -> Vec<Move> {
        let share = match self.stage {
            ReplacementStage::Taking { shared: false, .. } => Some(self.share()),
            _ => None,
        };
        self.new_workers += 1;
        self.stage = ReplacementStage::Giving { deadline: now + self.pace.boot };
        share.into_iter().chain([Move::Give]).collect()
    }

    /// The next worker, or the end: the new generation has all the workers that it needs, or all that there were.
    fn go_on(&mut self, now: Instant) -> Vec<Move> {
        if self.old_workers <= 1 || self.new_workers >= self.goal {
            self.stage = ReplacementStage::Over;
            return vec![Move::Settle];
        }
        self.stage = ReplacementStage::Steered { until: now + self.pace.linger };
        vec![Move::SteerToNew]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);
    const PACE: Pace = Pace { linger: SECOND, drain: Duration::from_secs(25), boot: Duration::from_mins(2) };

    /// Two generations that do as requested, and some slower than others.
    struct Pair {
        steps: StepwiseReplacement,
        now: Instant,
        old: Headcount,
        new: Headcount,
        moves: Vec<Move>,
    }

    impl Pair {
        fn new(had: u32, goal: u32) -> Self {
            let now = crate::test_time::start();
            let (steps, first) =
                StepwiseReplacement::start((GenerationId(1), had), (GenerationId(2), 1), goal, PACE, now);
            let all = |count| Headcount { alive: count, accepting: count };
            let mut pair = Self { steps, now, old: all(had), new: all(1), moves: vec![] };
            pair.note(&first);
            pair
        }

        fn note(&mut self, moves: &[Move]) {
            for next in moves {
                match next {
                    Move::Take => self.old.accepting -= 1,
                    Move::Hurry => self.old.alive = self.old.accepting,
                    Move::Give => self.new.alive += 1,
                    _ => {}
                }
            }
            self.moves.extend(moves);
        }

        fn look(&mut self) {
            let moves = self.steps.seen(GenerationId(1), self.old, self.now);
            self.note(&moves);
            let moves = self.steps.seen(GenerationId(2), self.new, self.now);
            self.note(&moves);
        }

        fn pass(&mut self) {
            self.now = self.steps.next().unwrap();
            let moves = self.steps.due(self.now);
            self.note(&moves);
        }

        fn is_over(&self) -> bool {
            matches!(self.moves.last(), Some(Move::Settle | Move::Abort))
        }
    }

    #[test]
    fn two_workers_are_replaced_in_one_step_and_a_retirement() {
        let mut pair = Pair::new(2, 2);
        pair.pass();
        pair.look();
        assert_eq!(pair.moves, [Move::SteerToNew, Move::Take, Move::Share { old: 1, new: 1 }]);
        pair.old.alive = 1;
        pair.look();
        assert_eq!(pair.moves.last(), Some(&Move::Give));
        pair.look();
        assert_eq!(pair.moves.last(), Some(&Move::Give), "the new worker is not ready yet");
        pair.new.accepting = 2;
        pair.look();
        assert_eq!(pair.moves.last(), Some(&Move::Settle));
    }

    #[test]
    fn a_single_worker_is_replaced_by_retirement_alone() {
        assert_eq!(Pair::new(1, 4).moves, [Move::Settle]);
        assert_eq!(Pair::new(4, 1).moves, [Move::Settle]);
    }

    #[test]
    fn a_worker_that_does_not_finish_is_ended_when_its_time_is_up() {
        let mut pair = Pair::new(3, 3);
        pair.pass();
        let asked = pair.now;
        pair.look();
        pair.pass();
        assert_eq!(pair.now, asked + PACE.drain);
        assert_eq!(&pair.moves[3..], [Move::Hurry, Move::Give]);
    }

    #[test]
    fn a_new_worker_that_does_not_come_ends_it() {
        let mut pair = Pair::new(3, 3);
        pair.pass();
        pair.old.alive = 2;
        pair.look();
        pair.pass();
        assert_eq!(pair.moves.last(), Some(&Move::Abort));
        assert_eq!((pair.steps.taken(), pair.steps.next()), (1, None));
    }

    proptest! {
        #[test]
        fn there_is_never_more_than_one_worker_too_many_and_never_one_too_few(
            had in 1..12_u32, goal in 1..12_u32, slow in prop::collection::vec(any::<(bool, bool, bool)>(), 200),
        ) {
            let mut pair = Pair::new(had, goal);
            for (time, drained, booted) in slow {
                if pair.is_over() { break; }
                if time && pair.steps.next().is_some() && !matches!(pair.steps.stage, ReplacementStage::Giving { .. }) { pair.pass(); }
                if drained { pair.old.alive = pair.old.accepting; }
                if booted { pair.new.accepting = pair.new.alive; }
                pair.look();
                prop_assert!(pair.old.alive + pair.new.alive <= had + 1, "{:?}", pair.moves);
                prop_assert!(pair.old.accepting + pair.new.accepting >= had, "{:?}", pair.moves);
                prop_assert!(pair.old.accepting >= 1);
            }
            if pair.is_over() {
                prop_assert_eq!(pair.moves.last(), Some(&Move::Settle));
                prop_assert_eq!(pair.steps.workers().1, goal.min(had).max(1));
            }
        }
    }
}
