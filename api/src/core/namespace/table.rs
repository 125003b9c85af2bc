//! How `kubectl get` shows a Namespace.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use serde_json::Value;

use crate::{
    strategy::Column,
    table::{AGE, NAME, age, column, name},
    zero::text,
};

/// The columns.
pub(super) const COLUMNS: &[Column] = &[
    NAME,
    column("Status", "string", "The status of the namespace"),
    AGE,
];

/// The cells.
pub(super) fn cells(object: &Namespace, now: Timestamp) -> Vec<Value> {
    let phase = object
        .status
        .as_ref()
        .map_or("", |status| text(&status.phase));
    vec![
        name(&object.metadata),
        Value::from(phase),
        age(&object.metadata, now),
    ]
}
