//! PEM, as files have it: blocks of base64 between lines that name them (RFC 7468), with any text around them, and
//! with the header lines of the older format (RFC 1421).

use base64ct::{Base64, Encoding};
use zeroize::Zeroizing;

/// What stands between `-----BEGIN LABEL-----` and `-----END LABEL-----`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    pub label: String,
    /// Lines `Name: value` in front of the data.
    pub headers: Vec<(String, String)>,
    pub data: Zeroizing<Vec<u8>>,
}

impl Block {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// All blocks of a text, in their order.
///
/// # Errors
/// What is wrong with one of them, as what the file does: "has …".
pub(super) fn blocks(text: &[u8]) -> Result<Vec<Block>, String> {
    let text = String::from_utf8_lossy(text);
    let mut lines = text.lines().map(str::trim);
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        let Some(label) = line.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----")) else {
            continue;
        };
        let end = format!("-----END {label}-----");
        let mut headers = Vec::new();
        let mut data = Zeroizing::new(String::new());
        loop {
            match lines.next() {
                Some(line) if line == end => break,
                None => return Err(format!("is cut off: it has no {end}")),
                Some(line) if line.starts_with("-----") => {
                    return Err(format!("has {line} where {end} should be"));
                }
                Some(line) => match line.split_once(':') {
                    Some((name, value)) => headers.push((name.trim().to_owned(), value.trim().to_owned())),
                    None => data.push_str(line),
                },
            }
        }
        let data = Base64::decode_vec(&data).map_err(|_| format!("has a {label} that is not base64"))?;
        found.push(Block { label: label.to_owned(), headers, data: Zeroizing::new(data) });
    }
    Ok(found)
}

/// One block as text.
pub(super) fn write(label: &str, data: &[u8]) -> Zeroizing<Vec<u8>> {
    const LINE: usize = 64;
    let encoded = Zeroizing::new(Base64::encode_string(data));
    // Never moved while it grows: a copy that is left behind would not be wiped.
    let lines = encoded.len().div_ceil(LINE);
    let mut text = Zeroizing::new(Vec::with_capacity(encoded.len() + lines + 2 * label.len() + 40));
    text.extend_from_slice(format!("-----BEGIN {label}-----\n").as_bytes());
    for line in encoded.as_bytes().chunks(LINE) {
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    text.extend_from_slice(format!("-----END {label}-----\n").as_bytes());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_whatever_stands_around_it() {
        let data: Vec<u8> = (0..=255).collect();
        let text = write("THING", &data);
        let text = String::from_utf8(text.to_vec()).unwrap();
        assert!(text.lines().all(|line| line.len() <= 64), "{text}");
        for text in [text.clone(), format!("Bag Attributes\n  x: y\n{text}\nmore"), text.replace('\n', "\r\n")] {
            let found = blocks(text.as_bytes()).unwrap();
            assert_eq!(found.len(), 1);
            assert_eq!((found[0].label.as_str(), found[0].data.as_slice()), ("THING", data.as_slice()));
        }
    }

    #[test]
    fn headers_are_told_apart_from_data() {
        let text = b"-----BEGIN A-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: X,00\n\nAAAA\n-----END A-----\n";
        let found = blocks(text).unwrap();
        assert_eq!(found[0].header("Proc-Type"), Some("4,ENCRYPTED"));
        assert_eq!(found[0].data.as_slice(), [0, 0, 0]);
    }

    #[test]
    fn what_is_broken_is_said() {
        for (text, why) in [
            ("-----BEGIN A-----\nAAAA\n", "cut off"),
            ("-----BEGIN A-----\nAAAA\n-----BEGIN B-----\n", "where"),
            ("-----BEGIN A-----\nA!AA\n-----END A-----\n", "not base64"),
        ] {
            assert!(blocks(text.as_bytes()).unwrap_err().contains(why), "{text}");
        }
        assert_eq!(blocks(b"\xff\0 no PEM at all"), Ok(Vec::new()));
    }
}
