//! `--bind`, known from Gunicorn, translated to address, port and socket.

use std::ffi::OsStr;
use std::net::IpAddr;

use crate::settings::FlagLayer;

const FLAG: &str = "--bind";

/// Adds what `HOST:PORT`, `HOST`, `:PORT`, `[IPV6]:PORT` or `unix:PATH` means. An address also overrides a socket
/// from another layer, which would otherwise take precedence.
pub(super) fn expand(address: &OsStr, layer: &mut FlagLayer) {
    let Some(text) = address.to_str() else {
        return layer.set("host", FLAG, address);
    };
    if let Some(path) = text.strip_prefix("unix:") {
        return layer.set("uds", FLAG, path);
    }
    layer.set("uds", FLAG, "none");
    let whole = text.parse::<IpAddr>().is_ok() || text.ends_with(']');
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !whole => (host, Some(port)),
        _ => (text, None),
    };
    // `:80` means every address; only an entirely empty argument means nothing.
    if !host.is_empty() || port.is_none() {
        layer.set("host", FLAG, host);
    }
    if let Some(port) = port {
        layer.set("port", FLAG, port);
    }
}
