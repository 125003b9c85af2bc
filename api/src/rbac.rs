//! `rbac.authorization.k8s.io`: one file per kind, one line per kind in [`kinds`].

mod cluster_role;
mod cluster_role_binding;
mod role;
mod role_binding;

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};

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
