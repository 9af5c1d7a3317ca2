//! Simulated workers, and time that passes only here.

use super::*;

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Habit {
    Works,
    /// Waits for something that does not happen.
    Sleeps,
    /// Uses all the CPU time that it gets.
    Spins,
    Stopped,
    /// Is runnable, and gets no CPU.
    Starves,
    /// Waits until its output is read.
    Writes,
    NeverReady,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Worker {
    pub(super) sample: Sample,
    pub(super) habit: Habit,
    condition: ThreadStats,
}

/// A machine with workers, and a watch over them that runs when it is due.
pub(super) struct World {
    pub(super) now: Duration,
    pub(super) watch: Liveness,
    pub(super) workers: Vec<Worker>,
    planned: usize,
    pub(super) verdicts: Vec<(Duration, Verdict)>,
    pub(super) looks: usize,
    /// How often the kernel was asked about a worker.
    pub(super) asked: usize,
    pub(super) boot: Duration,
    births: u64,
}

impl World {
    pub(super) fn new(habits: &[Habit], pace: u64) -> Self {
        let rules = Rules {
            timeout: TIMEOUT,
            startup: Duration::from_secs(20),
            pace: Duration::from_secs(pace),
            all_take_slots: true,
        };
        let mut world = Self {
            now: START,
            watch: Liveness::new(rules, START),
            workers: Vec::new(),
            planned: habits.len(),
            verdicts: Vec::new(),
            looks: 0,
            asked: 0,
            boot: Duration::from_secs(1),
            births: 0,
        };
        for habit in habits {
            world.birth(*habit);
        }
        world
    }

    fn birth(&mut self, habit: Habit) {
        self.births += 1;
        let id = process(i32::try_from(self.births).unwrap(), self.births);
        let nothing = Duration::ZERO;
        let condition =
            ThreadStats { cpu: nothing, delay: nothing, state: 'S', is_runnable: false, is_writing: false };
        let state = if habit == Habit::NeverReady { State::Starting } else { State::Ready };
        let stamp =
            Stamp { state, claimed: self.now, heartbeat: self.now, no_lifespan: false, traceback_on_abort: true };
        let started = self.now;
        self.workers.push(Worker { sample: Sample { id, started, stamp: Some(stamp) }, habit, condition });
    }

    /// All processes are stopped, the watch included.
    pub(super) fn pause(&mut self, span: Duration) {
        self.now += span;
    }

    pub(super) fn run(&mut self, span: Duration) {
        let tick = Duration::from_millis(50);
        let end = self.now + span;
        while self.now < end {
            self.now += tick;
            for worker in &mut self.workers {
                worker.live(self.now, tick);
            }
            if self.watch.next().is_some_and(|next| next <= self.now) {
                self.look();
            }
        }
    }

    pub(super) fn look(&mut self) {
        self.looks += 1;
        let samples: Vec<Sample> = self.workers.iter().map(|worker| worker.sample).collect();
        let workers = self.workers.clone();
        let condition = |id| {
            self.asked += 1;
            Some(workers.iter().find(|worker| worker.sample.id == id)?.condition)
        };
        let verdicts = self.watch.look(self.now, self.planned, &samples, condition);
        assert!(self.watch.next().is_none_or(|next| next > self.now), "it would look all the time");
        for verdict in verdicts {
            self.verdicts.push((self.now, verdict));
            let found = self.workers.iter().position(|worker| worker.sample.id == verdict.id).unwrap();
            // Only a sleeping worker gets SIGABRT.
            let dies = match verdict.remedy {
                Remedy::Report => false,
                Remedy::Abort => self.workers[found].habit == Habit::Sleeps,
                Remedy::Kill | Remedy::Finish => true,
            };
            if dies {
                self.workers.remove(found);
                self.birth(Habit::Works);
                let boot = self.boot;
                let born = self.workers.last_mut().unwrap().sample.stamp.as_mut().unwrap();
                born.state = State::Starting;
                born.heartbeat = self.now + boot;
                // Its appearance is noticed.
                let samples: Vec<Sample> = self.workers.iter().map(|worker| worker.sample).collect();
                assert_eq!(self.watch.look(self.now, self.planned, &samples, |_| None), []);
            }
        }
    }

    pub(super) fn ended(&self) -> Vec<ProcessId> {
        let dead = |verdict: &&(Duration, Verdict)| verdict.1.remedy != Remedy::Report;
        let mut ids: Vec<ProcessId> = self.verdicts.iter().filter(dead).map(|(_, verdict)| verdict.id).collect();
        ids.dedup();
        ids
    }
}

impl Worker {
    pub(super) fn live(&mut self, now: Duration, tick: Duration) {
        let stamp = self.sample.stamp.as_mut().unwrap();
        self.condition.state = if self.habit == Habit::Stopped { 'T' } else { 'S' };
        self.condition.is_writing = self.habit == Habit::Writes;
        self.condition.is_runnable = matches!(self.habit, Habit::Spins | Habit::Starves);
        match self.habit {
            Habit::Works if stamp.state == State::Starting && now >= stamp.heartbeat => stamp.state = State::Ready,
            Habit::Works if stamp.state == State::Ready && now >= stamp.heartbeat + BEAT => stamp.heartbeat = now,
            Habit::Spins => self.condition.cpu += tick,
            Habit::Starves => self.condition.delay += tick,
            _ => {}
        }
    }
}
