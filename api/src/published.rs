//! What clients learn of the API from the API itself: the discovery documents.
//!
//! Enter at [`Catalogue`]: it arranges kinds by group and version, in upstream's order, and
//! makes each document as plain data to serialise. The fields stand in the order in which
//! upstream writes them.

mod documents;
mod order;

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};

pub use self::documents::{
    ApiGroup, ApiGroupDiscovery, ApiGroupDiscoveryList, ApiGroupList, ApiResource,
    ApiResourceDiscovery, ApiResourceList, ApiSubresourceDiscovery, ApiVersionDiscovery,
    ApiVersions, GroupVersion, ResponseKind, ServerAddress,
};
pub use self::order::{Priority, compare_versions, priority};
use crate::kinds::{self, Kind, Storage, SubresourceKind};

/// Kinds by group and version, in the order in which discovery lists them.
pub struct Catalogue {
    groups: Vec<Group>,
}

struct Group {
    name: String,
    /// The preferred one first.
    versions: Vec<Version>,
}

struct Version {
    name: String,
    /// Sorted by resource.
    kinds: Vec<Arc<Kind>>,
}

impl Catalogue {
    /// Arranges the kinds. A group that is not built in comes after those that are.
    pub fn new<'a>(kinds: impl IntoIterator<Item = &'a Arc<Kind>>) -> Self {
        let mut groups: Vec<Group> = Vec::new();
        for kind in kinds {
            let group = entry(
                &mut groups,
                |group| group.name == kind.group,
                || Group {
                    name: kind.group.clone(),
                    versions: Vec::new(),
                },
            );
            let version = entry(
                &mut group.versions,
                |version| version.name == kind.version,
                || Version {
                    name: kind.version.clone(),
                    kinds: Vec::new(),
                },
            );
            version.kinds.push(kind.clone());
        }
        for group in &mut groups {
            let name = &group.name;
            group
                .versions
                .sort_by(|left, right| order::versions(name, &left.name, &right.name));
            for version in &mut group.versions {
                version
                    .kinds
                    .sort_by(|left, right| left.resource.cmp(&right.resource));
            }
        }
        groups.sort_by(|left, right| {
            let key = |group: &Group| {
                let highest = group
                    .versions
                    .iter()
                    .map(|version| priority(&group.name, &version.name).group)
                    .max();
                (std::cmp::Reverse(highest), group.name.clone())
            };
            key(left).cmp(&key(right))
        });
        Catalogue { groups }
    }

    /// `/api`. `server_address` is what the client can reach the server at, host and port.
    pub fn api_versions(&self, server_address: &str) -> ApiVersions {
        ApiVersions {
            kind: "APIVersions",
            versions: self
                .group_named("")
                .map(|group| {
                    let names = group.versions.iter().map(|version| version.name.clone());
                    names.collect()
                })
                .unwrap_or_default(),
            server_address_by_client_cidrs: vec![ServerAddress {
                client_cidr: "0.0.0.0/0".to_owned(),
                server_address: server_address.to_owned(),
            }],
        }
    }

    /// `/apis`
    pub fn group_list(&self) -> ApiGroupList {
        ApiGroupList {
            kind: "APIGroupList",
            api_version: "v1",
            groups: self
                .groups
                .iter()
                .filter(|group| !group.name.is_empty())
                .map(|group| api_group(group, false))
                .collect(),
        }
    }

    /// `/apis/{group}`
    pub fn group(&self, name: &str) -> Option<ApiGroup> {
        self.group_named(name)
            .filter(|group| !group.name.is_empty())
            .map(|group| api_group(group, true))
    }

    /// `/api/v1` and `/apis/{group}/{version}`
    pub fn resource_list(&self, group: &str, version: &str) -> Option<ApiResourceList> {
        let version = self
            .group_named(group)?
            .versions
            .iter()
            .find(|known| known.name == version)?;
        Some(ApiResourceList {
            kind: "APIResourceList",
            // Upstream's core group predates the field.
            api_version: (!group.is_empty()).then_some("v1"),
            group_version: kinds::join_group_version(group, &version.name),
            resources: version
                .kinds
                .iter()
                .flat_map(|kind| resources(kind))
                .collect(),
        })
    }

    /// The aggregated form: of `/api` when `core`, otherwise of `/apis`.
    pub fn aggregated(&self, core: bool) -> ApiGroupDiscoveryList {
        ApiGroupDiscoveryList {
            kind: "APIGroupDiscoveryList",
            api_version: "apidiscovery.k8s.io/v2",
            metadata: Default::default(),
            items: self
                .groups
                .iter()
                .filter(|group| group.name.is_empty() == core)
                .map(aggregated_group)
                .collect(),
        }
    }

    /// Group and version of everything that is listed, in order.
    pub fn group_versions(&self) -> impl Iterator<Item = (&str, &str)> {
        self.groups.iter().flat_map(|group| {
            group
                .versions
                .iter()
                .map(|version| (group.name.as_str(), version.name.as_str()))
        })
    }

    fn group_named(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == name)
    }
}

fn entry<T>(items: &mut Vec<T>, is: impl Fn(&T) -> bool, make: impl FnOnce() -> T) -> &mut T {
    let index = items.iter().position(is).unwrap_or_else(|| {
        items.push(make());
        items.len() - 1
    });
    &mut items[index]
}

fn api_group(group: &Group, with_type: bool) -> ApiGroup {
    let of = |version: &Version| GroupVersion {
        group_version: kinds::join_group_version(&group.name, &version.name),
        version: version.name.clone(),
    };
    ApiGroup {
        kind: with_type.then_some("APIGroup"),
        api_version: with_type.then_some("v1"),
        name: group.name.clone(),
        versions: group.versions.iter().map(of).collect(),
        preferred_version: of(&group.versions[0]),
    }
}

/// The resource and its subresources.
fn resources(kind: &Kind) -> Vec<ApiResource> {
    let own = ApiResource {
        name: kind.resource.clone(),
        singular_name: kind.singular.clone(),
        namespaced: kind.namespaced,
        group: None,
        version: None,
        kind: kind.kind.clone(),
        verbs: kind.verbs.iter().map(|verb| verb.name()).collect(),
        short_names: kind.short_names.clone(),
        categories: kind.categories.clone(),
        storage_version_hash: storage_version_hash(kind),
    };
    let mut resources = vec![own];
    for part in &kind.subresources {
        let foreign = is_foreign(kind, part);
        resources.push(ApiResource {
            name: format!("{}/{}", kind.resource, part.name),
            singular_name: String::new(),
            namespaced: kind.namespaced,
            group: foreign.then(|| part.group.clone()),
            version: foreign.then(|| part.version.clone()),
            kind: part.kind.clone(),
            verbs: part.verbs.iter().map(|verb| verb.name()).collect(),
            short_names: Vec::new(),
            categories: Vec::new(),
            storage_version_hash: None,
        });
    }
    resources
}

/// Whether the subresource's body is of another group or version than the object.
fn is_foreign(kind: &Kind, part: &SubresourceKind) -> bool {
    (&part.group, &part.version) != (&kind.group, &kind.version)
}

fn aggregated_group(group: &Group) -> ApiGroupDiscovery {
    ApiGroupDiscovery {
        metadata: documents::Name {
            name: Some(group.name.clone()).filter(|name| !name.is_empty()),
        },
        versions: group
            .versions
            .iter()
            .map(|version| ApiVersionDiscovery {
                version: version.name.clone(),
                resources: version.kinds.iter().map(|kind| aggregated(kind)).collect(),
                freshness: "Current",
            })
            .collect(),
    }
}

fn aggregated(kind: &Kind) -> ApiResourceDiscovery {
    // Upstream leaves group and version out of what is built in.
    let is_builtin = kinds::find(&kind.group, &kind.version, &kind.kind).is_some();
    let response = |group: &str, version: &str, name: &str, leave_out: bool| ResponseKind {
        group: if leave_out { "" } else { group }.to_owned(),
        version: if leave_out { "" } else { version }.to_owned(),
        kind: name.to_owned(),
    };
    ApiResourceDiscovery {
        resource: kind.resource.clone(),
        response_kind: response(&kind.group, &kind.version, &kind.kind, is_builtin),
        scope: if kind.namespaced {
            "Namespaced"
        } else {
            "Cluster"
        },
        singular_resource: kind.singular.clone(),
        verbs: kind.verbs.iter().map(|verb| verb.name()).collect(),
        short_names: kind.short_names.clone(),
        categories: kind.categories.clone(),
        subresources: kind
            .subresources
            .iter()
            .map(|part| ApiSubresourceDiscovery {
                subresource: part.name.clone(),
                response_kind: response(
                    &part.group,
                    &part.version,
                    &part.kind,
                    is_builtin && !is_foreign(kind, part),
                ),
                verbs: part.verbs.iter().map(|verb| verb.name()).collect(),
            })
            .collect(),
    }
}

/// A short hash of what is stored for the kind. Clients see from it when that changes.
fn storage_version_hash(kind: &Kind) -> Option<String> {
    if matches!(kind.storage, Storage::Virtual) {
        return None;
    }
    let (group, version, stored) = kind.stored_as();
    let hash = Sha256::digest(format!("{group}/{version}/{stored}"));
    Some(STANDARD.encode(&hash[..8]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalogue() -> Catalogue {
        Catalogue::new(kinds::builtin())
    }

    #[test]
    fn groups_are_in_upstreams_order() {
        let groups = catalogue().group_list().groups;
        let names: Vec<&str> = groups.iter().map(|group| group.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "apiregistration.k8s.io",
                "apps",
                "events.k8s.io",
                "authentication.k8s.io",
                "authorization.k8s.io",
                "autoscaling",
                "batch",
                "certificates.k8s.io",
                "networking.k8s.io",
                "policy",
                "rbac.authorization.k8s.io",
                "storage.k8s.io",
                "admissionregistration.k8s.io",
                "apiextensions.k8s.io",
                "scheduling.k8s.io",
                "coordination.k8s.io",
                "node.k8s.io",
                "discovery.k8s.io",
                "resource.k8s.io",
                "flowcontrol.apiserver.k8s.io",
            ]
        );
    }

    #[test]
    fn a_resource_list_is_upstreams() {
        let list = catalogue().resource_list("", "v1").unwrap();
        let json = serde_json::to_string(&list).unwrap();
        assert!(json.starts_with(
            r#"{"kind":"APIResourceList","groupVersion":"v1","resources":[{"name":"bindings","singularName":"binding","namespaced":true,"kind":"Binding","verbs":["create"]},"#
        ));
        assert!(json.contains(
            r#"{"name":"pods","singularName":"pod","namespaced":true,"kind":"Pod","verbs":["create","delete","deletecollection","get","list","patch","update","watch"],"shortNames":["po"],"categories":["all"],"storageVersionHash":"xPOwRZ+Yhw8="}"#
        ));
        assert!(json.contains(
            r#"{"name":"pods/eviction","singularName":"","namespaced":true,"group":"policy","version":"v1","kind":"Eviction","verbs":["create"]}"#
        ));
    }

    #[test]
    fn an_event_has_one_storage_in_two_groups() {
        let hash = |group: &str| {
            let list = catalogue().resource_list(group, "v1").unwrap();
            let events = list.resources.into_iter().find(|r| r.name == "events");
            events.unwrap().storage_version_hash
        };
        assert_eq!(hash(""), Some("r2yiGXH7wu8=".to_owned()));
        assert_eq!(hash("events.k8s.io"), hash(""));
    }

    #[test]
    fn aggregated_discovery_nests_subresources() {
        let json = serde_json::to_value(catalogue().aggregated(false)).unwrap();
        let apps = &json["items"][1];
        assert_eq!(apps["metadata"]["name"], "apps");
        assert_eq!(
            apps["versions"][0]["resources"][2]["subresources"][0],
            serde_json::json!({
                "subresource": "scale",
                "responseKind": {"group": "autoscaling", "version": "v1", "kind": "Scale"},
                "verbs": ["get", "patch", "update"],
            })
        );
        let core = serde_json::to_value(catalogue().aggregated(true)).unwrap();
        assert_eq!(core["items"][0]["metadata"], serde_json::json!({}));
    }
}
