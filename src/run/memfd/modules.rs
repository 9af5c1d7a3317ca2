//! Python modules in memory: a zip archive in a memory file, from which Python imports through a path entry like any
//! other. It needs no writable directory, and disappears with the last process that has it open.

use std::io::Write;
use std::os::fd::OwnedFd;

use crate::plan::Module;
use crate::sys::memory_file::{Content, memory_file as empty_file};

/// Makes the memory file.
///
/// # Errors
/// If the kernel has no memory or descriptor for it.
pub fn memory_file(modules: &[Module]) -> std::io::Result<OwnedFd> {
    let mut file = std::fs::File::from(empty_file(c"mcp-launch", Content::Plain)?);
    file.write_all(&archive(modules))?;
    Ok(file.into())
}

/// A zip archive with stored files: for each a local header and its data, then the central directory, then its end
/// (PKWARE's APPNOTE, 4.3). Sizes beyond 4 GiB do not occur.
fn archive(modules: &[Module]) -> Vec<u8> {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
    let (mut locals, mut central) = (Vec::new(), Vec::new());
    for module in modules {
        let (name, data) = (format!("{}.py", module.name), module.source.as_bytes());
        let name_length = u16::try_from(name.len()).unwrap_or(u16::MAX).to_le_bytes();
        let no_extra = [0; 2];
        // Version 2.0, no flags, stored, midnight on 1 January 1980: the earliest time that can be written.
        let common: Vec<u8> = [
            &[20, 0, 0, 0, 0, 0, 0, 0, 0x21, 0][..],
            &crc32(data).to_le_bytes(),
            &length(data),
            &length(data),
            &name_length,
            &no_extra,
        ]
        .concat();
        // No comment, disk 0, no attributes, and the offset of the local header.
        let start = length(&locals);
        central.extend([b"PK\x01\x02\x14\x00", &common[..], &[0; 10], &start, name.as_bytes()].concat());
        locals.extend([b"PK\x03\x04", &common[..], name.as_bytes(), data].concat());
    }
    let count = u16::try_from(modules.len()).unwrap_or(u16::MAX).to_le_bytes();
    let end = [b"PK\x05\x06\x00\x00\x00\x00", &count[..], &count, &length(&central), &length(&locals), &[0; 2]];
    let end = end.concat();
    [locals, central, end].concat()
}

/// The checksum of zip and Ethernet (ISO 3309), bit by bit: the data is a few kilobytes.
fn crc32(data: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
    !data.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_known_one() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn python_imports_from_it() {
        use std::os::fd::AsRawFd;
        let module = |name: &str, source: &str| Module { name: name.into(), source: source.into() };
        let modules = [module("in_memory", "ANSWER = 'é' * 2\n"), module("beside", "from in_memory import ANSWER\n")];
        let file = memory_file(&modules).unwrap();
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        let output = std::process::Command::new("python3")
            .args(["-c", "import beside; print(beside.ANSWER)"])
            .env("PYTHONPATH", path)
            .env("PYTHONUTF8", "1")
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "éé\n", "{output:?}");
    }
}
