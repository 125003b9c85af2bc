//! The keys that sign and verify service-account tokens, and JSON web signatures with them.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    digest,
    rand::SystemRandom,
    rsa::PublicKeyComponents,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
        RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey,
    },
};
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};

/// What comes before the point in the public key of a P-256 certificate (RFC 5480).
const P256_SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// The algorithm of an RSA key in the same place (RFC 3279).
const RSA_ALGORITHM: [u8; 15] = [
    0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
];

/// Why a key cannot sign tokens.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot read the service account key: {0}")]
    Pem(#[from] coracle_transport::TlsError),
    #[error(
        "the service account key is neither an ECDSA P-256 nor an RSA key of 2048 bits or more, as PKCS#8: {0}"
    )]
    Rejected(ring::error::KeyRejected),
    #[error("the service account key is in a form that is not supported, convert it to PKCS#8")]
    Form,
}

enum Pair {
    Ecdsa(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

/// A key that signs tokens.
pub struct SigningKey {
    pair: Pair,
    id: String,
    random: SystemRandom,
}

/// A signature could not be made: the system gave no randomness.
#[derive(Debug, thiserror::Error)]
#[error("cannot sign")]
pub struct SigningError;

impl SigningKey {
    /// Reads a PEM file: ECDSA P-256 as PKCS#8, RSA as PKCS#8 or PKCS#1.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let random = SystemRandom::new();
        let pair = match coracle_transport::parse_private_key(pem)? {
            PrivateKeyDer::Pkcs8(der) => {
                let der = der.secret_pkcs8_der();
                let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
                match EcdsaKeyPair::from_pkcs8(algorithm, der, &random) {
                    Ok(pair) => Pair::Ecdsa(pair),
                    Err(_) => Pair::Rsa(RsaKeyPair::from_pkcs8(der).map_err(KeyError::Rejected)?),
                }
            }
            PrivateKeyDer::Pkcs1(der) => {
                let pair = RsaKeyPair::from_der(der.secret_pkcs1_der());
                Pair::Rsa(pair.map_err(KeyError::Rejected)?)
            }
            _ => return Err(KeyError::Form),
        };
        let id = key_id(&spki(&pair));
        Ok(SigningKey { pair, id, random })
    }

    /// The key that verifies what this one signs.
    pub fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey {
            id: self.id.clone(),
            algorithm: self.algorithm(),
            public: match &self.pair {
                Pair::Ecdsa(pair) => pair.public_key().as_ref().to_vec(),
                Pair::Rsa(pair) => pair.public_key().as_ref().to_vec(),
            },
            jwk: self.jwk(),
        }
    }

    fn algorithm(&self) -> Algorithm {
        match self.pair {
            Pair::Ecdsa(_) => Algorithm::Es256,
            Pair::Rsa(_) => Algorithm::Rs256,
        }
    }

    /// A token in compact form.
    pub fn sign(&self, claims: &[u8]) -> Result<String, SigningError> {
        let header = json!({ "alg": self.algorithm().name(), "kid": self.id });
        let mut token = URL_SAFE_NO_PAD.encode(header.to_string());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let signature = match &self.pair {
            Pair::Ecdsa(pair) => pair
                .sign(&self.random, token.as_bytes())
                .map_err(|_| SigningError)?
                .as_ref()
                .to_vec(),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(
                    &RSA_PKCS1_SHA256,
                    &self.random,
                    token.as_bytes(),
                    &mut signature,
                )
                .map_err(|_| SigningError)?;
                signature
            }
        };
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    fn jwk(&self) -> Value {
        let base64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let (kid, alg) = (&self.id, self.algorithm().name());
        match &self.pair {
            Pair::Ecdsa(pair) => {
                // An uncompressed point: 4, x, y.
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({ "use": "sig", "kty": "EC", "kid": kid, "crv": "P-256", "alg": alg,
                    "x": base64(x), "y": base64(y) })
            }
            Pair::Rsa(pair) => {
                let public: PublicKeyComponents<Vec<u8>> = pair.public().into();
                json!({ "use": "sig", "kty": "RSA", "kid": kid, "alg": alg,
                    "n": base64(&public.n), "e": base64(&public.e) })
            }
        }
    }
}

/// The public key as certificates have it: what upstream's key ids are made from.
fn spki(pair: &Pair) -> Vec<u8> {
    match pair {
        Pair::Ecdsa(pair) => [&P256_SPKI_PREFIX, pair.public_key().as_ref()].concat(),
        Pair::Rsa(pair) => {
            let key = pair.public_key().as_ref();
            let mut bits = vec![0];
            bits.extend(key);
            let mut body = RSA_ALGORITHM.to_vec();
            body.extend(der(0x03, &bits));
            der(0x30, &body)
        }
    }
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut encoded = vec![tag];
    let length = content.len();
    if length < 128 {
        encoded.push(length as u8);
    } else {
        let bytes = length.to_be_bytes();
        let bytes = &bytes[bytes.iter().take_while(|&&byte| byte == 0).count()..];
        encoded.push(0x80 | bytes.len() as u8);
        encoded.extend(bytes);
    }
    encoded.extend(content);
    encoded
}

fn key_id(spki: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, spki))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Es256,
    Rs256,
}

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Algorithm::Es256 => "ES256",
            Algorithm::Rs256 => "RS256",
        }
    }
}

/// A key that verifies tokens.
#[derive(Clone, Debug)]
pub struct VerifyingKey {
    pub id: String,
    algorithm: Algorithm,
    public: Vec<u8>,
    /// The key as a JSON web key.
    pub jwk: Value,
}

impl VerifyingKey {
    pub fn algorithm(&self) -> &'static str {
        self.algorithm.name()
    }

    /// Whether `signature` is of `message`, made by this key with the algorithm of the name.
    pub fn verifies(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        if algorithm != self.algorithm.name() {
            return false;
        }
        let verified = match self.algorithm {
            Algorithm::Es256 => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.public)
                .verify(message, signature),
            Algorithm::Rs256 => UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.public)
                .verify(message, signature),
        };
        verified.is_ok()
    }
}
