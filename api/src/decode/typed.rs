//! A serde deserializer over a [`Node`] that knows where in the object it is.

use std::{any::type_name, borrow::Cow, collections::HashSet, fmt};

use jiff::Timestamp;
use serde::de::{
    self, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, SeqAccess, Visitor,
    value::{CowStrDeserializer, StringDeserializer},
};

use base64::Engine as _;

use super::{Context, go, names, node::Node};
use crate::{
    object::ZERO_TIME,
    quantity,
    schema::{Field, Presence, Shape, Type, ValueType},
};

/// Why decoding stopped, in Go's words.
#[derive(Debug)]
pub(super) struct Failure(String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl de::Error for Failure {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Failure(message.to_string())
    }

    fn invalid_value(unexpected: de::Unexpected<'_>, expected: &dyn Expected) -> Self {
        Failure(format!("invalid value: {unexpected}, expected {expected}"))
    }
}

/// Where a value stands.
pub(super) enum Path<'p> {
    Root,
    Field {
        parent: &'p Path<'p>,
        name: &'p str,
        /// The type that has the field; empty for a key of a map.
        of: &'static str,
        /// What the tables know of that type.
        known: Option<&'static Type>,
    },
    Index {
        parent: &'p Path<'p>,
        index: usize,
    },
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Index { parent, index } => write!(f, "{parent}[{index}]"),
            Path::Field { parent, name, .. } => match parent {
                Path::Root => f.write_str(name),
                parent => write!(f, "{parent}.{name}"),
            },
        }
    }
}

impl Path<'_> {
    /// `field PodSpec.spec.containers`, or `value` at the root: the innermost type, and the
    /// fields from the root down. Go counts neither indices nor keys of maps.
    fn go_target(&self) -> String {
        let (mut owner, mut fields) = ("", Vec::new());
        let mut path = self;
        loop {
            match path {
                Path::Root => break,
                Path::Index { parent, .. } => path = parent,
                Path::Field {
                    parent,
                    name,
                    of,
                    known,
                } => {
                    if !of.is_empty() {
                        fields.push(*name);
                        // Go counts the struct that a field is embedded with.
                        let embedded = known.and_then(|known| known.inlined_with(name));
                        fields.extend(embedded.map(Type::go_name));
                        owner = if owner.is_empty() { *of } else { owner };
                    }
                    path = parent;
                }
            }
        }
        if fields.is_empty() {
            return "value".to_owned();
        }
        fields.reverse();
        format!("struct field {owner}.{}", fields.join("."))
    }
}

/// A value that is to be read as some type.
pub(super) struct Typed<'p, 'de> {
    node: Node<'de>,
    path: &'p Path<'p>,
    context: &'p Context,
    known: Known,
}

/// What the tables say about a value; nothing where they know nothing.
#[derive(Clone, Copy, Default)]
struct Known {
    /// The type of the object that it is, or that its items are.
    of: Option<&'static Type>,
    /// The field that it is the value of.
    field: Option<&'static Field>,
}

impl Known {
    fn item(self) -> Self {
        Known {
            of: self.of,
            field: None,
        }
    }

    fn field(self, name: &str) -> Self {
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
        Failure(format!(
            "json: cannot unmarshal {value} into Go {} of type {}",
            self.path.go_target(),
            names::go_type(type_name::<T>())
        ))
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
        let bytes = go::base64(text).map_err(Failure)?;
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
            Node::Object(entries) => visitor.visit_map(Entries {
                duplicates: Duplicates::new(entries.len()),
                entries: entries.into_iter(),
                value: None,
                of,
                path: self.path,
                context: self.context,
                is_struct: !of.is_empty(),
                known: self.known,
                missing: None,
            }),
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
            return Err(self.mismatch::<String>(self.node.type_name()));
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
fn always_there(field: &Field) -> Option<Node<'static>> {
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
    quantity::canonical(text).map_err(|error| Failure(error.to_string()))
}

/// `format` is that of the stored text.
fn canonical_time(text: &str, micro: bool, format: &str) -> Result<String, Failure> {
    if let Some(error) = go::time_error(text, micro) {
        return Err(Failure(error));
    }
    let wrong = |error: jiff::Error| Failure(format!("parsing time {text:?}: {error}"));
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
            ("Quantity", _) => Err(Failure(quantity::ParseError::Format.to_string())),
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

struct Elements<'p, 'de> {
    values: std::vec::IntoIter<Node<'de>>,
    index: usize,
    path: &'p Path<'p>,
    context: &'p Context,
    known: Known,
}

impl<'de> SeqAccess<'de> for Elements<'_, 'de> {
    type Error = Failure;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Failure> {
        let Some(node) = self.values.next() else {
            return Ok(None);
        };
        let path = Path::Index {
            parent: self.path,
            index: self.index,
        };
        self.index += 1;
        let value = Typed {
            node,
            path: &path,
            context: self.context,
            known: self.known,
        };
        seed.deserialize(value).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.values.len())
    }
}

/// The keys that an object was found to have so far.
enum Duplicates<'de> {
    Few(Vec<Cow<'de, str>>),
    Many(HashSet<Cow<'de, str>>),
}

impl<'de> Duplicates<'de> {
    fn has(&self, key: &str) -> bool {
        match self {
            Duplicates::Few(keys) => keys.iter().any(|known| known == key),
            Duplicates::Many(keys) => keys.contains(key),
        }
    }

    fn new(keys: usize) -> Self {
        if keys <= 16 {
            Duplicates::Few(Vec::with_capacity(keys))
        } else {
            Duplicates::Many(HashSet::with_capacity(keys))
        }
    }

    /// Whether the key is there already.
    fn note(&mut self, key: Cow<'de, str>) -> bool {
        match self {
            Duplicates::Few(keys) => {
                let again = keys.contains(&key);
                if !again {
                    keys.push(key);
                }
                again
            }
            Duplicates::Many(keys) => !keys.insert(key),
        }
    }
}

struct Entries<'p, 'de> {
    entries: std::vec::IntoIter<(Cow<'de, str>, Node<'de>)>,
    duplicates: Duplicates<'de>,
    value: Option<(Cow<'de, str>, Node<'de>)>,
    of: &'static str,
    path: &'p Path<'p>,
    context: &'p Context,
    is_struct: bool,
    known: Known,
    /// What is added behind the entries, once that is known.
    missing: Option<std::vec::IntoIter<(Cow<'de, str>, Node<'de>)>>,
}

impl<'de> Entries<'_, 'de> {
    /// The next entry that was written.
    fn next_written(&mut self) -> Option<(Cow<'de, str>, Node<'de>)> {
        let (key, node) = self.entries.next()?;
        let is_empty = match &node {
            Node::Null => true,
            Node::String(text) => text.is_empty(),
            _ => false,
        };
        if is_empty && matches!(self.path, Path::Root) && matches!(&*key, "apiVersion" | "kind") {
            return self.next_written();
        }
        // Of an unknown field only that is told, and once.
        let is_known = !self.is_struct || self.knows(&key);
        if self.duplicates.note(key.clone()) && is_known {
            let path = Path::Field {
                parent: self.path,
                name: &key,
                of: self.of,
                known: self.known.of,
            };
            self.context
                .report(|| format!("duplicate field {:?}", path.to_string()));
        }
        Some((key, node))
    }

    fn knows(&self, key: &str) -> bool {
        let is_type = matches!(key, "apiVersion" | "kind") && matches!(self.path, Path::Root);
        is_type || self.known.of.is_none_or(|of| of.field(key).is_some())
    }

    /// The next field that was not written and that upstream encodes all the same.
    fn next_missing(&mut self) -> Option<(Cow<'de, str>, Node<'de>)> {
        let of = self.known.of.filter(|_| self.is_struct)?;
        let duplicates = &self.duplicates;
        let missing = self.missing.get_or_insert_with(|| {
            let mut missing = Vec::new();
            of.for_each_field(&mut |field| {
                if let Some(node) = always_there(field).filter(|_| !duplicates.has(field.name)) {
                    missing.push((Cow::Borrowed(field.name), node));
                }
            });
            missing.into_iter()
        });
        missing.next()
    }
}

impl<'de> MapAccess<'de> for Entries<'_, 'de> {
    type Error = Failure;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Failure> {
        let next = self.next_written().or_else(|| self.next_missing());
        let Some((key, node)) = next else {
            return Ok(None);
        };
        let name: CowStrDeserializer<'de, Failure> = key.clone().into_deserializer();
        self.value = Some((key, node));
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Failure> {
        let (key, node) = self
            .value
            .take()
            .ok_or_else(|| Failure("a value was read before its key".to_owned()))?;
        let path = Path::Field {
            parent: self.path,
            name: &key,
            of: self.of,
            known: self.known.of,
        };
        let known = if self.is_struct {
            self.known.field(&key)
        } else {
            self.known.item()
        };
        let stands_for_null = known.field.filter(|_| matches!(node, Node::Null));
        let node = stands_for_null.and_then(always_there).unwrap_or(node);
        seed.deserialize(Typed {
            node,
            path: &path,
            context: self.context,
            known,
        })
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.entries.len())
    }
}
