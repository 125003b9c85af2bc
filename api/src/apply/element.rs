//! One step of a path to a field, as text in `FieldsV1` and in messages.
//!
//! `f:name` is a field of a record or a key of a map, `k:{"name":"x"}` an item of a list that is
//! told apart by keys, `v:"x"` an item of a set, `i:0` an item by its place.

use std::{borrow::Cow, cmp::Ordering, fmt};

use serde_json::{Map, Value};

/// How a field, or an item, is found in what holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathElement {
    Field(Cow<'static, str>),
    /// Sorted by name.
    Key(Box<[(Cow<'static, str>, Value)]>),
    Value(Value),
    Index(i64),
}

/// Why a text is no path element.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElementError {
    #[error("key must be 2 characters long:")]
    TooShort,
    #[error("missing colon: {0}")]
    NoColon(String),
    #[error("parsing {0:?}: {1}")]
    Json(String, String),
}

impl PathElement {
    pub fn field(name: impl Into<Cow<'static, str>>) -> Self {
        PathElement::Field(name.into())
    }

    /// An item by its keys, in any order.
    pub fn key(mut keys: Vec<(Cow<'static, str>, Value)>) -> Self {
        keys.sort_by(|left, right| left.0.cmp(&right.0));
        PathElement::Key(keys.into())
    }

    /// Reads the form of `FieldsV1`; `None` for a kind of element that is not known, which is
    /// skipped so that newer servers may write others.
    pub fn parse(text: &str) -> Result<Option<Self>, ElementError> {
        let bytes = text.as_bytes();
        if bytes.len() < 2 {
            return Err(ElementError::TooShort);
        }
        if bytes[1] != b':' {
            return Err(ElementError::NoColon(text.to_owned()));
        }
        let rest = &text[2..];
        let json =
            |error: &dyn fmt::Display| ElementError::Json(text.to_owned(), error.to_string());
        Ok(Some(match bytes[0] {
            b'f' => PathElement::Field(Cow::Owned(rest.to_owned())),
            b'v' => PathElement::Value(serde_json::from_str(rest).map_err(|e| json(&e))?),
            b'i' => PathElement::Index(rest.parse().map_err(|e| json(&e))?),
            b'k' => {
                let keys: Map<String, Value> = serde_json::from_str(rest).map_err(|e| json(&e))?;
                let keys = keys.into_iter().map(|(name, value)| (name.into(), value));
                PathElement::key(keys.collect())
            }
            _ => return Ok(None),
        }))
    }

    /// The form of `FieldsV1`.
    pub fn to_text(&self) -> String {
        match self {
            PathElement::Field(name) => format!("f:{name}"),
            PathElement::Key(keys) => {
                let mut text = String::from("k:{");
                for (at, (name, value)) in keys.iter().enumerate() {
                    let comma = if at > 0 { "," } else { "" };
                    text.push_str(comma);
                    text.push_str(&Value::from(&**name).to_string());
                    text.push(':');
                    text.push_str(&value.to_string());
                }
                text.push('}');
                text
            }
            PathElement::Value(value) => format!("v:{value}"),
            PathElement::Index(index) => format!("i:{index}"),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            PathElement::Field(_) => 0,
            PathElement::Key(_) => 1,
            PathElement::Value(_) => 2,
            PathElement::Index(_) => 3,
        }
    }
}

impl Ord for PathElement {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (PathElement::Field(left), PathElement::Field(right)) => left.cmp(right),
            (PathElement::Key(left), PathElement::Key(right)) => compare_keys(left, right),
            (PathElement::Value(left), PathElement::Value(right)) => compare_values(left, right),
            (PathElement::Index(left), PathElement::Index(right)) => left.cmp(right),
            (left, right) => left.rank().cmp(&right.rank()),
        }
    }
}

impl PartialOrd for PathElement {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

type Keys = [(Cow<'static, str>, Value)];

fn compare_keys(left: &Keys, right: &Keys) -> Ordering {
    for ((left_name, left_value), (right_name, right_value)) in left.iter().zip(right) {
        let order = left_name
            .cmp(right_name)
            .then_with(|| compare_values(left_value, right_value));
        if order.is_ne() {
            return order;
        }
    }
    left.len().cmp(&right.len())
}

/// Numbers come first, then strings, booleans, lists, objects and null.
fn compare_values(left: &Value, right: &Value) -> Ordering {
    let rank = |value: &Value| match value {
        Value::Number(_) => 0_u8,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    };
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => match (left.as_i64(), right.as_i64()) {
            (Some(left), Some(right)) => left.cmp(&right),
            _ => {
                let (left, right) = (left.as_f64(), right.as_f64());
                left.partial_cmp(&right).unwrap_or(Ordering::Equal)
            }
        },
        (Value::String(left), Value::String(right)) => left.cmp(right),
        (Value::Bool(left), Value::Bool(right)) => left.cmp(right),
        (Value::Array(_), Value::Array(_)) | (Value::Object(_), Value::Object(_)) => {
            left.to_string().cmp(&right.to_string())
        }
        (left, right) => rank(left).cmp(&rank(right)),
    }
}

/// As messages show it: `.spec`, `[name="x"]`, `[="x"]`, `[0]`.
impl fmt::Display for PathElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathElement::Field(name) => write!(f, ".{name}"),
            PathElement::Key(keys) => {
                f.write_str("[")?;
                for (at, (name, value)) in keys.iter().enumerate() {
                    let comma = if at > 0 { "," } else { "" };
                    write!(f, "{comma}{name}={value}")?;
                }
                f.write_str("]")
            }
            PathElement::Value(value) => write!(f, "[={value}]"),
            PathElement::Index(index) => write!(f, "[{index}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_form_is_read_and_written() {
        let cases = [
            ("f:spec", ".spec"),
            ("f:example.com/a:b", ".example.com/a:b"),
            (
                r#"k:{"containerPort":80,"protocol":"TCP"}"#,
                r#"[containerPort=80,protocol="TCP"]"#,
            ),
            (r#"v:"a\"b""#, r#"[="a\"b"]"#),
            ("v:5", "[=5]"),
            ("v:true", "[=true]"),
            ("i:3", "[3]"),
        ];
        for (text, shown) in cases {
            let element = PathElement::parse(text).unwrap().unwrap();
            assert_eq!(element.to_text(), text);
            assert_eq!(element.to_string(), shown);
        }
        assert_eq!(
            PathElement::parse(r#"k:{"b":1,"a":2}"#)
                .unwrap()
                .unwrap()
                .to_text(),
            r#"k:{"a":2,"b":1}"#
        );
        assert_eq!(PathElement::parse("x:new"), Ok(None));
        for bad in ["", "f", "spec", "v:", "i:x", "k:[]", "k:{"] {
            assert!(PathElement::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn fields_come_before_keys_values_and_indices() {
        let port = |port: i32| PathElement::key(vec![("containerPort".into(), json!(port))]);
        let sorted = [
            PathElement::field("a"),
            PathElement::field("b"),
            port(80),
            port(443),
            PathElement::Value(json!(9)),
            PathElement::Value(json!(10)),
            PathElement::Value(json!("1")),
            PathElement::Value(json!(false)),
            PathElement::Index(2),
            PathElement::Index(10),
        ];
        assert!(sorted.is_sorted());
    }
}
