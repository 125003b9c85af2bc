//! StorageClass.

use k8s_openapi::api::storage::v1::StorageClass;

use crate::strategy::Behaviour;

impl Behaviour for StorageClass {}
