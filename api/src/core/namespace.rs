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

    fn columns() -> &'static [Column] {
        table::COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        table::cells(self, now)
    }
}
