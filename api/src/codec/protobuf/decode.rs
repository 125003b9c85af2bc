//! From messages to JSON.

use super::{
    ProtobufError, special,
    wire::{self, Entry, Wire},
};
use crate::schema::{Field, Presence, Shape, Type, ValueType};

/// What an object comes in.
pub(super) struct Envelope<'a> {
    pub api_version: String,
    pub kind: String,
    pub raw: &'a [u8],
    /// Whether the content type says that the object in it is JSON.
    pub is_json: bool,
}

pub(super) fn envelope(bytes: &[u8]) -> Result<Envelope<'_>, ProtobufError> {
    let mut envelope = Envelope {
        api_version: String::new(),
        kind: String::new(),
        raw: &[],
        is_json: false,
    };
    for entry in wire::entries(bytes)? {
        match (entry.number, entry.value) {
            (1, Wire::Bytes(type_meta)) => {
                for entry in wire::entries(type_meta)? {
                    match entry.number {
                        1 => envelope.api_version = text(entry, "apiVersion")?.to_owned(),
                        2 => envelope.kind = text(entry, "kind")?.to_owned(),
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(raw)) => envelope.raw = raw,
            (4, Wire::Bytes(content_type)) => {
                envelope.is_json = content_type == b"application/json";
            }
            _ => {}
        }
    }
    Ok(envelope)
}

/// Appends the message as a JSON object. `type_meta` is its version and kind, if it is to say so.
pub(super) fn object(
    bytes: &[u8],
    of: &Type,
    type_meta: Option<(&str, &str)>,
    json: &mut Vec<u8>,
) -> Result<(), ProtobufError> {
    json.push(b'{');
    if let Some((api_version, kind)) = type_meta {
        json.extend_from_slice(b"\"kind\":");
        special::string(kind, json);
        json.extend_from_slice(b",\"apiVersion\":");
        special::string(api_version, json);
    }
    fields(bytes, of, json)?;
    json.push(b'}');
    Ok(())
}

/// Appends the fields of the message, each with a comma before it unless it is the first.
fn fields(bytes: &[u8], of: &Type, json: &mut Vec<u8>) -> Result<(), ProtobufError> {
    let mut entries = wire::entries(bytes)?;
    // What belongs to one field may stand apart.
    entries.sort_by_key(|entry| entry.number);
    for entries in entries.chunk_by(|left, right| left.number == right.number) {
        let number = entries[0].number;
        let Some(field) = of.own_fields().iter().find(|field| field.number == number) else {
            continue;
        };
        if field.is_inline {
            if let Some(inlined) = field.object() {
                for entry in entries {
                    fields(message(*entry, field.name)?, inlined, json)?;
                }
            }
            continue;
        }
        let start = json.len();
        if !json.ends_with(b"{") {
            json.push(b',');
        }
        special::string(field.name, json);
        json.push(b':');
        if !values(entries, field, json)? {
            json.truncate(start);
        }
    }
    Ok(())
}

/// Appends the value of a field; `false` when there is none.
fn values(entries: &[Entry<'_>], field: &Field, json: &mut Vec<u8>) -> Result<bool, ProtobufError> {
    // Of a field that holds one value, the last one counts.
    let last = entries[entries.len() - 1];
    match field.shape {
        Shape::One => {
            let is_kept = matches!(field.presence, Presence::Always | Presence::Pointer);
            if !is_kept && is_zero(last, field.value_type()) {
                return Ok(false);
            }
            value(last, field, json)
        }
        Shape::List => {
            json.push(b'[');
            for (index, entry) in entries.iter().enumerate() {
                if index > 0 {
                    json.push(b',');
                }
                if !value(*entry, field, json)? {
                    json.extend_from_slice(b"null");
                }
            }
            json.push(b']');
            Ok(true)
        }
        Shape::Map | Shape::MapOfLists => {
            json.push(b'{');
            for (index, entry) in entries.iter().enumerate() {
                if index > 0 {
                    json.push(b',');
                }
                map_entry(*entry, field, json)?;
            }
            json.push(b'}');
            Ok(true)
        }
    }
}

fn map_entry(entry: Entry<'_>, field: &Field, json: &mut Vec<u8>) -> Result<(), ProtobufError> {
    let (mut key, mut held) = ("", None);
    for part in wire::entries(message(entry, field.name)?)? {
        match part.number {
            1 => key = text(part, field.name)?,
            2 => held = Some(part),
            _ => {}
        }
    }
    special::string(key, json);
    json.push(b':');
    // A value that is absent is the zero value.
    let held = held.unwrap_or(Entry {
        number: 2,
        value: match field.value_type() {
            ValueType::Int32 | ValueType::Int64 | ValueType::Bool => Wire::Varint(0),
            _ => Wire::Bytes(&[]),
        },
    });
    if field.shape == Shape::MapOfLists {
        json.push(b'[');
        for (index, item) in wire::entries(message(held, field.name)?)?
            .iter()
            .enumerate()
        {
            if index > 0 {
                json.push(b',');
            }
            value(*item, field, json)?;
        }
        json.push(b']');
        return Ok(());
    }
    if !value(held, field, json)? {
        json.extend_from_slice(b"null");
    }
    Ok(())
}

fn is_zero(entry: Entry<'_>, of: ValueType) -> bool {
    match (of, entry.value) {
        (ValueType::Double, Wire::Fixed64(bits)) => f64::from_bits(bits) == 0.0,
        (ValueType::Int32 | ValueType::Int64 | ValueType::Bool, Wire::Varint(value)) => value == 0,
        (ValueType::String | ValueType::Bytes, Wire::Bytes(bytes)) => bytes.is_empty(),
        _ => false,
    }
}

/// Appends one value; `false` when the message stands for no value.
fn value(entry: Entry<'_>, field: &Field, json: &mut Vec<u8>) -> Result<bool, ProtobufError> {
    let name = field.name;
    match field.value_type() {
        ValueType::Object(of) => object(message(entry, name)?, of, None, json)?,
        ValueType::String => special::string(text(entry, name)?, json),
        ValueType::Int32 => special::display(number(entry, name)? as i32, json),
        ValueType::Int64 => special::display(number(entry, name)? as i64, json),
        ValueType::Bool => special::display(number(entry, name)? != 0, json),
        ValueType::Double => match entry.value {
            Wire::Fixed64(bits) => special::double(f64::from_bits(bits), json),
            _ => return Err(wrong_wire_type(name)),
        },
        ValueType::Bytes => special::base64(message(entry, name)?, json),
        other => return special::to_json(message(entry, name)?, other, name, json),
    }
    Ok(true)
}

fn wrong_wire_type(field: &str) -> ProtobufError {
    ProtobufError::WrongWireType {
        field: field.to_owned(),
    }
}

pub(super) fn message<'a>(entry: Entry<'a>, field: &str) -> Result<&'a [u8], ProtobufError> {
    match entry.value {
        Wire::Bytes(bytes) => Ok(bytes),
        _ => Err(wrong_wire_type(field)),
    }
}

pub(super) fn number(entry: Entry<'_>, field: &str) -> Result<u64, ProtobufError> {
    match entry.value {
        Wire::Varint(value) => Ok(value),
        Wire::Fixed64(_) | Wire::Fixed32 | Wire::Bytes(_) => Err(wrong_wire_type(field)),
    }
}

pub(super) fn text<'a>(entry: Entry<'a>, field: &str) -> Result<&'a str, ProtobufError> {
    std::str::from_utf8(message(entry, field)?).map_err(|_| ProtobufError::NotUtf8 {
        field: field.to_owned(),
    })
}
