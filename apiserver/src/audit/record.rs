//! What is known of one request, while it is being answered.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
};

use coracle_api::Identity;
use coracle_transport::Peer;
use http::{HeaderMap, StatusCode, header, request::Parts};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use parking_lot::Mutex;
use serde_json::{Value, value::to_raw_value};

use super::{
    Sink,
    event::{Event, ObjectReference, User},
    policy::{Level, Stage, Verdict},
};
use crate::authz::{Attributes, Decision};

/// Longer names of clients are cut off, as upstream does.
const MAX_USER_AGENT: usize = 1024;

/// The record of one request. When it is dropped, the request is complete.
pub struct Record {
    event: Mutex<Event>,
    verdict: Verdict,
    sink: Sink,
    /// Nothing more is told.
    done: AtomicBool,
}

impl Record {
    pub(super) fn new(
        attributes: &Attributes<'_>,
        request: &Parts,
        id: &str,
        verdict: Verdict,
        sink: Sink,
    ) -> Self {
        let now = Timestamp::now();
        let event = Event {
            kind: "Event",
            api_version: "audit.k8s.io/v1",
            level: verdict.level,
            audit_id: id.to_owned(),
            stage: Stage::RequestReceived,
            request_uri: request
                .uri
                .path_and_query()
                .map_or_else(|| request.uri.path().to_owned(), ToString::to_string),
            verb: attributes.verb.to_owned(),
            user: User::from(attributes.user),
            impersonated_user: None,
            source_ips: source_ips(request),
            user_agent: user_agent(&request.headers),
            object_ref: attributes.is_resource.then(|| ObjectReference {
                resource: attributes.resource.to_owned(),
                namespace: attributes.namespace.to_owned(),
                name: attributes.name.to_owned(),
                api_group: attributes.group.to_owned(),
                api_version: attributes.version.to_owned(),
                subresource: attributes.subresource.to_owned(),
                ..ObjectReference::default()
            }),
            response_status: None,
            request_object: None,
            response_object: None,
            request_received_timestamp: now,
            stage_timestamp: now,
            annotations: Default::default(),
        };
        Record {
            event: Mutex::new(event),
            verdict,
            sink,
            done: AtomicBool::new(false),
        }
    }

    /// The request has come.
    pub(super) fn received(&self) {
        let received = self.event.lock().request_received_timestamp;
        self.tell(Stage::RequestReceived, Some(received));
    }

    /// Nobody knows who sent the request.
    pub(super) fn refused(self, attempted: &str) {
        self.event.lock().response_status = Some(Status {
            message: Some(attempted.to_owned()),
            ..Status::default()
        });
        self.status(StatusCode::UNAUTHORIZED);
        self.tell(Stage::ResponseStarted, None);
        self.done.store(true, Ordering::Relaxed);
    }

    pub fn impersonated(&self, user: &Identity) {
        self.event.lock().impersonated_user = Some(User::from(user));
    }

    pub fn authorized(&self, decision: &Decision) {
        let (word, reason) = match decision {
            Decision::Allow(reason) => ("allow", reason),
            Decision::Deny(reason) | Decision::NoOpinion(reason) => ("forbid", reason),
        };
        self.annotate("authorization.k8s.io/decision", word);
        self.annotate("authorization.k8s.io/reason", reason);
    }

    /// The first value of a key stays.
    pub fn annotate(&self, key: &str, value: &str) {
        let mut event = self.event.lock();
        if !event.annotations.contains_key(key) {
            event.annotations.insert(key.to_owned(), value.to_owned());
        }
    }

    /// What was sent. Names the object, where the path does not.
    pub fn request(&self, object: impl FnOnce() -> Value) {
        let mut object = object();
        let metadata = &object["metadata"];
        let text = |name: &str| metadata[name].as_str().unwrap_or_default().to_owned();
        let mut event = self.event.lock();
        if let Some(reference) = &mut event.object_ref {
            for (known, name) in [
                (&mut reference.namespace, "namespace"),
                (&mut reference.name, "name"),
                (&mut reference.uid, "uid"),
                (&mut reference.resource_version, "resourceVersion"),
            ] {
                if known.is_empty() {
                    *known = text(name);
                }
            }
        }
        if self.verdict.level >= Level::Request {
            self.omit(&mut object);
            event.request_object = to_raw_value(&object).ok();
        }
    }

    /// What was sent as a patch.
    pub fn patch(&self, patch: impl FnOnce() -> Value) {
        if self.verdict.level >= Level::Request {
            self.event.lock().request_object = to_raw_value(&patch()).ok();
        }
    }

    /// Whether the body of the answer is wanted.
    pub fn wants_response(&self) -> bool {
        self.verdict.level >= Level::RequestResponse
    }

    /// The answer's head.
    pub fn status(&self, code: StatusCode) {
        self.event
            .lock()
            .response_status
            .get_or_insert_default()
            .code = Some(i32::from(code.as_u16()));
    }

    /// The answer's body as JSON. A `Status` is told of at every level.
    pub fn response(&self, mut object: Value) {
        if object["kind"] == "Status"
            && object["apiVersion"] == "v1"
            && let Ok(status) = serde_json::from_value::<Status>(object.clone())
        {
            self.event.lock().response_status = Some(status);
        }
        if self.wants_response() {
            self.omit(&mut object);
            self.event.lock().response_object = to_raw_value(&object).ok();
        }
    }

    /// The answer of a long-running request has begun.
    pub fn started(&self) {
        self.tell(Stage::ResponseStarted, None);
    }

    /// The server failed while it answered.
    pub fn panicked(&self) {
        self.event.lock().response_status = Some(Status {
            code: Some(500),
            status: Some("Failure".to_owned()),
            reason: Some("InternalError".to_owned()),
            message: Some("APIServer panic'd".to_owned()),
            ..Status::default()
        });
        self.tell(Stage::Panic, None);
        self.done.store(true, Ordering::Relaxed);
    }

    fn omit(&self, object: &mut Value) {
        if !self.verdict.omit_managed_fields {
            return;
        }
        let drop = |object: &mut Value| {
            if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("managedFields");
            }
        };
        drop(object);
        for list in ["items", "rows"] {
            let items = object.get_mut(list).and_then(Value::as_array_mut);
            for item in items.into_iter().flatten() {
                match item.get_mut("object") {
                    Some(object) => drop(object),
                    None => drop(item),
                }
            }
        }
    }

    fn tell(&self, stage: Stage, at: Option<Timestamp>) {
        if self.done.load(Ordering::Relaxed) {
            return;
        }
        let mut event = self.event.lock();
        event.stage = stage;
        event.stage_timestamp = at.unwrap_or_else(Timestamp::now);
        if !self.verdict.omit_stages.contains(&stage) {
            self.sink.send(&event);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let closed_early = Status {
            code: Some(200),
            status: Some("Success".to_owned()),
            message: Some("Connection closed early".to_owned()),
            ..Status::default()
        };
        self.event
            .lock()
            .response_status
            .get_or_insert(closed_early);
        self.tell(Stage::ResponseComplete, None);
    }
}

fn user_agent(headers: &HeaderMap) -> String {
    let given = headers.get(header::USER_AGENT);
    let given = given
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    match given.get(..MAX_USER_AGENT) {
        Some(start) if start.len() < given.len() => format!("{start}...TRUNCATED"),
        _ => given.to_owned(),
    }
}

/// Those that proxies tell of, then the peer.
fn source_ips(request: &Parts) -> Vec<String> {
    let header = |name: &str| {
        let value = request.headers.get(name)?.to_str().ok()?;
        Some(
            value
                .split(',')
                .filter_map(|ip| ip.trim().parse::<IpAddr>().ok()),
        )
    };
    let mut ips: Vec<IpAddr> = header("x-forwarded-for").into_iter().flatten().collect();
    if ips.is_empty() {
        ips.extend(header("x-real-ip").into_iter().flatten());
    }
    let peer = request
        .extensions
        .get::<Peer>()
        .map(|peer| peer.address.ip());
    if let Some(peer) = peer.filter(|peer| ips.last() != Some(peer)) {
        ips.push(peer);
    }
    ips.iter().map(|ip| ip.to_canonical().to_string()).collect()
}
