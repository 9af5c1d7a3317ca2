//! Encrypted keys: PKCS#8 with the encryptions of PKCS#5 2 (RFC 8018), as every OpenSSL since 1.1 makes them.

use pkcs5::EncryptionScheme;
use pkcs5::pbes2::{Kdf, ScryptParams};
use pkcs8::der::asn1::OctetStringRef;
use pkcs8::der::{Decode, Error, Reader, SliceReader};
use zeroize::Zeroizing;

use super::key::Unusable;

/// A key is decrypted at a reload while the servers are not supervised, so the file must not decide how long that
/// takes. OpenSSL's own number is 2048, and OWASP asks for 600,000; these take a second at most on a small machine.
const MOST_ITERATIONS: u32 = 1_000_000;
/// The memory that scrypt works through, once for each lane. OpenSSL's own parameters make it 16 MiB.
const MOST_MEMORY: u64 = 64 << 20;

/// Decrypts a key.
///
/// # Errors
/// That the encryption is not supported, or that the passphrase is wrong.
pub(super) fn decrypt(data: &[u8], passphrase: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unusable> {
    let unknown = || Unusable::Encryption("in a way that is not supported here".into());
    let (algorithm, data) = read(data).map_err(|_| unknown())?;
    if let Some(cost) = excessive_cost(&algorithm) {
        return Err(Unusable::Encryption(cost));
    }
    match algorithm.decrypt(passphrase, data) {
        Ok(clear) => Ok(Zeroizing::new(clear)),
        Err(pkcs5::Error::DecryptFailed) => Err(Unusable::WrongPassphrase),
        Err(pkcs5::Error::NoPbes1CryptSupport) => {
            Err(Unusable::Encryption("with PKCS#5 1.5, which has long been broken".into()))
        }
        Err(_) => Err(unknown()),
    }
}

/// Reads an `EncryptedPrivateKeyInfo` (RFC 5958, 3).
fn read(data: &[u8]) -> Result<(EncryptionScheme, &[u8]), Error> {
    let mut reader = SliceReader::new(data)?;
    reader.sequence(|reader| Ok((EncryptionScheme::decode(reader)?, <&OctetStringRef>::decode(reader)?.as_bytes())))
}

/// How the key is derived from the passphrase, if that is too expensive for us, or not possible at all.
fn excessive_cost(algorithm: &EncryptionScheme) -> Option<String> {
    let EncryptionScheme::Pbes2(parameters) = algorithm else { return None };
    match &parameters.kdf {
        Kdf::Pbkdf2(pbkdf2) => {
            let count = pbkdf2.iteration_count;
            (count > MOST_ITERATIONS)
                .then(|| format!("with {count} iterations of PBKDF2; the limit here is {MOST_ITERATIONS}"))
        }
        Kdf::Scrypt(scrypt) => excessive_memory(scrypt),
        _ => None,
    }
}

fn excessive_memory(scrypt: &ScryptParams) -> Option<String> {
    let (cost, blocks, lanes) = (scrypt.cost_parameter, scrypt.block_size, scrypt.parallelization);
    // RFC 7914, 2: the cost is a power of two above one.
    let is_possible = cost > 1 && cost.is_power_of_two() && blocks > 0 && lanes > 0;
    let memory = cost.saturating_mul(128 * u64::from(blocks)).saturating_mul(u64::from(lanes));
    let most = MOST_MEMORY >> 20;
    (!is_possible || memory > MOST_MEMORY).then(|| {
        format!("with scrypt of N={cost}, r={blocks}, p={lanes}, and what is done here is 128 * N * r * p up to {most} MiB")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pkcs5::pbes2::{EncryptionScheme as Cipher, Parameters, Pbkdf2Params, Salt};

    fn scheme(kdf: Kdf) -> EncryptionScheme {
        EncryptionScheme::Pbes2(Parameters { kdf, encryption: Cipher::Aes256Cbc { iv: [0; 16] } })
    }

    fn pbkdf2(count: u32) -> EncryptionScheme {
        scheme(Kdf::Pbkdf2(Pbkdf2Params::hmac_sha256(count, b"salt of a key").unwrap()))
    }

    fn scrypt(cost_parameter: u64, block_size: u16, parallelization: u16) -> EncryptionScheme {
        let salt = Salt::new(*b"salt of a key").unwrap();
        scheme(Kdf::Scrypt(ScryptParams { salt, cost_parameter, block_size, parallelization, key_length: None }))
    }

    #[test]
    fn a_derivation_that_a_file_makes_costly_or_impossible_is_not_tried() {
        for usual in [scrypt(1 << 14, 8, 1), scrypt(1 << 16, 8, 1), pbkdf2(2048), pbkdf2(600_000)] {
            assert_eq!(excessive_cost(&usual), None, "{usual:?}");
        }
        for (cost, blocks, lanes) in [
            (0, 8, 1),
            (1, 8, 1),
            (3, 8, 1),
            (1 << 14, 0, 1),
            (1 << 14, 8, 0),
            (1 << 17, 8, 1),
            (1 << 14, 8, 5),
            (1 << 63, u16::MAX, u16::MAX),
        ] {
            let why = excessive_cost(&scrypt(cost, blocks, lanes)).unwrap();
            assert!(why.contains(&format!("N={cost}, r={blocks}, p={lanes}")), "{why}");
        }
        assert!(excessive_cost(&pbkdf2(1_000_001)).unwrap().contains("1000001 iterations of PBKDF2"));
    }
}
