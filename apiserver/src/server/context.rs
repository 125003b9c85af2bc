//! What the handlers know of a request beside its body.

use coracle_api::Identity;
use http::{HeaderMap, Method, Uri};
use serde_json::Value;

use crate::{
    admission::{Attributes, Operation, Warnings},
    registry::Resource,
    request_info::RequestInfo,
};

/// A request that was authenticated and authorised.
pub struct Context {
    pub info: RequestInfo,
    pub user: Identity,
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub warnings: Warnings,
}

impl Context {
    /// The raw query; empty when there is none.
    pub fn query(&self) -> &str {
        self.uri.query().unwrap_or_default()
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
