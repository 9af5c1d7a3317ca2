//! The CPU request behind a CPU weight.
//!
//! Kubernetes and Docker express a request as CPU shares, 1024 per core. Version 1 of cgroups uses them directly.
//! Version 2 has weights from 1 to 10000, and runtimes convert in one of two ways: linearly (39 per core), or since
//! runc 1.3.2 and crun 1.23 on a curve through the defaults of both (100 per core). A weight does not show which
//! conversion was used, but requests are usually round numbers, so the interpretation with the rounder request is
//! taken.

use super::super::CpuWeight;
use super::super::cgroup::{Cgroup, Interface};
use super::super::root::Root;

/// The weight of a group without a request: the kernel's default.
const DEFAULT_SHARES: u32 = 1024;
const DEFAULT_WEIGHT: u32 = 100;
/// What Kubernetes sets for a container that requests no CPU, and the weight that results from it.
const NO_REQUEST_SHARES: u32 = 2;
const NO_REQUEST_WEIGHT: u32 = 1;

/// The highest shares and the highest weight.
const MAX_SHARES: u32 = 262_144;
const MAX_WEIGHT: u32 = 10_000;

/// Steps, in thousandths of a core, in which requests are made; rounder ones first.
const ROUND: [u32; 9] = [1000, 500, 250, 100, 50, 25, 10, 5, 1];

/// The request behind the own group's weight. A group that systemd manages (`.slice`, `.service`) has its weight from
/// an administrator, who weighs services against each other and does not request cores.
pub(super) fn weight(root: &Root, cgroup: &Cgroup, notes: &mut Vec<String>) -> Option<CpuWeight> {
    let file = match cgroup.interface {
        Interface::V1 => "cpu.shares",
        Interface::V2 => "cpu.weight",
    };
    let (source, text) = cgroup.values(root, file, notes).next()?;
    let level = source.parent()?;
    if ["slice", "service"].iter().any(|unit| level.extension().is_some_and(|extension| extension == *unit)) {
        return None;
    }
    let Ok(value) = text.parse::<u32>() else {
        notes.push(format!("{} is {text:?}, not a number; ignored", source.display()));
        return None;
    };
    let cores = match cgroup.interface {
        Interface::V1 if value == DEFAULT_SHARES || value <= NO_REQUEST_SHARES => return None,
        Interface::V1 => f64::from(value) / f64::from(DEFAULT_SHARES),
        Interface::V2 if value == DEFAULT_WEIGHT || value <= NO_REQUEST_WEIGHT => return None,
        Interface::V2 => f64::from(thousandths(value)?) / 1000.0,
    };
    Some(CpuWeight { cores, source })
}

/// The roundest request, in thousandths of a core, that either conversion turns into this weight; the smaller of two.
fn thousandths(weight: u32) -> Option<u32> {
    if weight > MAX_WEIGHT {
        return None;
    }
    let roundness = |request: u32| ROUND.iter().position(|step| request.is_multiple_of(*step));
    [linear, curved]
        .into_iter()
        .filter_map(|convert| roundest(weight, convert))
        .min_by_key(|&request| (roundness(request), request))
}

/// The roundest request that `convert`, which must be monotonic, turns into this weight.
fn roundest(weight: u32, convert: fn(u32) -> u32) -> Option<u32> {
    let most = MAX_SHARES / 1024 * 1000;
    let converted = |request: u32| convert((request * 128 / 125).max(NO_REQUEST_SHARES));
    // The first request whose weight is at least this one.
    let first = |wanted: u32| {
        let (mut low, mut high) = (1, most + 1);
        while low < high {
            let middle = low.midpoint(high);
            if converted(middle) < wanted { low = middle + 1 } else { high = middle }
        }
        low
    };
    let (start, end) = (first(weight), first(weight + 1));
    ROUND.iter().find_map(|&step| Some(start.next_multiple_of(step)).filter(|&request| request < end))
}

/// The conversion of Kubernetes' KEP-2254.
const fn linear(shares: u32) -> u32 {
    // The product fits: 262142 × 9999 is below 2³².
    1 + (shares - NO_REQUEST_SHARES) * 9999 / 262_142
}

/// The conversion since runc 1.3.2: a parabola in the logarithms, through (2, 1), (1024, 100) and (262144, 10000).
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn curved(shares: u32) -> u32 {
    if shares <= NO_REQUEST_SHARES {
        return NO_REQUEST_WEIGHT;
    }
    let log = f64::from(shares).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    (10_f64.powf(exponent).ceil() as u32).clamp(1, MAX_WEIGHT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn conversions_are_those_of_the_runtimes() {
        assert_eq!([2, 512, 1024, 2000, 262_144].map(linear), [1, 20, 39, 77, 10_000]);
        assert_eq!([2, 1024, 2000, 262_144].map(curved), [1, 100, 170, 10_000]);
    }

    #[test]
    fn common_requests_are_recognised_whichever_way_they_were_converted() {
        for request in [100, 200, 250, 500, 750, 1000, 2000, 2500, 4000, 8000, 16_000] {
            let shares = request * 1024 / 1000;
            assert_eq!(thousandths(linear(shares)), Some(request), "{request}m as {}", linear(shares));
            assert_eq!(thousandths(curved(shares)), Some(request), "{request}m as {}", curved(shares));
        }
    }

    proptest! {
        #[test]
        fn every_weight_stands_for_a_request_that_gives_it(weight in 2..=MAX_WEIGHT) {
            let request = thousandths(weight).unwrap();
            let shares = (request * 1024 / 1000).max(2);
            prop_assert!(linear(shares) == weight || curved(shares) == weight);
        }
    }
}
