//! Eviction: the body of the `eviction` subresource of a Pod.

use k8s_openapi::api::policy::v1::Eviction;

use crate::strategy::Behaviour;

impl Behaviour for Eviction {}
