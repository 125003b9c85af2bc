//! RoleBinding.

use k8s_openapi::api::rbac::v1::RoleBinding;

use crate::strategy::Behaviour;

impl Behaviour for RoleBinding {}
