//! Quantities: counts, sizes, durations, cores, workers.

use std::time::Duration;

use super::Value;
use crate::settings::formula::Formula;

/// A whole number in a range, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Int<const MIN: u64, const MAX: u64>(pub u64);

impl<const MIN: u64, const MAX: u64> Value for Int<MIN, MAX> {
    const METAVAR: &'static str = "N";

    fn expected() -> String {
        format!("a whole number from {MIN} to {MAX}")
    }

    fn parse(text: &str) -> Result<Self, Option<String>> {
        digits(text).filter(|number| (MIN..=MAX).contains(number)).map(Self).ok_or(None)
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// Digits only: no sign, exponent or spaces, unlike [`str::parse`], which accepts a plus sign.
fn digits(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

/// A decimal number with at most one point and no sign.
fn decimal(text: &str) -> Option<f64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    (digits(whole).is_some() && digits(fraction).is_some()).then(|| text.parse().ok()).flatten()
}

/// An amount of memory in bytes, at least `MIN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size<const MIN: u64>(pub u64);

impl<const MIN: u64> Value for Size<MIN> {
    const METAVAR: &'static str = "SIZE";

    fn expected() -> String {
        let least = if MIN > 0 { format!(", at least {MIN}") } else { String::new() };
        format!("bytes, or a number with K, M or G (1024-based, Ki, Mi, Gi too){least}")
    }

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let bytes = size(text, 1).ok_or(None)?;
        if bytes < MIN { Err(None) } else { Ok(Self(bytes)) }
    }

    fn show(&self) -> String {
        show_size(self.0)
    }
}

/// A limit on resident memory. A plain number is MiB, as in Granian, unless it has a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MebiSize(pub u64);

impl MebiSize {
    /// In whole MiB, rounded down.
    #[must_use]
    pub const fn mebibytes(self) -> u64 {
        self.0 >> 20
    }
}

impl Value for MebiSize {
    const METAVAR: &'static str = "MIB";

    fn expected() -> String {
        "MiB, or a number with K, M or G (1024-based), at least 1M".into()
    }

    fn parse(text: &str) -> Result<Self, Option<String>> {
        size(text, 1 << 20).filter(|bytes| *bytes >= 1 << 20).map(Self).ok_or(None)
    }

    fn show(&self) -> String {
        show_size(self.0)
    }
}

/// `plain` is the unit of a number without one.
fn size(text: &str, plain: u64) -> Option<u64> {
    let number = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match text[number.len()..].to_ascii_lowercase().as_str() {
        "" => plain,
        "k" | "ki" => 1 << 10,
        "m" | "mi" => 1 << 20,
        "g" | "gi" => 1 << 30,
        _ => return None,
    };
    digits(number)?.checked_mul(unit)
}

/// A size in the largest unit that divides it. It always has a unit, so that the reader does not need to know the
/// unit of a plain number.
#[must_use]
pub fn show_size(bytes: u64) -> String {
    for (unit, letter) in [(1 << 30, 'G'), (1 << 20, 'M'), (1 << 10, 'K')] {
        if bytes >= unit && bytes.is_multiple_of(unit) {
            return format!("{}{letter}", bytes / unit);
        }
    }
    bytes.to_string()
}

/// A duration from `MIN` to `MAX` milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span<const MIN: u64, const MAX: u64>(pub Duration);

impl<const MIN: u64, const MAX: u64> Value for Span<MIN, MAX> {
    const METAVAR: &'static str = "DURATION";

    fn expected() -> String {
        let (least, most) = (show_span(Duration::from_millis(MIN)), show_span(Duration::from_millis(MAX)));
        format!("seconds, or a number with ms, s, m or h, from {least} to {most}")
    }

    fn parse(text: &str) -> Result<Self, Option<String>> {
        span(text).filter(|span| (MIN.into()..=MAX.into()).contains(&span.as_millis())).map(Self).ok_or(None)
    }

    fn show(&self) -> String {
        show_span(self.0)
    }
}

/// The maximum age of a worker, in seconds: ten seconds to a year.
pub type Lifetime = Seconds<10, 31_536_000>;

/// A duration in whole seconds, for the server, from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds<const MIN: u64, const MAX: u64>(pub u64);

impl<const MIN: u64, const MAX: u64> Value for Seconds<MIN, MAX> {
    const METAVAR: &'static str = "DURATION";

    fn expected() -> String {
        let (least, most) = (show_span(Duration::from_secs(MIN)), show_span(Duration::from_secs(MAX)));
        format!("whole seconds, or a number with s, m or h, from {least} to {most}")
    }

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let span = span(text).ok_or(None)?;
        let whole = span.subsec_nanos() == 0 && (MIN..=MAX).contains(&span.as_secs());
        whole.then_some(Self(span.as_secs())).ok_or(None)
    }

    fn show(&self) -> String {
        show_span(Duration::from_secs(self.0))
    }
}

fn span(text: &str) -> Option<Duration> {
    let number = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match text[number.len()..].to_ascii_lowercase().as_str() {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    let seconds = decimal(number)? * unit;
    // The resolution is one millisecond, so that the value shown is exactly the value meant.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    (seconds < 1e9).then(|| Duration::from_millis((seconds * 1000.0).round() as u64))
}

/// In the largest unit that gives a whole number: `10m`, `25s`, `500ms`, `0s`.
#[must_use]
pub fn show_span(span: Duration) -> String {
    let millis = span.as_millis();
    for (unit, name) in [(3_600_000, "h"), (60_000, "m"), (1000, "s")] {
        if millis.is_multiple_of(unit) && (millis >= unit || unit == 1000) {
            return format!("{}{name}", millis / unit);
        }
    }
    format!("{millis}ms")
}

/// Cores in Kubernetes notation: `2`, `1.5`, `500m`. Stored in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cpus {
    /// Thousandths of a core.
    pub millis: u64,
}

impl Cpus {
    /// As a number of cores.
    #[must_use]
    #[allow(clippy::cast_precision_loss)]
    pub fn cores(self) -> f64 {
        self.millis as f64 / 1000.0
    }
}

impl Value for Cpus {
    const METAVAR: &'static str = "CPUS";

    fn expected() -> String {
        "cores such as 2, 1.5 or 500m, more than 0 and at most 4096".into()
    }

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let millis = match text.strip_suffix('m') {
            Some(number) => digits(number),
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            None => decimal(text).map(|cores| (cores * 1000.0).round() as u64),
        };
        millis.filter(|millis| (1..=4_096_000).contains(millis)).map(|millis| Self { millis }).ok_or(None)
    }

    fn show(&self) -> String {
        if self.millis.is_multiple_of(1000) { (self.millis / 1000).to_string() } else { format!("{}m", self.millis) }
    }
}

/// A number of workers: computed, explicit, or a formula.
#[derive(Debug, Clone, PartialEq)]
pub enum Workers {
    /// As many as cores and memory allow.
    Auto,
    /// This many.
    Exactly(u32),
    /// In `n`, the number of cores.
    Formula(Formula),
}

/// No machine that this runs on has more; a larger number is a typo.
pub const MOST_WORKERS: u32 = 4096;

impl Value for Workers {
    const METAVAR: &'static str = "N";

    fn expected() -> String {
        format!("auto, a whole number from 1 to {MOST_WORKERS}, or a formula in n = cores such as 2n+1")
    }

    fn parse(text: &str) -> Result<Self, Option<String>> {
        if text.eq_ignore_ascii_case("auto") {
            return Ok(Self::Auto);
        }
        if let Some(number) = digits(text) {
            let number = u32::try_from(number).ok().filter(|number| (1..=MOST_WORKERS).contains(number));
            return number.map(Self::Exactly).ok_or(None);
        }
        // What is wrong with a formula only helps a user who meant to write one.
        let meant = text.chars().all(|letter| "0123456789. nN+-*/()".contains(letter));
        Formula::parse(text).map(Self::Formula).map_err(|wrong| meant.then_some(wrong))
    }

    fn show(&self) -> String {
        match self {
            Self::Auto => "auto".into(),
            Self::Exactly(number) => number.to_string(),
            Self::Formula(formula) => formula.to_string(),
        }
    }
}

/// How many requests a worker may have in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backpressure {
    /// As many as it can handle without a queue, which is found out while it runs.
    Auto,
    /// This many.
    Limit(u64),
}

impl Backpressure {
    /// The range of the number.
    const RANGE: std::ops::RangeInclusive<u64> = 1..=1_000_000;
}

impl Value for Backpressure {
    const METAVAR: &'static str = "N";

    fn expected() -> String {
        format!("auto, or a whole number from {} to {}", Self::RANGE.start(), Self::RANGE.end())
    }

    fn parse(text: &str) -> Result<Self, Option<String>> {
        if text.eq_ignore_ascii_case("auto") {
            return Ok(Self::Auto);
        }
        digits(text).filter(|number| Self::RANGE.contains(number)).map(Self::Limit).ok_or(None)
    }

    fn show(&self) -> String {
        match self {
            Self::Auto => "auto".into(),
            Self::Limit(number) => number.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backpressure_is_automatic_or_a_number() {
        assert_eq!(Backpressure::parse("Auto"), Ok(Backpressure::Auto));
        assert_eq!(Backpressure::parse("512"), Ok(Backpressure::Limit(512)));
        for text in ["0", "-1", "1000001", "auto 64", "4-1024", "many"] {
            assert!(Backpressure::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_bytes_or_have_a_unit() {
        for (text, bytes) in [("0", 0), ("1000", 1000), ("4k", 4096), ("256M", 256 << 20), ("2gi", 2 << 30)] {
            assert_eq!(Size::<0>::parse(text), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "-1", "+1", "1.5G", "1T", "1 M", "M", "99999999999G", "8192B"] {
            assert!(Size::<0>::parse(text).is_err(), "{text:?}");
        }
        assert!(Size::<8192>::parse("8191").is_err());
    }

    #[test]
    fn a_plain_limit_on_resident_memory_is_mebibytes() {
        assert_eq!(MebiSize::parse("512"), MebiSize::parse("512M"));
        assert_eq!(MebiSize::parse("1G").map(MebiSize::mebibytes), Ok(1024));
        assert!(MebiSize::parse("0").is_err() && MebiSize::parse("1023K").is_err());
    }

    #[test]
    fn times_are_seconds_or_have_a_unit() {
        for (text, millis, shown) in [
            ("0", 0, "0s"),
            ("25", 25_000, "25s"),
            ("0.5s", 500, "500ms"),
            ("10m", 600_000, "10m"),
            ("1H", 3_600_000, "1h"),
        ] {
            let span = Span::<0, 86_400_000>::parse(text).unwrap();
            assert_eq!((span.0, span.show()), (Duration::from_millis(millis), shown.to_owned()), "{text}");
        }
        for text in ["", "s", "-1", "1e3", "1d", ".5", "5.", "inf", "25h"] {
            assert!(Span::<0, 86_400_000>::parse(text).is_err(), "{text:?}");
        }
        assert!(Seconds::<0, 60>::parse("1.5").is_err(), "a server that counts whole seconds");
    }

    #[test]
    fn cores_are_written_as_in_kubernetes() {
        for (text, millis) in [("2", 2000), ("1.5", 1500), ("500m", 500), ("1500m", 1500)] {
            assert_eq!(Cpus::parse(text), Ok(Cpus { millis }), "{text}");
        }
        assert!(["0", "0m", "-1", "1.5m", "5000", "two"].iter().all(|text| Cpus::parse(text).is_err()));
    }

    #[test]
    fn workers_are_automatic_a_number_or_a_formula() {
        assert_eq!(Workers::parse("AUTO"), Ok(Workers::Auto));
        assert_eq!(Workers::parse("4"), Ok(Workers::Exactly(4)));
        assert!(matches!(Workers::parse("2n+1"), Ok(Workers::Formula(_))));
        for text in ["0", "-1", "+4", "4.0", "5000", "four", "99999999999999999999"] {
            assert!(Workers::parse(text).is_err(), "{text}");
        }
    }
}
