//! Names in the abstract namespace of Unix sockets.

/// The abstract names on which a process listens; none if the kernel does not show them.
#[must_use]
pub fn abstract_listeners() -> Vec<String> {
    parse(&super::file::read("/proc/net/unix").unwrap_or_default())
}

/// The listeners in the kernel's table, `proc_pid_net(5)`: `Num RefCount Protocol Flags Type St Inode Path`. A name
/// that is not UTF-8 is not one of ours.
pub(super) fn parse(table: &[u8]) -> Vec<String> {
    /// `__SO_ACCEPTCON`.
    const LISTENS: u32 = 1 << 16;
    let name = |line: &[u8]| {
        let line = std::str::from_utf8(line).ok()?;
        let mut fields = line.split_ascii_whitespace();
        let flags = u32::from_str_radix(fields.nth(3)?, 16).ok()?;
        let name = fields.nth(3)?.strip_prefix('@')?;
        (flags & LISTENS != 0).then(|| name.to_owned())
    };
    table.split(|byte| *byte == b'\n').filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listeners_with_an_abstract_name_are_found() {
        let table = b"Num       RefCount Protocol Flags    Type St Inode Path\n\
            ffff9: 00000002 00000000 00010000 0001 01 20621 @mcp-launch-::1-80\n\
            ffff9: 00000003 00000000 00000000 0001 03 20622 @mcp-launch-::1-80\n\
            ffff9: 00000002 00000000 00010000 0001 01 20623 /run/a.sock\n\
            ffff9: 00000002 00000000 00010000 0001 01 20624\n\
            ffff9: 00000002 00000000 00010000 0001 01 20625 @\xff\n";
        assert_eq!(parse(table), ["mcp-launch-::1-80"]);
    }
}
