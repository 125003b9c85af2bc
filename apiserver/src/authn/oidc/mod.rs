//! Tokens of OpenID Connect issuers: JSON web tokens whose keys are found through the issuer's
//! discovery document, and whose claims are mapped to users.
//!
//! Enter at [`JwtIssuers`], built from an [`AuthenticationConfiguration`]. Nothing is fetched
//! before the first token of an issuer comes.

mod claims;
mod configuration;
mod expressions;
mod fetch;
mod keys;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::Value;

pub use configuration::{
    Anonymous, AnonymousCondition, AuthenticationConfiguration, ClaimMappings, ClaimOrExpression,
    ClaimValidationRule, ConfigurationError, Issuer, JwtAuthenticator, PrefixedClaimOrExpression,
    SIGNING_ALGORITHMS,
};

use super::{AuthenticationError, TokenAuthenticator, TokenUser};
use claims::Mapping;
use fetch::Fetcher;
use keys::KeySet;

/// How far an issuer's clock may be ahead, in seconds, as upstream's library has it.
const LEEWAY_SECONDS: f64 = 300.0;

/// The issuers of an AuthenticationConfiguration, which can be replaced while requests are
/// answered.
#[derive(Default)]
pub struct JwtIssuers(ArcSwap<HashMap<String, Arc<Authenticator>>>);

impl JwtIssuers {
    /// `algorithms` are those that tokens may be signed with.
    ///
    /// # Errors
    /// Upstream's, when the configuration is not valid; `own_issuer` is that of ServiceAccount
    /// tokens, which none may claim to be.
    pub fn new(
        configuration: &AuthenticationConfiguration,
        algorithms: &[String],
        own_issuer: &str,
    ) -> Result<Self, ConfigurationError> {
        let issuers = JwtIssuers::default();
        issuers.replace(configuration, algorithms, own_issuer)?;
        Ok(issuers)
    }

    /// Goes on with another configuration; if it is not valid, with the former one.
    pub fn replace(
        &self,
        configuration: &AuthenticationConfiguration,
        algorithms: &[String],
        own_issuer: &str,
    ) -> Result<(), ConfigurationError> {
        configuration.validate(own_issuer)?;
        let issuers = configuration.jwt.iter().map(|jwt| {
            let authenticator = Authenticator::new(jwt, algorithms)?;
            Ok((jwt.issuer.url.clone(), Arc::new(authenticator)))
        });
        let issuers = issuers.collect::<Result<HashMap<_, _>, ConfigurationError>>()?;
        self.0.store(Arc::new(issuers));
        Ok(())
    }
}

#[async_trait]
impl TokenAuthenticator for JwtIssuers {
    async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<TokenUser>, AuthenticationError> {
        let issuers = self.0.load_full();
        if issuers.is_empty() {
            return Ok(None);
        }
        let Some(token) = Token::parse(token) else {
            return Ok(None);
        };
        // What Google's older tokens say.
        let issuer = match token.claims["iss"].as_str() {
            Some("accounts.google.com") => "https://accounts.google.com",
            Some(issuer) => issuer,
            None => return Ok(None),
        };
        let Some(authenticator) = issuers.get(issuer) else {
            return Ok(None);
        };
        let identity = authenticator
            .authenticate(&token)
            .await
            .map_err(|error| AuthenticationError(format!("oidc: {error}")))?;
        Ok(Some(TokenUser {
            identity,
            audiences: audiences.to_vec(),
            ..TokenUser::default()
        }))
    }
}

/// A token in compact form, taken apart. Nothing of it is verified.
struct Token<'a> {
    header: Header,
    claims: Value,
    signed: &'a [u8],
    signature: Vec<u8>,
}

#[derive(Deserialize)]
struct Header {
    #[serde(default)]
    alg: String,
    #[serde(default)]
    kid: String,
}

impl<'a> Token<'a> {
    fn parse(token: &'a str) -> Option<Self> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
        let claims: Value = serde_json::from_slice(&decode(payload)?).ok()?;
        Some(Token {
            header: serde_json::from_slice(&decode(header)?).ok()?,
            claims: claims.is_object().then_some(claims)?,
            signed: signed.as_bytes(),
            signature: decode(signature)?,
        })
    }
}

/// One issuer.
struct Authenticator {
    audiences: Vec<String>,
    algorithms: Vec<String>,
    keys: KeySet,
    mapping: Mapping,
}

impl Authenticator {
    fn new(jwt: &JwtAuthenticator, algorithms: &[String]) -> Result<Self, ConfigurationError> {
        let fetcher = Fetcher::new(&jwt.issuer.certificate_authority)
            .map_err(|error| ConfigurationError::Invalid(error.to_string()))?;
        Ok(Authenticator {
            audiences: jwt.issuer.audiences.clone(),
            algorithms: algorithms.to_vec(),
            keys: KeySet::new(&jwt.issuer, fetcher),
            mapping: Mapping::new(jwt)?,
        })
    }

    async fn authenticate(&self, token: &Token<'_>) -> Result<coracle_api::Identity, String> {
        self.check_times_and_audience(&token.claims)?;
        let Header { alg, kid } = &token.header;
        if !self.algorithms.contains(alg) {
            return Err(format!(
                "verify token: signed with unsupported algorithm, expected {:?} got {alg:?}",
                self.algorithms
            ));
        }
        self.keys
            .verify(alg, kid, token.signed, &token.signature)
            .await
            .map_err(|error| format!("verify token: {error}"))?;
        self.mapping.user(&token.claims)
    }

    fn check_times_and_audience(&self, claims: &Value) -> Result<(), String> {
        let meant_for: Vec<&str> = match &claims["aud"] {
            Value::String(one) => vec![one],
            Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let ours = |audience: &&str| self.audiences.iter().any(|known| known == audience);
        if !meant_for.iter().any(ours) {
            return Err(format!(
                "verify token: expected audience in {:?} got {meant_for:?}",
                self.audiences
            ));
        }
        let now = jiff::Timestamp::now().as_second() as f64;
        let expiry = claims["exp"].as_f64().unwrap_or_default();
        if expiry < now {
            return Err(format!(
                "verify token: token is expired (Token Expiry: {expiry})"
            ));
        }
        if claims["nbf"]
            .as_f64()
            .is_some_and(|from| now + LEEWAY_SECONDS < from)
        {
            return Err(
                "verify token: current time is before the nbf (not before) time".to_owned(),
            );
        }
        Ok(())
    }
}
