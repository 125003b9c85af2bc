//! ClusterRole.

use k8s_openapi::api::rbac::v1::ClusterRole;

use crate::strategy::Behaviour;

impl Behaviour for ClusterRole {}
