//! Endpoints.

use k8s_openapi::api::core::v1::Endpoints;

use crate::strategy::Behaviour;

impl Behaviour for Endpoints {}
