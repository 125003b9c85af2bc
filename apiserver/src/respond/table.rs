//! Objects as a `Table`, which `kubectl get` prints.

use bytes::Bytes;
use coracle_api::{Kind, Object};
use jiff::Timestamp;
use serde_json::json;

use super::negotiate::{IncludeObject, MetaVersion};

/// One row: the object decoded, its metadata and its JSON.
pub struct Row<'a> {
    pub object: &'a dyn Object,
    pub metadata: &'a [u8],
    pub json: &'a [u8],
}

/// Appends everything up to the opening bracket of the rows. `metadata` is a JSON object.
pub fn write_head(
    out: &mut Vec<u8>,
    kind: &Kind,
    version: MetaVersion,
    metadata: &[u8],
    with_columns: bool,
) {
    out.extend_from_slice(br#"{"kind":"Table","apiVersion":""#);
    out.extend_from_slice(version.api_version().as_bytes());
    out.extend_from_slice(br#"","metadata":"#);
    out.extend_from_slice(metadata);
    out.extend_from_slice(br#","columnDefinitions":"#);
    let columns: Vec<_> = if with_columns {
        kind.strategy
            .columns()
            .iter()
            .map(|column| {
                json!({
                    "name": column.name,
                    "type": column.column_type,
                    "format": column.format,
                    "description": column.description,
                    "priority": column.priority,
                })
            })
            .collect()
    } else {
        Vec::new()
    };
    write_value(out, &json!(columns));
    out.extend_from_slice(br#","rows":["#);
}

/// What closes a table.
pub const TAIL: &[u8] = b"]}";

/// Appends a row.
pub fn write_row(
    out: &mut Vec<u8>,
    kind: &Kind,
    version: MetaVersion,
    include: IncludeObject,
    row: &Row<'_>,
    now: Timestamp,
) {
    out.extend_from_slice(br#"{"cells":"#);
    write_value(out, &json!(kind.strategy.cells(row.object, now)));
    out.extend_from_slice(br#","object":"#);
    match include {
        IncludeObject::None => out.extend_from_slice(b"null"),
        IncludeObject::Metadata => write_partial(out, version, row.metadata),
        IncludeObject::Object => out.extend_from_slice(row.json),
    }
    out.push(b'}');
}

/// Appends a `PartialObjectMetadata`.
pub fn write_partial(out: &mut Vec<u8>, version: MetaVersion, metadata: &[u8]) {
    out.extend_from_slice(br#"{"kind":"PartialObjectMetadata","apiVersion":""#);
    out.extend_from_slice(version.api_version().as_bytes());
    out.extend_from_slice(br#"","metadata":"#);
    out.extend_from_slice(metadata);
    out.push(b'}');
}

/// A `PartialObjectMetadata`.
pub fn partial(version: MetaVersion, metadata: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(metadata.len() + 96);
    write_partial(&mut out, version, metadata);
    out.into()
}

fn write_value(out: &mut Vec<u8>, value: &serde_json::Value) {
    // Writing a value into memory cannot fail.
    let _ = serde_json::to_writer(out, value);
}
