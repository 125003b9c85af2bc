//! CSIStorageCapacity.

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::CSIStorageCapacity;
use serde_json::Value;

use crate::{
    check::{self, IMMUTABLE},
    field::{ErrorList, Path, value_of},
    strategy::{Behaviour, Column},
    table::{NAME, column, name},
};

impl Behaviour for CSIStorageCapacity {
    fn validate(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        let topology = self.node_topology.as_ref();
        check::label_selector(topology, &Path::new("nodeTopology"), &mut errors);
        let class = &self.storage_class_name;
        check::subdomain(class, &Path::new("storageClassName"), &mut errors);
        if let Some(capacity) = &self.capacity {
            check::not_negative_quantity(capacity, &Path::new("capacity"), &mut errors);
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> ErrorList {
        let mut errors = self.validate();
        if self.node_topology != old.node_topology {
            let value = value_of(&self.node_topology);
            errors.push(Path::new("nodeTopology").invalid(value, IMMUTABLE));
        }
        if self.storage_class_name != old.storage_class_name {
            let value = self.storage_class_name.as_str();
            errors.push(Path::new("storageClassName").invalid(value, IMMUTABLE));
        }
        errors
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects() {
        crate::testing::run::<CSIStorageCapacity>(include_str!(
            "../../testdata/csi_storage_capacity.yaml"
        ));
    }
}
