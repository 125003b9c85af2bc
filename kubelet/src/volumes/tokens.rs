//! Tokens of service accounts for pods: bound to the pod, and asked for again before they expire
//! (upstream's pkg/kubelet/token).

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        authentication::v1::{
            BoundObjectReference, TokenRequest, TokenRequestSpec, TokenRequestStatus,
        },
        core::v1::{Pod, ServiceAccount},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, Client, ResourceExt as _, api::PostParams};

use super::Error;
use crate::pods::spec::{spec, uid};

/// However long a token lives, it is replaced when it is that old.
const MAX_AGE: i64 = 24 * 3600;
/// What `expirationSeconds` is when a pod does not say.
const DEFAULT_LIFETIME: i64 = 3600;

/// The tokens of one pod.
#[derive(Debug, Default)]
pub struct Tokens(HashMap<Wanted, Issued>);

/// What a token is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// The API server's own when empty.
    pub audience: String,
    /// Seconds.
    pub lifetime: i64,
}

#[derive(Clone, Debug)]
struct Issued {
    token: String,
    refresh_at: Timestamp,
    expires_at: Timestamp,
}

impl Wanted {
    pub fn new(audience: Option<&str>, lifetime: Option<i64>) -> Self {
        Wanted {
            audience: audience.unwrap_or_default().to_owned(),
            lifetime: lifetime.unwrap_or(DEFAULT_LIFETIME),
        }
    }
}

impl Tokens {
    /// A token that is fresh enough.
    ///
    /// # Errors
    /// When the API issues none and the last one has expired.
    pub async fn get(
        &mut self,
        client: &Client,
        pod: &Pod,
        wanted: &Wanted,
        now: Timestamp,
    ) -> Result<String, Error> {
        let known = self.0.get(wanted);
        if let Some(issued) = known.filter(|issued| now < issued.refresh_at) {
            return Ok(issued.token.clone());
        }
        match request(client, pod, wanted).await {
            Ok(status) => {
                let issued = Issued::new(status, wanted, now);
                let token = issued.token.clone();
                self.0.insert(wanted.clone(), issued);
                Ok(token)
            }
            Err(error) => match known {
                Some(issued) if now < issued.expires_at => {
                    tracing::warn!(pod = pod.name_any(), %error, "cannot renew a token");
                    Ok(issued.token.clone())
                }
                Some(_) => Err(Error::Source(format!(
                    "token expired and refresh failed: {}",
                    describe(&error)
                ))),
                None => Err(Error::Source(format!(
                    "failed to fetch token: {}",
                    describe(&error)
                ))),
            },
        }
    }

    /// When the first of the tokens has to be replaced.
    pub fn refresh_at(&self) -> Option<Timestamp> {
        self.0.values().map(|issued| issued.refresh_at).min()
    }
}

impl Issued {
    fn new(status: TokenRequestStatus, wanted: &Wanted, now: Timestamp) -> Self {
        let lifetime = Duration::from_secs(u64::try_from(wanted.lifetime).unwrap_or(0));
        let expires_at = status
            .expiration_timestamp
            .map_or(now + lifetime, |time| time.0);
        Issued {
            token: status.token.unwrap_or_default(),
            refresh_at: refresh_at(now, expires_at, wanted.lifetime),
            expires_at,
        }
    }
}

/// After four fifths of the token's life, or a day.
fn refresh_at(now: Timestamp, expires_at: Timestamp, lifetime: i64) -> Timestamp {
    let seconds = |seconds: i64| Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let by_life = expires_at - seconds(lifetime / 5);
    by_life.min(now + seconds(MAX_AGE)).max(now)
}

fn describe(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

async fn request(
    client: &Client,
    pod: &Pod,
    wanted: &Wanted,
) -> Result<TokenRequestStatus, kube::Error> {
    let namespace = pod.namespace().unwrap_or_default();
    let account = spec(pod).service_account_name.as_deref();
    let account = account.filter(|name| !name.is_empty()).unwrap_or("default");
    let request = TokenRequest {
        metadata: ObjectMeta::default(),
        spec: Some(TokenRequestSpec {
            audiences: Some(match wanted.audience.as_str() {
                "" => Vec::new(),
                audience => vec![audience.to_owned()],
            }),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(pod.name_any()),
                uid: Some(uid(pod).to_owned()),
            }),
            expiration_seconds: Some(wanted.lifetime),
        }),
        status: None,
    };
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), &namespace);
    let response: TokenRequest = api
        .create_subresource("token", account, &PostParams::default(), &request)
        .await?;
    response
        .status
        .ok_or_else(|| kube::Error::Service("the API server issued no token".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_replaced_in_time() {
        let now = Timestamp::UNIX_EPOCH;
        let at = |seconds| Timestamp::from_second(seconds).expect("a time");
        let cases = [
            (3600, 3600, 2880),
            // An API server may extend the life of its own tokens.
            (365 * 24 * 3600, 3607, 24 * 3600),
            (10, 3600, 0),
        ];
        for (expires, lifetime, expected) in cases {
            assert_eq!(refresh_at(now, at(expires), lifetime), at(expected));
        }
    }
}
