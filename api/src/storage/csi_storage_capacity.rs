//! CSIStorageCapacity.

use k8s_openapi::api::storage::v1::CSIStorageCapacity;

use crate::strategy::Behaviour;

impl Behaviour for CSIStorageCapacity {}
