//! ComponentStatus.

use k8s_openapi::api::core::v1::ComponentStatus;

use crate::strategy::Behaviour;

impl Behaviour for ComponentStatus {}
