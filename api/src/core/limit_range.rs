//! LimitRange.

use k8s_openapi::api::core::v1::LimitRange;

use crate::strategy::Behaviour;

impl Behaviour for LimitRange {}
