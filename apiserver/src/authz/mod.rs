//! Whether a user may do something.
//!
//! Enter at [`Authorizer`], the seam, and [`Authorizers`], upstream's in their order.

pub mod bootstrap;
pub mod node;
pub mod rbac;
pub mod reviews;

use std::sync::Arc;

use async_trait::async_trait;
use coracle_api::Identity;

use crate::{authn::MASTERS, request_info::RequestInfo};

pub use node::{NodeAuthorizer, is_node, node_of};
pub use rbac::Rbac;

/// What a user wants to do, as upstream's `authorizer.Attributes`. Strings are empty where
/// they do not apply.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    pub user: &'a Identity,
    pub verb: &'a str,
    /// Whether the request is for a resource; otherwise only `verb` and `path` count.
    pub is_resource: bool,
    pub group: &'a str,
    pub version: &'a str,
    pub namespace: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub name: &'a str,
    pub path: &'a str,
    /// Unparsed, for list, watch and deletecollection.
    pub field_selector: &'a str,
    pub label_selector: &'a str,
}

impl<'a> Attributes<'a> {
    /// What the request itself asks for.
    pub fn of_request(user: &'a Identity, info: &'a RequestInfo) -> Self {
        Attributes {
            user,
            verb: &info.verb,
            is_resource: info.is_resource,
            group: &info.group,
            version: &info.version,
            namespace: &info.namespace,
            resource: &info.resource,
            subresource: &info.subresource,
            name: &info.name,
            path: &info.path,
            field_selector: &info.field_selector,
            label_selector: &info.label_selector,
        }
    }

    /// A verb on a resource, as admission and `SubjectAccessReview` ask.
    pub fn of_resource(
        user: &'a Identity,
        verb: &'a str,
        group: &'a str,
        resource: &'a str,
    ) -> Self {
        Attributes {
            user,
            verb,
            is_resource: true,
            group,
            version: "",
            namespace: "",
            resource,
            subresource: "",
            name: "",
            path: "",
            field_selector: "",
            label_selector: "",
        }
    }
}

/// What an authorizer says, with the reason that reviews and audit show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow(String),
    /// Forbidden, whatever other authorizers would say.
    Deny(String),
    /// Not allowed by this authorizer.
    NoOpinion(String),
}

impl Decision {
    pub fn is_allowed(&self) -> bool {
        matches!(self, Decision::Allow(_))
    }

    pub fn reason(&self) -> &str {
        match self {
            Decision::Allow(reason) | Decision::Deny(reason) | Decision::NoOpinion(reason) => {
                reason
            }
        }
    }
}

/// Decides whether a user may do something.
#[async_trait]
pub trait Authorizer: Send + Sync + 'static {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Decision;
}

/// Allows everything. For tests and `--authorization-mode AlwaysAllow`.
pub struct AlwaysAllow;

#[async_trait]
impl Authorizer for AlwaysAllow {
    async fn authorize(&self, _attributes: &Attributes<'_>) -> Decision {
        Decision::Allow(String::new())
    }
}

/// Allows everything to the group `system:masters`, so that no loss of roles locks it out.
pub struct PrivilegedGroup;

#[async_trait]
impl Authorizer for PrivilegedGroup {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        if attributes.user.groups.iter().any(|group| group == MASTERS) {
            Decision::Allow(String::new())
        } else {
            Decision::NoOpinion(String::new())
        }
    }
}

/// Asks one authorizer after the other; the first that has an opinion decides.
pub struct Authorizers(pub Vec<Arc<dyn Authorizer>>);

#[async_trait]
impl Authorizer for Authorizers {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let mut reasons = Vec::new();
        for authorizer in &self.0 {
            match authorizer.authorize(attributes).await {
                Decision::NoOpinion(reason) => reasons.push(reason),
                decided => return decided,
            }
        }
        reasons.retain(|reason| !reason.is_empty());
        Decision::NoOpinion(reasons.join("\n"))
    }
}
