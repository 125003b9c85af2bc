//! Which version and kind an object says it is of.

use std::{borrow::Cow, fmt};

use coracle_api::decode::{as_text, go};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

/// What an object says; empty where it does not.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct TypeMeta {
    pub api_version: String,
    pub kind: String,
}

/// Reads `apiVersion` and `kind` and nothing else.
///
/// # Errors
/// Go's text: it is no JSON, no object, or one of them is no string.
pub fn read(json: &[u8]) -> Result<TypeMeta, String> {
    const OF: &str = r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
    let text = as_text(json);
    let fields: Fields = match serde_json::from_str(&text) {
        Ok(fields) => fields,
        Err(error) => {
            if let Some(error) = go::syntax_error(text.as_bytes()) {
                return Err(error);
            }
            let value: Value = serde_json::from_str(&text).map_err(|_| error.to_string())?;
            if value.is_null() {
                return Ok(TypeMeta::default());
            }
            let of = type_name(&value);
            return Err(format!(
                "json: cannot unmarshal {of} into Go value of type {OF}"
            ));
        }
    };
    let read = |name: &str, value: Value| match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text),
        other => Err(format!(
            "json: cannot unmarshal {} into Go struct field .{name} of type string",
            type_name(&other)
        )),
    };
    Ok(TypeMeta {
        api_version: read("apiVersion", fields.api_version)?,
        kind: read("kind", fields.kind)?,
    })
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The last value of each.
#[derive(Default)]
struct Fields {
    api_version: Value,
    kind: Value,
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Fields, A::Error> {
        let mut fields = Fields::default();
        while let Some(name) = entries.next_key::<Cow<'de, str>>()? {
            match &*name {
                "apiVersion" => fields.api_version = entries.next_value()?,
                "kind" => fields.kind = entries.next_value()?,
                _ => drop(entries.next_value::<IgnoredAny>()?),
            }
        }
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_each_counts() {
        let meta = read(br#"{"apiVersion":"v1","a":{"kind":"x"},"kind":"A","kind":"B"}"#).unwrap();
        assert_eq!((meta.api_version.as_str(), meta.kind.as_str()), ("v1", "B"));
        assert_eq!(read(b"null"), Ok(TypeMeta::default()));
        assert_eq!(read(b"{"), Err("unexpected end of JSON input".to_owned()));
        assert_eq!(
            read(br#"{"kind":1}"#),
            Err(
                "json: cannot unmarshal number into Go struct field .kind of type string"
                    .to_owned()
            )
        );
    }
}
