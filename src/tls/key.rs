//! Private keys: any of the common forms becomes unencrypted PKCS#8 (RFC 5958), which both servers read.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

use pkcs8::der::asn1::{AnyRef, ObjectIdentifier, OctetStringRef};
use pkcs8::der::{self, Decode, Encode};
use pkcs8::{AlgorithmIdentifierRef, PrivateKeyInfoRef};
use ring::signature::{Ed25519KeyPair, KeyPair};
use zeroize::Zeroizing;

use super::encrypted::decrypt;
use super::pem::{self, Section};
use super::public::{CurvePrivateKey, EC, ED25519, Public, RSA, RsaPrivateKey};

const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");

/// Other kinds that people have, with their names.
const OTHERS: &[(ObjectIdentifier, &str)] = &[
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10"), "RSA-PSS"),
    (ObjectIdentifier::new_unwrap("1.2.840.10040.4.1"), "DSA"),
    (ObjectIdentifier::new_unwrap("1.3.101.113"), "Ed448"),
    (ObjectIdentifier::new_unwrap("1.3.101.110"), "X25519"),
    (ObjectIdentifier::new_unwrap("1.3.132.0.10"), "secp256k1"),
];

/// An openssl command that converts a key in a rare form to one that can be read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conversion {
    /// To unencrypted PKCS#8.
    Clear,
    /// To PKCS#8, with a modern encryption.
    Encrypted,
    /// The same, with the public point added.
    EncryptedWithPoint,
    /// An unencrypted EC key, with the public point added.
    WithPoint,
}

impl Conversion {
    /// The command, which does not change the file but writes another one next to it.
    #[must_use]
    pub fn command(self, path: &Path) -> String {
        let quoted = |path: &str| shlex::try_quote(path).map_or_else(|_| path.to_owned(), Cow::into_owned);
        let old = path.to_string_lossy();
        let (old, new) = (quoted(&old), quoted(&format!("{old}.new")));
        match self {
            Self::Clear => format!("openssl pkcs8 -topk8 -nocrypt -in {old} -out {new}"),
            Self::Encrypted => format!("openssl pkcs8 -topk8 -in {old} -out {new}"),
            Self::EncryptedWithPoint => format!("openssl ec -in {old} | openssl pkcs8 -topk8 -out {new}"),
            Self::WithPoint => format!("openssl ec -in {old} -out {new}"),
        }
    }
}

/// An unencrypted private key. It is wiped from memory when it is dropped.
#[derive(Clone)]
pub struct Key {
    /// PKCS#8, in DER.
    der: Zeroizing<Vec<u8>>,
    /// Its kind.
    pub kind: Kind,
    /// The form that it had in its file.
    pub form: Form,
    /// Its public key; none if its kind is not supported here.
    pub public: Option<Public>,
}

impl Key {
    /// The text of a file with this key alone, in PKCS#8.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<Vec<u8>> {
        pem::write("PRIVATE KEY", &self.der)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("kind", &self.kind).field("form", &self.form).finish_non_exhaustive()
    }
}

/// A kind of key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// RSA, with this many bits.
    Rsa(usize),
    /// ECDSA on the curve P-256.
    P256,
    /// ECDSA on the curve P-384.
    P384,
    /// ECDSA on the curve P-521.
    P521,
    /// Ed25519.
    Ed25519,
    /// Another one.
    Other(String),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa(bits) => write!(f, "RSA {bits}"),
            Self::P256 => f.write_str("EC P-256"),
            Self::P384 => f.write_str("EC P-384"),
            Self::P521 => f.write_str("EC P-521"),
            Self::Ed25519 => f.write_str("Ed25519"),
            Self::Other(name) => f.write_str(name),
        }
    }
}

/// The form of a key in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Unencrypted PKCS#8, which both servers read.
    Pkcs8,
    /// Unencrypted, in a form that OpenSSL reads and Granian does not: PKCS#1, SEC1.
    Clear,
    /// Encrypted.
    Encrypted,
}

/// Why a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unusable {
    /// What is wrong with the file: "is not a PEM file".
    File(String),
    /// It is encrypted, and there is no passphrase.
    NoPassphrase,
    /// It is encrypted with another passphrase.
    WrongPassphrase,
    /// It is encrypted in an unsupported way: the rest of "is encrypted …".
    Encryption(String),
    /// It is an EC key without its public point.
    NoPoint(Form),
}

/// Reads the private key in a file.
///
/// # Errors
/// Why it cannot be used.
pub fn read(text: &[u8], passphrase: Option<&[u8]>) -> Result<Key, Unusable> {
    let sections = pem::sections(text);
    let Some(section) = sections.iter().find(|section| section.label.ends_with("PRIVATE KEY")) else {
        return Err(Unusable::File(if sections.is_empty() {
            "is not a PEM file".into()
        } else {
            format!("contains {}, not a PRIVATE KEY: are the two files swapped?", pem::labels(&sections))
        }));
    };
    if section.is_encrypted_by_header() {
        let how = "in OpenSSL's old format (Proc-Type: 4,ENCRYPTED), which is not supported here";
        return Err(Unusable::Encryption(how.into()));
    }
    if section.label == "ENCRYPTED PRIVATE KEY" {
        return open(section, passphrase.ok_or(Unusable::NoPassphrase)?);
    }
    parse(&section.label, &section.decode().map_err(Unusable::File)?, Form::Clear)
}

fn open(section: &Section, passphrase: &[u8]) -> Result<Key, Unusable> {
    let clear = decrypt(&section.decode().map_err(Unusable::File)?, passphrase)?;
    parse("PRIVATE KEY", &clear, Form::Encrypted).map_err(|why| match why {
        // With a wrong passphrase the padding is correct by chance once in 256 times.
        Unusable::File(_) => Unusable::WrongPassphrase,
        why => why,
    })
}

/// `form` is [`Form::Encrypted`] or [`Form::Clear`]; a key that is in the right form already becomes [`Form::Pkcs8`].
fn parse(label: &str, data: &[u8], form: Form) -> Result<Key, Unusable> {
    let malformed = |_| Unusable::File(format!("has a {label} that cannot be read"));
    let (der, form) = match label {
        "PRIVATE KEY" => (Zeroizing::new(data.to_vec()), if form == Form::Clear { Form::Pkcs8 } else { form }),
        "RSA PRIVATE KEY" => (wrapped(RSA, AnyRef::NULL, data).map_err(malformed)?, form),
        "EC PRIVATE KEY" => {
            let Some(curve) = CurvePrivateKey::read(data).map_err(malformed)?.curve else {
                return Err(Unusable::File("has an EC key that does not name its curve".into()));
            };
            (wrapped(EC, (&curve).into(), data).map_err(malformed)?, form)
        }
        _ => return Err(Unusable::File(format!("contains a {label}, which is not a key for TLS"))),
    };
    match identify(&der).map_err(malformed)? {
        Identity::Known(kind, public) => Ok(Key { der, kind, form, public: Some(public) }),
        Identity::Unknown(kind) => Ok(Key { der, kind, form, public: None }),
        Identity::NoPoint => Err(Unusable::NoPoint(form)),
    }
}

/// What is known about a key.
enum Identity {
    /// Its kind, and its public key.
    Known(Kind, Public),
    /// A kind whose public keys are not supported here.
    Unknown(Kind),
    /// An EC key without its public point. Computing it requires the arithmetic of each curve.
    NoPoint,
}

fn identify(der: &[u8]) -> der::Result<Identity> {
    let info = PrivateKeyInfoRef::from_der(der)?;
    let secret = info.private_key.as_bytes();
    let curve = info.algorithm.parameters.and_then(|parameters| parameters.decode_as().ok());
    Ok(match (info.algorithm.oid, curve) {
        (RSA, _) => {
            let key = RsaPrivateKey::read(secret)?;
            Identity::Known(Kind::Rsa(key.bits()), Public::rsa(key.modulus, key.exponent))
        }
        (ED25519, _) => {
            let seed = <&OctetStringRef>::from_der(secret)?;
            let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_bytes()).map_err(|_| der::ErrorKind::Failed)?;
            Identity::Known(Kind::Ed25519, Public::Ed25519(pair.public_key().as_ref().into()))
        }
        (EC, Some(curve)) => match CurvePrivateKey::read(secret)?.point {
            Some(point) => Identity::Known(kind_of(curve), Public::curve(curve, point)),
            None => Identity::NoPoint,
        },
        (other, _) => Identity::Unknown(Kind::Other(name_of(other))),
    })
}

fn kind_of(curve: ObjectIdentifier) -> Kind {
    match curve {
        P256 => Kind::P256,
        P384 => Kind::P384,
        P521 => Kind::P521,
        other => Kind::Other(name_of(other)),
    }
}

/// A key of an older form as PKCS#8.
fn wrapped(algorithm: ObjectIdentifier, parameters: AnyRef, key: &[u8]) -> der::Result<Zeroizing<Vec<u8>>> {
    let algorithm = AlgorithmIdentifierRef { oid: algorithm, parameters: Some(parameters) };
    PrivateKeyInfoRef::new(algorithm, OctetStringRef::new(key)?).to_der().map(Zeroizing::new)
}

fn name_of(identifier: ObjectIdentifier) -> String {
    let known = OTHERS.iter().find(|(known, _)| *known == identifier);
    known.map_or_else(|| format!("of the kind {identifier}"), |(_, name)| (*name).to_owned())
}

#[cfg(test)]
#[path = "key_tests.rs"]
mod tests;
