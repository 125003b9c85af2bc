//! Secret.

mod table;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;

use crate::strategy::Behaviour;
use crate::strategy::Column;

impl Behaviour for Secret {
    const SELECTABLE_FIELDS: &'static [&'static str] = &["type"];

    fn selectable_fields(&self) -> Vec<String> {
        vec![self.type_.clone().unwrap_or_default()]
    }

    fn columns() -> &'static [Column] {
        table::COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        table::cells(self, now)
    }
}
