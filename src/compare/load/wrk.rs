//! wrk, <https://github.com/wg/wrk>: 4.0 and later. Its normal output leaves out much of what it knows, so a script
//! prints the figures.

use std::fmt::Write;
use std::time::Duration;

use serde::Deserialize;

use super::{Command, Kind, Load, Outcome, SCRIPT, name, url};
use crate::compare::options::LoadRequest;

/// It knows only whole seconds.
pub(super) fn whole_seconds(wanted: Duration) -> Duration {
    Duration::from_secs(wanted.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)).max(Duration::from_secs(1))
}

pub(super) fn command(load: &Load<'_>) -> Command {
    let seconds = |span| format!("{}s", whole_seconds(span).as_secs());
    let mut argv = vec![name(Kind::Wrk)];
    let mut add = |words: &[&str]| argv.extend(words.iter().map(Into::into));
    // One thread can drive all our connections, and leaves the other processors to the server.
    add(&["-t", "1", "-c", &load.connections.to_string()]);
    add(&["-d", &seconds(load.duration), "--timeout", &seconds(load.patience), "-s", SCRIPT]);
    argv.push(url(load));
    Command { argv, script: Some(script(load.request, load.tell_rejected)) }
}

/// The start of the line that the script prints.
const MARK: &str = "mcp-launch ";

/// The script is read by each thread, which has an environment of its own; `done` runs in another one.
fn script(request: &LoadRequest, tell_rejected: bool) -> String {
    let mut text = format!("wrk.method = {}\n", quoted(&request.method));
    if let Some(body) = &request.body {
        let _ = writeln!(text, "wrk.body = {}", quoted(body));
    }
    for header in &request.headers {
        let _ = writeln!(text, "wrk.headers[{}] = {}", quoted(&header.name), quoted(&header.value));
    }
    if tell_rejected {
        // With this function in the script, wrk parses every response for it, which costs CPU time.
        text += "rejected = 0\n\
                 function response(status) if status == 503 then rejected = rejected + 1 end end\n\
                 local threads = {}\n\
                 function setup(thread) threads[#threads + 1] = thread end\n\
                 local function sum() local n = 0\n\
                 for _, thread in ipairs(threads) do n = n + thread:get('rejected') end return n end\n";
    } else {
        text += "local function sum() return 'null' end\n";
    }
    let _ = write!(
        text,
        "function done(summary, latency)\n\
         local errors = summary.errors\n\
         io.write(string.format('{MARK}{{\"us\":%d,\"answers\":%d,\"status\":%d,\"late\":%d,\"broken\":%d,' ..\n\
         '\"p50_us\":%d,\"p99_us\":%d,\"rejected\":%s}}\\n', summary.duration, summary.requests, errors.status,\n\
         errors.timeout, errors.connect + errors.read + errors.write, latency:percentile(50),\n\
         latency:percentile(99), tostring(sum())))\nend\n"
    );
    text
}

/// A string of Lua: everything but letters and digits as a decimal escape.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            quoted.push(char::from(byte));
        } else {
            let _ = write!(quoted, "\\{byte:03}");
        }
    }
    quoted + "\""
}

/// What the script prints.
#[derive(Deserialize)]
struct ResultLine {
    us: f64,
    /// Of any status, including late ones.
    answers: u64,
    /// Of those, the ones of 400 and more.
    status: u64,
    late: u64,
    broken: u64,
    p50_us: f64,
    p99_us: f64,
    rejected: Option<u64>,
}

pub(super) fn read(output: &str) -> Option<Outcome> {
    let line: ResultLine = serde_json::from_str(output.lines().find_map(|line| line.strip_prefix(MARK))?).ok()?;
    // Without failures there is nothing to distinguish.
    let rejected = if line.status == 0 { Some(0) } else { line.rejected };
    let some = |micros: f64| (line.answers > 0).then_some(micros / 1e3);
    Some(Outcome {
        seconds: line.us / 1e6,
        answered: line.answers.saturating_sub(line.status + line.late),
        rejected,
        timed_out: line.late,
        failed: line.broken + line.status.saturating_sub(rejected.unwrap_or(0)),
        p50_ms: some(line.p50_us),
        p99_ms: some(line.p99_us),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::options::header;

    #[test]
    fn the_service_manager_is_informed_of_everything() {
        let request = LoadRequest {
            method: "PUT".into(),
            path: "/a".into(),
            headers: vec![header("X-Y: \"]] \\").unwrap()],
            body: Some("é\n".into()),
        };
        let mut load = Load {
            address: "[::1]:81".parse().unwrap(),
            request: &request,
            connections: 5,
            duration: Duration::from_millis(2500),
            patience: Duration::from_millis(100),
            tell_rejected: false,
        };
        let Command { argv, script } = command(&load);
        let wanted = "wrk -t 1 -c 5 -d 3s --timeout 1s -s /proc/self/fd/3 http://[::1]:81/a";
        assert_eq!(argv.join(" ".as_ref()), wanted);
        let script = script.unwrap();
        assert!(script.starts_with("wrk.method = \"PUT\"\nwrk.body = \"\\195\\169\\010\"\n"), "{script}");
        assert!(script.contains("wrk.headers[\"X\\045Y\"] = \"\\034\\093\\093\\032\\092\"\n"), "{script}");
        assert!(!script.contains("function response"));
        load.tell_rejected = true;
        assert!(command(&load).script.unwrap().contains("function response"));
    }

    /// As wrk 4.1.0 wrote it.
    const SAMPLE: &str = "Running 1s test @ http://127.0.0.1:18999/\n  1 threads and 8 connections\n  \
        Thread Stats   Avg      Stdev     Max   +/- Stdev\n    Latency     1.57ms    2.11ms  15.36ms   84.73%\n    \
        Req/Sec    10.57k     3.91k   19.43k    90.00%\n  10576 requests in 1.01s, 1.27MB read\n\
        Requests/sec:  10468.25\nTransfer/sec:      1.26MB\n\
        mcp-launch {\"us\":1010293,\"answers\":10576,\"status\":10,\"late\":3,\"broken\":2,\"p50_us\":368,\
        \"p99_us\":8780,\"rejected\":7}\n";

    #[test]
    fn responses_and_failures_are_distinguished() {
        let wanted = Outcome {
            seconds: 1.010_293,
            answered: 10_563,
            rejected: Some(7),
            timed_out: 3,
            failed: 5,
            p50_ms: Some(0.368),
            p99_ms: Some(8.78),
        };
        assert_eq!(read(SAMPLE), Some(wanted));
        let unknown = read(&SAMPLE.replace("\"rejected\":7", "\"rejected\":null")).unwrap();
        assert_eq!((unknown.rejected, unknown.failed), (None, 12));
        let clean = SAMPLE.replace("\"rejected\":7", "\"rejected\":null").replace("\"status\":10", "\"status\":0");
        assert_eq!(read(&clean).unwrap().rejected, Some(0));
    }

    #[test]
    fn what_is_not_its_output_is_not_understood() {
        for text in ["", "unable to connect to 127.0.0.1:1 Connection refused", "mcp-launch {}", "mcp-launch x"] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }
}
