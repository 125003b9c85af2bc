//! VolumeAttributesClass.

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use serde_json::Value;

use crate::strategy::Behaviour;
use crate::{
    strategy::Column,
    table::{AGE, NAME, age, column, name},
};

impl Behaviour for VolumeAttributesClass {
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
