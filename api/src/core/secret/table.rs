//! How `kubectl get` shows a Secret.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;

use crate::{
    strategy::Column,
    table::{AGE, NAME, age, column, name},
    zero::text,
};

/// The columns.
pub(super) const COLUMNS: &[Column] = &[
    NAME,
    column(
        "Type",
        "string",
        "Used to facilitate programmatic handling of secret data. More info: https://kubernetes.io/docs/concepts/configuration/secret/#secret-types",
    ),
    column(
        "Data",
        "string",
        "Data contains the secret data. Each key must consist of alphanumeric characters, '-', '_' or '.'. The serialized form of the secret data is a base64 encoded string, representing the arbitrary (possibly non-string) data value here. Described in https://tools.ietf.org/html/rfc4648#section-4",
    ),
    AGE,
];

/// The cells.
pub(super) fn cells(object: &Secret, now: Timestamp) -> Vec<Value> {
    let keys = object.data.as_ref().map_or(0, BTreeMap::len);
    vec![
        name(&object.metadata),
        Value::from(text(&object.type_)),
        Value::from(keys),
        age(&object.metadata, now),
    ]
}
