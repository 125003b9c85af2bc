//! An issuer's public keys: found through its discovery document, kept, and fetched again when a
//! token names a key that is not among them.

use std::time::{Duration, Instant};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::signature::{
    self, EcdsaVerificationAlgorithm, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::{configuration::Issuer, fetch::Fetcher};

const DISCOVERY: &str = "/.well-known/openid-configuration";
/// Unknown keys make us ask at most this often: tokens are made up easily.
const PAUSE: Duration = Duration::from_secs(1);
/// An issuer that cannot be reached is asked at most this often.
const RETRY: Duration = Duration::from_secs(10);
/// Keys that are kept of one issuer.
const MAX_KEYS: usize = 256;

/// The keys of one issuer.
pub(super) struct KeySet {
    issuer: String,
    discovery_url: String,
    fetcher: Fetcher,
    /// Held while the keys are fetched, so that they are fetched once for all who wait.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    keys_url: Option<String>,
    keys: Vec<Key>,
    asked: Option<Instant>,
    failure: Option<String>,
}

#[derive(Deserialize)]
struct Discovery {
    #[serde(default)]
    issuer: String,
    #[serde(default)]
    jwks_uri: String,
}

#[derive(Deserialize)]
struct WebKeys {
    keys: Vec<WebKey>,
}

/// RFC 7517.
#[derive(Deserialize)]
struct WebKey {
    kty: String,
    #[serde(default)]
    kid: String,
    #[serde(default)]
    alg: String,
    #[serde(default, rename = "use")]
    usage: String,
    #[serde(default)]
    crv: String,
    #[serde(default)]
    n: String,
    #[serde(default)]
    e: String,
    #[serde(default)]
    x: String,
    #[serde(default)]
    y: String,
}

struct Key {
    id: String,
    /// Empty: any that fits.
    algorithm: String,
    public: Public,
}

enum Public {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
}

impl KeySet {
    pub fn new(issuer: &Issuer, fetcher: Fetcher) -> Self {
        let discovery_url = if issuer.discovery_url.is_empty() {
            format!("{}{DISCOVERY}", issuer.url.trim_end_matches('/'))
        } else {
            issuer.discovery_url.clone()
        };
        KeySet {
            issuer: issuer.url.clone(),
            discovery_url,
            fetcher,
            state: Mutex::default(),
        }
    }

    /// # Errors
    /// The signature is not that of one of the issuer's keys, or those cannot be had.
    pub async fn verify(
        &self,
        algorithm: &str,
        id: &str,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), String> {
        let mut state = self.state.lock().await;
        if state.verifies(algorithm, id, message, signature) {
            return Ok(());
        }
        let pause = if state.failure.is_some() {
            RETRY
        } else {
            PAUSE
        };
        if state.asked.is_none_or(|asked| asked.elapsed() >= pause) {
            let fetched = self.fetch(&mut state).await;
            state.asked = Some(Instant::now());
            state.failure = fetched.err();
        }
        if state.verifies(algorithm, id, message, signature) {
            return Ok(());
        }
        Err(match &state.failure {
            Some(failure) => failure.clone(),
            None => "failed to verify signature: failed to verify id token signature".to_owned(),
        })
    }

    async fn fetch(&self, state: &mut State) -> Result<(), String> {
        let keys_url = match &state.keys_url {
            Some(url) => url.clone(),
            None => {
                let document = self.fetcher.get(&self.discovery_url).await?;
                let discovery: Discovery = serde_json::from_slice(&document).map_err(|error| {
                    format!("failed to decode provider discovery object: {error}")
                })?;
                if discovery.issuer != self.issuer {
                    return Err(format!(
                        "issuer did not match the issuer returned by provider, expected {:?} got {:?}",
                        self.issuer, discovery.issuer
                    ));
                }
                discovery.jwks_uri
            }
        };
        let document = self.fetcher.get(&keys_url).await?;
        let keys: WebKeys = serde_json::from_slice(&document)
            .map_err(|error| format!("failed to decode keys: {error}"))?;
        state.keys = keys
            .keys
            .iter()
            .filter_map(Key::new)
            .take(MAX_KEYS)
            .collect();
        state.keys_url = Some(keys_url);
        Ok(())
    }
}

impl State {
    fn verifies(&self, algorithm: &str, id: &str, message: &[u8], signature: &[u8]) -> bool {
        self.keys
            .iter()
            .filter(|key| id.is_empty() || key.id == id)
            .any(|key| key.verifies(algorithm, message, signature))
    }
}

impl Key {
    fn new(key: &WebKey) -> Option<Self> {
        if !matches!(key.usage.as_str(), "" | "sig") {
            return None;
        }
        let number = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
        let point = |length: usize| {
            let (x, y) = (number(&key.x)?, number(&key.y)?);
            (x.len() == length && y.len() == length).then(|| [vec![4], x, y].concat())
        };
        let public = match (key.kty.as_str(), key.crv.as_str()) {
            ("RSA", _) => {
                let n = number(&key.n)?;
                let zeros = n.iter().take_while(|byte| **byte == 0).count();
                Public::Rsa {
                    n: n[zeros..].to_vec(),
                    e: number(&key.e)?,
                }
            }
            ("EC", "P-256") => Public::P256(point(32)?),
            ("EC", "P-384") => Public::P384(point(48)?),
            _ => return None,
        };
        Some(Key {
            id: key.kid.clone(),
            algorithm: key.alg.clone(),
            public,
        })
    }

    fn verifies(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        if !self.algorithm.is_empty() && self.algorithm != algorithm {
            return false;
        }
        let rsa: &RsaParameters = match algorithm {
            "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
            "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
            "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
            "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
            "PS384" => &signature::RSA_PSS_2048_8192_SHA384,
            "PS512" => &signature::RSA_PSS_2048_8192_SHA512,
            _ => return self.verifies_ecdsa(algorithm, message, signature),
        };
        match &self.public {
            Public::Rsa { n, e } => RsaPublicKeyComponents { n, e }
                .verify(rsa, message, signature)
                .is_ok(),
            Public::P256(_) | Public::P384(_) => false,
        }
    }

    fn verifies_ecdsa(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        let (with, point): (&EcdsaVerificationAlgorithm, _) = match (algorithm, &self.public) {
            ("ES256", Public::P256(point)) => (&signature::ECDSA_P256_SHA256_FIXED, point),
            ("ES384", Public::P384(point)) => (&signature::ECDSA_P384_SHA384_FIXED, point),
            _ => return false,
        };
        UnparsedPublicKey::new(with, point)
            .verify(message, signature)
            .is_ok()
    }
}
