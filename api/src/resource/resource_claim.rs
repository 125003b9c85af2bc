//! ResourceClaim.

use jiff::Timestamp;
use k8s_openapi::api::resource::v1::ResourceClaim;
use serde_json::Value;

use crate::{
    shape,
    strategy::{Behaviour, Shape, StatusMeta},
};
use crate::{
    strategy::Column,
    table::{AGE, NAME, age, column, name},
    zero::list,
};

impl Behaviour for ResourceClaim {
    const SHAPE: Shape<Self> = shape!(status, StatusMeta::Keep);

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "State",
                "string",
                "A summary of the current state (allocated, pending, reserved, etc.).",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let status = self.status.as_ref();
        let is_deleted = self.metadata.deletion_timestamp.is_some();
        let is_allocated = status.is_some_and(|status| status.allocation.is_some());
        let is_reserved = status.is_some_and(|status| !list(&status.reserved_for).is_empty());
        let state = match (is_deleted, is_allocated, is_reserved) {
            (true, false, _) => "deleted",
            (true, true, false) => "deleted,allocated",
            (true, true, true) => "deleted,allocated,reserved",
            (false, false, _) => "pending",
            (false, true, false) => "allocated",
            (false, true, true) => "allocated,reserved",
        };
        vec![
            name(&self.metadata),
            Value::from(state),
            age(&self.metadata, now),
        ]
    }
}
