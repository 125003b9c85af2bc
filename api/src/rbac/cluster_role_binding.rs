//! ClusterRoleBinding.

use k8s_openapi::api::rbac::v1::ClusterRoleBinding;

use crate::strategy::Behaviour;

impl Behaviour for ClusterRoleBinding {}
