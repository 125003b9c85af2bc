//! How `kubectl get` shows a Lease.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::Value;

use crate::{
    strategy::Column,
    table::{AGE, NAME, age, column, name},
};

/// The columns.
pub(super) const COLUMNS: &[Column] = &[
    NAME,
    column(
        "Holder",
        "string",
        "holderIdentity contains the identity of the holder of a current lease. If Coordinated Leader Election is used, the holder identity must be equal to the elected LeaseCandidate.metadata.name field.",
    ),
    AGE,
];

/// The cells.
pub(super) fn cells(object: &Lease, now: Timestamp) -> Vec<Value> {
    let holder = object
        .spec
        .as_ref()
        .and_then(|spec| spec.holder_identity.as_deref());
    vec![
        name(&object.metadata),
        Value::from(holder.unwrap_or("")),
        age(&object.metadata, now),
    ]
}
