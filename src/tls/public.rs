//! Public keys from certificates and private keys, to be compared.

use pkcs8::der::asn1::{AnyRef, BitStringRef, ObjectIdentifier, OctetStringRef, UintRef};
use pkcs8::der::{Decode, Error, Reader, Result, SliceReader, Tag, TagNumber};
use pkcs8::spki::SubjectPublicKeyInfo;

pub(super) const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
pub(super) const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
pub(super) const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// A public key of a supported kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Public {
    /// RSA: two numbers.
    Rsa {
        /// Their common modulus.
        modulus: Vec<u8>,
        /// The exponent of the public key.
        exponent: Vec<u8>,
    },
    /// A point on a curve.
    Curve {
        /// The identifier of the curve.
        curve: ObjectIdentifier,
        /// The point in its compressed form.
        point: Vec<u8>,
    },
    /// Ed25519.
    Ed25519(Vec<u8>),
}

impl Public {
    pub(super) fn rsa(modulus: UintRef, exponent: UintRef) -> Self {
        Self::Rsa { modulus: modulus.as_bytes().into(), exponent: exponent.as_bytes().into() }
    }

    pub(super) fn curve(curve: ObjectIdentifier, point: &[u8]) -> Self {
        Self::Curve { curve, point: compressed(point) }
    }

    /// The public key of a certificate.
    pub(super) fn of(info: &SubjectPublicKeyInfo<AnyRef, BitStringRef>) -> Option<Self> {
        let bits = info.subject_public_key.as_bytes()?;
        match info.algorithm.oid {
            RSA => {
                let key = SliceReader::new(bits).and_then(|mut reader| {
                    reader.sequence(|reader| Ok::<_, Error>(Self::rsa(reader.decode()?, reader.decode()?)))
                });
                key.ok()
            }
            EC => Some(Self::curve(info.algorithm.parameters?.decode_as().ok()?, bits)),
            ED25519 => Some(Self::Ed25519(bits.into())),
            _ => None,
        }
    }
}

/// A point of a curve in its compressed form (SEC1, 2.3.3): files have either form.
fn compressed(point: &[u8]) -> Vec<u8> {
    const UNCOMPRESSED: u8 = 4;
    match point {
        [UNCOMPRESSED, rest @ .., last] => [&[2 | last & 1], &rest[..rest.len().div_ceil(2)]].concat(),
        _ => point.to_vec(),
    }
}

/// The relevant parts of an RSA private key (RFC 8017, A.1.2).
#[derive(Debug, Clone, Copy)]
pub(super) struct RsaPrivateKey<'a> {
    pub modulus: UintRef<'a>,
    pub exponent: UintRef<'a>,
}

impl<'a> RsaPrivateKey<'a> {
    pub fn read(data: &'a [u8]) -> Result<Self> {
        let mut reader = SliceReader::new(data)?;
        let key = reader.sequence(|reader| {
            let _version: u8 = reader.decode()?;
            let key = Self { modulus: reader.decode()?, exponent: reader.decode()? };
            // The secret exponent, two primes, and three numbers that follow from them.
            for _ in 0..6 {
                reader.decode::<UintRef>()?;
            }
            rest(reader)?;
            Ok::<_, Error>(key)
        })?;
        reader.finish()?;
        Ok(key)
    }

    pub fn bits(&self) -> usize {
        let bytes = self.modulus.as_bytes();
        bytes.first().map_or(0, |first| bytes.len() * 8 - first.leading_zeros() as usize)
    }
}

/// The relevant parts of an EC private key (RFC 5915).
#[derive(Debug, Clone, Copy)]
pub(super) struct CurvePrivateKey<'a> {
    /// The curve, if it is given, and by name.
    pub curve: Option<ObjectIdentifier>,
    /// The public key, if it is there.
    pub point: Option<&'a [u8]>,
}

impl<'a> CurvePrivateKey<'a> {
    pub fn read(data: &'a [u8]) -> Result<Self> {
        let mut reader = SliceReader::new(data)?;
        let key = reader.sequence(|reader| {
            let _version: u8 = reader.decode()?;
            let _secret: &OctetStringRef = reader.decode()?;
            let curve = tagged(reader, 0)?.and_then(|curve| curve.decode_as().ok());
            let point = tagged(reader, 1)?.map(AnyRef::decode_as::<BitStringRef>).transpose()?;
            let point = point.and_then(|bits| bits.as_bytes());
            Ok::<_, Error>(Self { curve, point })
        })?;
        reader.finish()?;
        Ok(key)
    }
}

/// An optional field inside a tag of its own.
pub(super) fn tagged<'a>(reader: &mut impl Reader<'a>, number: u32) -> Result<Option<AnyRef<'a>>> {
    let tag = Tag::ContextSpecific { constructed: true, number: TagNumber(number) };
    if reader.is_finished() || Tag::peek(reader)? != tag {
        return Ok(None);
    }
    let field: AnyRef = reader.decode()?;
    AnyRef::from_der(field.value()).map(Some)
}

/// Skips what follows.
pub(super) fn rest<'a>(reader: &mut impl Reader<'a>) -> Result<()> {
    while !reader.is_finished() {
        reader.decode::<AnyRef>()?;
    }
    Ok(())
}
