//! The relevant contents of a certificate (RFC 5280): its subject, its issuer, its validity, its public key.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pkcs8::der::asn1::{AnyRef, GeneralizedTime, UtcTime};
use pkcs8::der::{DateTime, Error, Reader, Result, SliceReader, Tag, Tagged};

use super::name;
use super::pem::{self, Section};
use super::public::{self, Public};

/// A certificate, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Its name: `CN=example.org`.
    pub subject: String,
    /// The name of its issuer.
    pub issuer: String,
    /// The first moment at which it is valid.
    pub not_before: SystemTime,
    /// The last moment at which it is valid.
    pub not_after: SystemTime,
    /// Its public key; none if its kind is not supported here.
    pub public: Option<Public>,
    /// The signed original, in DER.
    der: Vec<u8>,
}

impl Certificate {
    /// Whether it is valid at this time.
    #[must_use]
    pub fn validity(&self, now: SystemTime) -> Validity {
        if now < self.not_before {
            return Validity::NotYet;
        }
        match self.not_after.duration_since(now) {
            Ok(left) => Validity::For(left),
            Err(_) => Validity::Expired,
        }
    }
}

/// How a moment relates to the validity of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// The certificate is not valid yet.
    NotYet,
    /// It is valid, for this time.
    For(Duration),
    /// It has expired.
    Expired,
}

/// Reads all certificates of a file's sections, in their order.
///
/// # Errors
/// Which one cannot be read.
pub(super) fn certificates(sections: &[Section]) -> std::result::Result<Vec<Certificate>, String> {
    let of_certificates = sections.iter().filter(|section| section.label == "CERTIFICATE");
    let read = |(index, section): (usize, &Section)| {
        let unreadable = |_| format!("has a certificate (the {}) that cannot be read", nth(index));
        certificate(&section.decode()?).map_err(unreadable)
    };
    let found: Vec<Certificate> = of_certificates.enumerate().map(read).collect::<std::result::Result<_, _>>()?;
    if !found.is_empty() {
        return Ok(found);
    }
    Err(if sections.is_empty() {
        "is not a PEM file".into()
    } else {
        format!("contains {}, not a CERTIFICATE: are the two files swapped?", pem::labels(sections))
    })
}

/// Reads what is relevant here (RFC 5280, 4.1), and does not check the requirements for issuers that go beyond the
/// form: servers accept such certificates, too.
fn certificate(data: &[u8]) -> Result<Certificate> {
    let mut reader = SliceReader::new(data)?;
    let found = reader.sequence(|reader| {
        let found = reader.sequence(|reader| signed(reader, data))?;
        public::rest(reader)?;
        Ok::<_, Error>(found)
    })?;
    reader.finish()?;
    Ok(found)
}

/// Reads the signed part; `whole` is the certificate.
fn signed(reader: &mut SliceReader, whole: &[u8]) -> Result<Certificate> {
    let _version = public::tagged(reader, 0)?;
    let _serial: AnyRef = reader.decode()?;
    let _algorithm: AnyRef = reader.decode()?;
    let issuer = name::read(reader)?;
    let (not_before, not_after) = reader.sequence(|reader| Ok::<_, Error>((time(reader)?, time(reader)?)))?;
    let subject = name::read(reader)?;
    let public = Public::of(&reader.decode()?);
    public::rest(reader)?;
    Ok(Certificate { subject, issuer, not_before, not_after, public, der: whole.to_vec() })
}

/// Until 2049 a time has two digits for the year (RFC 5280, 4.1.2.5).
fn time<'a>(reader: &mut impl Reader<'a>) -> Result<SystemTime> {
    let time: AnyRef = reader.decode()?;
    match time.tag() {
        Tag::UtcTime => time.decode_as::<UtcTime>().map(|time| time.to_system_time()),
        _ => time.decode_as::<GeneralizedTime>().map(|time| time.to_system_time()),
    }
}

/// The text of a file with these certificates and nothing else.
pub(super) fn to_pem(certificates: &[Certificate]) -> Vec<u8> {
    certificates.iter().flat_map(|one| pem::write("CERTIFICATE", &one.der).to_vec()).collect()
}

/// `1st`, `2nd` … from an index.
pub(super) fn nth(index: usize) -> String {
    let ending = match (index + 1) % 10 {
        _ if (10..20).contains(&(index % 100 + 1)) => "th",
        1 => "st",
        2 => "nd",
        3 => "rd",
        _ => "th",
    };
    format!("{}{ending}", index + 1)
}

/// A day, as people write it.
pub(super) fn date(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    DateTime::from_unix_duration(since).map_or_else(|_| "?".into(), |at| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// What openssl prints after a `=`, with the certificate as its input.
    fn openssl(directory: &std::path::Path, arguments: &str) -> Vec<String> {
        let ran = Command::new("openssl").args(arguments.split('|')).current_dir(directory).output().unwrap();
        assert!(ran.status.success(), "{arguments}: {}", String::from_utf8_lossy(&ran.stderr));
        let text = String::from_utf8(ran.stdout).unwrap();
        text.lines().map(|line| line.split_once('=').unwrap_or_default().1.to_owned()).collect()
    }

    #[test]
    fn certificates_are_read_as_openssl_reads_them() {
        for (key, more) in [
            ("rsa:2048", "-subj|/C=DE/O=Ex, Inc./OU=a + b;/CN=höst.example/emailAddress=a@b.c|-utf8|-days|365"),
            ("ed25519", "-subj|/CN=#x/serialNumber=7/STREET=y \"z\" |-days|36500"),
            ("rsa:2048", "-subj|/DC=org/DC=example/UID=u|-sigopt|rsa_padding_mode:pss"),
            ("ed448", "-subj|/CN=x/title=t"),
        ] {
            let directory = tempfile::tempdir().unwrap();
            openssl(directory.path(), &format!("req|-x509|-noenc|-newkey|{key}|-keyout|key|-out|crt|{more}"));
            let show = "x509|-in|crt|-noout|-startdate|-enddate|-dateopt|iso_8601|-subject|-issuer|-nameopt";
            let expected = openssl(directory.path(), &format!("{show}|RFC2253,utf8,-esc_msb"));
            let text = std::fs::read(directory.path().join("crt")).unwrap();
            let [found] = &certificates(&pem::sections(&text)).unwrap()[..] else { panic!("one certificate") };
            let times = [found.not_before, found.not_after].map(|time| date(time).replace('T', " "));
            let names = [&found.subject, &found.issuer]
                .map(|name| name.to_lowercase().replace("2.5.4.12=#0c0174", "title=t"));
            let expected: Vec<String> = expected.iter().map(|line| line.to_lowercase()).collect();
            assert_eq!([times.map(|time| time.to_lowercase()), names].concat(), expected);
            assert_eq!(found.public.is_some(), key != "ed448");
            assert_eq!(to_pem(std::slice::from_ref(found)), text);
        }
    }

    #[test]
    fn a_certificate_that_is_truncated_or_continues_is_invalid() {
        let directory = tempfile::tempdir().unwrap();
        let make = "req|-x509|-noenc|-newkey|ed25519|-keyout|key|-out|crt|-outform|DER|-subj|/CN=x";
        openssl(directory.path(), make);
        let data = std::fs::read(directory.path().join("crt")).unwrap();
        assert!(certificate(&data).is_ok());
        assert!((0..data.len()).all(|length| certificate(&data[..length]).is_err()));
        assert!(certificate(&[data, vec![5, 0]].concat()).is_err());
    }
}
