//! Binding.

use k8s_openapi::api::core::v1::Binding;

use crate::strategy::Behaviour;

impl Behaviour for Binding {}
