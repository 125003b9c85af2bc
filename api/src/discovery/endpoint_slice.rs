//! EndpointSlice.

use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::strategy::Behaviour;

impl Behaviour for EndpointSlice {}
