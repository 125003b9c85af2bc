//! ServiceAccount.

use k8s_openapi::api::core::v1::ServiceAccount;

use crate::strategy::Behaviour;

impl Behaviour for ServiceAccount {}
