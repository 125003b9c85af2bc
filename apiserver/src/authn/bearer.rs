//! Bearer tokens: where a request carries one, and who may know it.

use std::sync::Arc;

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use coracle_api::Identity;
use http::{HeaderMap, header, request::Parts};

use super::{AuthenticationError, Authenticator};
use crate::admission::Warnings;

/// Browsers cannot set headers on a WebSocket, but they can name subprotocols.
const WEBSOCKET_PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// Who a token belongs to, and for which of the audiences asked for it is good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenUser {
    pub identity: Identity,
    pub audiences: Vec<String>,
    /// What whoever uses the token is warned of; empty: nothing.
    pub warning: &'static str,
    /// What the audit log is told of the token.
    pub annotations: Vec<(&'static str, String)>,
}

/// Knows tokens.
#[async_trait]
pub trait TokenAuthenticator: Send + Sync + 'static {
    /// Whom the token belongs to; `None` if it is none of ours. `audiences` are those of which
    /// the token must be meant for one.
    ///
    /// # Errors
    /// It is one of ours, and not valid.
    async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<TokenUser>, AuthenticationError>;
}

/// Every kind of token. As an [`Authenticator`] it takes tokens that are meant for the API
/// server.
pub struct Tokens {
    authenticators: Vec<Arc<dyn TokenAuthenticator>>,
    audiences: Vec<String>,
}

impl Tokens {
    /// `audiences` are the names of this API server.
    pub fn new(authenticators: Vec<Arc<dyn TokenAuthenticator>>, audiences: Vec<String>) -> Self {
        Tokens {
            authenticators,
            audiences,
        }
    }

    /// The names of this API server.
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }
}

#[async_trait]
impl TokenAuthenticator for Tokens {
    async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<TokenUser>, AuthenticationError> {
        let mut refused = None;
        for authenticator in &self.authenticators {
            match authenticator.authenticate_token(token, audiences).await {
                Ok(Some(user)) => return Ok(Some(user)),
                Ok(None) => {}
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        refused.map_or(Ok(None), Err)
    }
}

#[async_trait]
impl Authenticator for Tokens {
    async fn authenticate(&self, request: &Parts) -> Result<Option<Identity>, AuthenticationError> {
        let Some(token) = token_of(&request.headers) else {
            return Ok(None);
        };
        match self.authenticate_token(&token, &self.audiences).await? {
            Some(user) => {
                if let Some(warnings) = request.extensions.get::<Arc<Warnings>>() {
                    warnings.add(user.warning);
                    for (key, value) in user.annotations {
                        warnings.annotate(key, value);
                    }
                }
                Ok(Some(user.identity))
            }
            None => Err(AuthenticationError("invalid bearer token".to_owned())),
        }
    }
}

/// Tokens that say nothing of an audience are good for the API server and nothing else.
pub struct AudienceAgnostic<T> {
    pub tokens: T,
    pub audiences: Vec<String>,
}

#[async_trait]
impl<T: TokenAuthenticator> TokenAuthenticator for AudienceAgnostic<T> {
    async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<TokenUser>, AuthenticationError> {
        let common = intersection(&self.audiences, audiences);
        if common.is_empty() {
            return Ok(None);
        }
        let user = self.tokens.authenticate_token(token, audiences).await?;
        Ok(user.map(|user| TokenUser {
            audiences: common,
            ..user
        }))
    }
}

#[async_trait]
impl<T: TokenAuthenticator> TokenAuthenticator for Arc<T> {
    async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<TokenUser>, AuthenticationError> {
        (**self).authenticate_token(token, audiences).await
    }
}

/// What both have, in the order of the first.
pub fn intersection(one: &[String], other: &[String]) -> Vec<String> {
    let common = one.iter().filter(|audience| other.contains(audience));
    common.cloned().collect()
}

fn token_of(headers: &HeaderMap) -> Option<String> {
    if let Some(authorization) = headers.get(header::AUTHORIZATION) {
        let (scheme, token) = authorization.to_str().ok()?.trim().split_once(' ')?;
        let token = token.split(' ').next().unwrap_or_default();
        return (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
            .then(|| token.to_owned());
    }
    headers.get(header::UPGRADE)?;
    headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|protocol| protocol.trim().strip_prefix(WEBSOCKET_PREFIX))
        .and_then(|encoded| URL_SAFE_NO_PAD.decode(encoded).ok())
        .and_then(|token| String::from_utf8(token).ok())
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn tokens_are_in_the_header_or_in_a_subprotocol() {
        let token = |pairs: &[(&'static str, &'static str)]| {
            let headers: HeaderMap = pairs
                .iter()
                .map(|&(name, value)| {
                    let value = HeaderValue::from_static(value);
                    (HeaderName::from_static(name), value)
                })
                .collect();
            token_of(&headers)
        };
        assert_eq!(
            token(&[("authorization", "Bearer abc")]).as_deref(),
            Some("abc")
        );
        assert_eq!(
            token(&[("authorization", "bearer abc")]).as_deref(),
            Some("abc")
        );
        assert_eq!(token(&[("authorization", "Basic abc")]), None);
        assert_eq!(token(&[("authorization", "Bearer ")]), None);
        let protocols = "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.YWJj";
        assert_eq!(
            token(&[
                ("upgrade", "websocket"),
                ("sec-websocket-protocol", protocols)
            ])
            .as_deref(),
            Some("abc")
        );
        assert_eq!(token(&[("sec-websocket-protocol", protocols)]), None);
    }
}
