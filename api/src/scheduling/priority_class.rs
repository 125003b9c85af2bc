//! PriorityClass.

use k8s_openapi::api::scheduling::v1::PriorityClass;

use crate::strategy::Behaviour;

impl Behaviour for PriorityClass {}
