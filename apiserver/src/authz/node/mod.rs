//! The Node authorizer: a kubelet may read what its own pods need, and nothing else of the kind.
//!
//! Enter at [`NodeAuthorizer`]. What relates a node to a secret, a claim or a volume is looked
//! up in [`relations`]; everything else is allowed by the rules of the role `system:node`.
//! [`crate::admission::NodeRestriction`] does the rest: what a node may write.

mod relations;

use async_trait::async_trait;
use coracle_api::Identity;
use k8s_openapi::api::rbac::v1::PolicyRule;

use super::{Attributes, Authorizer, Decision, rbac};
use crate::Registry;
use relations::{Kind, Relations};

const USER_PREFIX: &str = "system:node:";
const GROUP: &str = "system:nodes";

/// Allows nodes what they need.
pub struct NodeAuthorizer {
    relations: Relations,
    rules: Vec<PolicyRule>,
}

/// Whether the user is a node, be it one without a name.
pub fn is_node(user: &Identity) -> bool {
    user.user.starts_with(USER_PREFIX) && user.groups.iter().any(|group| group == GROUP)
}

/// The node that the user is; `None` if it is none.
pub fn node_of(user: &Identity) -> Option<&str> {
    let name = user.user.strip_prefix(USER_PREFIX)?;
    (is_node(user) && !name.is_empty()).then_some(name)
}

impl NodeAuthorizer {
    /// `rules` are those of the role `system:node`.
    pub fn new(registry: &Registry, rules: Vec<PolicyRule>) -> Self {
        NodeAuthorizer {
            relations: Relations::new(registry),
            rules,
        }
    }

    fn decide(&self, node: &str, a: &Attributes<'_>) -> Answer {
        if !a.is_resource {
            return self.by_rules(a);
        }
        match (a.group, a.resource) {
            ("", "secrets") => self.read(node, Kind::Secret, a),
            ("", "configmaps") => self.read(node, Kind::ConfigMap, a),
            ("", "persistentvolumeclaims") if a.subresource == "status" => {
                if !matches!(a.verb, "update" | "patch") {
                    return Err("can only get/update/patch this type".to_owned());
                }
                self.related(node, Kind::Claim, a)
            }
            ("", "persistentvolumeclaims") => self.get(node, Kind::Claim, a),
            ("", "persistentvolumes") => self.get(node, Kind::Volume, a),
            ("resource.k8s.io", "resourceclaims") => self.get(node, Kind::ResourceClaim, a),
            ("resource.k8s.io", "resourceslices") => self.resource_slice(node, a),
            ("storage.k8s.io", "volumeattachments") => self.get(node, Kind::VolumeAttachment, a),
            ("storage.k8s.io", "csinodes") => csi_node(node, a),
            ("", "serviceaccounts") => self.service_account(node, a),
            ("coordination.k8s.io", "leases") => lease(node, a),
            ("", "nodes") => own_node(node, a),
            ("", "pods") => self.pod(node, a),
            ("certificates.k8s.io", "podcertificaterequests") => Err(String::new()),
            _ => self.by_rules(a),
        }
    }

    fn by_rules(&self, a: &Attributes<'_>) -> Answer {
        if self.rules.iter().any(|rule| rbac::allows(rule, a)) {
            Ok(())
        } else {
            Err(String::new())
        }
    }

    fn related(&self, node: &str, kind: Kind, a: &Attributes<'_>) -> Answer {
        if a.name.is_empty() {
            return Err("No Object name found".to_owned());
        }
        if self.relations.exists(node, kind, a.namespace, a.name) {
            Ok(())
        } else {
            Err(format!(
                "no relationship found between node '{node}' and this object"
            ))
        }
    }

    fn get(&self, node: &str, kind: Kind, a: &Attributes<'_>) -> Answer {
        if a.verb != "get" {
            return Err("can only get individual resources of this type".to_owned());
        }
        if !a.subresource.is_empty() {
            return Err("cannot get subresource".to_owned());
        }
        self.related(node, kind, a)
    }

    fn read(&self, node: &str, kind: Kind, a: &Attributes<'_>) -> Answer {
        if !matches!(a.verb, "get" | "list" | "watch") {
            return Err("can only read resources of this type".to_owned());
        }
        if !a.subresource.is_empty() {
            return Err("cannot read subresource".to_owned());
        }
        if a.namespace.is_empty() {
            return Err("can only read namespaced object of this type".to_owned());
        }
        self.related(node, kind, a)
    }

    fn service_account(&self, node: &str, a: &Attributes<'_>) -> Answer {
        if a.verb == "get" && a.subresource.is_empty() {
            return self.read(node, Kind::ServiceAccount, a);
        }
        if a.verb != "create" || a.name.is_empty() {
            return Err("can only create tokens for individual service accounts".to_owned());
        }
        if a.subresource != "token" {
            return Err("can only create token subresource of serviceaccount".to_owned());
        }
        self.related(node, Kind::ServiceAccount, a)
    }

    fn pod(&self, node: &str, a: &Attributes<'_>) -> Answer {
        match (a.subresource, a.verb) {
            ("", "get") => self.related(node, Kind::Pod, a),
            ("", "list" | "watch") => {
                if selects(a.field_selector, "spec.nodeName", node) {
                    return Ok(());
                }
                if !a.name.is_empty() {
                    return self.related(node, Kind::Pod, a);
                }
                Err("can only list/watch pods with spec.nodeName field selector".to_owned())
            }
            // NodeRestriction looks whose pod it is.
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => {
                Ok(())
            }
            _ => Err(String::new()),
        }
    }

    fn resource_slice(&self, node: &str, a: &Attributes<'_>) -> Answer {
        if !a.subresource.is_empty() {
            return Err("cannot authorize ResourceSlice subresources".to_owned());
        }
        match a.verb {
            "create" => Ok(()),
            "get" | "update" | "patch" | "delete" => self.related(node, Kind::ResourceSlice, a),
            "watch" | "list" | "deletecollection" => {
                if selects(a.field_selector, "spec.nodeName", node) {
                    return Ok(());
                }
                Err(
                    "can only list/watch/deletecollection resourceslices with nodeName field selector"
                        .to_owned(),
                )
            }
            _ => Err(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection"
                    .to_owned(),
            ),
        }
    }
}

/// Allowed, or why not.
type Answer = Result<(), String>;

fn lease(node: &str, a: &Attributes<'_>) -> Answer {
    if !matches!(a.verb, "get" | "create" | "update" | "patch" | "delete") {
        return Err("can only get, create, update, patch, or delete a node lease".to_owned());
    }
    if a.namespace != "kube-node-lease" {
        return Err(
            "can only access leases in the \"kube-node-lease\" system namespace".to_owned(),
        );
    }
    if a.verb != "create" && a.name != node {
        return Err(
            "can only access node lease with the same name as the requesting node".to_owned(),
        );
    }
    Ok(())
}

fn csi_node(node: &str, a: &Attributes<'_>) -> Answer {
    if !matches!(a.verb, "get" | "create" | "update" | "patch" | "delete") {
        return Err("can only get, create, update, patch, or delete a CSINode".to_owned());
    }
    if !a.subresource.is_empty() {
        return Err("cannot authorize CSINode subresources".to_owned());
    }
    if a.verb != "create" && a.name != node {
        return Err("can only access CSINode with the same name as the requesting node".to_owned());
    }
    Ok(())
}

fn own_node(node: &str, a: &Attributes<'_>) -> Answer {
    match (a.subresource, a.verb) {
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
        ("", "get" | "list" | "watch") => match a.name {
            name if name == node => Ok(()),
            "" => Err(format!(
                "node '{node}' cannot read all nodes, only its own Node object"
            )),
            name => Err(format!(
                "node '{node}' cannot read '{name}', only its own Node object"
            )),
        },
        _ => Err(String::new()),
    }
}

/// Whether the selector restricts the request to objects with this value of the field.
fn selects(selector: &str, field: &str, value: &str) -> bool {
    selector.split(',').any(|requirement| {
        let rest = requirement.trim().strip_prefix(field);
        let wanted = rest.and_then(|rest| rest.strip_prefix("==").or(rest.strip_prefix('=')));
        wanted == Some(value)
    })
}

#[async_trait]
impl Authorizer for NodeAuthorizer {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let Some(node) = node_of(attributes.user) else {
            return Decision::NoOpinion(String::new());
        };
        match self.decide(node, attributes) {
            Ok(()) => Decision::Allow(String::new()),
            Err(reason) => Decision::NoOpinion(reason),
        }
    }
}

#[cfg(test)]
mod tests;
