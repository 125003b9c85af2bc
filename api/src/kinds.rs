//! The table of kinds: everything that the API serves is a line here.
//!
//! Enter at [`builtin`]. Discovery, OpenAPI, the routes, the keys in the store and the tables
//! of `kubectl get` are all read off this table. A group's own table is in the module named
//! after the group; a kind is one file and one line there. A custom resource makes a [`Kind`]
//! at run time.

mod define;

use std::sync::{Arc, LazyLock};

use k8s_openapi::api::{
    authentication::v1::TokenRequest, autoscaling::v1::Scale, policy::v1::Eviction,
};

use crate::{
    object::Object,
    strategy::{Builtin, Strategy},
};

pub use crate::names::NameRule;
pub use define::{PROXY, READ_WRITE, STREAM};

/// A verb that discovery lists for a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    Create,
    Delete,
    DeleteCollection,
    Get,
    List,
    Patch,
    Update,
    Watch,
}

impl Verb {
    /// As discovery and RBAC name it.
    pub fn name(self) -> &'static str {
        match self {
            Verb::Create => "create",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Patch => "patch",
            Verb::Update => "update",
            Verb::Watch => "watch",
        }
    }
}

/// One resource that the API serves, in one version.
#[derive(Clone)]
pub struct Kind {
    /// Empty for the core group.
    pub group: String,
    pub version: String,
    /// For example `Pod`.
    pub kind: String,
    /// The plural that URLs name, for example `pods`.
    pub resource: String,
    pub singular: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub namespaced: bool,
    /// Sorted.
    pub verbs: Vec<Verb>,
    /// Sorted by name.
    pub subresources: Vec<SubresourceKind>,
    pub storage: Storage,
    /// What `metadata.name` must look like.
    pub name_rule: NameRule,
    /// Whether a PUT of an object that does not exist creates it.
    pub create_on_update: bool,
    /// Whether an update without `resourceVersion` is accepted.
    pub unconditional_update: bool,
    pub strategy: Arc<dyn Strategy>,
}

impl Kind {
    /// `v1`, `apps/v1`
    pub fn api_version(&self) -> String {
        join_group_version(&self.group, &self.version)
    }

    /// For example `PodList`.
    pub fn list_kind(&self) -> String {
        format!("{}List", self.kind)
    }

    pub fn subresource(&self, name: &str) -> Option<&SubresourceKind> {
        self.subresources
            .iter()
            .find(|subresource| subresource.name == name)
    }

    /// Whether the answer to a deletion is the object; for other kinds it is a `Status`.
    pub fn deletion_shows_object(&self) -> bool {
        matches!(
            (self.group.as_str(), self.resource.as_str()),
            (
                "",
                "namespaces"
                    | "persistentvolumes"
                    | "persistentvolumeclaims"
                    | "pods"
                    | "podtemplates"
                    | "resourcequotas"
                    | "services"
                    | "serviceaccounts"
            ) | ("resource.k8s.io", _)
                | (
                    "storage.k8s.io",
                    "csidrivers"
                        | "csinodes"
                        | "storageclasses"
                        | "volumeattachments"
                        | "volumeattributesclasses"
                )
        )
    }

    /// The group, version and kind that are stored for this one.
    pub fn stored_as(&self) -> (&str, &str, &str) {
        match &self.storage {
            Storage::Converted {
                group,
                version,
                kind,
                ..
            } => (group, version, kind),
            Storage::Virtual | Storage::Own { .. } => (&self.group, &self.version, &self.kind),
        }
    }
}

/// `v1`, `apps/v1`
pub(crate) fn join_group_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

/// A path below an object: `pods/{name}/log`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubresourceKind {
    /// For example `log`.
    pub name: String,
    /// Group, version and kind of its body or options, which need not be the parent's.
    pub group: String,
    pub version: String,
    pub kind: String,
    /// Sorted.
    pub verbs: Vec<Verb>,
}

/// Where the objects of a kind are kept.
#[derive(Clone)]
pub enum Storage {
    /// Nothing is stored: a create is a question that gets an answer (`TokenReview`), or the
    /// objects are computed (`ComponentStatus`).
    Virtual,
    /// Under `/registry/{prefix}/`, as this kind.
    Own { prefix: String },
    /// The objects are those of another kind in the table, seen through a conversion.
    Converted {
        group: String,
        version: String,
        kind: String,
        conversion: &'static dyn Conversion,
    },
}

/// Two kinds that are views of one stored object.
pub trait Conversion: Send + Sync {
    /// From the kind that has [`Storage::Converted`] to the one that is stored.
    fn to_stored(&self, served: &dyn Object) -> Box<dyn Object>;
    /// The way back.
    fn to_served(&self, stored: &dyn Object) -> Box<dyn Object>;
    /// What the stored kind calls a field that this one selects by.
    fn stored_field(&self, served: &str) -> String {
        served.to_owned()
    }
}

/// Every built-in kind.
pub fn builtin() -> &'static [Arc<Kind>] {
    static TABLE: LazyLock<Vec<Arc<Kind>>> = LazyLock::new(|| {
        [
            crate::core::kinds(),
            crate::apps::kinds(),
            crate::events::kinds(),
            crate::authentication::kinds(),
            crate::authorization::kinds(),
            crate::autoscaling::kinds(),
            crate::batch::kinds(),
            crate::certificates::kinds(),
            crate::networking::kinds(),
            crate::policy::kinds(),
            crate::rbac::kinds(),
            crate::storage::kinds(),
            crate::admissionregistration::kinds(),
            crate::apiextensions::kinds(),
            crate::scheduling::kinds(),
            crate::coordination::kinds(),
            crate::node::kinds(),
            crate::discovery::kinds(),
            crate::flowcontrol::kinds(),
            crate::resource::kinds(),
            crate::apiregistration::kinds(),
        ]
        .into_iter()
        .flatten()
        .map(Arc::new)
        .collect()
    });
    &TABLE
}

/// The built-in kind of that name.
pub fn find(group: &str, version: &str, kind: &str) -> Option<&'static Arc<Kind>> {
    builtin()
        .iter()
        .find(|k| k.group == group && k.version == version && k.kind == kind)
}

/// The built-in kind that a URL names by its plural.
pub fn find_resource(group: &str, version: &str, resource: &str) -> Option<&'static Arc<Kind>> {
    builtin()
        .iter()
        .find(|k| k.group == group && k.version == version && k.resource == resource)
}

/// What clients are warned of that use a resource which upstream advises against.
pub fn deprecation(group: &str, version: &str, resource: &str) -> Option<&'static str> {
    match (group, version, resource) {
        ("", "v1", "componentstatuses") => Some("v1 ComponentStatus is deprecated in v1.19+"),
        ("", "v1", "endpoints") => {
            Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
        }
        _ => None,
    }
}

/// How a kind is handled that is the body of a subresource, whether it is a resource of its own
/// or not: `Scale`, `Eviction`, `TokenRequest`, `Binding`.
pub fn body(group: &str, version: &str, kind: &str) -> Option<Arc<dyn Strategy>> {
    match (group, version, kind) {
        ("autoscaling", "v1", "Scale") => Some(Arc::new(Builtin::<Scale>::default())),
        ("policy", "v1", "Eviction") => Some(Arc::new(Builtin::<Eviction>::default())),
        ("authentication.k8s.io", "v1", "TokenRequest") => {
            Some(Arc::new(Builtin::<TokenRequest>::default()))
        }
        _ => find(group, version, kind).map(|kind| kind.strategy.clone()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_kind_stands_in_the_table_once() {
        let mut seen = BTreeSet::new();
        for kind in builtin() {
            assert!(
                seen.insert((&kind.group, &kind.version, &kind.resource)),
                "{} twice",
                kind.resource
            );
        }
    }

    #[test]
    fn verbs_and_subresources_are_sorted() {
        for kind in builtin() {
            assert!(kind.verbs.is_sorted(), "{}", kind.kind);
            assert!(
                kind.subresources
                    .is_sorted_by(|left, right| left.name < right.name)
            );
            for subresource in &kind.subresources {
                assert!(subresource.verbs.is_sorted(), "{}", kind.kind);
            }
        }
    }

    #[test]
    fn what_is_converted_is_stored_as_a_kind_of_the_table() {
        for kind in builtin() {
            let (group, version, stored) = kind.stored_as();
            assert!(find(group, version, stored).is_some(), "{}", kind.kind);
        }
    }

    #[test]
    fn an_empty_object_has_a_cell_for_every_column() {
        for kind in builtin() {
            let object = kind.strategy.decode(b"{}", &mut Vec::new()).unwrap();
            let columns = kind.strategy.columns();
            let cells = kind.strategy.cells(&*object, jiff::Timestamp::UNIX_EPOCH);
            assert_eq!(columns.len(), cells.len(), "{}", kind.kind);
        }
    }

    #[test]
    fn no_two_kinds_share_a_key_prefix() {
        let mut prefixes = BTreeSet::new();
        for kind in builtin() {
            if let Storage::Own { prefix } = &kind.storage {
                assert!(prefixes.insert(prefix.clone()), "{prefix} twice");
            }
        }
    }

    /// Where a kind is kept is known to whoever reads or restores an etcd without an API server.
    #[test]
    fn objects_are_kept_where_upstream_keeps_them() {
        let elsewhere = [
            ("", "endpoints", "services/endpoints"),
            ("", "nodes", "minions"),
            ("", "replicationcontrollers", "controllers"),
            ("", "services", "services/specs"),
            (
                "apiextensions.k8s.io",
                "customresourcedefinitions",
                "apiextensions.k8s.io/customresourcedefinitions",
            ),
            (
                "apiregistration.k8s.io",
                "apiservices",
                "apiregistration.k8s.io/apiservices",
            ),
            ("networking.k8s.io", "ingresses", "ingress"),
        ];
        for kind in builtin() {
            let Storage::Own { prefix } = &kind.storage else {
                continue;
            };
            let named = |(group, resource, _): &&(&str, &str, &str)| {
                (*group, *resource) == (kind.group.as_str(), kind.resource.as_str())
            };
            let expected = elsewhere.iter().find(named);
            let expected = expected.map_or(kind.resource.as_str(), |(_, _, prefix)| prefix);
            assert_eq!(prefix, expected, "{}", kind.kind);
        }
        for (group, resource, _) in elsewhere {
            assert!(find_resource(group, "v1", resource).is_some(), "{resource}");
        }
    }
}
