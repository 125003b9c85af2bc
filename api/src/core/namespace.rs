//! Namespace.

mod table;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use serde_json::Value;

use crate::strategy::Column;
use crate::{
    shape,
    strategy::{Behaviour, Shape},
};

impl Behaviour for Namespace {
    const SHAPE: Shape<Self> = shape!(status);

    const SELECTABLE_FIELDS: &'static [&'static str] = &["status.phase"];

    fn selectable_fields(&self) -> Vec<String> {
        let status = self.status.as_ref();
        vec![
            status
                .and_then(|status| status.phase.clone())
                .unwrap_or_default(),
        ]
    }

    fn columns() -> &'static [Column] {
        table::COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        table::cells(self, now)
    }
}
