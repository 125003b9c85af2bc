//! CSINode.

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::{CSINode, CSINodeDriver};
use serde_json::Value;

use crate::{
    check,
    core::pod::validation::remote_volumes::csi_driver_name,
    field::{ErrorList, Path},
    internal,
    strategy::{Behaviour, Column},
    table::{AGE, NAME, age, column, name},
    zero::list,
};

impl Behaviour for CSINode {
    fn validate(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        let drivers = &self.spec.drivers;
        for (index, item) in drivers.iter().enumerate() {
            let is_duplicate = drivers[..index].iter().any(|other| other.name == item.name);
            let path = Path::new("spec.drivers").index(index);
            driver(item, is_duplicate, &path, &mut errors);
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> ErrorList {
        let mut errors = self.validate();
        let without_count = |driver: &CSINodeDriver| CSINodeDriver {
            allocatable: None,
            ..driver.clone()
        };
        for old in &old.spec.drivers {
            for new in self.spec.drivers.iter().filter(|new| new.name == old.name) {
                let (new, old) = (without_count(new), without_count(old));
                let path = Path::new("spec.drivers");
                internal::immutable("CSINodeDriver", &new, &old, &path, &mut errors);
            }
        }
        errors
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "Drivers",
                "integer",
                "Drivers indicates the number of CSI drivers registered on the node",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        vec![
            name(&self.metadata),
            Value::from(self.spec.drivers.len()),
            age(&self.metadata, now),
        ]
    }
}

fn driver(driver: &CSINodeDriver, is_duplicate: bool, path: &Path, errors: &mut ErrorList) {
    const MAX_ID: usize = 256;
    let name_path = path.child("name");
    csi_driver_name(&driver.name, &name_path, errors);
    let id_path = path.child("nodeID");
    check::required(&driver.node_id, &id_path, errors);
    if driver.node_id.len() > MAX_ID {
        let message = format!("must be {MAX_ID} characters or less");
        errors.push(id_path.invalid(driver.node_id.as_str(), message));
    }
    let count = driver.allocatable.as_ref().and_then(|limits| limits.count);
    if let Some(count) = count {
        check::not_negative(count.into(), &path.child("allocatable.count"), errors);
    }
    if is_duplicate {
        errors.push(name_path.duplicate(driver.name.as_str()));
    }
    let keys = list(&driver.topology_keys);
    for (index, key) in keys.iter().enumerate() {
        check::required(key, path, errors);
        if keys[..index].contains(key) {
            errors.push(path.duplicate(key.as_str()));
        }
        check::qualified_name(key, path, errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects() {
        crate::testing::run::<CSINode>(include_str!("../../testdata/csi_node.yaml"));
    }
}
