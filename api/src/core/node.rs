//! Node.

mod table;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use serde_json::Value;

use crate::strategy::Column;
use crate::{
    shape,
    strategy::{Behaviour, Shape},
};

impl Behaviour for Node {
    const SHAPE: Shape<Self> = shape!(status);

    const SELECTABLE_FIELDS: &'static [&'static str] = &["spec.unschedulable"];

    fn selectable_fields(&self) -> Vec<String> {
        let spec = self.spec.as_ref();
        let is_unschedulable = spec.and_then(|spec| spec.unschedulable);
        vec![is_unschedulable.unwrap_or_default().to_string()]
    }

    fn columns() -> &'static [Column] {
        table::COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        table::cells(self, now)
    }
}
