//! TLS with the real servers and with real clients (curl, openssl): keys of every kind, client certificates, versions,
//! HTTP/2, renewals.

pub mod certificates;
mod http2;
mod keys;
mod peers;
pub mod renewal;
