//! Secret.

use k8s_openapi::api::core::v1::Secret;

use crate::strategy::Behaviour;

impl Behaviour for Secret {}
