//! Tokens that stand in Secrets and never expire, as they were before there were bound ones.
//!
//! Enter at [`LegacyTokens`]. Such a token is good while its Secret has it. Each day of use is
//! written to the Secret, so that unused ones can be found. Upstream: `pkg/serviceaccount/legacy.go`.

use std::sync::Arc;

use async_trait::async_trait;
use coracle_api::{Identity, Object};
use jiff::{Timestamp, ToSpan as _, tz::TimeZone};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use serde::Deserialize;

use super::ServiceAccounts;
use crate::{
    Registry, Shared,
    authn::{AuthenticationError, TokenAuthenticator, TokenUser, bearer::intersection},
    verbs::rewrite,
};

const ISSUER: &str = "kubernetes/serviceaccount";
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

/// What users of a token that was made unasked are told.
const WARNING: &str = "Use tokens from the TokenRequest API or manually created secret-based tokens instead of auto-generated secret-based tokens.";

/// Knows such tokens.
pub struct LegacyTokens {
    accounts: Arc<ServiceAccounts>,
    registry: Registry,
}

/// What a token says; every claim is there.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Claims {
    #[serde(rename = "iss")]
    issuer: String,
    #[serde(rename = "sub")]
    subject: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    uid: String,
}

impl Claims {
    /// # Errors
    /// What is missing or wrong.
    fn check(&self) -> Result<(), &'static str> {
        for (claim, why) in [
            (&self.subject, "sub claim is missing"),
            (&self.namespace, "namespace claim is missing"),
            (&self.secret, "secretName claim is missing"),
            (&self.account, "serviceAccountName claim is missing"),
            (&self.uid, "serviceAccountUID claim is missing"),
        ] {
            if claim.is_empty() {
                return Err(why);
            }
        }
        let subject = format!("system:serviceaccount:{}:{}", self.namespace, self.account);
        if self.subject == subject {
            Ok(())
        } else {
            Err("sub claim is invalid")
        }
    }

    fn identity(&self) -> Identity {
        Identity {
            user: self.subject.clone(),
            uid: self.uid.clone(),
            groups: vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{}", self.namespace),
            ],
            ..Identity::default()
        }
    }
}

impl LegacyTokens {
    pub fn new(accounts: Arc<ServiceAccounts>, registry: Registry) -> Self {
        LegacyTokens { accounts, registry }
    }

    /// Checks that the Secret and the account are there as the token says. Returns whether the
    /// Secret was made for the account unasked: then the account lists it.
    async fn check(&self, token: &str, claims: &Claims) -> Result<bool, AuthenticationError> {
        let refuse = |why: String| Err(AuthenticationError(why));
        let (namespace, name) = (&claims.namespace, &claims.account);
        let lookup = &self.accounts.lookup;
        let secret: Option<Shared<Secret>> = lookup.get(namespace, &claims.secret).await?;
        let Some(secret) = secret.filter(|found| found.metadata.deletion_timestamp.is_none())
        else {
            return refuse("Token has been invalidated".to_owned());
        };
        let data = secret.data.as_ref().and_then(|data| data.get("token"));
        let kept = data.map_or(&[] as &[u8], |token| &token.0);
        // Not secret from whoever shows it: the token is signed, and only its age is in question.
        if kept != token.as_bytes() {
            return refuse("Token does not match server's copy".to_owned());
        }
        let account: Option<Shared<ServiceAccount>> = lookup.get(namespace, name).await?;
        let Some(account) = account else {
            return refuse(format!("serviceaccounts {name:?} not found"));
        };
        if account.metadata.deletion_timestamp.is_some() {
            return refuse(format!(
                "ServiceAccount {namespace}/{name} has been deleted"
            ));
        }
        let uid = account.metadata.uid.as_deref().unwrap_or_default();
        if uid != claims.uid {
            return refuse(format!(
                "ServiceAccount UID ({uid}) does not match claim ({})",
                claims.uid
            ));
        }
        self.note_use(&secret).await;
        let labels = secret.metadata.labels.as_ref();
        let invalid = labels.and_then(|labels| labels.get(INVALID_SINCE));
        if invalid.is_some_and(|since| !since.is_empty()) {
            return refuse(format!(
                "the token in secret {namespace}/{} for service account {namespace}/{name} has been marked invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the '{INVALID_SINCE}' label from the secret to temporarily allow use of this token",
                claims.secret
            ));
        }
        let mut listed = account.secrets.iter().flatten();
        Ok(listed.any(|listed| listed.name.as_ref() == Some(&claims.secret)))
    }

    /// Labels the Secret with the date, once a day. Failing to do so refuses nobody.
    async fn note_use(&self, secret: &Secret) {
        let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
        // Another server's clock may be ahead.
        let tomorrow = today.saturating_add(1.day()).to_string();
        let today = today.to_string();
        let labels = secret.metadata.labels.as_ref();
        let noted = labels.and_then(|labels| labels.get(LAST_USED));
        if noted.is_some_and(|noted| *noted == today || *noted == tomorrow) {
            return;
        }
        let Some(resource) = self.registry.find("", "v1", "secrets") else {
            return;
        };
        let namespace = secret.metadata.namespace.as_deref().unwrap_or_default();
        let name = secret.metadata.name.as_deref().unwrap_or_default();
        let change = |object: &mut dyn Object| {
            let metadata = object.meta_mut();
            if metadata.uid == secret.metadata.uid {
                let labels = metadata.labels.get_or_insert_default();
                labels.insert(LAST_USED.to_owned(), today.clone());
            }
            Ok(())
        };
        let written = rewrite(&self.registry, &resource, namespace, name, false, change).await;
        if let Err(error) = written {
            tracing::warn!(namespace, name, %error, "the use of a token cannot be noted");
        }
    }
}

#[async_trait]
impl TokenAuthenticator for LegacyTokens {
    async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<TokenUser>, AuthenticationError> {
        let is_ours = |claims: &Claims| claims.issuer == ISSUER;
        let Some(claims) = self.accounts.signed(token, is_ours)? else {
            return Ok(None);
        };
        // Such tokens are for this API server alone.
        let own = self.accounts.audiences();
        let common = intersection(own, audiences);
        if common.is_empty() {
            return Err(AuthenticationError(format!(
                "token audiences {own:?} is invalid for the target audiences {audiences:?}"
            )));
        }
        claims
            .check()
            .map_err(|why| AuthenticationError(why.to_owned()))?;
        let generated = self.check(token, &claims).await?;
        let origin = if generated {
            "authentication.k8s.io/legacy-token-autogenerated-secret"
        } else {
            "authentication.k8s.io/legacy-token-manual-secret"
        };
        Ok(Some(TokenUser {
            identity: claims.identity(),
            audiences: common,
            warning: if generated { WARNING } else { "" },
            annotations: vec![
                ("authentication.k8s.io/legacy-token", claims.subject),
                (origin, claims.secret),
            ],
        }))
    }
}
