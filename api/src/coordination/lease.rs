//! Lease.

use k8s_openapi::api::coordination::v1::Lease;

use crate::strategy::Behaviour;

impl Behaviour for Lease {}
