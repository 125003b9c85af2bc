//! `rbac.authorization.k8s.io`: one file per kind, one line per kind in [`kinds`].

mod cluster_role;
mod cluster_role_binding;
mod role;
mod role_binding;
mod validation;

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding, Subject};
use serde_json::Value;

use crate::kinds::{Kind, NameRule};

/// What the group serves.
pub(crate) fn kinds() -> Vec<Kind> {
    vec![
        Kind::cluster::<ClusterRole>("clusterrole")
            .name(NameRule::PathSegment)
            .create_on_update(),
        Kind::cluster::<ClusterRoleBinding>("clusterrolebinding")
            .name(NameRule::PathSegment)
            .create_on_update(),
        Kind::namespaced::<Role>("role")
            .name(NameRule::PathSegment)
            .create_on_update(),
        Kind::namespaced::<RoleBinding>("rolebinding")
            .name(NameRule::PathSegment)
            .create_on_update(),
    ]
}

/// The cells `Users`, `Groups` and `ServiceAccounts` of a binding.
fn subject_cells(subjects: &[Subject]) -> [Value; 3] {
    let of = |kind: &str, name: fn(&Subject) -> String| {
        let names: Vec<String> = subjects
            .iter()
            .filter(|subject| subject.kind == kind)
            .map(name)
            .collect();
        Value::from(names.join(", "))
    };
    [
        of("User", |subject| subject.name.clone()),
        of("Group", |subject| subject.name.clone()),
        of("ServiceAccount", |subject| {
            let namespace = subject.namespace.as_deref().unwrap_or("");
            format!("{namespace}/{}", subject.name)
        }),
    ]
}
