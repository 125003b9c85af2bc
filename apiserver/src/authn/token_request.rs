//! `serviceaccounts/token`: gives out a token, bound to an object that it lives and dies with.

use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use coracle_api::field::Path;
use http::Response;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestStatus},
        core::v1::{Node, Pod, Secret, ServiceAccount},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use uuid::Uuid;

use super::service_accounts::{Claims, Kubernetes, Reference, ServiceAccounts};
use crate::{
    Lookup,
    admission::Operation,
    decode,
    error::{ApiError, GroupResource},
    handler::{Call, Handler},
    query::Query,
    respond::{self, Output},
    server::Context,
    strategy,
};

const GROUP: &str = "authentication.k8s.io";
const KIND: &str = "TokenRequest";
const DEFAULT_SECONDS: i64 = 3600;
const MIN_SECONDS: i64 = 600;
const MAX_SECONDS: i64 = 1 << 32;
/// A pod's token of exactly this life is the one that clients before 1.21 read only once.
/// It is made to last longer, and says after which time it should have been replaced.
const WARN_ONLY_SECONDS: i64 = 3607;
const EXTENDED_SECONDS: i64 = 365 * 24 * 3600;

/// Gives out tokens.
pub struct TokenRequests(pub Arc<ServiceAccounts>);

#[async_trait]
impl Handler for TokenRequests {
    async fn handle(&self, call: Call<'_>) -> Result<Response<Body>, ApiError> {
        let context = call.context;
        let output = Output::negotiate(context.headers(), &Query::parse(context.query()))?;
        let mut request: TokenRequest = decode::review(context, call.body).await?;
        let lookup = Lookup::new(call.server.registry().clone());
        let name = &context.info.name;
        let attributes = context.attributes(call.resource, Operation::Create, name, false);
        let admission = call.server.admission();
        admission
            .admit(&attributes, Some(&mut request), None)
            .await?;
        admission
            .validate(&attributes, Some(&request), None)
            .await?;
        let issued = issue(&lookup, &self.0, context, &mut request).await?;
        request.status = Some(issued);
        respond::review(&output, &request)
    }
}

async fn issue(
    lookup: &Lookup,
    accounts: &ServiceAccounts,
    context: &Context,
    request: &mut TokenRequest,
) -> Result<TokenRequestStatus, ApiError> {
    let (namespace, name) = (&context.info.namespace, &context.info.name);
    strategy::match_namespace(&mut request.metadata, true, namespace)?;
    check_name(&request.metadata, name)?;
    let account = lookup.require::<ServiceAccount>(namespace, name).await?;
    check_uid(&request.metadata, &account, name)?;
    let uid = account.metadata.uid.clone();
    let now = Timestamp::now();
    let metadata = &mut request.metadata;
    metadata.name = Some(name.clone());
    metadata.namespace = Some(namespace.clone());
    metadata.uid.clone_from(&uid);
    metadata.creation_timestamp = Some(Time(now));
    let spec = request.spec.get_or_insert_default();
    let audiences = spec.audiences.get_or_insert_default();
    if audiences.is_empty() {
        *audiences = accounts.audiences().to_vec();
    }
    let audiences = audiences.clone();
    let seconds = *spec.expiration_seconds.get_or_insert(DEFAULT_SECONDS);
    check_seconds(seconds)?;

    let bound = match &spec.bound_object_ref {
        Some(reference) => bind(lookup, namespace, name, reference).await?,
        None => Bound::default(),
    };
    let for_us = audiences
        .iter()
        .all(|audience| accounts.audiences().contains(audience));
    let extended = bound.pod.is_some() && seconds == WARN_ONLY_SECONDS && for_us;
    let lifetime = if extended { EXTENDED_SECONDS } else { seconds };
    let at = now.as_second();
    let claims = Claims {
        audience: audiences,
        expiry: Some(at + lifetime),
        issued_at: Some(at),
        not_before: Some(at),
        issuer: String::new(),
        id: Uuid::new_v4().to_string(),
        subject: format!("system:serviceaccount:{namespace}:{name}"),
        kubernetes: Kubernetes {
            namespace: namespace.clone(),
            node: bound.node,
            pod: bound.pod,
            secret: bound.secret,
            serviceaccount: Reference {
                name: name.clone(),
                uid: uid.unwrap_or_default(),
            },
            warn_after: extended.then_some(at + seconds),
        },
    };
    let expires = now.saturating_add(SignedDuration::from_secs(seconds));
    Ok(TokenRequestStatus {
        token: Some(accounts.sign(claims)?),
        expiration_timestamp: Some(Time(expires.unwrap_or(Timestamp::MAX))),
    })
}

fn check_name(metadata: &ObjectMeta, name: &str) -> Result<(), ApiError> {
    let given = metadata.name.as_deref().unwrap_or_default();
    if given.is_empty() || given == name {
        return Ok(());
    }
    let error = Path::new("metadata")
        .child("name")
        .invalid(given, "must match the service account name if specified");
    Err(ApiError::invalid(GROUP, KIND, name, &vec![error]))
}

fn check_uid(metadata: &ObjectMeta, account: &ServiceAccount, name: &str) -> Result<(), ApiError> {
    let given = metadata.uid.as_deref().unwrap_or_default();
    let uid = account.metadata.uid.as_deref().unwrap_or_default();
    if given.is_empty() || given == uid {
        return Ok(());
    }
    let subject = GroupResource {
        group: GROUP,
        resource: KIND,
    };
    let why = format!(
        "the UID in the token request ({given}) does not match the UID of the service account ({uid})"
    );
    Err(ApiError::conflict(subject, name, why))
}

fn check_seconds(seconds: i64) -> Result<(), ApiError> {
    let path = Path::new("spec").child("expirationSeconds");
    let detail = if seconds < MIN_SECONDS {
        "may not specify a duration less than 10 minutes"
    } else if seconds > MAX_SECONDS {
        "may not specify a duration larger than 2^32 seconds"
    } else {
        return Ok(());
    };
    let errors = vec![path.invalid(seconds, detail)];
    Err(ApiError::invalid(GROUP, KIND, "", &errors))
}

/// What the token is bound to: one of the three, or a pod and the node that it runs on.
#[derive(Default)]
struct Bound {
    pod: Option<Reference>,
    node: Option<Reference>,
    secret: Option<Reference>,
}

async fn bind(
    lookup: &Lookup,
    namespace: &str,
    account: &str,
    reference: &BoundObjectReference,
) -> Result<Bound, ApiError> {
    let name = reference.name.as_deref().unwrap_or_default();
    let kind = reference.kind.as_deref().unwrap_or_default();
    let api_version = reference.api_version.as_deref().unwrap_or_default();
    let mut bound = Bound::default();
    if name.is_empty() && api_version == "v1" && matches!(kind, "Pod" | "Node" | "Secret") {
        return Err(ApiError::bad_request("Name parameter required."));
    }
    match (api_version, kind) {
        ("v1", "Pod") => {
            let pod = lookup.require::<Pod>(namespace, name).await?;
            let spec = pod.spec.as_ref();
            if spec.and_then(|spec| spec.service_account_name.as_deref()) != Some(account) {
                return Err(ApiError::bad_request(format!(
                    "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
                )));
            }
            check_bound_uid(reference, &pod.metadata)?;
            let node = spec.and_then(|spec| spec.node_name.as_deref());
            if let Some(node) = node.filter(|node| !node.is_empty()) {
                let found = lookup.get::<Node>("", node).await?;
                bound.node = Some(Reference {
                    name: node.to_owned(),
                    uid: found
                        .and_then(|node| node.metadata.uid.clone())
                        .unwrap_or_default(),
                });
            }
            bound.pod = Some(reference_to(&pod.metadata));
        }
        ("v1", "Node") => {
            let node = lookup.require::<Node>("", name).await?;
            check_bound_uid(reference, &node.metadata)?;
            bound.node = Some(reference_to(&node.metadata));
        }
        ("v1", "Secret") => {
            let secret = lookup.require::<Secret>(namespace, name).await?;
            check_bound_uid(reference, &secret.metadata)?;
            bound.secret = Some(reference_to(&secret.metadata));
        }
        _ => {
            let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
            return Err(ApiError::bad_request(format!(
                "cannot bind token to object of type {group}/{version}, Kind={kind}"
            )));
        }
    }
    Ok(bound)
}

fn reference_to(metadata: &ObjectMeta) -> Reference {
    Reference {
        name: metadata.name.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
    }
}

fn check_bound_uid(
    reference: &BoundObjectReference,
    metadata: &ObjectMeta,
) -> Result<(), ApiError> {
    let given = reference.uid.as_deref().unwrap_or_default();
    let uid = metadata.uid.as_deref().unwrap_or_default();
    if given.is_empty() || given == uid {
        return Ok(());
    }
    let subject = GroupResource {
        group: "",
        resource: reference.kind.as_deref().unwrap_or_default(),
    };
    let why = format!(
        "the UID in the bound object reference ({given}) does not match the UID in record. The object might have been deleted and then recreated"
    );
    let name = metadata.name.as_deref().unwrap_or_default();
    Err(ApiError::conflict(subject, name, why))
}
