//! IPAddress.

use k8s_openapi::api::networking::v1::IPAddress;

use crate::strategy::Behaviour;

impl Behaviour for IPAddress {}
