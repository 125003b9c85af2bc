//! ConfigMap.

use k8s_openapi::api::core::v1::ConfigMap;

use crate::strategy::Behaviour;

impl Behaviour for ConfigMap {}
