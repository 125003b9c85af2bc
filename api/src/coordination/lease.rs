//! Lease.

mod table;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::Value;

use crate::{
    field::{ErrorList, Path},
    strategy::{Behaviour, Column},
};

impl Behaviour for Lease {
    /// The feature CoordinatedLeaderElection is off in v1.36.
    fn prepare_for_create(&mut self) {
        if let Some(spec) = &mut self.spec {
            spec.strategy = None;
            spec.preferred_holder = None;
        }
    }

    fn prepare_for_update(&mut self, _old: &Self) {
        self.prepare_for_create();
    }

    fn validate(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        let Some(spec) = &self.spec else {
            return errors;
        };
        let path = Path::new("spec");
        if let Some(seconds) = spec.lease_duration_seconds.filter(|&seconds| seconds <= 0) {
            let path = path.child("leaseDurationSeconds");
            errors.push(path.invalid(seconds, "must be greater than 0"));
        }
        if let Some(transitions) = spec.lease_transitions.filter(|&count| count < 0) {
            let path = path.child("leaseTransitions");
            errors.push(path.invalid(transitions, "must be greater than or equal to 0"));
        }
        errors
    }

    fn columns() -> &'static [Column] {
        table::COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        table::cells(self, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases() {
        crate::testing::run::<Lease>(include_str!("../../testdata/lease.yaml"));
    }
}
