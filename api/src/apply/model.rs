//! What the schema says of a value: whether it is owned whole or by its parts, and which.

use std::{borrow::Cow, collections::HashMap, sync::LazyLock};

use serde_json::{Map, Value};

use super::element::PathElement;
use crate::{
    kinds,
    schema::{self, Field, Merge, Presence, Shape, Type, ValueType},
};

/// What a value is for server-side apply.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    form: Form,
    is_atomic: bool,
}

/// The form of a value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    Scalar(Scalar),
    /// Anything, owned whole.
    Any,
    /// Anything; objects are owned by their parts.
    Deduced,
    Record(&'static Type),
    /// A map from strings to the values of the field.
    Map(&'static Field),
    List(&'static Field),
}

/// What a scalar may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    Numeric,
    String,
    Boolean,
    /// Any of them.
    Untyped,
}

/// How the items of a list are told apart.
#[derive(Clone, Copy, Debug)]
pub(super) enum Items {
    Set,
    Keyed(&'static [&'static str]),
}

/// Why an item of a list cannot be told from the others.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ItemError {
    #[error("associative list with keys may not have a null element")]
    NullRecord,
    #[error("associative list with keys may not have non-map elements")]
    NoRecord,
    #[error(
        "associative list with keys has an element that omits all key fields {0} (and doesn't have default values for any key fields)"
    )]
    NoKeys(String),
    #[error("associative list without keys has an element that's a map type")]
    RecordInSet,
    #[error("not supported: associative list with lists as elements")]
    ListInSet,
    #[error("associative list without keys has an element that's an explicit null")]
    NullInSet,
}

impl Model {
    /// An object of this type.
    pub fn of_type(of: &'static Type) -> Self {
        Model {
            form: Form::Record(of),
            is_atomic: of.is_atomic,
        }
    }

    /// An object of a kind without a schema: every object in it is owned by its parts, every
    /// list whole.
    pub fn deduced() -> Self {
        Model {
            form: Form::Deduced,
            is_atomic: false,
        }
    }

    /// The value of a field.
    pub fn of_field(field: &'static Field) -> Self {
        match field.shape {
            Shape::One => {
                let mut one = Model::of_one(field);
                match field.merge {
                    Merge::Atomic => one.is_atomic = true,
                    Merge::Granular => one.is_atomic = false,
                    _ => {}
                }
                one
            }
            Shape::List => Model {
                form: Form::List(field),
                is_atomic: !matches!(field.merge, Merge::Set | Merge::Map(_)),
            },
            Shape::Map | Shape::MapOfLists => Model {
                form: Form::Map(field),
                is_atomic: field.merge == Merge::Atomic,
            },
        }
    }

    /// One of the values of a field.
    fn of_one(field: &'static Field) -> Self {
        let scalar = |scalar| Model {
            form: Form::Scalar(scalar),
            is_atomic: true,
        };
        match field.value_type() {
            ValueType::Object(of) => Model::of_type(of),
            ValueType::String | ValueType::Bytes => scalar(Scalar::String),
            ValueType::Int32 | ValueType::Int64 | ValueType::Double => scalar(Scalar::Numeric),
            ValueType::Bool => scalar(Scalar::Boolean),
            ValueType::Quantity
            | ValueType::Time
            | ValueType::MicroTime
            | ValueType::Duration
            | ValueType::IntOrString => scalar(Scalar::Untyped),
            ValueType::FieldsV1 => Model::deduced(),
            ValueType::RawExtension
            | ValueType::Json
            | ValueType::JsonSchemaPropsOrArray
            | ValueType::JsonSchemaPropsOrBool
            | ValueType::JsonSchemaPropsOrStringArray => Model {
                form: Form::Any,
                is_atomic: true,
            },
        }
    }

    /// An object before anything in it was set; `None` for what has no schema.
    pub fn empty(self) -> Option<Cow<'static, Value>> {
        let Form::Record(of) = self.form else {
            return None;
        };
        Some(match EMPTY_OBJECTS.get(of.name) {
            Some(empty) => Cow::Borrowed(empty),
            None => Cow::Owned(empty_object(of)),
        })
    }

    pub(super) fn form(self) -> Form {
        self.form
    }

    /// Whether nothing in the value is owned on its own.
    pub(super) fn is_leaf(self) -> bool {
        self.is_atomic || matches!(self.form, Form::Scalar(_) | Form::Any)
    }

    /// Whether the value is an atomic list or object, rather than a scalar.
    pub(super) fn is_atomic_container(self) -> bool {
        self.is_atomic && matches!(self.form, Form::Record(_) | Form::Map(_) | Form::List(_))
    }

    /// What a field of the value is; `None` when there is no such field. The name comes back as
    /// the schema has it.
    pub(super) fn field(self, name: &str) -> Option<(Cow<'static, str>, Model)> {
        match self.form {
            Form::Record(of) => match (of.field(name), name) {
                (Some(field), _) => Some((Cow::Borrowed(field.name), Model::of_field(field))),
                (None, "apiVersion") if is_kind(of) => Some((Cow::Borrowed("apiVersion"), TEXT)),
                (None, "kind") if is_kind(of) => Some((Cow::Borrowed("kind"), TEXT)),
                (None, _) => None,
            },
            Form::Map(field) => Some((Cow::Owned(name.to_owned()), map_item(field))),
            Form::Deduced => Some((Cow::Owned(name.to_owned()), Model::deduced())),
            Form::Scalar(_) | Form::Any | Form::List(_) => None,
        }
    }

    /// The fields that upstream writes as null when they are not set: to remove such a field is to
    /// set it to null.
    pub(super) fn nulls(self) -> &'static [&'static str] {
        match self.form {
            Form::Record(of) => NULLS.get(of.name).map_or(&[], Vec::as_slice),
            _ => &[],
        }
    }

    /// Whether the field is one of a record, rather than a key of a map.
    pub(super) fn is_named_field(self, name: &str) -> bool {
        matches!(self.form, Form::Record(of) if of.field(name).is_some())
    }

    /// What an item of the list is.
    pub(super) fn item(self) -> Model {
        match self.form {
            Form::List(field) => Model::of_one(field),
            _ => Model::deduced(),
        }
    }

    /// What is at `element` of the value.
    pub(super) fn at(self, element: &PathElement) -> Option<Model> {
        match element {
            PathElement::Field(name) => self.field(name).map(|(_, model)| model),
            _ if matches!(self.form, Form::List(_)) => Some(self.item()),
            _ => None,
        }
    }

    /// How the list's items are told apart; `None` for one that is owned whole, and for all
    /// that is no list.
    pub(super) fn items(self) -> Option<Items> {
        match self.form {
            Form::List(field) if !self.is_atomic => match field.merge {
                Merge::Map(keys) => Some(Items::Keyed(keys)),
                _ => Some(Items::Set),
            },
            _ => None,
        }
    }

    /// The element that tells an item of the list from the others.
    pub(super) fn element_of(self, items: Items, item: &Value) -> Result<PathElement, ItemError> {
        match (items, item) {
            (Items::Set, Value::Object(_)) => Err(ItemError::RecordInSet),
            (Items::Set, Value::Array(_)) => Err(ItemError::ListInSet),
            (Items::Set, Value::Null) => Err(ItemError::NullInSet),
            (Items::Set, scalar) => Ok(PathElement::Value(scalar.clone())),
            (Items::Keyed(names), Value::Object(item)) => self.keys_of(names, item),
            (Items::Keyed(_), Value::Null) => Err(ItemError::NullRecord),
            (Items::Keyed(_), _) => Err(ItemError::NoRecord),
        }
    }

    fn keys_of(
        self,
        names: &'static [&'static str],
        item: &Map<String, Value>,
    ) -> Result<PathElement, ItemError> {
        let mut keys = Vec::with_capacity(names.len());
        for &name in names {
            let value = item.get(name).cloned().or_else(|| self.default_key(name));
            if let Some(value) = value {
                keys.push((Cow::Borrowed(name), value));
            }
        }
        if keys.is_empty() {
            let names: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
            return Err(ItemError::NoKeys(format!("[{}]", names.join(" "))));
        }
        Ok(PathElement::key(keys))
    }

    /// What stands for a key that an item lacks.
    fn default_key(self, name: &str) -> Option<Value> {
        let Form::List(list) = self.form else {
            return None;
        };
        let field = list.object()?.field(name)?;
        match field.default {
            Some(default) => serde_json::from_str(default).ok(),
            None if field.presence == Presence::Always => zero(field),
            None => None,
        }
    }
}

const TEXT: Model = Model {
    form: Form::Scalar(Scalar::String),
    is_atomic: true,
};

/// The objects of each kind before anything in them was set, by the name of their type.
static EMPTY_OBJECTS: LazyLock<HashMap<&'static str, Value>> = LazyLock::new(|| {
    let kinds = kinds::builtin().iter();
    kinds
        .filter_map(|kind| schema::of_kind(&kind.group, &kind.version, &kind.kind))
        .chain(schema::of_kind("autoscaling", "v1", "Scale"))
        .map(|of| (of.name, empty_object(of)))
        .collect()
});

/// See [`Model::nulls`], by the name of the type.
static NULLS: LazyLock<HashMap<&'static str, Vec<&'static str>>> = LazyLock::new(|| {
    let mut nulls = HashMap::new();
    for of in schema::types() {
        let mut names = Vec::new();
        of.for_each_field(&mut |field| {
            if is_null_when_unset(field) {
                names.push(field.name);
            }
        });
        if !names.is_empty() {
            nulls.insert(of.name, names);
        }
    }
    nulls
});

fn is_null_when_unset(field: &Field) -> bool {
    let is_time = matches!(field.value_type(), ValueType::Time | ValueType::MicroTime);
    match field.presence {
        Presence::Always => zero(field) == Some(Value::Null),
        // Go's encoder does not leave out a time that is no pointer.
        Presence::Omitted => {
            is_time && field.shape == Shape::One && field.name != "creationTimestamp"
        }
        Presence::Pointer | Presence::Value => false,
    }
}

/// Whether objects of the type say their version and kind, which the tables do not list.
fn is_kind(of: &'static Type) -> bool {
    EMPTY_OBJECTS.contains_key(of.name)
}

/// The items of a map.
fn map_item(field: &'static Field) -> Model {
    match field.shape {
        Shape::MapOfLists => Model {
            form: Form::List(field),
            is_atomic: true,
        },
        _ => Model::of_one(field),
    }
}

/// The zero value of a field that is there even when it is zero.
fn zero(field: &Field) -> Option<Value> {
    if field.shape != Shape::One {
        return Some(Value::Null);
    }
    Some(match field.value_type() {
        ValueType::String => Value::from(""),
        ValueType::Int32 | ValueType::Int64 | ValueType::Double => Value::from(0),
        ValueType::Bool => Value::from(false),
        _ => Value::Null,
    })
}

/// An object of the type with only the fields that are written even when they are not set.
fn empty_object(of: &'static Type) -> Value {
    let mut object = Map::new();
    of.for_each_field(&mut |field| {
        let value = match field.presence {
            Presence::Always => zero(field),
            Presence::Value => field.object().map(empty_object),
            Presence::Omitted | Presence::Pointer => None,
        };
        if let Some(value) = value {
            object.insert(field.name.to_owned(), value);
        }
    });
    Value::Object(object)
}
