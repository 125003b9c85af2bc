//! The types whose JSON is not what their protobuf fields say: times, quantities, unions.

use std::{fmt::Display, io::Write as _};

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{
    MAGIC, ProtobufError, decode,
    encode::{self, text, wrong},
    wire::{self, Entry},
};
use crate::{
    duration,
    schema::{self, Type, ValueType},
};

pub(super) fn string(text: &str, json: &mut Vec<u8>) {
    serde_json::to_writer(json, text).unwrap_or_else(|error| unreachable!("a string: {error}"));
}

pub(super) fn display(value: impl Display, json: &mut Vec<u8>) {
    write!(json, "{value}").unwrap_or_else(|error| unreachable!("a vector grows: {error}"));
}

pub(super) fn double(value: f64, json: &mut Vec<u8>) {
    // Go writes a whole number without a point.
    if value.fract() == 0.0 && value.abs() < 1e21 {
        display(value, json);
    } else {
        display(Value::from(value), json);
    }
}

pub(super) fn base64(bytes: &[u8], json: &mut Vec<u8>) {
    string(&STANDARD.encode(bytes), json);
}

fn schema_props() -> &'static Type {
    schema::named("apiextensions.v1.JSONSchemaProps")
        .unwrap_or_else(|| unreachable!("the tables have the schema of custom resources"))
}

/// Appends the message as JSON; `false` when it stands for no value.
pub(super) fn to_json(
    bytes: &[u8],
    of: ValueType,
    name: &str,
    json: &mut Vec<u8>,
) -> Result<bool, ProtobufError> {
    let entries = wire::entries(bytes)?;
    let find = |number: u32| {
        entries
            .iter()
            .rfind(|entry| entry.number == number)
            .copied()
    };
    match of {
        ValueType::Quantity => {
            let text = find(1).map_or(Ok(""), |entry| decode::text(entry, name))?;
            string(if text.is_empty() { "0" } else { text }, json);
        }
        ValueType::Time | ValueType::MicroTime => {
            let Some(time) = time(&entries, name)? else {
                return Ok(false);
            };
            let format = if matches!(of, ValueType::Time) {
                "%Y-%m-%dT%H:%M:%SZ"
            } else {
                "%Y-%m-%dT%H:%M:%S%.6fZ"
            };
            string(&time.strftime(format).to_string(), json);
        }
        ValueType::Duration => {
            let nanos = find(1).map_or(Ok(0), |entry| decode::number(entry, name))? as i64;
            string(&duration::to_text(SignedDuration::from_nanos(nanos)), json);
        }
        ValueType::IntOrString => {
            let is_text = find(1).map_or(Ok(0), |entry| decode::number(entry, name))? == 1;
            if is_text {
                string(
                    find(3).map_or(Ok(""), |entry| decode::text(entry, name))?,
                    json,
                );
            } else {
                let number = find(2).map_or(Ok(0), |entry| decode::number(entry, name))?;
                display(number as i32, json);
            }
        }
        ValueType::RawExtension | ValueType::FieldsV1 | ValueType::Json => {
            let raw = find(1).map_or(Ok(&[][..]), |entry| decode::message(entry, name))?;
            if raw.is_empty() {
                return Ok(false);
            }
            if raw.starts_with(&MAGIC) {
                super::write_json(raw, "", "", json)?;
            } else {
                json.extend_from_slice(raw);
            }
        }
        ValueType::JsonSchemaPropsOrArray => match find(1) {
            Some(entry) => schema_object(entry, name, json)?,
            None => schema_list(&entries, name, json)?,
        },
        ValueType::JsonSchemaPropsOrBool => match find(2) {
            Some(entry) => schema_object(entry, name, json)?,
            None => {
                let allows = find(1).map_or(Ok(0), |entry| decode::number(entry, name))?;
                display(allows != 0, json);
            }
        },
        ValueType::JsonSchemaPropsOrStringArray => match find(1) {
            Some(entry) => schema_object(entry, name, json)?,
            None => {
                let names: Result<Vec<&str>, _> = entries
                    .iter()
                    .filter(|entry| entry.number == 2)
                    .map(|entry| decode::text(*entry, name))
                    .collect();
                display(Value::from(names?), json);
            }
        },
        _ => return Ok(false),
    }
    Ok(true)
}

fn schema_object(entry: Entry<'_>, name: &str, json: &mut Vec<u8>) -> Result<(), ProtobufError> {
    decode::object(decode::message(entry, name)?, schema_props(), None, json)
}

fn schema_list(entries: &[Entry<'_>], name: &str, json: &mut Vec<u8>) -> Result<(), ProtobufError> {
    json.push(b'[');
    let schemas = entries.iter().filter(|entry| entry.number == 2);
    for (index, entry) in schemas.enumerate() {
        if index > 0 {
            json.push(b',');
        }
        schema_object(*entry, name, json)?;
    }
    json.push(b']');
    Ok(())
}

/// Nothing in the message: Go's zero time.
fn time(entries: &[Entry<'_>], name: &str) -> Result<Option<Timestamp>, ProtobufError> {
    let (mut seconds, mut nanos) = (0, 0);
    for entry in entries {
        match entry.number {
            1 => seconds = decode::number(*entry, name)? as i64,
            2 => nanos = decode::number(*entry, name)? as i32,
            _ => {}
        }
    }
    if entries.is_empty() {
        return Ok(None);
    }
    Ok(Timestamp::new(seconds, nanos).ok())
}

/// Appends the fields of the value's message.
pub(super) fn from_json(
    value: &Value,
    of: ValueType,
    name: &str,
    out: &mut Vec<u8>,
) -> Result<(), ProtobufError> {
    match (of, value) {
        (_, Value::Null) => {}
        (ValueType::Quantity, Value::Number(number)) => {
            wire::bytes(out, 1, number.to_string().as_bytes());
        }
        (ValueType::Quantity, _) => wire::bytes(out, 1, text(value, name)?.as_bytes()),
        (ValueType::Time | ValueType::MicroTime, _) => {
            let time: Timestamp = text(value, name)?
                .parse()
                .map_err(|_| wrong(name, "a time"))?;
            // Upstream's Time keeps no fraction in protobuf, and its MicroTime no finer one.
            let nanos = match of {
                ValueType::Time => 0,
                _ => time.subsec_nanosecond() / 1000 * 1000,
            };
            wire::varint(out, 1, time.as_second() as u64);
            wire::varint(out, 2, nanos as u64);
        }
        (ValueType::Duration, _) => {
            let duration: SignedDuration = text(value, name)?
                .parse()
                .map_err(|_| wrong(name, "a duration"))?;
            let nanos = i64::try_from(duration.as_nanos());
            let nanos = nanos.map_err(|_| wrong(name, "a duration"))?;
            wire::varint(out, 1, nanos as u64);
        }
        (ValueType::IntOrString, Value::Number(number)) => {
            let number = number.as_i64().ok_or_else(|| wrong(name, "an integer"))?;
            wire::varint(out, 1, 0);
            wire::varint(out, 2, number as u64);
            wire::bytes(out, 3, b"");
        }
        (ValueType::IntOrString, _) => {
            wire::varint(out, 1, 1);
            wire::varint(out, 2, 0);
            wire::bytes(out, 3, text(value, name)?.as_bytes());
        }
        (ValueType::RawExtension | ValueType::FieldsV1 | ValueType::Json, _) => {
            wire::bytes(out, 1, value.to_string().as_bytes());
        }
        (ValueType::JsonSchemaPropsOrArray, Value::Array(schemas)) => {
            for schema in schemas {
                schema_message(schema, 2, name, out)?;
            }
        }
        (ValueType::JsonSchemaPropsOrBool, Value::Bool(allows)) => {
            wire::varint(out, 1, u64::from(*allows));
        }
        (ValueType::JsonSchemaPropsOrBool, _) => {
            wire::varint(out, 1, 1);
            schema_message(value, 2, name, out)?;
        }
        (ValueType::JsonSchemaPropsOrStringArray, Value::Array(names)) => {
            for property in names {
                wire::bytes(out, 2, text(property, name)?.as_bytes());
            }
        }
        (_, _) => schema_message(value, 1, name, out)?,
    }
    Ok(())
}

fn schema_message(
    schema: &Value,
    number: u32,
    name: &str,
    out: &mut Vec<u8>,
) -> Result<(), ProtobufError> {
    wire::message(out, number, |out| {
        encode::object(schema, schema_props(), name, out)
    })
}
