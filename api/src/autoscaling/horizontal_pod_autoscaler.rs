//! HorizontalPodAutoscaler.

mod table;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use serde_json::Value;

use crate::strategy::Column;
use crate::{
    shape,
    strategy::{Behaviour, Shape},
};

impl Behaviour for HorizontalPodAutoscaler {
    const SHAPE: Shape<Self> = shape!(status);

    fn columns() -> &'static [Column] {
        table::COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        table::cells(self, now)
    }
}
