//! From values to places on an axis, and the round values that are written next to it. Pure.

/// With more than this between the lowest and the highest value, an axis is logarithmic.
const WIDE: f64 = 30.0;

/// An axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scale {
    /// From zero to this.
    Linear(f64),
    /// From a power of ten to another.
    Logarithmic(f64, f64),
}

impl Scale {
    /// An axis that has room for these values.
    pub fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        let most = values.clone().fold(0.0, f64::max);
        let least = values.filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min);
        if most > least * WIDE {
            return Self::Logarithmic(least.log10().floor(), most.log10().ceil());
        }
        Self::Linear(if most > 0.0 { round_up(most) } else { 1.0 })
    }

    /// The same from zero on, however far apart the values are.
    pub fn linear(values: impl Iterator<Item = f64>) -> Self {
        let most = values.fold(0.0, f64::max);
        Self::Linear(if most > 0.0 { round_up(most) } else { 1.0 })
    }

    /// Where a value is, from 0 to 1.
    pub fn place(self, value: f64) -> f64 {
        let place = match self {
            Self::Linear(top) => value / top,
            Self::Logarithmic(low, high) => (value.log10() - low) / (high - low),
        };
        place.clamp(0.0, 1.0)
    }

    /// Values to write next to the axis, ascending.
    pub fn ticks(self) -> Vec<f64> {
        match self {
            Self::Linear(top) => (0..=4).map(|quarter| top * f64::from(quarter) / 4.0).collect(),
            Self::Logarithmic(low, high) => {
                let powers = std::iter::successors(Some(low), |power| Some(power + 1.0));
                powers.take_while(|power| *power <= high).map(|power| 10_f64.powf(power)).collect()
            }
        }
    }
}

/// The next value whose quarters are round.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 1.2, 1.6, 2.0, 2.4, 3.2, 4.0, 6.0, 8.0, 10.0];
    steps.into_iter().map(|step| step * power).find(|top| *top >= value * 0.999_999).unwrap_or(power * 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_has_room_for_its_values() {
        for values in [vec![0.0], vec![], vec![3.0, 7.0], vec![1.0, 1000.0], vec![0.0, 12_345.0], vec![0.02, 99.0]] {
            let scale = Scale::of(values.iter().copied());
            let ticks = scale.ticks();
            assert!(ticks.len() >= 2 && ticks.is_sorted(), "{values:?}: {ticks:?}");
            assert!(values.iter().all(|value| *value <= ticks[ticks.len() - 1]), "{values:?}: {ticks:?}");
        }
    }

    #[test]
    fn values_far_apart_are_both_visible() {
        let scale = Scale::of([0.4, 150.0].into_iter());
        assert_eq!(scale, Scale::Logarithmic(-1.0, 3.0));
        assert_eq!(scale.ticks().len(), 5);
        assert!(scale.place(0.4) > 0.1 && scale.place(150.0) < 0.9);
        assert_eq!(Scale::of([10.0, 95.0].into_iter()), Scale::Linear(100.0));
        assert_eq!(Scale::linear([1.0, 1000.0].into_iter()), Scale::Linear(1000.0));
    }
}
