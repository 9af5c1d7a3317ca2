//! What is fuzzed here: what strangers send to the control socket and to the metrics listener, and what a program at the
//! other end of the socket responds.

use std::time::{Duration, Instant};

use super::client::{Client, Framing, LONGEST_REQUEST, TooLong};
use super::get::HealthTarget;
use super::protocol::{Answer, Request, line};
use super::{http, prometheus, table};
use crate::probe::Protocol;

/// What a client sends. However it arrives, the request is the same, and no more is kept than the longest one.
pub(crate) fn request(bytes: &[u8]) {
    for framing in [Framing::Line, Framing::Head] {
        let whole = taken(framing, bytes, bytes.len().max(1));
        for piece in [1, 7] {
            assert_eq!(taken(framing, bytes, piece), whole, "{framing:?} in pieces of {piece}");
        }
        let Ok(Some(text)) = whole else { continue };
        assert!(text.len() <= LONGEST_REQUEST && bytes.starts_with(&text));
        if let Ok(request) = Request::read(&text) {
            let again = line(&request);
            assert_eq!(Request::read(&again), Ok(request));
        }
        if framing == Framing::Head {
            let _ = http::read(&text);
        }
    }
}

fn taken(framing: Framing, bytes: &[u8], piece: usize) -> Result<Option<Vec<u8>>, TooLong> {
    let mut client = Client::new(framing, Instant::now());
    let mut pieces = bytes.chunks(piece);
    let found = pieces.find_map(|piece| client.take(piece).transpose()).transpose()?;
    client.answer(vec![0; 3], Instant::now() + Duration::from_secs(1));
    assert_eq!(client.unsent().len(), if found.is_some() { 3 } else { 0 });
    Ok(found)
}

/// What the launcher responds, or another program in its place; and an address to probe.
pub(crate) fn answer(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        addresses(text);
    }
    let Ok(answer) = serde_json::from_slice::<Answer>(bytes) else { return };
    let written = line(&answer);
    assert_eq!(written.iter().position(|byte| *byte == b'\n'), Some(written.len() - 1));
    serde_json::from_slice::<Answer>(&written).expect("what is written is read again");
    match &answer {
        Answer::Status(status) => {
            let _ = table::table(status);
            let samples = prometheus::metrics(status);
            let is_sample = |line: &str| line.starts_with("mcp_launch_") && line.contains(' ');
            assert!(samples.lines().all(|line| line.starts_with("# ") || is_sample(line)), "{samples}");
        }
        Answer::Plan(plan) => _ = plan.text(),
        _ => {}
    }
}

fn addresses(text: &str) {
    let _ = HealthTarget::at(text, "/health", Protocol::default());
    if let Ok(target) = HealthTarget::url(text) {
        assert!(HealthTarget::url(&target.to_string()).is_ok(), "{text:?} became {target}");
    }
}
