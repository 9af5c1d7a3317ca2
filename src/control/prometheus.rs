//! Status in Prometheus's text format 0.0.4: for each metric HELP, TYPE, then its samples.
//!
//! Not the crate `prometheus-client`: its registry keeps counters, and ours are all in the status already; it would
//! replace the forty lines of `Exposition`, require a new registry for each answer, and bring eight crates.

use std::fmt::{Display, Write};

use super::protocol::{Generation, Histogram, Load, Status, Worker};

/// The whole text.
#[must_use]
pub fn metrics(status: &Status) -> String {
    let launcher = &status.launcher;
    let mut text = Exposition::default();
    text.gauge("info", "The launcher, as labels; always 1.").sample(&[("version", &launcher.version)], 1);
    text.gauge("uptime_seconds", "Time since the start of the launcher.").sample(&[], launcher.uptime_seconds);
    text.gauge("ready", "Whether the service is ready for requests.").sample(&[], u8::from(launcher.ready));
    text.gauge("restarts_left", "Failures left before the launcher gives up.").sample(&[], status.restarts_left);
    text.counter("failures_total", "Failures of the server.").sample(&[], status.failures);
    text.counter("worker_exits_total", "Workers that ended while their generation served, by cause.");
    for (cause, count) in &status.worker_exits {
        text.sample(&[("cause", cause)], count);
    }
    text.counter("requests_total", "Requests by outcome, as reported by the workers.");
    text.sample(&[("outcome", "served")], status.requests.served);
    text.sample(&[("outcome", "rejected")], status.requests.rejected);
    durations(&mut text, &status.request_duration);
    for_generations(&mut text, &status.generations);
    for_workers(&mut text, &status.generations);
    text.0
}

/// Every second bucket: 1, 2 and 5 of each power of ten are enough for series that are kept.
fn durations(text: &mut Exposition, histogram: &Histogram) {
    let help = "How long requests took, without streams, refused and exempt requests.";
    text.family("request_duration_seconds", "histogram", help);
    for bucket in histogram.buckets.iter().step_by(2) {
        text.sample_of("_bucket", &[("le", &bucket.le.to_string())], bucket.count);
    }
    text.sample_of("_bucket", &[("le", "+Inf")], histogram.count);
    text.sample_of("_sum", &[], histogram.sum_seconds);
    text.sample_of("_count", &[], histogram.count);
}

fn for_generations(text: &mut Exposition, generations: &[Generation]) {
    text.gauge("generation_info", "A generation of the server, as labels; always 1.");
    for generation in generations {
        let id = generation.id.to_string();
        let version = generation.version.as_deref().unwrap_or_default();
        let labels = [
            ("generation", &*id),
            ("server", &generation.server),
            ("version", version),
            ("state", &generation.state),
        ];
        text.sample(&labels, 1);
    }
    text.gauge("generation_age_seconds", "Time since the start of a generation.");
    each(text, generations, |generation| generation.age_seconds);
    text.gauge("workers", "Live worker processes.");
    each(text, generations, |generation| generation.workers.len());
    text.gauge("workers_planned", "Planned worker processes.");
    each(text, generations, |generation| generation.workers_planned);
    text.gauge("worker_requests_limit", "Limit of concurrent requests per worker, unless it adapts.");
    where_known(text, generations, |generation| generation.limit);
    text.gauge("memory_limit_bytes", "Memory limit that the number of workers was computed with.");
    where_known(text, generations, |generation| generation.memory_limit_bytes);
    text.gauge("certificate_expiry_timestamp_seconds", "When the certificate of a generation expires, since 1970.");
    where_known(text, generations, |generation| generation.certificate_expiry_timestamp);
    text.counter("generation_worker_exits_total", "Workers of a generation that ended while it served.");
    each(text, generations, |generation| generation.restarts);
}

fn each<V: Display>(text: &mut Exposition, generations: &[Generation], value: impl Fn(&Generation) -> V) {
    for generation in generations {
        text.sample(&[("generation", &generation.id.to_string())], value(generation));
    }
}

fn where_known(text: &mut Exposition, generations: &[Generation], value: impl Fn(&Generation) -> Option<u64>) {
    for generation in generations {
        if let Some(value) = value(generation) {
            text.sample(&[("generation", &generation.id.to_string())], value);
        }
    }
}

/// A metric that each worker has, if known: name, help, value. A name that ends in `_total` is a counter.
type OfWorker = (&'static str, &'static str, fn(&Worker) -> Option<f64>);

#[allow(clippy::cast_precision_loss, reason = "the format's numbers are of this kind")]
const OF_WORKER: [OfWorker; 17] = [
    ("worker_age_seconds", "Time since the start of a worker.", |worker| Some(worker.age_seconds)),
    ("worker_resident_memory_bytes", "Resident memory of a worker, shared pages included.", |worker| {
        Some(worker.rss_bytes as f64)
    }),
    ("worker_cpu_seconds_total", "CPU time of a worker, user and system.", |worker| Some(worker.cpu_seconds)),
    ("worker_ready", "Whether the app in a worker has started and has not been asked to stop.", |worker| {
        load(worker, |load| f64::from(u8::from(load.state == "ready")))
    }),
    ("worker_heartbeat_age_seconds", "Time since the event loop of a worker last ran.", |worker| {
        load(worker, |load| load.heartbeat_seconds_ago)
    }),
    ("worker_dealt", "Whether a worker gets new clients, if the launcher distributes them.", |worker| {
        worker.load.as_ref()?.clients.as_ref().map(|clients| f64::from(u8::from(clients == "dealt")))
    }),
    ("worker_event_loop_lag_seconds", "Latest event loop lag of a worker.", |worker| {
        load(worker, |load| load.lag_seconds)
    }),
    ("worker_event_loop_lag_max_seconds", "Highest event loop lag of a worker.", |worker| {
        load(worker, |load| load.most_lag_seconds)
    }),
    ("worker_requests_in_flight", "Requests in progress in a worker.", |worker| {
        load(worker, |load| f64::from(load.in_flight))
    }),
    ("worker_requests_allowed", "How many requests a worker may have in progress at the moment.", |worker| {
        worker.load.as_ref()?.limit.map(f64::from)
    }),
    ("worker_requests_in_flight_max", "Highest number of concurrent requests in a worker.", |worker| {
        load(worker, |load| f64::from(load.high_water))
    }),
    ("worker_connections", "Open connections of a worker, as its server or the kernel counts them.", |worker| {
        worker.load.as_ref()?.connections.map(f64::from)
    }),
    ("worker_streams", "Open event streams and WebSockets of a worker.", |worker| {
        load(worker, |load| f64::from(load.streams))
    }),
    (
        "worker_requests_stuck",
        "Requests of a worker that have taken longer than they may and do not end.",
        |worker| load(worker, |load| f64::from(load.stuck)),
    ),
    (
        "worker_spinning",
        "Whether a worker uses a processor although it has nothing to do, for longer than it may.",
        |worker| load(worker, |load| f64::from(u8::from(load.spinning))),
    ),
    ("worker_requests_served_total", "Requests that a worker has finished.", |worker| {
        load(worker, |load| load.requests.served as f64)
    }),
    (
        "worker_requests_rejected_total",
        "Requests that a worker has refused with 503 because it was full.",
        |worker| load(worker, |load| load.requests.rejected as f64),
    ),
];

/// Whether each worker gets new clients, as a label, where clients are distributed.
fn clients(text: &mut Exposition, workers: &[(String, String, &Worker)]) {
    let help = "Whether a worker gets new clients (dealt), or why not, as a label; always 1.";
    text.family("worker_clients_info", "gauge", help);
    for (generation, pid, worker) in workers {
        if let Some(clients) = worker.load.as_ref().and_then(|load| load.clients.as_deref()) {
            text.sample(&[("generation", generation), ("pid", pid), ("clients", clients)], 1);
        }
    }
}

fn load(worker: &Worker, value: impl FnOnce(&Load) -> f64) -> Option<f64> {
    worker.load.as_ref().map(value)
}

fn for_workers(text: &mut Exposition, generations: &[Generation]) {
    let workers: Vec<_> = generations
        .iter()
        .flat_map(|generation| generation.workers.iter().map(move |worker| (generation.id.to_string(), worker)))
        .map(|(generation, worker)| (generation, worker.pid.to_string(), worker))
        .collect();
    clients(text, &workers);
    for (name, help, value) in OF_WORKER {
        text.family(name, if name.ends_with("_total") { "counter" } else { "gauge" }, help);
        for (generation, pid, worker) in &workers {
            if let Some(value) = value(worker) {
                text.sample(&[("generation", generation), ("pid", pid)], value);
            }
        }
    }
}

/// The text, to which the samples of each metric are appended.
#[derive(Default)]
struct Exposition(String);

impl Exposition {
    fn gauge(&mut self, name: &str, help: &str) -> &mut Self {
        self.family(name, "gauge", help)
    }

    fn counter(&mut self, name: &str, help: &str) -> &mut Self {
        self.family(name, "counter", help)
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) -> &mut Self {
        let _ = writeln!(self.0, "# HELP mcp_launch_{name} {help}\n# TYPE mcp_launch_{name} {kind}");
        self
    }

    /// A sample of the metric that was declared last.
    fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.sample_of("", labels, value);
    }

    /// A sample of a part of it, with this end of its name.
    fn sample_of(&mut self, part: &str, labels: &[(&str, &str)], value: impl Display) {
        // The end of a line cannot be part of a label.
        const TYPE: &str = "\n# TYPE ";
        let announced = self.0.rfind(TYPE).map_or("", |at| &self.0[at + TYPE.len()..]);
        let mut line = announced.split(' ').next().unwrap_or_default().to_owned() + part;
        for (position, (name, value)) in labels.iter().enumerate() {
            let start = if position == 0 { '{' } else { ',' };
            let _ = write!(line, "{start}{name}=\"{}\"", escape(value));
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{line}{end} {value}");
    }
}

/// Escapes a label's value: backslash, quote and line feed.
fn escape(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::table::tests::status;
    use std::collections::BTreeSet;

    /// Of a histogram.
    const PARTS: [&str; 3] = ["_bucket", "_sum", "_count"];

    #[test]
    fn a_label_that_looks_like_an_announcement_is_only_a_label() {
        let mut status = status();
        status.launcher.version = "1\n# TYPE x gauge".into();
        status.worker_exits = [("# TYPE y counter".to_owned(), 1), ("z".to_owned(), 2)].into();
        let text = metrics(&status);
        assert!(text.contains("\nmcp_launch_worker_exits_total{cause=\"z\"} 2\n"), "{text}");
    }

    #[test]
    fn every_sample_belongs_to_an_announced_metric_and_comes_once() {
        let text = metrics(&status());
        let mut announced = BTreeSet::new();
        let mut current = "";
        let mut samples = BTreeSet::new();
        for line in text.lines() {
            if let Some(family) = line.strip_prefix("# TYPE ") {
                let (name, kind) = family.split_once(' ').unwrap();
                assert!(announced.insert(name), "{name} is announced twice");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{family}");
                current = name;
            } else if let Some(help) = line.strip_prefix("# HELP ") {
                assert!(help.starts_with("mcp_launch_"), "{help}");
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let part = series.split('{').next().unwrap().strip_prefix(current);
                assert!(part.is_some_and(|part| part.is_empty() || PARTS.contains(&part)), "{line}");
                assert!(samples.insert(series), "{series} comes twice");
                value.parse::<f64>().unwrap();
            }
        }
        for line in [
            "mcp_launch_worker_resident_memory_bytes{generation=\"2\",pid=\"42\"} 125829120\n",
            "mcp_launch_worker_requests_in_flight{generation=\"2\",pid=\"42\"} 7\n",
            "mcp_launch_worker_requests_allowed{generation=\"2\",pid=\"42\"} 64\n",
            "mcp_launch_worker_dealt{generation=\"2\",pid=\"42\"} 0\n",
            "mcp_launch_worker_clients_info{generation=\"2\",pid=\"42\",clients=\"silent\"} 1\n",
            "mcp_launch_worker_ready{generation=\"2\",pid=\"42\"} 1\n",
            "mcp_launch_worker_requests_limit{generation=\"2\"} 64\n",
            "mcp_launch_requests_total{outcome=\"rejected\"} 11\n",
            "# TYPE mcp_launch_request_duration_seconds histogram\n",
            "mcp_launch_request_duration_seconds_bucket{le=\"0.0001\"} 5\n",
            "mcp_launch_request_duration_seconds_bucket{le=\"2\"} 7\n",
            "mcp_launch_request_duration_seconds_bucket{le=\"+Inf\"} 8\n",
            "mcp_launch_request_duration_seconds_sum 12.5\n",
            "mcp_launch_request_duration_seconds_count 8\n",
        ] {
            assert!(text.contains(line), "no {line} in {text}");
        }
        assert!(text.ends_with('\n'));
    }

    #[test]
    fn dashboard_and_alerts_name_metrics_that_exist() {
        let known = metrics(&status());
        let series =
            known.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(['{', ' ']).next());
        let known: BTreeSet<&str> = series.collect();
        let files = [
            include_str!("../../config/monitoring/alerts.yaml"),
            include_str!("../../config/monitoring/grafana-dashboard.json"),
        ];
        for text in files {
            let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
            let named: BTreeSet<&str> = words.filter(|word| word.starts_with("mcp_launch_")).collect();
            assert!(named.len() > 8, "{named:?}");
            assert!(named.is_subset(&known), "{:?}", named.difference(&known).collect::<Vec<_>>());
        }
    }

    #[test]
    fn label_values_are_escaped() {
        assert_eq!(escape("a\\b\"c\nd"), r#"a\\b\"c\nd"#);
    }
}
