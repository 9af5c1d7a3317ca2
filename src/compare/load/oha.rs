//! oha, <https://github.com/hatoo/oha>: 1.9 and later, for `--output-format`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Command, Kind, Load, Outcome, name, url};

pub(super) fn command(load: &Load<'_>) -> Command {
    let millis = |span: std::time::Duration| format!("{}ms", span.as_millis());
    let mut argv = vec![name(Kind::Oha)];
    let mut add = |words: &[&str]| argv.extend(words.iter().map(Into::into));
    add(&["--no-tui", "--output-format", "json", "--redirect", "0", "--disable-compression"]);
    add(&["-z", &millis(load.duration), "-t", &millis(load.patience), "-c", &load.connections.to_string()]);
    add(&["-m", &load.request.method]);
    for header in &load.request.headers {
        add(&["-H", &format!("{}: {}", header.name, header.value)]);
    }
    if let Some(body) = &load.request.body {
        add(&["-d", body]);
    }
    argv.push(url(load));
    Command { argv, script: None }
}

/// The part of its output that is used.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    summary: Summary,
    /// In seconds; null without responses.
    latency_percentiles: BTreeMap<String, Option<f64>>,
    status_code_distribution: BTreeMap<String, u64>,
    error_distribution: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
struct Summary {
    total: f64,
}

/// Requests in progress at the end of the time are not failures.
const ENDED: &str = "aborted due to deadline";
const TIMED_OUT: &str = "timeout";

pub(super) fn read(output: &str) -> Option<Outcome> {
    let report: Report = serde_json::from_str(output).ok()?;
    let percentile = |name: &str| report.latency_percentiles.get(name).copied().flatten().map(|time| time * 1e3);
    let mut outcome = Outcome {
        seconds: report.summary.total,
        rejected: Some(0),
        p50_ms: percentile("p50"),
        p99_ms: percentile("p99"),
        ..Outcome::default()
    };
    for (status, count) in &report.status_code_distribution {
        match status.parse::<u16>().ok()? {
            ..400 => outcome.answered += count,
            503 => outcome.rejected = outcome.rejected.map(|sum| sum + count),
            _ => outcome.failed += count,
        }
    }
    for (error, count) in &report.error_distribution {
        match error.as_str() {
            ENDED => {}
            TIMED_OUT => outcome.timed_out += count,
            _ => outcome.failed += count,
        }
    }
    Some(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::options::{LoadRequest, header};
    use std::time::Duration;

    #[test]
    fn the_service_manager_is_informed_of_everything() {
        let request = LoadRequest {
            method: "POST".into(),
            path: "/a?b=c".into(),
            headers: vec![header("Accept: */*").unwrap()],
            body: Some("-x".into()),
        };
        let load = Load {
            address: "127.0.0.1:81".parse().unwrap(),
            request: &request,
            connections: 64,
            duration: Duration::from_millis(2500),
            patience: Duration::from_secs(10),
            tell_rejected: false,
        };
        let argv = command(&load).argv.join(" ".as_ref());
        let wanted = "oha --no-tui --output-format json --redirect 0 --disable-compression -z 2500ms -t 10000ms -c 64 \
                      -m POST -H Accept: */* -d -x http://127.0.0.1:81/a?b=c";
        assert_eq!(argv, wanted);
    }

    /// As oha 1.16.0 wrote it, without its histograms.
    const SAMPLE: &str = r#"{"summary": {"successRate": 1.0, "total": 1.001384922, "slowest": 0.006042638,
        "requestsPerSec": 14001.608863849062, "totalData": 28026},
        "latencyPercentiles": {"p10": 0.000281368, "p50": 0.000325364, "p99": 0.005290339, "p99.9": 0.005786343},
        "statusCodeDistribution": {"200": 14013, "302": 1, "503": 7, "404": 2},
        "errorDistribution": {"aborted due to deadline": 8, "timeout": 3, "Connection refused (os error 111)": 4}}"#;

    #[test]
    fn responses_and_failures_are_distinguished() {
        let outcome = read(SAMPLE).unwrap();
        assert_eq!((outcome.answered, outcome.rejected), (14_014, Some(7)));
        assert_eq!((outcome.timed_out, outcome.failed), (3, 6));
        let close = |value: Option<f64>, wanted: f64| value.is_some_and(|value| (value - wanted).abs() < 1e-9);
        assert!(close(Some(outcome.seconds), 1.001_384_922));
        assert!(close(outcome.p50_ms, 0.325_364) && close(outcome.p99_ms, 5.290_339), "{outcome:?}");
    }

    #[test]
    fn no_answers_at_all_are_understood() {
        let text = r#"{"summary": {"successRate": 0.0, "total": 2.0, "slowest": null}, "statusCodeDistribution": {},
            "latencyPercentiles": {"p50": null, "p99": null}, "errorDistribution": {"timeout": 12}}"#;
        let outcome = read(text).unwrap();
        assert_eq!((outcome.answered, outcome.timed_out, outcome.p50_ms), (0, 12, None));
        assert_eq!(read("Error: no"), None);
        assert_eq!(read(""), None);
    }
}
