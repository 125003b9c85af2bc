//! ResourceClaim.

use jiff::Timestamp;
use k8s_openapi::api::resource::v1::ResourceClaim;
use serde_json::Value;

use super::{claim_status, validation};
use crate::{
    expression::Expression,
    field::{ErrorList, Path},
    internal, shape,
    strategy::{Behaviour, Column, Shape, StatusMeta, Subresource},
    table::{AGE, NAME, age, column, name},
    zero::list,
};

impl Behaviour for ResourceClaim {
    const SHAPE: Shape<Self> = shape!(status, StatusMeta::Keep);

    fn default_fields(&mut self) {
        validation::default_claim(self.spec.devices.as_mut());
    }

    fn validate(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        let devices = self.spec.devices.as_ref();
        validation::claim(devices, &Path::new("spec.devices"), &mut errors);
        errors
    }

    fn validate_update(&self, old: &Self) -> ErrorList {
        let mut errors = ErrorList::new();
        let (new, old, path) = (&self.spec, &old.spec, Path::new("spec"));
        internal::immutable("ResourceClaimSpec", new, old, &path, &mut errors);
        errors
    }

    fn expressions(&self) -> Vec<Expression<'_>> {
        let devices = self.spec.devices.as_ref();
        validation::claim_expressions(devices, &Path::new("spec.devices"))
    }

    fn validate_subresource(&self, old: &Self, _subresource: Subresource) -> ErrorList {
        claim_status::update(self, old)
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects() {
        crate::testing::run::<ResourceClaim>(include_str!("../../testdata/resource_claim.yaml"));
    }
}
