//! Kinds that are only the body of a subresource, and so not in the table.

use std::sync::{Arc, LazyLock};

use k8s_openapi::api::{
    authentication::v1::TokenRequest, autoscaling::v1::Scale, policy::v1::Eviction,
};

use super::{Kind, NameRule, find};
use crate::strategy::Behaviour;

impl Behaviour for Scale {}

impl Behaviour for Eviction {}

impl Behaviour for TokenRequest {
    fn default_fields(&mut self) {
        let spec = self.spec.get_or_insert_default();
        spec.expiration_seconds.get_or_insert(3600);
    }
}

/// The kind of a request's body: one of the table, or one that only a subresource takes.
pub fn body(group: &str, version: &str, kind: &str) -> Option<&'static Arc<Kind>> {
    static BODIES: LazyLock<[Arc<Kind>; 3]> = LazyLock::new(|| {
        [
            Kind::virtual_namespaced::<Scale>("scale"),
            Kind::virtual_namespaced::<Eviction>("eviction"),
            Kind::virtual_namespaced::<TokenRequest>("tokenrequest"),
        ]
        .map(|kind| Arc::new(kind.name(NameRule::PathSegment)))
    });
    find(group, version, kind).or_else(|| {
        BODIES
            .iter()
            .find(|k| k.group == group && k.version == version && k.kind == kind)
    })
}
