//! The providers of an EncryptionConfiguration and their formats in the store:
//! `k8s:enc:{provider}:v1:{key name}:`, then what the cipher made of the value.
//!
//! Enter at [`Providers`], which stands for the `providers` of one resource.

use aes::{Aes128, Aes192, Aes256};
use aes_gcm::{
    AesGcm, KeyInit as _,
    aead::{Aead, Payload, consts::U12},
};
use bytes::Bytes;
use cbc::cipher::{BlockDecryptMut as _, BlockEncryptMut as _, KeyIvInit, block_padding::Pkcs7};
use crypto_secretbox::XSalsa20Poly1305;
use ring::rand::{SecureRandom as _, SystemRandom};

use super::MARK;

const GCM_NONCE: usize = 12;
const CBC_BLOCK: usize = 16;
const SECRETBOX_NONCE: usize = 24;
const SECRETBOX_TAG: usize = 16;
const TOO_SHORT: &str = "the stored data was shorter than the required size";

/// A kind of provider with keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    AesGcm,
    AesCbc,
    Secretbox,
}

impl Method {
    fn prefix(self) -> &'static str {
        match self {
            Method::AesGcm => "k8s:enc:aesgcm:v1:",
            Method::AesCbc => "k8s:enc:aescbc:v1:",
            Method::Secretbox => "k8s:enc:secretbox:v1:",
        }
    }

    /// How `coracle secrets-encrypt status` calls it, as k3s does.
    pub fn title(self) -> &'static str {
        match self {
            Method::AesGcm => "AES-GCM",
            Method::AesCbc => "AES-CBC",
            Method::Secretbox => "XSalsa20-POLY1305",
        }
    }

    fn no_key(self) -> &'static str {
        match self {
            Method::AesGcm | Method::AesCbc => {
                "no matching key was found for the provided AES transformer"
            }
            Method::Secretbox => "no matching key was found for the provided Secretbox transformer",
        }
    }
}

/// A key, by its name.
pub(super) struct Key {
    pub name: String,
    pub cipher: Cipher,
}

pub(super) enum Cipher {
    Gcm128(Box<AesGcm<Aes128, U12>>),
    Gcm192(Box<AesGcm<Aes192, U12>>),
    Gcm256(Box<AesGcm<Aes256, U12>>),
    /// 16, 24 or 32 bytes.
    Cbc(Vec<u8>),
    Secretbox(Box<XSalsa20Poly1305>),
}

impl Cipher {
    /// `None` when the key has no length that the method knows.
    pub fn new(method: Method, key: &[u8]) -> Option<Self> {
        Some(match (method, key.len()) {
            (Method::AesGcm, 16) => Cipher::Gcm128(Box::new(AesGcm::new_from_slice(key).ok()?)),
            (Method::AesGcm, 24) => Cipher::Gcm192(Box::new(AesGcm::new_from_slice(key).ok()?)),
            (Method::AesGcm, 32) => Cipher::Gcm256(Box::new(AesGcm::new_from_slice(key).ok()?)),
            (Method::AesCbc, 16 | 24 | 32) => Cipher::Cbc(key.to_vec()),
            (Method::Secretbox, 32) => {
                Cipher::Secretbox(Box::new(XSalsa20Poly1305::new_from_slice(key).ok()?))
            }
            _ => return None,
        })
    }

    /// Appends the encrypted value. `place` is authenticated with it where the cipher can.
    fn seal(&self, plain: &[u8], place: &str, into: &mut Vec<u8>) -> Result<(), String> {
        let failed = |_| "the value cannot be encrypted".to_owned();
        let sealed = match self {
            Cipher::Gcm128(cipher) => seal_gcm(&**cipher, plain, place, into)?,
            Cipher::Gcm192(cipher) => seal_gcm(&**cipher, plain, place, into)?,
            Cipher::Gcm256(cipher) => seal_gcm(&**cipher, plain, place, into)?,
            Cipher::Cbc(key) => {
                let iv: [u8; CBC_BLOCK] = random()?;
                into.extend_from_slice(&iv);
                match key.len() {
                    16 => seal_cbc::<Aes128>(key, &iv, plain)?,
                    24 => seal_cbc::<Aes192>(key, &iv, plain)?,
                    _ => seal_cbc::<Aes256>(key, &iv, plain)?,
                }
            }
            Cipher::Secretbox(cipher) => {
                let nonce: [u8; SECRETBOX_NONCE] = random()?;
                into.extend_from_slice(&nonce);
                cipher.encrypt((&nonce).into(), plain).map_err(failed)?
            }
        };
        into.extend_from_slice(&sealed);
        Ok(())
    }

    fn open(&self, sealed: &[u8], place: &str) -> Result<Vec<u8>, String> {
        match self {
            Cipher::Gcm128(cipher) => open_gcm(&**cipher, sealed, place),
            Cipher::Gcm192(cipher) => open_gcm(&**cipher, sealed, place),
            Cipher::Gcm256(cipher) => open_gcm(&**cipher, sealed, place),
            Cipher::Cbc(key) => {
                let (iv, sealed) = sealed.split_at_checked(CBC_BLOCK).ok_or(TOO_SHORT)?;
                if !sealed.len().is_multiple_of(CBC_BLOCK) {
                    return Err("the stored data is not a multiple of the block size".to_owned());
                }
                match key.len() {
                    16 => open_cbc::<Aes128>(key, iv, sealed),
                    24 => open_cbc::<Aes192>(key, iv, sealed),
                    _ => open_cbc::<Aes256>(key, iv, sealed),
                }
            }
            Cipher::Secretbox(cipher) => {
                if sealed.len() < SECRETBOX_NONCE + SECRETBOX_TAG {
                    return Err(TOO_SHORT.to_owned());
                }
                let (nonce, sealed) = sealed.split_at(SECRETBOX_NONCE);
                cipher
                    .decrypt(nonce.into(), sealed)
                    .map_err(|_| "output array was not large enough for encryption".to_owned())
            }
        }
    }
}

fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| "unable to read sufficient random bytes".to_owned())?;
    Ok(bytes)
}

/// Appends the nonce; the rest is returned.
fn seal_gcm<A: Aead<NonceSize = U12>>(
    cipher: &A,
    plain: &[u8],
    place: &str,
    into: &mut Vec<u8>,
) -> Result<Vec<u8>, String> {
    let nonce: [u8; GCM_NONCE] = random()?;
    into.extend_from_slice(&nonce);
    let payload = Payload {
        msg: plain,
        aad: place.as_bytes(),
    };
    cipher
        .encrypt((&nonce).into(), payload)
        .map_err(|_| "the value cannot be encrypted".to_owned())
}

fn open_gcm<A: Aead<NonceSize = U12>>(
    cipher: &A,
    sealed: &[u8],
    place: &str,
) -> Result<Vec<u8>, String> {
    let (nonce, msg) = sealed.split_at_checked(GCM_NONCE).ok_or(TOO_SHORT)?;
    let aad = place.as_bytes();
    cipher
        .decrypt(nonce.into(), Payload { msg, aad })
        .map_err(|_| "cipher: message authentication failed".to_owned())
}

fn seal_cbc<C>(key: &[u8], iv: &[u8], plain: &[u8]) -> Result<Vec<u8>, String>
where
    C: aes::cipher::BlockCipher + aes::cipher::BlockEncryptMut + aes::cipher::KeyInit,
    cbc::Encryptor<C>: KeyIvInit,
{
    let cipher = cbc::Encryptor::<C>::new_from_slices(key, iv).map_err(|e| e.to_string())?;
    Ok(cipher.encrypt_padded_vec_mut::<Pkcs7>(plain))
}

fn open_cbc<C>(key: &[u8], iv: &[u8], sealed: &[u8]) -> Result<Vec<u8>, String>
where
    C: aes::cipher::BlockCipher + aes::cipher::BlockDecryptMut + aes::cipher::KeyInit,
    cbc::Decryptor<C>: KeyIvInit,
{
    let cipher = cbc::Decryptor::<C>::new_from_slices(key, iv).map_err(|e| e.to_string())?;
    cipher
        .decrypt_padded_vec_mut::<Pkcs7>(sealed)
        .map_err(|_| "invalid PKCS7 data (empty or not padded)".to_owned())
}

/// One provider.
pub(super) enum Provider {
    Identity,
    Keys { method: Method, keys: Vec<Key> },
}

/// A value as it is, and whether it is stored in another way than it would be now.
#[derive(Debug)]
pub(super) struct Opened {
    /// `None`: just as it is stored.
    pub plain: Option<Bytes>,
    pub stale: bool,
}

/// The providers of a resource. The first is written with, all are read with.
#[derive(Default)]
pub(super) struct Providers(pub Vec<std::sync::Arc<Provider>>);

impl Providers {
    /// `None`: it is stored as it is.
    pub fn seal(&self, plain: &[u8], place: &str) -> Result<Option<Bytes>, String> {
        let Some(Provider::Keys { method, keys }) = self.0.first().map(|first| &**first) else {
            return Ok(None);
        };
        let key = keys.first().ok_or(method.no_key())?;
        let room = method.prefix().len() + key.name.len() + plain.len() + 64;
        let mut sealed = Vec::with_capacity(room);
        sealed.extend_from_slice(method.prefix().as_bytes());
        sealed.extend_from_slice(key.name.as_bytes());
        sealed.push(b':');
        key.cipher.seal(plain, place, &mut sealed)?;
        Ok(Some(sealed.into()))
    }

    /// # Errors
    /// Upstream's sentence, when no provider can read the value.
    pub fn open(&self, stored: &[u8], place: &str) -> Result<Opened, String> {
        let mut errors = Vec::new();
        for (index, provider) in self.0.iter().enumerate() {
            let opened = match &**provider {
                Provider::Identity if stored.starts_with(MARK) => continue,
                Provider::Identity => Ok(Opened {
                    plain: None,
                    stale: false,
                }),
                Provider::Keys { method, keys } => {
                    let Some(stored) = stored.strip_prefix(method.prefix().as_bytes()) else {
                        continue;
                    };
                    open_with(*method, keys, stored, place)
                }
            };
            match opened {
                Ok(opened) => {
                    return Ok(Opened {
                        stale: opened.stale || index > 0,
                        ..opened
                    });
                }
                Err(error) => errors.push(error),
            }
        }
        Err(aggregated(errors).unwrap_or_else(|| "no matching prefix found".to_owned()))
    }
}

fn open_with(method: Method, keys: &[Key], stored: &[u8], place: &str) -> Result<Opened, String> {
    let mut errors = Vec::new();
    for (index, key) in keys.iter().enumerate() {
        let sealed = stored
            .strip_prefix(key.name.as_bytes())
            .and_then(|rest| rest.strip_prefix(b":"));
        let Some(sealed) = sealed else {
            continue;
        };
        match key.cipher.open(sealed, place) {
            Ok(plain) => {
                return Ok(Opened {
                    plain: Some(plain.into()),
                    stale: index > 0,
                });
            }
            Err(error) => errors.push(error),
        }
    }
    Err(aggregated(errors).unwrap_or_else(|| method.no_key().to_owned()))
}

/// Several errors as upstream joins them.
fn aggregated(mut errors: Vec<String>) -> Option<String> {
    errors.dedup();
    match errors.as_slice() {
        [] => None,
        [_] => errors.pop(),
        several => Some(format!("[{}]", several.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn provider(method: Method, names: &[(&str, u8, usize)]) -> Arc<Provider> {
        let keys = names.iter().map(|&(name, byte, length)| Key {
            name: name.to_owned(),
            cipher: Cipher::new(method, &vec![byte; length]).unwrap(),
        });
        Arc::new(Provider::Keys {
            method,
            keys: keys.collect(),
        })
    }

    #[test]
    fn every_method_gives_back_what_it_was_given() {
        for (method, length) in [
            (Method::AesGcm, 16),
            (Method::AesGcm, 24),
            (Method::AesGcm, 32),
            (Method::AesCbc, 16),
            (Method::AesCbc, 24),
            (Method::AesCbc, 32),
            (Method::Secretbox, 32),
        ] {
            let providers = Providers(vec![provider(method, &[("k", 7, length)])]);
            for plain in [&b""[..], b"0123456789abcdef", b"a value"] {
                let sealed = providers.seal(plain, "/registry/a").unwrap().unwrap();
                let prefix = format!("{}k:", method.prefix());
                assert!(sealed.starts_with(prefix.as_bytes()));
                let opened = providers.open(&sealed, "/registry/a").unwrap();
                assert_eq!(opened.plain.unwrap(), plain, "{method:?}");
                assert!(!opened.stale);
                let moved = providers.open(&sealed, "/registry/b");
                assert_eq!(moved.is_err(), method == Method::AesGcm, "{method:?}");
                let mut broken = sealed.to_vec();
                broken.truncate(prefix.len() + 3);
                assert!(providers.open(&broken, "/registry/a").is_err());
            }
        }
        assert!(Cipher::new(Method::Secretbox, &[0; 16]).is_none());
        assert!(Cipher::new(Method::AesGcm, &[0; 31]).is_none());
    }

    #[test]
    fn all_keys_read_and_the_first_writes() {
        let old = Providers(vec![provider(Method::AesCbc, &[("old", 1, 32)])]);
        let sealed = old.seal(b"x", "k").unwrap().unwrap();
        let new = Providers(vec![
            provider(Method::Secretbox, &[("new", 2, 32)]),
            provider(Method::AesCbc, &[("other", 3, 32), ("old", 1, 32)]),
            Arc::new(Provider::Identity),
        ]);
        assert!(new.open(&sealed, "k").unwrap().stale);
        let plain = new.open(b"{}", "k").unwrap();
        assert!(plain.stale && plain.plain.is_none());
        assert!(
            new.seal(b"x", "k")
                .unwrap()
                .unwrap()
                .starts_with(b"k8s:enc:secretbox:v1:new:")
        );
        // The first of two keys of one name does not fit.
        let same = Providers(vec![provider(
            Method::AesCbc,
            &[("old", 9, 32), ("old", 1, 32)],
        )]);
        assert!(same.open(&sealed, "k").unwrap().stale);
    }

    #[test]
    fn what_cannot_be_read_is_told_as_upstream_does() {
        let error = |providers: &Providers, stored: &[u8]| providers.open(stored, "k").unwrap_err();
        let identity = Providers(vec![Arc::new(Provider::Identity)]);
        let keys = Providers(vec![provider(Method::Secretbox, &[("k", 1, 32)])]);
        assert_eq!(error(&identity, b"k8s:enc:x"), "no matching prefix found");
        assert_eq!(error(&keys, b"{}"), "no matching prefix found");
        assert_eq!(
            error(&keys, b"k8s:enc:secretbox:v1:other:x"),
            "no matching key was found for the provided Secretbox transformer"
        );
        assert_eq!(error(&keys, b"k8s:enc:secretbox:v1:k:x"), TOO_SHORT);
    }
}
