//! Ends of workers during one start: the first one of each cause is reported, the others are counted. Pure.

use super::Cause;

/// The causes so far, each with the number of ends after the first one.
#[derive(Debug, Default)]
pub struct Repeats(Vec<Repeat>);

/// How many more workers ended for the same cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeat {
    /// The cause.
    pub cause: Cause,
    /// How many, after the first one.
    pub more: u64,
}

impl Repeats {
    /// Adds an end, and returns whether it is the first one of its cause.
    pub fn add(&mut self, cause: Cause) -> bool {
        if let Some(known) = self.0.iter_mut().find(|known| known.cause == cause) {
            known.more += 1;
            return false;
        }
        self.0.push(Repeat { cause, more: 0 });
        true
    }

    /// The causes that occurred more than once; from then on, everything is new.
    pub fn take(&mut self) -> Vec<Repeat> {
        std::mem::take(&mut self.0).into_iter().filter(|repeat| repeat.more > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_each_cause_is_new_and_the_others_are_counted() {
        let mut repeats = Repeats::default();
        let causes = [Cause::Exit(1), Cause::Oom, Cause::Exit(1), Cause::Exit(2), Cause::Exit(1)];
        assert_eq!(causes.map(|cause| repeats.add(cause)), [true, true, false, true, false]);
        assert_eq!(repeats.take(), [Repeat { cause: Cause::Exit(1), more: 2 }]);
        assert!(repeats.take().is_empty() && repeats.add(Cause::Exit(1)));
    }
}
