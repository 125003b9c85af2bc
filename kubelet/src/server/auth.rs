//! Who may use the node's endpoints.
//!
//! Clients are known by certificates of the cluster's client authority or by tokens that the
//! API server vouches for (TokenReview); what they may do is asked of the API server
//! (SubjectAccessReview on `nodes/…`). Answers are cached for a while, as upstream does.

mod attributes;
mod cache;

use std::{collections::BTreeMap, time::Duration};

use coracle_api::Identity;
use coracle_transport::{ClientCertificates, Peer, subject};
use http::{StatusCode, header, request::Parts};
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, UserInfo},
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, Client, api::PostParams};

use attributes::{subresources, verb};
use cache::Cache;

const TOKEN_TTL: Duration = Duration::from_secs(120);
const ALLOWED_TTL: Duration = Duration::from_secs(300);
const DENIED_TTL: Duration = Duration::from_secs(30);
/// Callers of a kubelet are few: the API server and what scrapes it.
const REMEMBERED: usize = 512;

/// Why a request is refused: what the client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: StatusCode,
    pub message: String,
}

impl Refusal {
    fn unauthorized() -> Self {
        Refusal {
            status: StatusCode::UNAUTHORIZED,
            message: "Unauthorized".to_owned(),
        }
    }
}

/// Authenticates and authorises the clients of a node.
pub struct Auth {
    node_name: String,
    certificates: Option<ClientCertificates>,
    client: Option<Client>,
    tokens: Cache<String, Option<Identity>>,
    decisions: Cache<Question, bool>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Question {
    user: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
    verb: &'static str,
    subresource: &'static str,
}

impl Auth {
    /// Without `certificates`, client certificates are not believed; without `client`, there
    /// are no tokens, and every client that is known may do everything.
    pub fn new(
        node_name: String,
        certificates: Option<ClientCertificates>,
        client: Option<Client>,
    ) -> Self {
        Auth {
            node_name,
            certificates,
            client,
            tokens: Cache::new(REMEMBERED),
            decisions: Cache::new(REMEMBERED),
        }
    }

    /// Refuses the request unless its sender is known and may do what it asks.
    pub async fn check(&self, request: &Parts) -> Result<Identity, Refusal> {
        let identity = self
            .authenticate(request)
            .await
            .ok_or_else(Refusal::unauthorized)?;
        self.authorize(&identity, request).await?;
        Ok(identity)
    }

    async fn authenticate(&self, request: &Parts) -> Option<Identity> {
        if let Some(peer) = request.extensions.get::<Peer>()
            && !peer.certificates.is_empty()
        {
            return self.by_certificate(peer);
        }
        let authorization = request.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, token) = authorization.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        self.by_token(token.trim()).await
    }

    fn by_certificate(&self, peer: &Peer) -> Option<Identity> {
        let verified = self.certificates.as_ref()?.verify(&peer.certificates);
        if let Err(error) = verified {
            tracing::info!(peer = %peer.address, %error, "client certificate refused");
            return None;
        }
        let subject = subject(&peer.certificates[0])?;
        Some(Identity {
            user: subject.common_name,
            groups: subject.organizations,
            ..Identity::default()
        })
    }

    async fn by_token(&self, token: &str) -> Option<Identity> {
        let client = self.client.as_ref()?;
        if let Some(known) = self.tokens.get(&token.to_owned()) {
            return known;
        }
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: token.to_owned(),
                ..TokenReviewSpec::default()
            },
            ..TokenReview::default()
        };
        let reviews: Api<TokenReview> = Api::all(client.clone());
        let status = match reviews.create(&PostParams::default(), &review).await {
            Ok(review) => review.status.unwrap_or_default(),
            Err(error) => {
                tracing::warn!(%error, "cannot review a token");
                return None;
            }
        };
        let identity =
            (status.authenticated == Some(true)).then(|| identity(status.user.unwrap_or_default()));
        self.tokens
            .insert(token.to_owned(), identity.clone(), TOKEN_TTL);
        identity
    }

    /// One of the subresources that the path stands for must be allowed.
    async fn authorize(&self, identity: &Identity, request: &Parts) -> Result<(), Refusal> {
        let Some(client) = &self.client else {
            return Ok(());
        };
        let verb = verb(&request.method);
        let subresources = subresources(request.uri.path());
        for &subresource in subresources {
            let question = Question {
                user: identity.user.clone(),
                groups: identity.groups.clone(),
                extra: identity.extra.clone(),
                verb,
                subresource,
            };
            if self.is_allowed(client, question).await? {
                return Ok(());
            }
        }
        Err(Refusal {
            status: StatusCode::FORBIDDEN,
            message: format!(
                "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{}])\n",
                identity.user,
                subresources.join(" ")
            ),
        })
    }

    async fn is_allowed(&self, client: &Client, question: Question) -> Result<bool, Refusal> {
        if let Some(decided) = self.decisions.get(&question) {
            return Ok(decided);
        }
        let review = self.review(&question);
        let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
        match reviews.create(&PostParams::default(), &review).await {
            Ok(review) => {
                let allowed = review.status.is_some_and(|status| status.allowed);
                let ttl = if allowed { ALLOWED_TTL } else { DENIED_TTL };
                self.decisions.insert(question, allowed, ttl);
                Ok(allowed)
            }
            Err(error) => {
                tracing::warn!(user = question.user, %error, "cannot review the access");
                Err(Refusal {
                    status: StatusCode::INTERNAL_SERVER_ERROR,
                    message: format!(
                        "Authorization error (user={}, verb={}, resource=nodes, subresource={})",
                        question.user, question.verb, question.subresource
                    ),
                })
            }
        }
    }

    fn review(&self, question: &Question) -> SubjectAccessReview {
        SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(question.user.clone()),
                groups: Some(question.groups.clone()),
                extra: Some(question.extra.clone()),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(question.verb.to_owned()),
                    version: Some("v1".to_owned()),
                    resource: Some("nodes".to_owned()),
                    subresource: Some(question.subresource.to_owned()),
                    name: Some(self.node_name.clone()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        }
    }
}

fn identity(user: UserInfo) -> Identity {
    Identity {
        user: user.username.unwrap_or_default(),
        uid: user.uid.unwrap_or_default(),
        groups: user.groups.unwrap_or_default(),
        extra: user.extra.unwrap_or_default(),
    }
}
