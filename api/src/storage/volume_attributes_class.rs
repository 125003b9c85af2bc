//! VolumeAttributesClass.

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use serde_json::Value;

use super::{parameters, provisioner};
use crate::{
    field::{ErrorList, Path},
    strategy::{Behaviour, Column},
    table::{AGE, NAME, age, column, name},
};

impl Behaviour for VolumeAttributesClass {
    fn validate(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        provisioner(&self.driver_name, &Path::new("driverName"), &mut errors);
        let path = Path::new("parameters");
        parameters(self.parameters.as_ref(), false, &path, &mut errors);
        errors
    }

    fn validate_update(&self, old: &Self) -> ErrorList {
        let mut errors = ErrorList::new();
        for (field, changed) in [
            ("driverName", self.driver_name != old.driver_name),
            ("parameters", self.parameters != old.parameters),
        ] {
            if changed {
                let message = format!("updates to {field} are forbidden.");
                errors.push(Path::new(field).forbidden(message));
            }
        }
        errors.extend(self.validate());
        errors
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "DriverName",
                "string",
                "Name of the CSI driver This field is immutable.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        vec![
            name(&self.metadata),
            Value::from(self.driver_name.clone()),
            age(&self.metadata, now),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects() {
        crate::testing::run::<VolumeAttributesClass>(include_str!(
            "../../testdata/volume_attributes_class.yaml"
        ));
    }
}
