//! The audit log: who asked for what, when, and what came of it, as upstream's policy says.
//!
//! Enter at [`Auditor`]. A request that the policy wants told of has a [`Record`]; everything
//! that is known of the request is put there, and each stage it comes to is one line of the log.
//! Without a policy there is no record, and nothing is spent on it.

mod event;
mod log;
mod policy;
mod record;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::body::Body;
use coracle_api::codec::protobuf;
use coracle_transport::Peer;
use http::{HeaderMap, HeaderName, Response, header};
use http_body_util::BodyExt as _;

pub use event::Format;
pub use log::{LogConfig, LogError, LogFile};
pub use policy::{Level, Policy, PolicyError, Stage};
pub use record::Record;

use crate::{
    authz::Attributes,
    body,
    metrics::audit,
    respond::{JSON, PROTOBUF, YAML},
    server::{Context, Guarded},
};

/// Names a request in its answer and in the log.
pub const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// Longer ids of clients are cut off, as upstream does.
const MAX_ID: usize = 64;

/// Decides which requests are told of, and tells.
pub struct Auditor {
    policy: Policy,
    log: LogFile,
}

impl Auditor {
    pub fn new(policy: Policy, log: LogFile) -> Self {
        Auditor { policy, log }
    }

    /// The record of a request; `None` when it is not told of. It is at its first stage.
    pub fn begin(
        &self,
        attributes: &Attributes<'_>,
        request: &http::request::Parts,
        id: &str,
    ) -> Option<Record> {
        let record = self.record(attributes, request, id)?;
        record.received();
        Some(record)
    }

    /// Tells of a request that nobody knows the sender of.
    pub fn refused(&self, attributes: &Attributes<'_>, request: &http::request::Parts, id: &str) {
        if let Some(record) = self.record(attributes, request, id) {
            record.refused(attempted(request));
        }
    }

    fn record(
        &self,
        attributes: &Attributes<'_>,
        request: &http::request::Parts,
        id: &str,
    ) -> Option<Record> {
        let rule = self.policy.rule(attributes);
        audit::level(rule.level.name());
        if rule.level == Level::None {
            return None;
        }
        let sink = Sink {
            log: self.log.clone(),
        };
        Some(Record::new(attributes, request, id, rule, sink))
    }

    /// Writes what is waiting.
    pub async fn close(&self) {
        self.log.close().await;
    }
}

fn attempted(request: &http::request::Parts) -> &'static str {
    let authorization = request.headers.get(header::AUTHORIZATION);
    let scheme = authorization
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(' ').next())
        .unwrap_or_default();
    let certificate = request
        .extensions
        .get::<Peer>()
        .is_some_and(|peer| !peer.certificates.is_empty());
    if scheme.eq_ignore_ascii_case("bearer") {
        "Authentication failed, attempted: bearer"
    } else if scheme.eq_ignore_ascii_case("basic") {
        "Authentication failed, attempted: basic"
    } else if certificate {
        "Authentication failed, attempted: x509"
    } else {
        "Authentication failed, no credentials provided"
    }
}

/// Takes from the answer what the record is to tell. The request is complete when the record is
/// dropped: at once, or with the body of an answer that goes on.
pub(crate) async fn finish(
    record: Arc<Record>,
    context: &Context,
    response: Response<Body>,
) -> Response<Body> {
    for (key, value) in context.warnings.take_annotations() {
        record.annotate(key, &value);
    }
    if context.info.long_running() {
        record.status(response.status());
        record.started();
        return response.map(|body| Body::new(Guarded::new(body, record)));
    }
    let is_deletion = matches!(context.info.verb.as_str(), "delete" | "deletecollection");
    if !record.wants_response() && !is_deletion {
        record.status(response.status());
        return response;
    }
    let media_type = body::media_type(response.headers()).to_owned();
    let (parts, answered) = response.into_parts();
    let Ok(collected) = answered.collect().await else {
        record.status(parts.status);
        return Response::from_parts(parts, Body::empty());
    };
    let bytes = collected.to_bytes();
    let json = match media_type.as_str() {
        JSON => serde_json::from_slice(&bytes).ok(),
        YAML => serde_yaml_ng::from_slice(&bytes).ok(),
        PROTOBUF => protobuf::to_json(&bytes, "", "")
            .ok()
            .and_then(|json| serde_json::from_slice(&json).ok()),
        _ => None,
    };
    if let Some(json) = json {
        record.response(json);
    }
    record.status(parts.status);
    Response::from_parts(parts, Body::from(bytes))
}

/// Where records go.
#[derive(Clone)]
pub(crate) struct Sink {
    log: LogFile,
}

impl Sink {
    fn send(&self, event: &event::Event) {
        audit::event();
        if !self.log.write(event) {
            audit::dropped("log", 1);
        }
    }
}

/// The id of a request: the client's, or a new one.
pub fn id_of(headers: &HeaderMap) -> String {
    let given = headers.get(AUDIT_ID).and_then(|value| value.to_str().ok());
    match given.filter(|id| !id.is_empty()) {
        Some(id) => id.chars().take(MAX_ID).collect(),
        None => uuid::Uuid::new_v4().to_string(),
    }
}
