//! A serde deserializer over a [`Node`] that knows where in the object it is.

use std::{any::type_name, borrow::Cow, fmt};

use base64::Engine as _;
use jiff::Timestamp;
use serde::de::{
    self, Deserializer, Expected, IntoDeserializer, Visitor, value::StringDeserializer,
};

use super::{
    Context, go,
    members::{Elements, Entries},
    names,
    node::Node,
    path::Path,
};
use crate::{
    object::ZERO_TIME,
    quantity,
    schema::{Field, Presence, Shape, Type, ValueType},
    strategy::Mismatch,
};

/// Why decoding stopped, in Go's words.
#[derive(Debug)]
pub(super) enum Failure {
    Mismatch(Mismatch),
    Other(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Mismatch(mismatch) => mismatch.fmt(f),
            Failure::Other(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Failure {}

impl de::Error for Failure {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Failure::Other(message.to_string())
    }

    fn invalid_value(unexpected: de::Unexpected<'_>, expected: &dyn Expected) -> Self {
        Failure::Other(format!("invalid value: {unexpected}, expected {expected}"))
    }
}

/// A value that is to be read as some type.
pub(super) struct Typed<'p, 'de> {
    pub node: Node<'de>,
    pub path: &'p Path<'p>,
    pub context: &'p Context,
    pub known: Known,
}

/// What the tables say about a value; nothing where they know nothing.
#[derive(Clone, Copy, Default)]
pub(super) struct Known {
    /// The type of the object that it is, or that its items are.
    pub of: Option<&'static Type>,
    /// The field that it is the value of.
    pub field: Option<&'static Field>,
}

impl Known {
    pub fn item(self) -> Self {
        Known {
            of: self.of,
            field: None,
        }
    }

    pub fn field(self, name: &str) -> Self {
        let field = self.of.and_then(|of| of.field(name));
        Known {
            of: field.and_then(Field::object),
            field,
        }
    }
}

impl<'p, 'de> Typed<'p, 'de> {
    /// The whole object. `of` is its type, where the tables have one.
    pub fn root(
        node: Node<'de>,
        path: &'p Path<'p>,
        context: &'p Context,
        of: Option<&'static Type>,
    ) -> Self {
        Typed {
            node,
            path,
            context,
            known: Known { of, field: None },
        }
    }

    /// Whether it holds a zero value that upstream does not tell from an absent one.
    fn is_omitted_zero(&self) -> bool {
        let is_zero = match &self.node {
            Node::Bool(value) => !value,
            Node::Number(number) => number.as_f64() == Some(0.0),
            Node::String(text) => text.is_empty(),
            _ => false,
        };
        let Some(field) = self.known.field.filter(|_| is_zero) else {
            return false;
        };
        field.presence == Presence::Omitted
            && field.shape == Shape::One
            && is_plain(field.value_type())
    }

    /// The value is of a type that `T` is not made from.
    fn mismatch<T>(&self, value: &str) -> Failure {
        let plain_type = names::go_type(type_name::<T>());
        let named = self.path.field().and_then(|(of, name)| {
            let list = plain_type.strip_suffix("string")?;
            Some(format!("{list}{}", names::named_type(of.name, name)?))
        });
        Failure::Mismatch(Mismatch {
            value: value.to_owned(),
            target: self.path.go_target(),
            go_type: named.unwrap_or_else(|| plain_type.clone()),
            plain_type,
            reads_itself: false,
        })
    }

    fn expect_number<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        let number = match &self.node {
            Node::Number(number) => number,
            Node::Null => return visitor.visit_u64(0),
            _ => return Err(self.mismatch::<V::Value>(self.node.type_name())),
        };
        let result = if let Some(value) = number.as_u64() {
            visitor.visit_u64::<Failure>(value)
        } else if let Some(value) = number.as_i64() {
            visitor.visit_i64(value)
        } else {
            visitor.visit_f64(number.as_f64().unwrap_or_default())
        };
        let written = format!("number {number}");
        result.map_err(|_| match names::is_int_or_string(type_name::<V::Value>()) {
            true => self.mismatch::<i32>(&written),
            false => self.mismatch::<V::Value>(&written),
        })
    }

    fn expect_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.node {
            Node::String(Cow::Borrowed(text)) => visitor.visit_borrowed_str(text),
            Node::String(Cow::Owned(text)) => visitor.visit_string(text),
            Node::Null => visitor.visit_borrowed_str(""),
            _ => Err(self.mismatch::<V::Value>(self.node.type_name())),
        }
    }

    /// Base64, which Go reads more loosely than Rust's library.
    fn expect_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        let Node::String(text) = &self.node else {
            return Err(self.mismatch::<V::Value>(self.node.type_name()));
        };
        let bytes = go::base64(text).map_err(Failure::Other)?;
        let text: StringDeserializer<Failure> = base64::engine::general_purpose::STANDARD
            .encode(bytes)
            .into_deserializer();
        visitor.visit_some(text)
    }

    fn expect_object<V: Visitor<'de>>(
        self,
        of: &'static str,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        let node_type = self.node.type_name();
        let node = match self.node {
            Node::Null => Node::Object(Vec::new()),
            node => node,
        };
        match node {
            Node::Object(entries) => visitor.visit_map(Entries::new(
                entries,
                of,
                self.path,
                self.context,
                self.known,
            )),
            node => Err(Typed { node, ..self }.mismatch::<V::Value>(node_type)),
        }
    }

    fn expect_array<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.node {
            Node::Null => visitor.visit_seq(Elements {
                values: Vec::new().into_iter(),
                index: 0,
                path: self.path,
                context: self.context,
                known: self.known.item(),
            }),
            Node::Array(values) => visitor.visit_seq(Elements {
                values: values.into_iter(),
                index: 0,
                path: self.path,
                context: self.context,
                known: self.known.item(),
            }),
            _ => Err(self.mismatch::<V::Value>(self.node.type_name())),
        }
    }

    /// A text in canonical form, made by `canonical` from what was written.
    fn expect_canonical<V: Visitor<'de>>(
        self,
        visitor: V,
        canonical: impl FnOnce(&str) -> Result<String, Failure>,
    ) -> Result<V::Value, Failure> {
        let Node::String(text) = &self.node else {
            let mut failure = self.mismatch::<String>(self.node.type_name());
            if let Failure::Mismatch(mismatch) = &mut failure {
                mismatch.reads_itself = true;
            }
            return Err(failure);
        };
        let text: StringDeserializer<Failure> = canonical(text)?.into_deserializer();
        visitor.visit_newtype_struct(text)
    }
}

/// Whether Go leaves out a zero value of the type.
fn is_plain(of: ValueType) -> bool {
    matches!(
        of,
        ValueType::String
            | ValueType::Int32
            | ValueType::Int64
            | ValueType::Bool
            | ValueType::Double
            | ValueType::Bytes
    )
}

/// What stands for a field that is absent and that upstream always encodes.
pub(super) fn always_there(field: &Field) -> Option<Node<'static>> {
    match (field.presence, field.shape) {
        (Presence::Value, Shape::One) => Some(Node::Object(Vec::new())),
        (Presence::Always, Shape::One) => match field.value_type() {
            ValueType::String => Some(Node::String(Cow::Borrowed(""))),
            ValueType::Int32 | ValueType::Int64 => Some(Node::Number(0.into())),
            ValueType::Bool => Some(Node::Bool(false)),
            ValueType::Time | ValueType::MicroTime => Some(Node::Null),
            _ => None,
        },
        _ => None,
    }
}

fn canonical_quantity(text: &str) -> Result<String, Failure> {
    quantity::canonical(text).map_err(|error| Failure::Other(error.to_string()))
}

/// `format` is that of the stored text.
fn canonical_time(text: &str, micro: bool, format: &str) -> Result<String, Failure> {
    if let Some(error) = go::time_error(text, micro) {
        return Err(Failure::Other(error));
    }
    let wrong = |error: jiff::Error| Failure::Other(format!("parsing time {text:?}: {error}"));
    let time: Timestamp = text.parse().map_err(wrong)?;
    jiff::fmt::strtime::format(format, time).map_err(wrong)
}

impl<'de> Deserializer<'de> for Typed<'_, 'de> {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.node {
            Node::Null if names::is_int_or_string(type_name::<V::Value>()) => visitor.visit_i64(0),
            Node::Null => visitor.visit_unit(),
            Node::Bool(value) => visitor.visit_bool(value),
            Node::Number(_) => self.expect_number(visitor),
            Node::String(_) => self.expect_string(visitor),
            Node::Array(_) => self.expect_array(visitor),
            Node::Object(_) => self.expect_object("", visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.context
            .report(|| format!("unknown field {:?}", self.path.to_string()));
        visitor.visit_unit()
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        let empty = |generic| names::is_optional(type_name::<V::Value>(), generic);
        match &self.node {
            Node::Null => return visitor.visit_none(),
            _ if names::is_bytes(type_name::<V::Value>()) => return self.expect_bytes(visitor),
            _ if self.is_omitted_zero() => return visitor.visit_none(),
            Node::Array(values) if values.is_empty() && empty("Vec") => {
                return visitor.visit_none();
            }
            Node::Object(entries) if entries.is_empty() && empty("BTreeMap") => {
                return visitor.visit_none();
            }
            _ => {}
        }
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        match (name, &self.node) {
            ("Quantity", Node::Number(number)) => {
                let text = canonical_quantity(&number.to_string())?;
                visitor
                    .visit_newtype_struct::<StringDeserializer<Failure>>(text.into_deserializer())
            }
            ("Quantity", Node::Null) => {
                let zero: StringDeserializer<Failure> = "0".to_owned().into_deserializer();
                visitor.visit_newtype_struct(zero)
            }
            ("Quantity", Node::String(_)) => self.expect_canonical(visitor, canonical_quantity),
            ("Quantity", _) => Err(Failure::Other(quantity::ParseError::Format.to_string())),
            ("Time" | "MicroTime", Node::Null) => {
                let zero: StringDeserializer<Failure> = ZERO_TIME.to_owned().into_deserializer();
                visitor.visit_newtype_struct(zero)
            }
            ("Time", _) => self.expect_canonical(visitor, |text| {
                canonical_time(text, false, "%Y-%m-%dT%H:%M:%SZ")
            }),
            ("MicroTime", _) => self.expect_canonical(visitor, |text| {
                canonical_time(text, true, "%Y-%m-%dT%H:%M:%S%.6fZ")
            }),
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.expect_object(name, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.expect_object("", visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.expect_array(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.node {
            Node::Bool(value) => visitor.visit_bool(value),
            Node::Null => visitor.visit_bool(false),
            _ => Err(self.mismatch::<V::Value>(self.node.type_name())),
        }
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.expect_number(visitor)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.expect_number(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.expect_number(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.expect_string(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.expect_string(visitor)
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i128 u8 u16 u32 u64 u128 f32 char bytes byte_buf unit unit_struct tuple
        tuple_struct enum identifier
    }
}
