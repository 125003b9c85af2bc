//! DeviceClass.

use jiff::Timestamp;
use k8s_openapi::api::resource::v1::DeviceClass;
use serde_json::Value;

use crate::{
    shape,
    strategy::{Behaviour, Shape},
};
use crate::{
    strategy::Column,
    table::{AGE, NAME, age, name},
};

impl Behaviour for DeviceClass {
    const SHAPE: Shape<Self> = shape!(generation: spec);

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[NAME, AGE];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        vec![name(&self.metadata), age(&self.metadata, now)]
    }
}
