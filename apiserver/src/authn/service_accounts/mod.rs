//! Tokens of service accounts: signed here, bound to the objects that they are given out for,
//! and worth nothing once those are gone.
//!
//! Enter at [`ServiceAccounts`].

mod cache;
mod claims;
mod discovery;
mod keys;
mod legacy;

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use coracle_api::{Identity, object::Typed};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Node, Pod, Secret, ServiceAccount},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::{Deserialize, de::DeserializeOwned};

pub use claims::{Claims, Kubernetes, Reference};
pub use discovery::Discovery;
pub use keys::{KeyError, SigningError, SigningKey};
pub use legacy::LegacyTokens;

use super::{
    AuthenticationError, CREDENTIAL_ID, TokenAuthenticator, TokenUser, bearer::intersection,
};
use crate::{Lookup, Shared, error::ApiError};
use cache::Verified;
use claims::LEEWAY_SECONDS;
use keys::VerifyingKey;

const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const NODE_UID: &str = "authentication.kubernetes.io/node-uid";

/// Makes and verifies the tokens of service accounts.
pub struct ServiceAccounts {
    issuer: String,
    external_address: String,
    audiences: Vec<String>,
    signing_key: SigningKey,
    verifying_keys: Vec<VerifyingKey>,
    lookup: Lookup,
    verified: Verified,
}

impl ServiceAccounts {
    /// `issuer` is what tokens are issued by, and the audience that this API server is;
    /// `external_address` is where others find it, as `host:port`.
    pub fn new(
        issuer: String,
        external_address: String,
        signing_key: SigningKey,
        lookup: Lookup,
    ) -> Self {
        ServiceAccounts {
            external_address,
            audiences: vec![issuer.clone()],
            issuer,
            verifying_keys: vec![signing_key.verifying_key()],
            signing_key,
            lookup,
            verified: Verified::default(),
        }
    }

    /// What this API server is called in tokens.
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Where others find this server, as `host:port`.
    pub fn external_address(&self) -> &str {
        &self.external_address
    }

    pub fn verifying_keys(&self) -> &[VerifyingKey] {
        &self.verifying_keys
    }

    /// Signs claims; their issuer is set.
    pub fn sign(&self, mut claims: Claims) -> Result<String, ApiError> {
        claims.issuer.clone_from(&self.issuer);
        let json = serde_json::to_vec(&claims).map_err(ApiError::internal)?;
        self.signing_key
            .sign(&json)
            .map_err(|error| ApiError::internal(format!("failed to generate token: {error}")))
    }

    /// The claims of a token that says that it is ours; `None` if it does not.
    fn verify(&self, token: &str) -> Result<Option<Claims>, AuthenticationError> {
        if let Some(claims) = self.verified.get(token) {
            return Ok(Some(claims));
        }
        let is_ours = |claims: &Claims| claims.issuer == self.issuer;
        let claims = self.signed(token, is_ours)?;
        if let Some(claims) = &claims {
            self.verified.insert(token, claims.clone());
        }
        Ok(claims)
    }

    /// The claims of a token that is signed by one of the keys; `None` if `is_ours` says no.
    fn signed<C: DeserializeOwned>(
        &self,
        token: &str,
        is_ours: impl Fn(&C) -> bool,
    ) -> Result<Option<C>, AuthenticationError> {
        let Some(parts) = Parts::split(token) else {
            return Ok(None);
        };
        let Some(claims) = parts.claims::<C>().filter(is_ours) else {
            return Ok(None);
        };
        let Some(header) = parts.header() else {
            return Ok(None);
        };
        let mut keys = self
            .verifying_keys
            .iter()
            .filter(|key| header.kid.is_empty() || key.id == header.kid)
            .peekable();
        if keys.peek().is_none() {
            let message = "invalid signature, no keys found";
            return Err(AuthenticationError(message.to_owned()));
        }
        if !keys.any(|key| key.verifies(&header.alg, parts.signed, &parts.signature)) {
            let message = "error in cryptographic primitive";
            return Err(AuthenticationError(message.to_owned()));
        }
        Ok(Some(claims))
    }

    /// Checks that everything the token is bound to still exists.
    async fn check_bindings(&self, claims: &Claims, now: i64) -> Result<(), AuthenticationError> {
        let kubernetes = &claims.kubernetes;
        let (namespace, account) = (&kubernetes.namespace, &kubernetes.serviceaccount);
        let found: Option<Shared<ServiceAccount>> =
            self.lookup.get(namespace, &account.name).await?;
        let Some(found) = found else {
            let name = &account.name;
            let message = format!("serviceaccounts {name:?} not found");
            return Err(AuthenticationError(message));
        };
        let uid = found.metadata.uid.as_deref().unwrap_or_default();
        if uid != account.uid {
            return Err(AuthenticationError(format!(
                "service account UID ({uid}) does not match claim ({})",
                account.uid
            )));
        }
        if was_deleted(&found.metadata, now) {
            return Err(AuthenticationError(format!(
                "service account {namespace}/{} has been deleted",
                account.name
            )));
        }
        if let Some(secret) = &kubernetes.secret {
            self.check::<Secret>(namespace, secret, now).await?;
        }
        if let Some(pod) = &kubernetes.pod {
            self.check::<Pod>(namespace, pod, now).await?;
        } else if let Some(node) = &kubernetes.node {
            self.check::<Node>("", node, now).await?;
        }
        Ok(())
    }

    async fn check<T: Typed>(
        &self,
        namespace: &str,
        bound: &Reference,
        now: i64,
    ) -> Result<(), AuthenticationError> {
        let found = self.lookup.get::<T>(namespace, &bound.name).await?;
        let valid = found.is_some_and(|found| {
            let metadata = found.metadata();
            metadata.uid.as_deref() == Some(bound.uid.as_str()) && !was_deleted(metadata, now)
        });
        if valid {
            return Ok(());
        }
        let message = "service account token has been invalidated";
        Err(AuthenticationError(message.to_owned()))
    }
}

fn was_deleted(metadata: &ObjectMeta, now: i64) -> bool {
    let deletion = metadata.deletion_timestamp.as_ref();
    deletion.is_some_and(|at| at.0.as_second() < now - LEEWAY_SECONDS)
}

#[async_trait]
impl TokenAuthenticator for ServiceAccounts {
    async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<TokenUser>, AuthenticationError> {
        let Some(claims) = self.verify(token)? else {
            return Ok(None);
        };
        let meant_for = if claims.audience.is_empty() {
            &self.audiences
        } else {
            &claims.audience
        };
        let common = intersection(meant_for, audiences);
        if common.is_empty() {
            return Err(AuthenticationError(format!(
                "token audiences {meant_for:?} is invalid for the target audiences {audiences:?}"
            )));
        }
        let now = Timestamp::now().as_second();
        claims
            .check_time(now)
            .map_err(|error| AuthenticationError(error.to_owned()))?;
        self.check_bindings(&claims, now).await?;
        Ok(Some(TokenUser {
            identity: identity(&claims),
            audiences: common,
            ..TokenUser::default()
        }))
    }
}

fn identity(claims: &Claims) -> Identity {
    let kubernetes = &claims.kubernetes;
    let namespace = &kubernetes.namespace;
    let mut identity = Identity {
        user: format!(
            "system:serviceaccount:{namespace}:{}",
            kubernetes.serviceaccount.name
        ),
        uid: kubernetes.serviceaccount.uid.clone(),
        groups: vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
        ],
        ..Identity::default()
    };
    let mut add = |key: &str, value: &str| {
        if !value.is_empty() {
            identity
                .extra
                .insert(key.to_owned(), vec![value.to_owned()]);
        }
    };
    if let Some(pod) = &kubernetes.pod {
        add(POD_NAME, &pod.name);
        add(POD_UID, &pod.uid);
    }
    if let Some(node) = &kubernetes.node {
        add(NODE_NAME, &node.name);
        add(NODE_UID, &node.uid);
    }
    if !claims.id.is_empty() {
        add(CREDENTIAL_ID, &format!("JTI={}", claims.id));
    }
    identity
}

/// A token taken apart, with nothing verified.
struct Parts<'a> {
    header: &'a str,
    payload: &'a str,
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

impl<'a> Parts<'a> {
    fn split(token: &'a str) -> Option<Self> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        if payload.contains('.') {
            return None;
        }
        Some(Parts {
            header,
            payload,
            signed: signed.as_bytes(),
            signature: URL_SAFE_NO_PAD.decode(signature).ok()?,
        })
    }

    fn header(&self) -> Option<Header> {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(self.header).ok()?).ok()
    }

    fn claims<C: DeserializeOwned>(&self) -> Option<C> {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(self.payload).ok()?).ok()
    }
}
