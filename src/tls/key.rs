//! Private keys: any of the common forms becomes clear PKCS#8 (RFC 5958), which both servers read.

use std::fmt;

use der::asn1::{AnyRef, ObjectIdentifier, OctetStringRef, UintRef};
use der::{Decode, Encode, Sequence};
use pkcs5::EncryptionScheme;
use pkcs5::pbes2::Kdf;
use pkcs8::{AlgorithmIdentifierRef, PrivateKeyInfoRef};
use sec1::EcPrivateKey;
use zeroize::Zeroizing;

use super::pem::{self, Block};
use super::traditional;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");

/// Other kinds that people have, by what they are called.
const OTHERS: &[(ObjectIdentifier, &str)] = &[
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10"), "RSA-PSS"),
    (ObjectIdentifier::new_unwrap("1.2.840.10040.4.1"), "DSA"),
    (ObjectIdentifier::new_unwrap("1.3.101.113"), "Ed448"),
    (ObjectIdentifier::new_unwrap("1.3.101.110"), "X25519"),
    (ObjectIdentifier::new_unwrap("1.3.132.0.10"), "secp256k1"),
];

/// The command that makes of any key what can be read here.
pub const CONVERT: &str = "openssl pkcs8 -topk8 -nocrypt -in OLD.pem -out NEW.pem";

/// A private key in the clear. It is wiped from memory when it is dropped.
#[derive(Clone)]
pub struct Key {
    /// PKCS#8, in DER.
    der: Zeroizing<Vec<u8>>,
    /// What kind of key it is.
    pub kind: Kind,
    /// How its file has it.
    pub form: Form,
    /// The key that belongs to it; none of a kind that is not known here.
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
    /// RSA, of so many bits.
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

/// How a file has a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// PKCS#8 in the clear, complete: what both servers read.
    Pkcs8,
    /// In the clear in a form that OpenSSL reads and Granian does not: PKCS#1, SEC1, PKCS#8 that leaves out the
    /// public point.
    Clear,
    /// Encrypted.
    Encrypted,
}

/// A public key, as a certificate has it: to be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Public {
    algorithm: ObjectIdentifier,
    curve: Option<ObjectIdentifier>,
    bits: Vec<u8>,
}

impl Public {
    pub(super) fn new(algorithm: ObjectIdentifier, curve: Option<ObjectIdentifier>, bits: &[u8]) -> Self {
        // Parameters of other kinds are NULL, or absent, which means the same.
        Self { algorithm, curve: curve.filter(|_| algorithm == EC), bits: compressed(algorithm, bits) }
    }
}

/// A point of a curve in its shorter form (SEC1, 2.3.3): files have either. Other keys as they are.
fn compressed(algorithm: ObjectIdentifier, bits: &[u8]) -> Vec<u8> {
    const UNCOMPRESSED: u8 = 4;
    match bits {
        [UNCOMPRESSED, rest @ ..] if algorithm == EC && !rest.is_empty() => {
            let parity = 2 | rest[rest.len() - 1] & 1;
            [&[parity], &rest[..rest.len() / 2]].concat()
        }
        _ => bits.to_vec(),
    }
}

/// Why a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unusable {
    /// What is wrong with the file: "is no PEM file".
    File(String),
    /// It is encrypted, and there is no passphrase.
    NoPassphrase,
    /// It is encrypted with another passphrase.
    WrongPassphrase,
    /// It is encrypted in a way that is not known here: which.
    Encryption(String),
}

/// Reads the private key of a file.
///
/// # Errors
/// Why there is none to be had.
pub fn read(text: &[u8], passphrase: Option<&[u8]>) -> Result<Key, Unusable> {
    let blocks = pem::blocks(text).map_err(Unusable::File)?;
    let Some(block) = blocks.iter().find(|block| block.label.ends_with("PRIVATE KEY")) else {
        let labels: Vec<&str> = blocks.iter().map(|block| block.label.as_str()).collect();
        return Err(Unusable::File(if labels.is_empty() {
            "is no PEM file".into()
        } else {
            format!("holds {}, not a PRIVATE KEY: are the two files swapped?", labels.join(", "))
        }));
    };
    if block.label == "ENCRYPTED PRIVATE KEY" {
        let clear = decrypt(block, passphrase.ok_or(Unusable::NoPassphrase)?)?;
        // With a wrong passphrase the padding comes out right once in 256 times.
        return parse("PRIVATE KEY", &clear, Form::Encrypted).map_err(|_| Unusable::WrongPassphrase);
    }
    if traditional::is_encrypted(block) {
        let clear = traditional::decrypt(block, passphrase.ok_or(Unusable::NoPassphrase)?)?;
        return parse(&block.label, &clear, Form::Encrypted).map_err(|_| Unusable::WrongPassphrase);
    }
    parse(&block.label, &block.data, Form::Clear).map_err(Unusable::File)
}

#[derive(Sequence)]
struct EncryptedPrivateKeyInfo<'a> {
    algorithm: EncryptionScheme,
    data: &'a OctetStringRef,
}

fn decrypt(block: &Block, passphrase: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unusable> {
    let unknown = || Unusable::Encryption("an encryption that is not known here".into());
    let info = EncryptedPrivateKeyInfo::from_der(&block.data).map_err(|_| unknown())?;
    if is_too_costly(&info.algorithm) {
        return Err(Unusable::Encryption("a key derivation that would take too much time or memory".into()));
    }
    match info.algorithm.decrypt(passphrase, info.data.as_bytes()) {
        Ok(clear) => Ok(Zeroizing::new(clear)),
        Err(pkcs5::Error::DecryptFailed) => Err(Unusable::WrongPassphrase),
        Err(pkcs5::Error::NoPbes1CryptSupport) => {
            Err(Unusable::Encryption("PKCS#5 1.5, which is broken since long".into()))
        }
        Err(_) => Err(unknown()),
    }
}

/// Whether deriving the key from the passphrase would keep us from looking after the servers, or is no derivation that
/// can be carried out at all: the numbers come from the file.
fn is_too_costly(algorithm: &EncryptionScheme) -> bool {
    const MOST_ITERATIONS: u32 = 10_000_000;
    const MOST_MEMORY: u64 = 256 << 20;
    let EncryptionScheme::Pbes2(parameters) = algorithm else { return false };
    match &parameters.kdf {
        Kdf::Pbkdf2(pbkdf2) => pbkdf2.iteration_count > MOST_ITERATIONS,
        Kdf::Scrypt(scrypt) => {
            let (blocks, lanes) = (u64::from(scrypt.block_size), u64::from(scrypt.parallelization));
            // RFC 7914, 2: the cost is a power of two above one.
            let is_cost = scrypt.cost_parameter > 1 && scrypt.cost_parameter.is_power_of_two();
            let memory = scrypt.cost_parameter.saturating_mul(128 * blocks);
            !is_cost || blocks == 0 || lanes == 0 || lanes > 16 || memory > MOST_MEMORY
        }
        _ => false,
    }
}

/// `form` is [`Form::Encrypted`] or [`Form::Clear`]; what is as both servers want it becomes [`Form::Pkcs8`].
fn parse(label: &str, data: &[u8], form: Form) -> Result<Key, String> {
    let malformed = |_| format!("has a {label} that cannot be read");
    match label {
        "PRIVATE KEY" => {
            let info = PrivateKeyInfoRef::from_der(data).map_err(malformed)?;
            pkcs8(&info, data, form).map_err(malformed)
        }
        "RSA PRIVATE KEY" => {
            let algorithm = AlgorithmIdentifierRef { oid: RSA, parameters: Some(AnyRef::NULL) };
            wrap(algorithm, data, form).map_err(malformed)
        }
        "EC PRIVATE KEY" => {
            let key = EcPrivateKey::from_der(data).map_err(malformed)?;
            let curve = key.parameters.and_then(sec1::EcParameters::named_curve);
            let Some(curve) = curve else { return Err("has an EC key that does not name its curve".into()) };
            let algorithm = AlgorithmIdentifierRef { oid: EC, parameters: Some((&curve).into()) };
            wrap(algorithm, data, form).map_err(malformed)
        }
        _ => Err(format!("holds a {label}, which is no key for TLS")),
    }
}

/// Puts a key of an older form into PKCS#8.
fn wrap(algorithm: AlgorithmIdentifierRef, key: &[u8], form: Form) -> der::Result<Key> {
    let info = PrivateKeyInfoRef::new(algorithm, OctetStringRef::new(key)?);
    let der = Zeroizing::new(info.to_der()?);
    let mut key = pkcs8(&PrivateKeyInfoRef::from_der(&der)?, &der, form)?;
    key.form = form;
    Ok(key)
}

fn pkcs8(info: &PrivateKeyInfoRef, data: &[u8], form: Form) -> der::Result<Key> {
    let clear = if form == Form::Clear { Form::Pkcs8 } else { form };
    let algorithm = info.algorithm.oid;
    let curve = info.algorithm.parameters.and_then(|parameters| parameters.decode_as::<ObjectIdentifier>().ok());
    let secret = info.private_key.as_bytes();
    let key = |kind, public| Key { der: Zeroizing::new(data.to_vec()), kind, form: clear, public };
    if algorithm == RSA {
        let (modulus, public) = rsa_public(secret)?;
        return Ok(key(Kind::Rsa(modulus), Some(Public::new(RSA, None, &public))));
    }
    if algorithm == ED25519 {
        let seed = <&OctetStringRef>::from_der(secret)?;
        let seed: &[u8; 32] = seed.as_bytes().try_into().map_err(|_| der::ErrorKind::Failed)?;
        let public = ed25519_dalek::SigningKey::from_bytes(seed).verifying_key();
        return Ok(key(Kind::Ed25519, Some(Public::new(ED25519, None, public.as_bytes()))));
    }
    if let (true, Some(curve)) = (algorithm == EC, curve) {
        let inner = EcPrivateKey::from_der(secret)?;
        let kind = match curve {
            P256 => Kind::P256,
            P384 => Kind::P384,
            P521 => Kind::P521,
            other => Kind::Other(name_of(other)),
        };
        if let Some(point) = inner.public_key {
            return Ok(key(kind, Some(Public::new(EC, Some(curve), point))));
        }
        let Some(point) = public_point(&kind, inner.private_key) else { return Ok(key(kind, None)) };
        // Granian's library wants to see the public point.
        let whole = Zeroizing::new(EcPrivateKey { public_key: Some(&point), ..inner }.to_der()?);
        let info = PrivateKeyInfoRef::new(info.algorithm, OctetStringRef::new(&whole)?);
        return Ok(Key {
            der: Zeroizing::new(info.to_der()?),
            kind,
            form,
            public: Some(Public::new(EC, Some(curve), &point)),
        });
    }
    Ok(key(Kind::Other(name_of(algorithm)), None))
}

/// The number of bits of an RSA key, and the public key that belongs to it.
fn rsa_public(secret: &[u8]) -> der::Result<(usize, Vec<u8>)> {
    let key = pkcs1::RsaPrivateKeyRef::from_der(secret)?;
    let bits = |number: &UintRef| {
        let bytes = number.as_bytes();
        bytes.first().map_or(0, |first| bytes.len() * 8 - first.leading_zeros() as usize)
    };
    Ok((bits(&key.modulus), key.public_key().to_der()?))
}

/// The point that belongs to a secret number, for keys that leave it out.
fn public_point(kind: &Kind, secret: &[u8]) -> Option<Vec<u8>> {
    use p256::elliptic_curve::sec1::ToSec1Point;
    match kind {
        Kind::P256 => {
            let key = p256::SecretKey::from_slice(secret).ok()?;
            Some(key.public_key().to_sec1_point(false).as_bytes().to_vec())
        }
        Kind::P384 => {
            let key = p384::SecretKey::from_slice(secret).ok()?;
            Some(key.public_key().to_sec1_point(false).as_bytes().to_vec())
        }
        _ => None,
    }
}

fn name_of(identifier: ObjectIdentifier) -> String {
    let known = OTHERS.iter().find(|(known, _)| *known == identifier);
    known.map_or_else(|| format!("of the kind {identifier}"), |(_, name)| (*name).to_owned())
}

/// The public key of a certificate, as it can be compared with that of a private key.
pub(super) fn public_of(algorithm: ObjectIdentifier, parameters: Option<AnyRef>, bits: &[u8]) -> Option<Public> {
    let curve = parameters.and_then(|parameters| parameters.decode_as::<ObjectIdentifier>().ok());
    [RSA, EC, ED25519].contains(&algorithm).then(|| Public::new(algorithm, curve, bits))
}

#[cfg(test)]
#[path = "key_tests.rs"]
mod tests;
