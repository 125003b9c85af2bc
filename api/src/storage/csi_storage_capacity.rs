//! CSIStorageCapacity.

use k8s_openapi::api::storage::v1::CSIStorageCapacity;

use crate::{
    check::{self, IMMUTABLE},
    field::{ErrorList, Path, value_of},
    strategy::Behaviour,
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
