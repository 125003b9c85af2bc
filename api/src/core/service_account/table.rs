//! How `kubectl get` shows a ServiceAccount.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ServiceAccount;
use serde_json::Value;

use crate::{
    strategy::Column,
    table::{AGE, NAME, age, name},
};

/// The columns.
pub(super) const COLUMNS: &[Column] = &[NAME, AGE];

/// The cells.
pub(super) fn cells(object: &ServiceAccount, now: Timestamp) -> Vec<Value> {
    vec![name(&object.metadata), age(&object.metadata, now)]
}
