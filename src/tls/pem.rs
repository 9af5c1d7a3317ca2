//! PEM files (RFC 7468), with any text around the sections. The contents of a section are decoded by the reader of
//! rustls, with which Granian reads PEM, too: OpenSSL's is no stricter.

use base64ct::{Base64, Encoding};
use rustls::pki_types::pem::{Error, PemObject, SectionKind};
use zeroize::Zeroizing;

/// What is between `-----BEGIN LABEL-----` and `-----END LABEL-----`, still encoded.
#[derive(Debug)]
pub(super) struct Section<'a> {
    pub label: String,
    /// The lines after the first, up to the first line that ends a section.
    lines: Vec<&'a [u8]>,
}

/// All sections of a text, in their order.
pub(super) fn sections(text: &[u8]) -> Vec<Section<'_>> {
    let mut found: Vec<Section> = Vec::new();
    let mut is_open = false;
    for line in text.split(|byte| matches!(byte, b'\n' | b'\r')).map(<[u8]>::trim_ascii) {
        if let Some(label) = line.strip_prefix(b"-----BEGIN ").and_then(|rest| rest.strip_suffix(b"-----")) {
            found.push(Section { label: String::from_utf8_lossy(label).into_owned(), lines: Vec::new() });
            is_open = true;
        } else if let Some(section) = found.last_mut().filter(|_| is_open) {
            section.lines.push(line);
            is_open = !line.starts_with(b"-----END ");
        }
    }
    found
}

impl Section<'_> {
    /// Whether it is encrypted as in RFC 1421, with a header line `Proc-Type: 4,ENCRYPTED`.
    pub fn is_encrypted_by_header(&self) -> bool {
        self.lines.iter().any(|line| line.starts_with(b"Proc-Type:") && line.ends_with(b"ENCRYPTED"))
    }

    /// Its decoded contents.
    ///
    /// # Errors
    /// What is wrong, as a phrase about the file: "has …".
    pub fn decode(&self) -> Result<Zeroizing<Vec<u8>>, String> {
        let label = &self.label;
        match <(SectionKind, Vec<u8>)>::from_pem_slice(&self.as_known_kind()) {
            Ok((_, data)) => Ok(Zeroizing::new(data)),
            Err(Error::MissingSectionEnd { .. }) => Err(format!("is cut off: it has no -----END {label}-----")),
            Err(_) => Err(format!("has a {label} that is not base64")),
        }
    }

    /// The section under a label that the reader knows: it skips others, including encrypted keys.
    fn as_known_kind(&self) -> Zeroizing<Vec<u8>> {
        const BEGIN: &[u8] = b"-----BEGIN PRIVATE KEY-----\n";
        const END: &[u8] = b"-----END PRIVATE KEY-----";
        let end = format!("-----END {}-----", self.label);
        let length: usize = self.lines.iter().map(|line| line.len() + 1).sum();
        // It must never move while it grows: the old copy would not be wiped.
        let mut text = Zeroizing::new(Vec::with_capacity(BEGIN.len() + length + END.len()));
        text.extend_from_slice(BEGIN);
        for line in &self.lines {
            text.extend_from_slice(if *line == end.as_bytes() { END } else { line });
            text.push(b'\n');
        }
        text
    }
}

/// The sections in a text, for a message.
pub(super) fn labels(sections: &[Section]) -> String {
    sections.iter().map(|section| section.label.as_str()).collect::<Vec<_>>().join(", ")
}

/// One section as text. The crate of rustls does not write any.
pub(super) fn write(label: &str, data: &[u8]) -> Zeroizing<Vec<u8>> {
    const LINE: usize = 64;
    let encoded = Zeroizing::new(Base64::encode_string(data));
    // Never moved while it grows, as above.
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
        let text = write("ENCRYPTED THING", &data);
        let text = String::from_utf8(text.to_vec()).unwrap();
        assert!(text.lines().all(|line| line.len() <= 64), "{text}");
        let around = format!("Bag Attributes\n  x: y\n{text}\nmore: text");
        let indented = format!("  {}", text.replace('\n', " \n  "));
        let one_line =
            text.replacen('\n', "#", 1).replace('\n', "").replace('#', "\n").replace("-----END", "\n-----END");
        for text in [text.clone(), around, indented, one_line, text.replace('\n', "\r\n"), text.replace('\n', "\r")] {
            let found = sections(text.as_bytes());
            assert_eq!(found.len(), 1, "{text}");
            let decoded = found[0].decode().unwrap_or_else(|why| panic!("{why}: {text}"));
            assert_eq!((found[0].label.as_str(), decoded.as_slice()), ("ENCRYPTED THING", data.as_slice()));
        }
    }

    #[test]
    fn one_section_does_not_spoil_another() {
        let good = String::from_utf8(write("B", b"good").to_vec()).unwrap();
        let headers = "-----BEGIN A-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: X,00\n\nAAAA\n-----END A-----\n";
        let text = format!("-----BEGIN C-----\n{headers}{good}");
        let found = sections(text.as_bytes());
        assert_eq!(labels(&found), "C, A, B");
        assert_eq!(found.iter().map(Section::is_encrypted_by_header).collect::<Vec<_>>(), [false, true, false]);
        assert_eq!(found[2].decode().unwrap().as_slice(), b"good");
    }

    #[test]
    fn what_is_broken_is_reported() {
        for (text, why) in [
            ("-----BEGIN A-----\nAAAA\n", "cut off: it has no -----END A-----"),
            ("-----BEGIN A-----\nAAAA\n-----BEGIN B-----\n", "cut off: it has no -----END A-----"),
            ("-----BEGIN A-----\nAAAA\n-----END B-----\n", "cut off: it has no -----END A-----"),
            ("-----BEGIN A-----\nA!AA\n-----END A-----\n", "has a A that is not base64"),
        ] {
            assert!(sections(text.as_bytes())[0].decode().unwrap_err().contains(why), "{text}");
        }
        assert!(sections(b"\xff\0 no PEM at all").is_empty());
    }
}
