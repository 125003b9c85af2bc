//! Kubernetes' protobuf encoding, to and from JSON.
//!
//! Enter at [`to_json`] and [`from_json`] for objects, at [`watch_frame`] for the events of a
//! watch. No typed structure is in between: the tables of [`crate::schema`] say which field has
//! which number and type. Kinds that the tables do not have, custom resources above all, have no
//! protobuf form, as upstream.
//!
//! An object is an envelope (`runtime.Unknown`) behind the bytes `k8s\0`: it says version and
//! kind and holds the object itself.

mod decode;
mod encode;
#[cfg(test)]
mod generated;
mod special;
#[cfg(test)]
mod tests;
mod wire;

use serde_json::Value;

use crate::schema::{self, Type};

/// The media type of an object, and of a request's body.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// What an encoded object begins with.
pub const MAGIC: [u8; 4] = *b"k8s\0";

/// Why something could not be encoded or decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    #[error("provided data does not appear to be a protobuf message, expected prefix {MAGIC:?}")]
    NoMagic,
    #[error("unexpected end of the protobuf message")]
    Truncated,
    #[error("proto: illegal wireType {0}")]
    WireType(u64),
    #[error("proto: {field} has wrong wireType")]
    WrongWireType { field: String },
    #[error("proto: {field} is not valid UTF-8")]
    NotUtf8 { field: String },
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    UnknownKind { api_version: String, kind: String },
    #[error("{field}: expected {expected}")]
    WrongJson {
        field: String,
        expected: &'static str,
    },
    #[error("the object is no JSON: {0}")]
    NotJson(String),
}

/// The table of a kind; the kinds of `meta` belong to every group.
fn type_of(api_version: &str, kind: &str) -> Option<&'static Type> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    schema::of_kind(group, version, kind).or_else(|| schema::named(&format!("meta.v1.{kind}")))
}

/// Whether the kind has a protobuf form.
pub fn is_supported(api_version: &str, kind: &str) -> bool {
    type_of(api_version, kind).is_some()
}

/// An encoded object as JSON.
///
/// `api_version` and `kind` are what it is when its envelope does not say.
///
/// # Errors
/// When the bytes are no encoded object, or one of a kind that is not known.
pub fn to_json(bytes: &[u8], api_version: &str, kind: &str) -> Result<Vec<u8>, ProtobufError> {
    let mut json = Vec::with_capacity(bytes.len() * 2);
    write_json(bytes, api_version, kind, &mut json)?;
    Ok(json)
}

/// An encoded object as JSON of that version and kind, whatever its envelope says. The two
/// versions must have the same messages.
///
/// # Errors
/// As [`to_json`].
pub fn to_json_as(bytes: &[u8], api_version: &str, kind: &str) -> Result<Vec<u8>, ProtobufError> {
    let mut json = Vec::with_capacity(bytes.len() * 2);
    let mut unknown = envelope_of(bytes)?;
    unknown.api_version.clear();
    unknown.kind.clear();
    write_unknown(unknown, api_version, kind, &mut json)?;
    Ok(json)
}

/// The version and the kind of an encoded object.
///
/// # Errors
/// When the bytes are no encoded object.
pub fn kind_of(bytes: &[u8]) -> Result<(String, String), ProtobufError> {
    envelope_of(bytes).map(|unknown| (unknown.api_version, unknown.kind))
}

fn envelope_of(bytes: &[u8]) -> Result<decode::Envelope<'_>, ProtobufError> {
    decode::envelope(bytes.strip_prefix(&MAGIC).ok_or(ProtobufError::NoMagic)?)
}

fn write_json(
    bytes: &[u8],
    api_version: &str,
    kind: &str,
    json: &mut Vec<u8>,
) -> Result<(), ProtobufError> {
    write_unknown(envelope_of(bytes)?, api_version, kind, json)
}

fn write_unknown(
    unknown: decode::Envelope<'_>,
    api_version: &str,
    kind: &str,
    json: &mut Vec<u8>,
) -> Result<(), ProtobufError> {
    let or = |text: String, default: &str| {
        if text.is_empty() {
            default.to_owned()
        } else {
            text
        }
    };
    let api_version = or(unknown.api_version, api_version);
    let kind = or(unknown.kind, kind);
    if unknown.is_json {
        json.extend_from_slice(unknown.raw);
        return Ok(());
    }
    let Some(of) = type_of(&api_version, &kind) else {
        return Err(ProtobufError::UnknownKind { api_version, kind });
    };
    decode::object(unknown.raw, of, Some((&api_version, &kind)), json)
}

/// A JSON object, encoded. It must say its version and kind.
///
/// # Errors
/// When it is no JSON object, of an unknown kind, or has a value of a wrong type. Fields that are
/// not known are left out.
pub fn from_json(json: &[u8]) -> Result<Vec<u8>, ProtobufError> {
    let value: Value =
        serde_json::from_slice(json).map_err(|error| ProtobufError::NotJson(error.to_string()))?;
    let mut bytes = Vec::with_capacity(json.len());
    write_object(&value, &mut bytes)?;
    Ok(bytes)
}

/// Appends the envelope with the object.
fn write_object(value: &Value, bytes: &mut Vec<u8>) -> Result<(), ProtobufError> {
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let of = type_of(api_version, kind).ok_or_else(|| ProtobufError::UnknownKind {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
    })?;
    bytes.extend_from_slice(&MAGIC);
    wire::message(bytes, 1, |bytes| {
        wire::bytes(bytes, 1, api_version.as_bytes());
        wire::bytes(bytes, 2, kind.as_bytes());
        Ok(())
    })?;
    wire::message(bytes, 2, |bytes| encode::object(value, of, kind, bytes))?;
    // Content encoding and content type are there and empty.
    wire::bytes(bytes, 3, b"");
    wire::bytes(bytes, 4, b"");
    Ok(())
}

/// An event of a watch in its frame: its length in four bytes, then the event. `object` is JSON.
///
/// # Errors
/// As [`from_json`].
pub fn watch_frame(event_type: &str, object: &[u8]) -> Result<Vec<u8>, ProtobufError> {
    Ok(encoded_watch_frame(event_type, &from_json(object)?))
}

/// The same around an object that is encoded already.
pub fn encoded_watch_frame(event_type: &str, object: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 4];
    wire::bytes(&mut frame, 1, event_type.as_bytes());
    wire::message(&mut frame, 2, |frame| {
        wire::bytes(frame, 1, object);
        Ok(())
    })
    .unwrap_or_else(|error: ProtobufError| unreachable!("nothing in it can fail: {error}"));
    let length = u32::try_from(frame.len() - 4).unwrap_or(u32::MAX);
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame
}

/// A list around items that are encoded already: each as [`from_json`] gives it.
///
/// `metadata` is that of the list, as JSON.
///
/// # Errors
/// When the kind of list is not known, or an item could not be encoded.
pub fn list<Item: AsRef<[u8]>>(
    api_version: &str,
    kind: &str,
    metadata: &Value,
    items: impl Iterator<Item = Result<Item, ProtobufError>>,
) -> Result<Vec<u8>, ProtobufError> {
    let mut bytes = Vec::new();
    let empty = serde_json::json!({
        "apiVersion": api_version, "kind": kind, "metadata": metadata,
    });
    let of = type_of(api_version, kind).ok_or_else(|| ProtobufError::UnknownKind {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
    })?;
    bytes.extend_from_slice(&MAGIC);
    wire::message(&mut bytes, 1, |bytes| {
        wire::bytes(bytes, 1, api_version.as_bytes());
        wire::bytes(bytes, 2, kind.as_bytes());
        Ok(())
    })?;
    wire::message(&mut bytes, 2, |bytes| {
        encode::object(&empty, of, kind, bytes)?;
        let number = of.field("items").map_or(2, |field| field.number);
        for item in items {
            let item = item?;
            let envelope = item.as_ref().strip_prefix(&MAGIC);
            let envelope = envelope.ok_or(ProtobufError::NoMagic)?;
            wire::bytes(bytes, number, decode::envelope(envelope)?.raw);
        }
        Ok(())
    })?;
    wire::bytes(&mut bytes, 3, b"");
    wire::bytes(&mut bytes, 4, b"");
    Ok(bytes)
}
