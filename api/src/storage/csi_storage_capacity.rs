//! CSIStorageCapacity.

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::CSIStorageCapacity;
use serde_json::Value;

use crate::strategy::Behaviour;
use crate::{
    strategy::Column,
    table::{NAME, column, name},
};

impl Behaviour for CSIStorageCapacity {
    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "StorageClassName",
                "string",
                "storageClassName represents the name of the StorageClass that the reported capacity applies to. It must meet the same requirements as the name of a StorageClass object (non-empty, DNS subdomain). If that object no longer exists, the CSIStorageCapacity object is obsolete and should be removed by its creator. This field is immutable.",
            ),
            column(
                "Capacity",
                "string",
                "capacity is the value reported by the CSI driver in its GetCapacityResponse for a GetCapacityRequest with topology and parameters that match the previous fields.\n\nThe semantic is currently (CSI spec 1.2) defined as: The available capacity, in bytes, of the storage that can be used to provision volumes. If not set, that information is currently unavailable.",
            ),
        ];
        COLUMNS
    }

    fn cells(&self, _now: Timestamp) -> Vec<Value> {
        let capacity = self
            .capacity
            .as_ref()
            .map_or("<unset>", |capacity| &capacity.0);
        vec![
            name(&self.metadata),
            Value::from(self.storage_class_name.clone()),
            Value::from(capacity),
        ]
    }
}
