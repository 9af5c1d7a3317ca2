//! TLS with the real servers and with real clients (curl, openssl): keys of every kind, client certificates, versions,
//! HTTP/2, renewals.

mod harness;

#[path = "tls/certificates.rs"]
mod certificates;
#[path = "tls/http2.rs"]
mod http2;
#[path = "tls/keys.rs"]
mod keys;
#[path = "tls/peers.rs"]
mod peers;
#[path = "tls/renewal.rs"]
mod renewal;
