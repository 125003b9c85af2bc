//! RuntimeClass.

use k8s_openapi::api::node::v1::RuntimeClass;

use crate::strategy::Behaviour;

impl Behaviour for RuntimeClass {}
