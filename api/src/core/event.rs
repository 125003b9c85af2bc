//! Event.

use k8s_openapi::api::core::v1::Event;

use crate::strategy::Behaviour;

impl Behaviour for Event {}
