//! Summaries of repeated measurements, and whether two of them differ. Pure.

use serde::Serialize;

/// Several measurements of the same thing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    /// The median.
    pub median: f64,
    /// The minimum.
    pub least: f64,
    /// The maximum.
    pub most: f64,
    /// How many.
    pub count: usize,
}

impl Summary {
    /// Of these measurements; none of none.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        } else {
            sorted[middle]
        };
        Some(Self { median, least, most, count: sorted.len() })
    }
}

/// A smaller difference is not relevant, however certain it is.
pub const LEAST_DIFFERENCE: f64 = 0.02;
/// The highest probability of a chance result at which a difference counts.
const SIGNIFICANCE: f64 = 0.05;
/// Fewer measurements than this say nothing. With this many, at best a probability of one in ten can be reached, if
/// all of one are on the same side of all of the other. That has to suffice.
pub const FEWEST: usize = 3;

/// Whether the second differs from the first by more than chance and by a relevant amount: by how much, as a ratio of
/// the medians.
#[must_use]
pub fn difference(first: &[f64], second: &[f64]) -> Option<f64> {
    let (a, b) = (Summary::of(first)?, Summary::of(second)?);
    let ratio = b.median / a.median;
    let trifle = (1.0 - LEAST_DIFFERENCE..=1.0 + LEAST_DIFFERENCE).contains(&ratio);
    if trifle || a.count.min(b.count) < FEWEST {
        return None;
    }
    let apart = a.most < b.least || b.most < a.least;
    let certain = probability(first, second) <= SIGNIFICANCE || (a.count.max(b.count) == FEWEST && apart);
    certain.then_some(ratio)
}

/// How likely two samples from the same source are to differ at least as much (the exact two-sided test of Mann and
/// Whitney; it assumes nothing about how measurements scatter).
#[must_use]
pub fn probability(first: &[f64], second: &[f64]) -> f64 {
    let (m, n) = (first.len(), second.len());
    if m == 0 || n == 0 {
        return 1.0;
    }
    // Pairs in which the second is the greater count twice, ties once: whole numbers.
    let twice: usize = first
        .iter()
        .flat_map(|a| {
            second.iter().map(move |b| match b.total_cmp(a) {
                std::cmp::Ordering::Greater => 2,
                std::cmp::Ordering::Equal => 1,
                std::cmp::Ordering::Less => 0,
            })
        })
        .sum();
    // Rounded towards the middle, so that ties never make a difference look more certain.
    let extreme = twice.min(2 * m * n - twice).div_ceil(2);
    let ways = ways(m, n);
    let tail: f64 = ways.iter().take(extreme + 1).sum();
    (2.0 * tail / ways.iter().sum::<f64>()).min(1.0)
}

/// For each number of pairs: in how many of the orders of `m` and `n` measurements that many pairs are in the wrong
/// order. These are the coefficients of the Gaussian binomial, built up one measurement after the other.
fn ways(m: usize, n: usize) -> Vec<f64> {
    let mut table = vec![vec![1.0]; n + 1];
    for rows in 1..=m {
        let mut next = vec![vec![1.0]];
        for columns in 1..=n {
            // The largest of all is either one of the first, and so larger than all `columns`, or one of the second.
            let mut sum = vec![0.0; rows * columns + 1];
            for (pairs, count) in table[columns].iter().enumerate() {
                sum[pairs + columns] += count;
            }
            for (pairs, count) in next[columns - 1].iter().enumerate() {
                sum[pairs] += count;
            }
            next.push(sum);
        }
        table = next;
    }
    table.pop().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn medians_are_those_in_the_middle() {
        let of = |values: &[f64]| Summary::of(values).map(|it| (it.least, it.median, it.most, it.count));
        assert_eq!(of(&[3.0, 1.0, 2.0]), Some((1.0, 2.0, 3.0, 3)));
        assert_eq!(of(&[4.0, 1.0]), Some((1.0, 2.5, 4.0, 2)));
        assert_eq!(of(&[5.0, f64::NAN]), Some((5.0, 5.0, 5.0, 1)));
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn probabilities_are_those_of_the_published_tables() {
        // All of one sample below all of the other: twice one in (m + n over m).
        for (count, orders) in [(2, 6.0), (3, 20.0), (4, 70.0), (5, 252.0)] {
            let first: Vec<f64> = (0..count).map(f64::from).collect();
            let second: Vec<f64> = first.iter().map(|value| value + 100.0).collect();
            assert!((probability(&first, &second) - 2.0 / orders).abs() < 1e-12, "{count}");
        }
        // Critical value for 5 and 5 at 5 %: U = 2 is significant, U = 3 is not.
        let first = [1.0, 2.0, 3.0, 4.0, 7.5];
        assert!(probability(&first, &[5.0, 6.0, 7.0, 8.0, 9.0]) > 0.05);
        assert!(probability(&first, &[5.0, 6.0, 8.0, 9.0, 10.0]) < 0.05);
        assert!((probability(&[1.0; 4], &[1.0; 4]) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_difference_must_be_certain_and_matter() {
        let base = [100.0, 101.0, 102.0];
        assert_eq!(difference(&base, &[150.0, 151.0, 152.0]), Some(151.0 / 101.0));
        assert_eq!(difference(&base, &[101.5, 200.0, 300.0]), None, "they overlap");
        assert_eq!(difference(&base, &[102.5, 102.6, 102.7]), None, "a trifle");
        assert_eq!(difference(&base[..2], &[150.0, 151.0]), None, "too few");
        assert_eq!(difference(&[], &base), None);
        let five = [100.0, 101.0, 102.0, 103.0, 104.0];
        assert!(difference(&five, &[103.5, 110.0, 111.0, 112.0, 113.0]).is_some(), "one of five overlaps");
        assert_eq!(difference(&[0.0; 3], &[0.0; 3]), None);
    }

    proptest! {
        #[test]
        fn the_order_of_measurements_and_of_samples_means_nothing(
            mut first in prop::collection::vec(0.0..100.0, 1..8),
            second in prop::collection::vec(0.0..100.0, 1..8),
        ) {
            let forth = probability(&first, &second);
            prop_assert!((0.0..=1.0).contains(&forth));
            prop_assert!((forth - probability(&second, &first)).abs() < 1e-12);
            first.reverse();
            prop_assert!((forth - probability(&first, &second)).abs() < 1e-12);
        }
    }
}
