//! Role.

use k8s_openapi::api::rbac::v1::Role;

use crate::strategy::Behaviour;

impl Behaviour for Role {}
