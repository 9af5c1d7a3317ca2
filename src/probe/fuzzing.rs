//! What is fuzzed here: what a server responds to a probe.

use super::{Exchange, Protocol, Response};

/// The response: plain HTTP/1, plain HTTP/2 or, according to the first byte, TLS. However it arrives, it means the same.
pub(crate) fn http_response(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else { return };
    let protocol = Protocol { tls: kind % 8 == 2, h2c: kind % 2 == 1 };
    let whole = respond(protocol, bytes, bytes.len().max(1));
    if let Some(Response::Status(status)) = whole {
        assert!((200..1000).contains(&status) || status == 101, "{status}");
    }
    if !protocol.tls {
        assert_eq!(respond(protocol, bytes, 1), whole);
        assert_eq!(respond(protocol, bytes, 13), whole);
    }
}

fn respond(protocol: Protocol, bytes: &[u8], piece: usize) -> Option<Response> {
    let mut exchange = Exchange::new(protocol, "localhost", "/health");
    assert!(!exchange.outgoing().is_empty() && exchange.outgoing().len() < 4096);
    let found = bytes.chunks(piece).find_map(|piece| exchange.received(piece));
    exchange.sent(exchange.outgoing().len());
    let _ = exchange.ended();
    found
}
