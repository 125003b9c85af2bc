//! What is known of the built-in types beyond their fields: how a list merges, which scalars are
//! pointers upstream, the numbers of protobuf.
//!
//! Enter at [`of_rust_type`] with a Rust type or at [`of_kind`] with a kind. The tables are text
//! under `schema/`, made static data at compile time.

use std::{any::type_name, collections::HashMap, sync::LazyLock};

include!(concat!(env!("OUT_DIR"), "/schema.rs"));

/// A type of the API.
#[derive(Debug)]
pub struct Type {
    /// For example `core.v1.Container`.
    pub name: &'static str,
    /// For example `io.k8s.api.core.v1.Container`.
    pub openapi: &'static str,
    /// Server-side apply owns it as a whole.
    pub is_atomic: bool,
    /// Sorted by name; inlined ones are named `-`.
    fields: &'static [Field],
}

/// A field of a [`Type`].
#[derive(Debug)]
pub struct Field {
    /// As in JSON.
    pub name: &'static str,
    /// In protobuf.
    pub number: u32,
    pub shape: Shape,
    of: Of,
    pub presence: Presence,
    pub merge: Merge,
    pub strategy: PatchStrategy,
    /// The key by which a strategic merge patch finds an item of a list.
    pub merge_key: Option<&'static str>,
    /// In JSON its fields stand in the parent.
    pub is_inline: bool,
    /// The default that OpenAPI shows, as JSON.
    pub default: Option<&'static str>,
}

/// How many values a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    One,
    List,
    Map,
    MapOfLists,
}

/// When upstream encodes a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Unless it is zero: zero and absent are the same. An object: unless it is absent.
    Omitted,
    /// Even when it is zero.
    Always,
    /// Unless it is absent: zero and absent differ.
    Pointer,
    /// An object that is always there.
    Value,
}

/// How server-side apply merges a list or a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// A list is atomic, a map is granular.
    Unspecified,
    Atomic,
    Granular,
    Set,
    /// A list whose items are told apart by these keys.
    Map(&'static [&'static str]),
}

/// How a strategic merge patch merges a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatchStrategy {
    pub merge: bool,
    pub retain_keys: bool,
    pub replace: bool,
}

impl PatchStrategy {
    const NONE: Self = PatchStrategy {
        merge: false,
        retain_keys: false,
        replace: false,
    };
}

/// What a value is; see [`ValueType`].
#[derive(Clone, Copy, Debug)]
enum Of {
    /// The index in [`TYPES`].
    Type(usize),
    String,
    Int32,
    Int64,
    Bool,
    Double,
    Bytes,
    Quantity,
    Time,
    MicroTime,
    Duration,
    IntOrString,
    RawExtension,
    FieldsV1,
    Json,
    JsonSchemaPropsOrArray,
    JsonSchemaPropsOrBool,
    JsonSchemaPropsOrStringArray,
}

/// What one value of a field is.
#[derive(Clone, Copy, Debug)]
pub enum ValueType {
    Object(&'static Type),
    String,
    Int32,
    Int64,
    Bool,
    Double,
    /// Base64 in JSON.
    Bytes,
    Quantity,
    Time,
    MicroTime,
    /// Go's, such as `1m0.5s`.
    Duration,
    IntOrString,
    /// Any JSON object.
    RawExtension,
    /// Any JSON object.
    FieldsV1,
    /// Any JSON.
    Json,
    /// A schema, or a list of them.
    JsonSchemaPropsOrArray,
    /// A schema, or whether anything is allowed.
    JsonSchemaPropsOrBool,
    /// A schema, or names of properties.
    JsonSchemaPropsOrStringArray,
}

impl Type {
    /// The field of that name, inlined ones included.
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        match self.fields.binary_search_by(|field| field.name.cmp(name)) {
            Ok(index) if name != "-" => Some(&self.fields[index]),
            _ => self
                .fields
                .iter()
                .take_while(|field| field.name == "-")
                .find_map(|inlined| inlined.object()?.field(name)),
        }
    }

    /// `Container` of `core.v1.Container`.
    pub fn go_name(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }

    /// The type that is spread out in this one and has the field of that name.
    pub fn inlined_with(&self, name: &str) -> Option<&'static Type> {
        self.fields
            .iter()
            .take_while(|field| field.name == "-")
            .filter_map(Field::object)
            .find(|inlined| inlined.field(name).is_some())
    }

    /// Its own fields, sorted by name. Inlined ones come first and are named `-`.
    pub fn own_fields(&self) -> &'static [Field] {
        self.fields
    }

    /// Calls `visit` with every field as JSON has them.
    pub fn for_each_field(&self, visit: &mut impl FnMut(&'static Field)) {
        for field in self.fields {
            match field.object().filter(|_| field.is_inline) {
                Some(inlined) => inlined.for_each_field(visit),
                None => visit(field),
            }
        }
    }
}

impl Field {
    /// What each of its values is.
    pub fn value_type(&self) -> ValueType {
        match self.of {
            Of::Type(index) => ValueType::Object(&TYPES[index]),
            Of::String => ValueType::String,
            Of::Int32 => ValueType::Int32,
            Of::Int64 => ValueType::Int64,
            Of::Bool => ValueType::Bool,
            Of::Double => ValueType::Double,
            Of::Bytes => ValueType::Bytes,
            Of::Quantity => ValueType::Quantity,
            Of::Time => ValueType::Time,
            Of::MicroTime => ValueType::MicroTime,
            Of::Duration => ValueType::Duration,
            Of::IntOrString => ValueType::IntOrString,
            Of::RawExtension => ValueType::RawExtension,
            Of::FieldsV1 => ValueType::FieldsV1,
            Of::Json => ValueType::Json,
            Of::JsonSchemaPropsOrArray => ValueType::JsonSchemaPropsOrArray,
            Of::JsonSchemaPropsOrBool => ValueType::JsonSchemaPropsOrBool,
            Of::JsonSchemaPropsOrStringArray => ValueType::JsonSchemaPropsOrStringArray,
        }
    }

    /// The type of its values when they are objects.
    pub fn object(&self) -> Option<&'static Type> {
        match self.of {
            Of::Type(index) => Some(&TYPES[index]),
            _ => None,
        }
    }
}

/// Every type of the built-in kinds.
pub fn types() -> &'static [Type] {
    &TYPES
}

/// The type of that name: `core.v1.Container`.
pub fn named(name: &str) -> Option<&'static Type> {
    TYPES
        .binary_search_by(|of| of.name.cmp(name))
        .ok()
        .map(|index| &TYPES[index])
}

/// The type of a built-in kind.
pub fn of_kind(group: &str, version: &str, kind: &str) -> Option<&'static Type> {
    let folder = match group {
        "" => "core",
        "rbac.authorization.k8s.io" => "rbac",
        "flowcontrol.apiserver.k8s.io" => "flowcontrol",
        group => group.split('.').next().unwrap_or(group),
    };
    named(&format!("{folder}.{version}.{kind}"))
}

/// The type that is `T` in `k8s-openapi`.
pub fn of_rust_type<T>() -> Option<&'static Type> {
    static BY_RUST_PATH: LazyLock<HashMap<String, &'static Type>> =
        LazyLock::new(|| TYPES.iter().map(|of| (rust_path(of.name), of)).collect());
    let path: Vec<&str> = type_name::<T>().split("::").collect();
    let (name, modules) = path.split_last()?;
    // The module of a type is its name in snake case; the one before it, the version.
    let group = modules.get(..modules.len().checked_sub(1)?)?.join("::");
    let group = group.split_once("::")?.1.split_once("::")?.1;
    BY_RUST_PATH.get(&format!("{group}::{name}")).copied()
}

/// `core.v1.Container` as `api::core::v1::Container`, the path within `k8s-openapi`.
fn rust_path(name: &str) -> String {
    let mut parts = name.splitn(3, '.');
    let mut part = || parts.next().unwrap_or_default();
    let (group, version, name) = (part(), part(), part());
    let package = match group {
        "meta" => "apimachinery::pkg::apis::meta",
        "apiextensions" => "apiextensions_apiserver::pkg::apis::apiextensions",
        "apiregistration" => "kube_aggregator::pkg::apis::apiregistration",
        _ => return format!("api::{group}::{version}::{name}"),
    };
    format!("{package}::{version}::{name}")
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1 as core;

    use super::*;
    use crate::kinds;

    #[test]
    fn every_kind_has_a_type() {
        for kind in kinds::builtin() {
            let of = of_kind(&kind.group, &kind.version, &kind.kind);
            let metadata = of.and_then(|of| of.field("metadata"));
            assert!(metadata.is_some(), "{}", kind.kind);
        }
    }

    #[test]
    fn a_rust_type_finds_its_table() {
        assert_eq!(
            of_rust_type::<core::Container>().map(|of| of.name),
            Some("core.v1.Container")
        );
        assert_eq!(
            of_rust_type::<k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta>()
                .map(|of| of.openapi),
            Some("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")
        );
        assert!(of_rust_type::<String>().is_none());
    }

    #[test]
    fn facts_are_at_hand() {
        let container = named("core.v1.Container").unwrap();
        let ports = container.field("ports").unwrap();
        assert_eq!(ports.merge, Merge::Map(&["containerPort", "protocol"]));
        assert_eq!(ports.merge_key, Some("containerPort"));
        assert_eq!(ports.object().unwrap().name, "core.v1.ContainerPort");
        let volume = named("core.v1.Volume").unwrap();
        assert_eq!(volume.field("emptyDir").unwrap().number, 2);
        let event = named("core.v1.Event").unwrap();
        assert!(event.field("type").is_some() && event.field("eventTime").is_some());
        let spec = named("core.v1.PodSpec").unwrap();
        let automount = spec.field("automountServiceAccountToken").unwrap();
        assert_eq!(automount.presence, Presence::Pointer);
    }
}
