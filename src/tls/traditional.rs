//! Encrypted keys of OpenSSL's own older format: PEM with the headers `Proc-Type: 4,ENCRYPTED` and
//! `DEK-Info: CIPHER,SALT` (RFC 1421, 4.6.1.1 and 4.6.1.3; the key is derived as by OpenSSL's `EVP_BytesToKey(3)`
//! with MD5 and one round).

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockModeDecrypt, KeyIvInit};
use base16ct::mixed;
use md5::{Digest, Md5};
use zeroize::Zeroizing;

use super::key::Unusable;
use super::pem::Block;

pub(super) fn is_encrypted(block: &Block) -> bool {
    block.header("Proc-Type").is_some_and(|value| value.ends_with("ENCRYPTED"))
}

/// Decrypts the data of a block.
///
/// # Errors
/// That the cipher is not known here, or that the passphrase is another one.
pub(super) fn decrypt(block: &Block, passphrase: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unusable> {
    let info = block.header("DEK-Info").unwrap_or_default();
    let unknown = || Unusable::Encryption(format!("{info:?}, a cipher that is not known here"));
    let (cipher, salt) = info.split_once(',').ok_or_else(unknown)?;
    let iv = mixed::decode_vec(salt.trim()).map_err(|_| unknown())?;
    let salt = iv.get(..8).ok_or_else(unknown)?;
    let key = |length| derive(passphrase, salt, length);
    let clear = match cipher {
        "AES-128-CBC" => cbc::<aes::Aes128>(&key(16), &iv, &block.data),
        "AES-192-CBC" => cbc::<aes::Aes192>(&key(24), &iv, &block.data),
        "AES-256-CBC" => cbc::<aes::Aes256>(&key(32), &iv, &block.data),
        "DES-EDE3-CBC" => cbc::<des::TdesEde3>(&key(24), &iv, &block.data),
        _ => return Err(unknown()),
    };
    clear.ok_or(Unusable::WrongPassphrase)
}

fn cbc<C>(key: &[u8], iv: &[u8], data: &[u8]) -> Option<Zeroizing<Vec<u8>>>
where
    C: aes::cipher::BlockCipherDecrypt,
    cbc::Decryptor<C>: KeyIvInit + BlockModeDecrypt,
{
    let decryptor = cbc::Decryptor::<C>::new_from_slices(key, iv).ok()?;
    let mut data = Zeroizing::new(data.to_vec());
    let length = decryptor.decrypt_padded::<Pkcs7>(&mut data).ok()?.len();
    data.truncate(length);
    Some(data)
}

fn derive(passphrase: &[u8], salt: &[u8], length: usize) -> Zeroizing<Vec<u8>> {
    const LONGEST: usize = 48;
    let mut key = Zeroizing::new(Vec::with_capacity(LONGEST));
    while key.len() < length {
        let last = key.len().saturating_sub(16);
        let digest = Md5::new().chain_update(&key[last..]).chain_update(passphrase).chain_update(salt).finalize();
        key.extend_from_slice(&digest);
    }
    key.truncate(length);
    key
}
