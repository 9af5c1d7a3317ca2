//! Whether the memory has room for two generations. Pure.

use std::fmt;

use crate::host::MemoryUse;
use crate::proc::memory::Footprint;

/// The memory use of a generation, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// All of it: the sum of the proportional set sizes.
    pub whole: u64,
    /// What another generation of this kind with a single worker would need. Files do not count, because they are in
    /// the page cache already.
    pub one_worker: u64,
}

impl Size {
    /// The size of a generation with this main process, if it is running, and these workers. A single worker saves what
    /// all workers but one have written themselves.
    #[must_use]
    pub fn of(main: Option<Footprint>, workers: &[Footprint]) -> Self {
        let sum = |part: fn(&Footprint) -> u64| main.iter().chain(workers).map(part).sum::<u64>();
        let count = u64::try_from(workers.len()).unwrap_or(1).max(1);
        let saved = workers.iter().map(|worker| worker.private).sum::<u64>() / count * (count - 1);
        Self {
            whole: sum(|footprint| footprint.pss),
            one_worker: sum(|footprint| footprint.anonymous).saturating_sub(saved),
        }
    }
}

/// What the memory has room for in addition to a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Another one of this kind, as far as is known.
    Whole,
    /// One with a single worker.
    OneWorker(Shortage),
    /// Not even that.
    Nothing(Shortage),
}

/// The figures behind it, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage {
    /// The limit that applies.
    pub limit: u64,
    /// What is in use below it, without what the kernel can reclaim when memory is short.
    pub used: u64,
    /// The existing generation.
    pub size: Size,
}

/// The free memory on the level that has least; unlimited without limits.
#[must_use]
pub fn free(levels: &[MemoryUse]) -> u64 {
    let free = |level: &MemoryUse| level.limit.saturating_sub(level.current.saturating_sub(level.reclaimable));
    levels.iter().map(free).min().unwrap_or(u64::MAX)
}

/// What there is room for in addition to a generation of this size, given the use of memory on every level that has a
/// limit. Without limits there is room.
#[must_use]
pub fn room(levels: &[MemoryUse], size: Size) -> Room {
    let used = |level: &MemoryUse| level.current.saturating_sub(level.reclaimable);
    let free = |level: &MemoryUse| level.limit.saturating_sub(used(level));
    let Some(least) = levels.iter().min_by_key(|level| free(level)) else { return Room::Whole };
    let shortage = Shortage { limit: least.limit, used: used(least), size };
    match free(least) {
        free if free >= size.whole => Room::Whole,
        free if free >= size.one_worker => Room::OneWorker(shortage),
        _ => Room::Nothing(shortage),
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| format!("{}M", bytes.div_ceil(1 << 20));
        let Self { limit, used, size } = self;
        write!(f, "limit {}, used {}, by the old generation {}", mib(*limit), mib(*used), mib(size.whole))
    }
}

impl Shortage {
    /// Why not even one worker can be started.
    #[must_use]
    pub fn refusal(&self) -> String {
        let one_worker = self.size.one_worker.div_ceil(1 << 20);
        format!(
            "not enough memory for a new generation, not even with one worker, which needs about {one_worker}M: {self}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn level(limit: u64, current: u64, reclaimable: u64) -> MemoryUse {
        MemoryUse { limit: limit * MIB, current: current * MIB, reclaimable: reclaimable * MIB }
    }

    fn size(whole: u64, one_worker: u64) -> Size {
        Size { whole: whole * MIB, one_worker: one_worker * MIB }
    }

    #[test]
    fn without_a_limit_there_is_room() {
        assert_eq!(room(&[], size(u64::MAX / MIB, 1)), Room::Whole);
    }

    #[test]
    fn what_is_free_is_what_the_tightest_level_has_with_what_the_kernel_can_reclaim() {
        assert_eq!(free(&[]), u64::MAX);
        assert_eq!(free(&[level(1000, 300, 50), level(500, 300, 40), level(700, 300, 0)]), 240 * MIB);
        assert_eq!(free(&[level(100, 300, 0)]), 0);
    }

    #[test]
    fn what_is_free_is_compared_with_the_whole_and_with_one_worker() {
        let old = size(280, 100);
        assert_eq!(room(&[level(1024, 300, 0)], old), Room::Whole);
        assert_eq!(room(&[level(580, 300, 0)], old), Room::Whole, "just enough is enough");
        assert!(matches!(room(&[level(579, 300, 0)], old), Room::OneWorker(_)));
        assert!(matches!(room(&[level(400, 300, 0)], old), Room::OneWorker(_)));
        assert!(matches!(room(&[level(399, 300, 0)], old), Room::Nothing(_)));
    }

    #[test]
    fn what_the_kernel_gives_up_is_free() {
        assert_eq!(room(&[level(580, 500, 200)], size(280, 100)), Room::Whole);
    }

    #[test]
    fn the_level_with_the_least_room_binds_even_with_a_higher_limit() {
        let levels = [level(512, 100, 0), level(1024, 1000, 100)];
        let Room::OneWorker(shortage) = room(&levels, size(200, 50)) else { panic!("124M are free at the pod") };
        assert_eq!((shortage.limit / MIB, shortage.used / MIB), (1024, 900));
    }

    #[test]
    fn the_log_shows_what_was_compared() {
        let Room::OneWorker(shortage) = room(&[level(512, 350, 50)], size(280, 100)) else { panic!("212M are free") };
        assert_eq!(shortage.to_string(), "limit 512M, used 300M, by the old generation 280M");
    }

    #[test]
    fn one_worker_needs_what_all_share_and_one_share_of_the_rest() {
        let process = |pss, anonymous, private| Footprint {
            pss: pss * MIB,
            anonymous: anonymous * MIB,
            private: private * MIB,
        };
        // 30M that the main process loaded and all three share, 5M of files, and what each wrote for itself.
        let (main, worker) = (process(17, 15, 5), process(55, 50, 40));
        let size = Size::of(Some(main), &[worker, worker]);
        assert_eq!((size.whole / MIB, size.one_worker / MIB), (127, 75));
        assert_eq!(Size::of(Some(main), &[]).one_worker, main.anonymous);
        assert_eq!(Size::of(None, &[]), Size::default());
    }

    proptest! {
        #[test]
        fn more_free_memory_is_never_less_room(
            limit in 0..1000_u64, current in 0..1200_u64, inactive in 0..1200_u64, whole in 0..600_u64, more in 0..500_u64,
        ) {
            let rank = |level| match room(&[level], size(whole, whole / 3)) {
                Room::Whole => 2,
                Room::OneWorker(_) => 1,
                Room::Nothing(_) => 0,
            };
            prop_assert!(rank(level(limit + more, current, inactive)) >= rank(level(limit, current, inactive)));
            prop_assert!(rank(level(limit, current, inactive + more)) >= rank(level(limit, current, inactive)));
        }

        #[test]
        fn one_worker_is_never_more_than_the_whole(
            main in prop::option::of(0..1000_u64), workers in prop::collection::vec((0..1000_u64, 0..1000_u64), 0..9),
        ) {
            let footprint = |anonymous: u64, private| Footprint { pss: anonymous + 7, anonymous, private };
            let workers: Vec<_> = workers.into_iter().map(|(anonymous, private)| footprint(anonymous, private)).collect();
            let size = Size::of(main.map(|main| footprint(main, 0)), &workers);
            prop_assert!(size.one_worker <= size.whole);
        }
    }
}
