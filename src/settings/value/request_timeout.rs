//! How long requests may take.

use std::time::Duration;

use super::{Span, UrlPath, Value, says_none, show_span};

/// The shortest limit: workers look at their requests a few times a second.
const LEAST_MILLIS: u64 = 100;
/// The longest: a week.
const MOST_MILLIS: u64 = 604_800_000;

type Limit = Span<0, MOST_MILLIS>;

/// The limit for all requests, and limits for those whose path begins with a prefix. The longest prefix decides. Zero
/// means no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestTimeout {
    /// Of every other path.
    pub general: Duration,
    /// In the order in which they were given.
    pub by_path: Vec<(UrlPath, Duration)>,
}

impl RequestTimeout {
    /// Whether no request has a limit.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.general.is_zero() && self.by_path.iter().all(|(_, limit)| limit.is_zero())
    }
}

fn limit(text: &str) -> Result<Duration, Option<String>> {
    let limit = Limit::parse(text)?.0;
    if !limit.is_zero() && limit < Duration::from_millis(LEAST_MILLIS) {
        return Err(Some(format!("{text} is shorter than {LEAST_MILLIS}ms: workers look a few times a second")));
    }
    Ok(limit)
}

impl Value for RequestTimeout {
    const METAVAR: &'static str = "DURATION[,PREFIX=DURATION...]";

    fn expected() -> String {
        format!(
            "0 for none, or a duration ({LEAST_MILLIS}ms, 30s, 5m), then PREFIX=DURATION pairs such as /export=5m"
        )
    }

    fn parse(text: &str) -> Result<Self, Option<String>> {
        if says_none(text) {
            return Ok(Self::default());
        }
        let mut parts = text.split(',').map(str::trim);
        let general = limit(parts.next().unwrap_or_default())?;
        let mut by_path: Vec<(UrlPath, Duration)> = Vec::new();
        for part in parts {
            let wrong = || Some(format!("{part:?} is not PREFIX=DURATION"));
            let (prefix, duration) = part.rsplit_once('=').ok_or_else(wrong)?;
            let prefix = UrlPath::parse(prefix).map_err(|_| wrong())?;
            if by_path.iter().any(|(other, _)| *other == prefix) {
                return Err(Some(format!("it has two limits for {}", prefix.0)));
            }
            by_path.push((prefix, limit(duration).map_err(|why| why.or_else(wrong))?));
        }
        Ok(Self { general, by_path })
    }

    fn show(&self) -> String {
        let pairs = self.by_path.iter().map(|(prefix, limit)| format!(",{}={}", prefix.0, show_span(*limit)));
        show_span(self.general) + &pairs.collect::<String>()
    }

    fn is_none(&self) -> bool {
        self.is_off()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Result<String, Option<String>> {
        RequestTimeout::parse(text).map(|value| value.show())
    }

    #[test]
    fn a_limit_may_be_followed_by_limits_for_paths() {
        assert_eq!(shown("30s").unwrap(), "30s");
        assert_eq!(shown("0, /export=5m ,/export/small=2").unwrap(), "0s,/export=5m,/export/small=2s");
        assert_eq!(shown("none ").unwrap(), "0s");
        assert!(RequestTimeout::parse("0,/a=0").unwrap().is_off());
        assert!(!RequestTimeout::parse("0,/a=1").unwrap().is_off());
        let twice = shown("1m,/a=b=100ms").unwrap();
        assert_eq!(shown(&twice).unwrap(), twice);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, names) in [
            ("1ms", "1ms is shorter than 100ms"),
            ("10s,/a=5ms", "5ms is shorter than 100ms"),
            ("10s,/a", "\"/a\" is not PREFIX=DURATION"),
            ("10s,a=1s", "\"a=1s\" is not PREFIX=DURATION"),
            ("10s,/a=soon", "\"/a=soon\" is not PREFIX=DURATION"),
            ("10s,/a=1s,/a=2s", "it has two limits for /a"),
        ] {
            let why = shown(text).unwrap_err().unwrap();
            assert!(why.contains(names), "{text}: {why}");
        }
        assert!(["", "soon", "-1", "/a=5s"].iter().all(|text| shown(text).is_err()));
    }
}
