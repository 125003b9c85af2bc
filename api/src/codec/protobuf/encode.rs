//! From JSON to messages.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};

use super::{ProtobufError, special, wire};
use crate::schema::{Field, Shape, Type, ValueType};

/// Appends the fields of the object. `name` is where it stands, for errors.
pub(super) fn object(
    value: &Value,
    of: &Type,
    name: &str,
    out: &mut Vec<u8>,
) -> Result<(), ProtobufError> {
    let entries = value.as_object().ok_or_else(|| wrong(name, "an object"))?;
    fields(entries, of, out)
}

fn fields(entries: &Map<String, Value>, of: &Type, out: &mut Vec<u8>) -> Result<(), ProtobufError> {
    let mut own: Vec<&Field> = of.own_fields().iter().collect();
    own.sort_by_key(|field| field.number);
    for field in own {
        if field.is_inline {
            if let Some(inlined) = field.object() {
                wire::message(out, field.number, |out| fields(entries, inlined, out))?;
            }
            continue;
        }
        match entries.get(field.name) {
            None | Some(Value::Null) => {}
            Some(value) => values(value, field, out)?,
        }
    }
    Ok(())
}

fn values(value: &Value, field: &Field, out: &mut Vec<u8>) -> Result<(), ProtobufError> {
    match field.shape {
        Shape::One => one(value, field, field.number, out),
        Shape::List => {
            let items = value
                .as_array()
                .ok_or_else(|| wrong(field.name, "an array"))?;
            items
                .iter()
                .try_for_each(|item| one(item, field, field.number, out))
        }
        Shape::Map | Shape::MapOfLists => {
            let entries = value
                .as_object()
                .ok_or_else(|| wrong(field.name, "an object"))?;
            entries.iter().try_for_each(|(key, value)| {
                wire::message(out, field.number, |out| {
                    wire::bytes(out, 1, key.as_bytes());
                    if field.shape == Shape::Map {
                        return one(value, field, 2, out);
                    }
                    wire::message(out, 2, |out| {
                        let items = value.as_array().into_iter().flatten();
                        items
                            .into_iter()
                            .try_for_each(|item| one(item, field, 1, out))
                    })
                })
            })
        }
    }
}

/// Appends one value of the field under a number.
fn one(value: &Value, field: &Field, number: u32, out: &mut Vec<u8>) -> Result<(), ProtobufError> {
    let name = field.name;
    match field.value_type() {
        ValueType::Object(_) if value.is_null() => wire::bytes(out, number, &[]),
        ValueType::Object(of) => {
            wire::message(out, number, |out| object(value, of, name, out))?;
        }
        ValueType::String => wire::bytes(out, number, text(value, name)?.as_bytes()),
        ValueType::Int32 | ValueType::Int64 => {
            let integer = value.as_i64().ok_or_else(|| wrong(name, "an integer"))?;
            wire::varint(out, number, integer as u64);
        }
        ValueType::Bool => {
            let truth = value.as_bool().ok_or_else(|| wrong(name, "a boolean"))?;
            wire::varint(out, number, u64::from(truth));
        }
        ValueType::Double => {
            let float = value.as_f64().ok_or_else(|| wrong(name, "a number"))?;
            wire::double(out, number, float);
        }
        ValueType::Bytes => {
            let decoded = STANDARD
                .decode(text(value, name)?)
                .map_err(|_| wrong(name, "base64"))?;
            wire::bytes(out, number, &decoded);
        }
        other => wire::message(out, number, |out| {
            special::from_json(value, other, name, out)
        })?,
    }
    Ok(())
}

/// The text of a value; null is empty.
pub(super) fn text<'a>(value: &'a Value, name: &str) -> Result<&'a str, ProtobufError> {
    match value {
        Value::Null => Ok(""),
        Value::String(text) => Ok(text),
        _ => Err(wrong(name, "a string")),
    }
}

pub(super) fn wrong(field: &str, expected: &'static str) -> ProtobufError {
    ProtobufError::WrongJson {
        field: field.to_owned(),
        expected,
    }
}
