//! What the handlers know of a request beside its body.

use std::{sync::Arc, time::Duration};

use coracle_api::Identity;
use http::{HeaderMap, request::Parts};
use serde_json::Value;

use crate::{
    admission::{Attributes, Operation, Warnings},
    audit::Record,
    flow::Class,
    registry::Resource,
    request_info::RequestInfo,
};

/// A request that was authenticated and authorised.
pub struct Context {
    pub info: RequestInfo,
    pub user: Identity,
    /// The request as it came, without its body. The extensions are there too: the peer, and
    /// what is needed to upgrade the connection.
    pub parts: Parts,
    pub warnings: Arc<Warnings>,
    /// How flow control classified the request.
    pub class: Class,
    /// How long flow control kept it waiting.
    pub waited: Duration,
    /// What the audit log is told; `None`: nothing.
    pub audit: Option<Arc<Record>>,
}

impl Context {
    /// The raw query; empty when there is none.
    pub fn query(&self) -> &str {
        self.parts.uri.query().unwrap_or_default()
    }

    /// Tells the audit log of what was sent.
    pub fn audit_request(&self, object: impl FnOnce() -> Value) {
        if let Some(record) = &self.audit {
            record.request(object);
        }
    }

    /// The same for a body that is JSON.
    pub fn audit_json(&self, json: &[u8]) {
        if !json.is_empty() {
            self.audit_request(|| serde_json::from_slice(json).unwrap_or_default());
        }
    }

    pub fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// What admission is told of the request. `name` is empty while it is to be generated.
    pub fn attributes<'a>(
        &'a self,
        resource: &'a Resource,
        operation: Operation,
        name: &'a str,
        dry_run: bool,
    ) -> Attributes<'a> {
        Attributes {
            user: &self.user,
            operation,
            kind: &resource.kind,
            subresource: &self.info.subresource,
            namespace: if resource.kind.namespaced {
                &self.info.namespace
            } else {
                ""
            },
            name,
            dry_run,
            options: &Value::Null,
            warnings: &self.warnings,
        }
    }
}
