//! RuntimeClass.

use jiff::Timestamp;
use k8s_openapi::api::node::v1::RuntimeClass;
use serde_json::Value;

use crate::strategy::Behaviour;
use crate::{
    strategy::Column,
    table::{AGE, NAME, age, column, name},
};

impl Behaviour for RuntimeClass {
    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[NAME, column("Handler", "string", ""), AGE];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        vec![
            name(&self.metadata),
            Value::from(self.handler.clone()),
            age(&self.metadata, now),
        ]
    }
}
