//! Lines of the log in JSON, in which a field that is JSON already stays what it is: the record of an end.

use std::fmt::{self, Debug};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{Format, Json, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The field.
const RECORD: &str = "record";

/// The format of events.
#[derive(Debug)]
pub(super) struct JsonLines(pub(super) Format<Json>);

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut found = Found::default();
        event.record(&mut found);
        let Some(record) = found.record else { return self.0.format_event(context, to, event) };
        to.write_str("{\"timestamp\":\"")?;
        SystemTime.format_time(&mut to)?;
        let (level, message) = (event.metadata().level(), found.message);
        writeln!(to, "\",\"level\":\"{level}\",\"message\":\"{message}\",\"{RECORD}\":{record}}}")
    }
}

/// The message of an event, which is one of ours, and its record.
#[derive(Default)]
struct Found {
    message: String,
    record: Option<String>,
}

impl Visit for Found {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            RECORD => self.record = Some(format!("{value:?}")),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Result, Write};
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_record_is_an_object_and_other_lines_stay_as_they_are() {
        let lines = Lines::default();
        let writer = lines.clone();
        let builder = tracing_subscriber::fmt().with_target(false).with_writer(move || writer.clone());
        let builder = builder.json().flatten_event(true).map_event_format(JsonLines);
        tracing::subscriber::with_default(builder.finish(), || {
            tracing::warn!(record = %r#"{"path":"/a\"b"}"#, "end");
            tracing::info!(pid = 7, "worker exit");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let [record, other] = [0, 1].map(|at| {
            serde_json::from_str::<serde_json::Value>(text.lines().nth(at).unwrap())
                .unwrap_or_else(|error| panic!("{error}: {text}"))
        });
        assert_eq!(
            (&record["record"]["path"], &record["message"], &record["level"]),
            (&"/a\"b".into(), &"end".into(), &"WARN".into())
        );
        assert_eq!((&other["message"], &other["pid"]), (&"worker exit".into(), &7.into()));
        let length = |line: &serde_json::Value| line["timestamp"].as_str().unwrap().len();
        assert_eq!(length(&record), length(&other));
    }
}
