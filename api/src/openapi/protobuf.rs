//! Documents in the protobuf form that clients prefer: gnostic's messages.
//!
//! A message is described by a [`Shape`]: which member of the JSON becomes which field. The
//! shapes are in `v2` and `v3`.

mod v2;
mod v3;

use serde_json::{Map, Value};

pub use self::{
    v2::{
        DEFINITIONS as V2_DEFINITIONS, DOCUMENT as V2, PARAMETERS as V2_PARAMETERS,
        PATHS as V2_PATHS,
    },
    v3::{COMPONENTS as V3_COMPONENTS, DOCUMENT as V3, PATHS as V3_PATHS, SCHEMAS as V3_SCHEMAS},
};

/// What a JSON value becomes.
pub enum Shape {
    Text,
    Flag,
    Double,
    Integer,
    /// Any value, as YAML.
    Any,
    /// A repeated field.
    Repeated(&'static Shape),
    /// A message with a field for each known member, and one for all whose name begins with `x-`.
    Message {
        fields: &'static [(&'static str, u32, &'static Shape)],
        extensions: u32,
    },
    /// A message of entries with a name and a value.
    Named {
        number: u32,
        of: &'static Shape,
        /// Zero: there are none.
        extensions: u32,
        /// Names that have a field of their own.
        fields: &'static [(&'static str, u32, &'static Shape)],
    },
    /// A message with one repeated field; a single value stands for a list of it.
    Wrapped(u32, &'static Shape),
    /// A message of which the value decides the field that is set.
    Choice(fn(&Value) -> Option<(u32, &'static Shape)>),
}

/// A member of a document that is written entry by entry.
pub struct Section {
    /// In JSON.
    pub name: &'static str,
    /// In the message that it is a field of.
    pub number: u32,
    pub of: &'static Shape,
}

/// Any value: `google.protobuf.Any` is left out, as clients read the YAML.
const YAML: u32 = 2;

/// Appends the content of a message.
pub fn encode(shape: &Shape, value: &Value, out: &mut Vec<u8>) {
    match shape {
        Shape::Message { fields, extensions } => {
            let Some(members) = value.as_object() else {
                return;
            };
            for (name, number, of) in *fields {
                if let Some(value) = members.get(*name) {
                    put(*number, of, value, false, out);
                }
            }
            encode_extensions(*extensions, members, out);
        }
        Shape::Named {
            extensions, fields, ..
        } => {
            let Some(members) = value.as_object() else {
                return;
            };
            for (name, value) in members {
                let is_extension = *extensions > 0 && name.starts_with("x-");
                match fields.iter().find(|field| field.0 == name) {
                    Some((_, number, of)) => put(*number, of, value, false, out),
                    None if !is_extension => encode_entry(shape, name, value, out),
                    None => {}
                }
            }
            encode_extensions(*extensions, members, out);
        }
        Shape::Wrapped(number, of) => match value {
            Value::Array(values) => {
                for value in values {
                    put(*number, of, value, true, out);
                }
            }
            value => put(*number, of, value, true, out),
        },
        Shape::Choice(choose) => {
            if let Some((number, of)) = choose(value) {
                put(number, of, value, true, out);
            }
        }
        // YAML holds all of JSON.
        Shape::Any => put_bytes(YAML, format!("{value}\n").as_bytes(), out),
        Shape::Text | Shape::Flag | Shape::Double | Shape::Integer | Shape::Repeated(_) => {}
    }
}

/// Appends an entry of a [`Shape::Named`].
pub fn encode_entry(shape: &Shape, name: &str, value: &Value, out: &mut Vec<u8>) {
    let Shape::Named { number, of, .. } = shape else {
        return;
    };
    let mut entry = Vec::new();
    put_bytes(1, name.as_bytes(), &mut entry);
    put(2, of, value, true, &mut entry);
    put_bytes(*number, &entry, out);
}

fn encode_extensions(number: u32, members: &Map<String, Value>, out: &mut Vec<u8>) {
    if number == 0 {
        return;
    }
    static EXTENSION: Shape = Shape::Any;
    for (name, value) in members.iter().filter(|(name, _)| name.starts_with("x-")) {
        let mut entry = Vec::new();
        put_bytes(1, name.as_bytes(), &mut entry);
        put(2, &EXTENSION, value, true, &mut entry);
        put_bytes(number, &entry, out);
    }
}

/// Appends a field. `always`: even if it holds the zero value.
fn put(number: u32, shape: &Shape, value: &Value, always: bool, out: &mut Vec<u8>) {
    match shape {
        Shape::Text => {
            let text = value.as_str().unwrap_or_default();
            if always || !text.is_empty() {
                put_bytes(number, text.as_bytes(), out);
            }
        }
        Shape::Flag => {
            let flag = value.as_bool().unwrap_or_default();
            if always || flag {
                put_varint(u64::from(number) << 3, out);
                out.push(u8::from(flag));
            }
        }
        Shape::Integer => {
            let integer = value.as_i64().unwrap_or_default();
            if always || integer != 0 {
                put_varint(u64::from(number) << 3, out);
                put_varint(integer.cast_unsigned(), out);
            }
        }
        Shape::Double => {
            let double = value.as_f64().unwrap_or_default();
            if always || double != 0.0 {
                put_varint(u64::from(number) << 3 | 1, out);
                out.extend_from_slice(&double.to_le_bytes());
            }
        }
        Shape::Repeated(of) => {
            for value in value.as_array().into_iter().flatten() {
                put(number, of, value, true, out);
            }
        }
        _ => {
            let mut message = Vec::new();
            encode(shape, value, &mut message);
            put_bytes(number, &message, out);
        }
    }
}

/// Appends a field that holds bytes: text or a message.
pub fn put_bytes(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    put_length(number, bytes.len(), out);
    out.extend_from_slice(bytes);
}

/// Appends what stands before the bytes of a field.
pub fn put_length(number: u32, length: usize, out: &mut Vec<u8>) {
    put_varint(u64::from(number) << 3 | 2, out);
    put_varint(length as u64, out);
}

fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn encoded(shape: &Shape, value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        encode(shape, value, &mut out);
        out
    }

    #[test]
    fn members_become_numbered_fields() {
        let info = json!({"info": {"title": "K", "version": "v"}, "openapi": "3"});
        let expected = [
            &[0x0a, 1, b'3'][..],
            &[0x12, 6, 0x0a, 1, b'K', 0x32, 1, b'v'],
        ];
        assert_eq!(encoded(&V3, &info), expected.concat());
    }

    #[test]
    fn a_reference_is_told_from_a_schema() {
        let Shape::Named { of, .. } = V3_SCHEMAS.of else {
            panic!("schemas have names");
        };
        assert_eq!(
            encoded(of, &json!({"$ref": "#/a"})),
            [0x12, 5, 0x0a, 3, b'#', b'/', b'a']
        );
        // `type` is field 25, in a schema that is field 1.
        assert_eq!(
            encoded(of, &json!({"type": "t"})),
            [0x0a, 4, 0xca, 0x01, 1, b't']
        );
    }

    #[test]
    fn extensions_are_yaml() {
        let Shape::Named { of, .. } = V2_DEFINITIONS.of else {
            panic!("definitions have names");
        };
        let entry = [
            &[0x0a, 3, b'x', b'-', b'a'][..],
            &[0x12, 6, 0x12, 4, b'"', b'b', b'"', b'\n'],
        ];
        let entry = entry.concat();
        let expected = [&[0xfa, 0x01, 13][..], &entry[..]];
        assert_eq!(encoded(of, &json!({"x-a": "b"})), expected.concat());
    }
}
