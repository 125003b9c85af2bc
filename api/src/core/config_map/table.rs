//! How `kubectl get` shows a ConfigMap.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::Value;

use crate::{
    strategy::Column,
    table::{AGE, NAME, age, column, name},
};

/// The columns.
pub(super) const COLUMNS: &[Column] = &[
    NAME,
    column(
        "Data",
        "string",
        "Data contains the configuration data. Each key must consist of alphanumeric characters, '-', '_' or '.'. Values with non-UTF-8 byte sequences must use the BinaryData field. The keys stored in Data must not overlap with the keys in the BinaryData field, this is enforced during validation process.",
    ),
    AGE,
];

/// The cells.
pub(super) fn cells(object: &ConfigMap, now: Timestamp) -> Vec<Value> {
    let keys = object.data.as_ref().map_or(0, BTreeMap::len)
        + object.binary_data.as_ref().map_or(0, BTreeMap::len);
    vec![
        name(&object.metadata),
        Value::from(keys),
        age(&object.metadata, now),
    ]
}
