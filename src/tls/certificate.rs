//! What there is to know of a certificate (RFC 5280): whose it is, who made it, when it is valid, whose key it has.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use der::Decode;
use x509_cert::certificate::{CertificateInner, Raw};

use super::key::{self, Public};
use super::pem::{self, Block};

/// A certificate, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Its name: `CN=example.org`.
    pub subject: String,
    /// The name of who signed it.
    pub issuer: String,
    /// The first moment at which it is valid.
    pub not_before: SystemTime,
    /// The last one.
    pub not_after: SystemTime,
    /// Its public key; none of a kind that is not known here.
    pub public: Option<Public>,
    /// As it was signed, in DER.
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

/// Where a moment stands to the time in which a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// Before it.
    NotYet,
    /// In it, with this time left.
    For(Duration),
    /// After it.
    Expired,
}

/// Reads all certificates of a file's blocks, in their order.
///
/// # Errors
/// Which one cannot be read.
pub(super) fn certificates(blocks: &[Block]) -> Result<Vec<Certificate>, String> {
    let of_certificates = blocks.iter().filter(|block| block.label == "CERTIFICATE");
    let read = |(index, block): (usize, &Block)| {
        certificate(&block.data).map_err(|_| format!("has a certificate (the {}) that cannot be read", nth(index)))
    };
    let found: Vec<Certificate> = of_certificates.enumerate().map(read).collect::<Result<_, _>>()?;
    if !found.is_empty() {
        return Ok(found);
    }
    let labels: Vec<&str> = blocks.iter().map(|block| block.label.as_str()).collect();
    Err(if labels.is_empty() {
        "is no PEM file".into()
    } else {
        format!("holds {}, not a CERTIFICATE: are the two files swapped?", labels.join(", "))
    })
}

fn certificate(data: &[u8]) -> der::Result<Certificate> {
    // Without what RFC 5280 asks of issuers beyond the form: servers take such certificates, too.
    let parsed = CertificateInner::<Raw>::from_der(data)?;
    let parsed = parsed.tbs_certificate();
    let info = parsed.subject_public_key_info();
    let parameters = info.algorithm.parameters.as_ref().map(Into::into);
    let bits = info.subject_public_key.as_bytes().unwrap_or_default();
    let time = |time: x509_cert::time::Time| UNIX_EPOCH + time.to_unix_duration();
    Ok(Certificate {
        subject: parsed.subject().to_string(),
        issuer: parsed.issuer().to_string(),
        not_before: time(parsed.validity().not_before),
        not_after: time(parsed.validity().not_after),
        public: key::public_of(info.algorithm.oid, parameters, bits),
        der: data.to_vec(),
    })
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
    der::DateTime::from_unix_duration(since).map_or_else(|_| "?".into(), |at| at.to_string())
}
