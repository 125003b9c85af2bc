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

    fn columns() -> &'static [Column] {
        table::COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        table::cells(self, now)
    }
}
