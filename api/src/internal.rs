//! Values as upstream's internal types show them in errors: all fields, by their names in Go and
//! in Go's order, null for what is not given.
//!
//! Enter at [`shown`] for a value in a message and at [`difference`] for what a change changed.
//! The types are in `internal/layouts.txt`, one per line: its name, then its fields as
//! `Name:type`. `=name` follows where JSON has another name for the field than `Name` with a small
//! first letter, `=!` where JSON has it in the parent, `?` follows the name of a field that is not
//! shown when it is empty. `<Type` stands for all fields of a type, which are in JSON either in
//! the same object or, `<Type=name`, in a field of it.

mod unified;

use std::{collections::HashMap, sync::LazyLock};

use serde::Serialize;
use serde_json::Value;

use crate::{
    check::IMMUTABLE,
    field::{BadValue, ErrorList, Path, value_of},
};

/// A value for a message. The type is as in the table, such as `PodSpec` or `[]PodIP`; null is
/// none of a structure.
pub fn shown(kind: &str, value: &impl Serialize) -> BadValue {
    match value_of(value) {
        Value::Null => BadValue::Value(Value::Null),
        value => typed(kind, &value, &Value::Null),
    }
}

/// A field of a type that an update may not change.
pub fn immutable<T: PartialEq + Serialize>(
    kind: &str,
    new: &T,
    old: &T,
    path: &Path,
    errors: &mut ErrorList,
) {
    if new != old {
        errors.push(path.invalid(shown(kind, new), IMMUTABLE));
    }
}

/// The lines in which two values of a type differ, with three lines around each, as upstream's
/// `diff.Diff` prints them.
pub fn difference(kind: &str, old: &impl Serialize, new: &impl Serialize) -> String {
    let printed = |value: Value| {
        let mut text = String::new();
        typed(kind, &value, &Value::Null).print_indented(&mut text);
        text
    };
    unified::diff(&printed(value_of(old)), &printed(value_of(new)))
}

struct Field {
    name: &'static str,
    omits_empty: bool,
    kind: &'static str,
    source: Source,
}

enum Source {
    Field(String),
    /// A field of the object that holds this one.
    Parent(String),
    /// The fields of another type, in the same object or in a field of it.
    Embedded(Option<&'static str>),
}

static LAYOUTS: LazyLock<HashMap<&'static str, Vec<Field>>> = LazyLock::new(|| {
    let layout = |line: &'static str| {
        let mut words = line.split(' ');
        let name = words.next().unwrap_or_default();
        (name, words.map(field).collect())
    };
    include_str!("internal/layouts.txt")
        .lines()
        .map(layout)
        .collect()
});

fn field(word: &'static str) -> Field {
    if let Some(embedded) = word.strip_prefix('<') {
        let (kind, place) = match embedded.split_once('=') {
            Some((kind, place)) => (kind, Some(place)),
            None => (embedded, None),
        };
        return Field {
            name: "",
            omits_empty: false,
            kind,
            source: Source::Embedded(place),
        };
    }
    let (name, rest) = word.split_once(':').unwrap_or((word, ""));
    let (kind, source) = match rest.split_once('=') {
        Some((kind, source)) => (kind, Some(source)),
        None => (rest, None),
    };
    let omits_empty = name.ends_with('?');
    let name = name.trim_end_matches('?');
    let source = match source {
        Some("!") => Source::Parent(with_small_first(name)),
        Some(source) => Source::Field(source.to_owned()),
        None => Source::Field(with_small_first(name)),
    };
    Field {
        name,
        omits_empty,
        kind,
        source,
    }
}

/// `HostPID` to `hostPID`.
fn with_small_first(name: &str) -> String {
    let mut letters = name.chars();
    letters
        .next()
        .into_iter()
        .flat_map(char::to_lowercase)
        .chain(letters)
        .collect()
}

fn structure(type_name: &str, value: &Value, parent: &Value) -> BadValue {
    let mut fields = Vec::new();
    add_fields(type_name, value, parent, &mut fields);
    BadValue::Struct(fields)
}

fn add_fields(
    type_name: &str,
    value: &Value,
    parent: &Value,
    out: &mut Vec<(&'static str, BadValue)>,
) {
    let fields = LAYOUTS.get(type_name);
    debug_assert!(fields.is_some(), "no layout of {type_name}");
    for field in fields.into_iter().flatten() {
        let given = match &field.source {
            Source::Embedded(place) => {
                let of = place.map_or(value, |place| &value[place]);
                add_fields(field.kind, of, value, out);
                continue;
            }
            Source::Field(name) => &value[name.as_str()],
            Source::Parent(name) => &parent[name.as_str()],
        };
        if field.omits_empty && is_empty(given) {
            continue;
        }
        out.push((field.name, typed(field.kind, given, value)));
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(is_set) => !is_set,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

fn typed(kind: &str, value: &Value, parent: &Value) -> BadValue {
    let (is_given, null) = (!value.is_null(), BadValue::Value(Value::Null));
    if let Some(item) = kind.strip_prefix("[]") {
        return match value {
            // What is empty here was mostly not given: the types do not tell.
            Value::Array(items) if !items.is_empty() => {
                BadValue::List(items.iter().map(|of| typed(item, of, value)).collect())
            }
            _ => null,
        };
    }
    if let Some(item) = kind.strip_prefix("{}") {
        return match value {
            Value::Object(entries) => BadValue::Map(
                entries
                    .iter()
                    .map(|(key, of)| (key.clone(), typed(item, of, value)))
                    .collect(),
            ),
            _ => null,
        };
    }
    if let Some(kind) = kind.strip_prefix('*') {
        return if is_given {
            typed(kind, value, parent)
        } else {
            null
        };
    }
    match kind {
        "string" | "number" | "bool" | "intstr" | "quantity" | "time" | "raw" | "bytes"
            if is_given =>
        {
            value.clone().into()
        }
        "string" => "".into(),
        "number" | "intstr" => 0.into(),
        "bool" => false.into(),
        "quantity" => "0".into(),
        "time" | "raw" | "bytes" => null,
        _ => structure(kind, value, parent),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_type_of_a_field_has_a_layout() {
        for field in LAYOUTS.values().flatten() {
            let kind = field.kind.trim_start_matches(['[', ']', '{', '}', '*']);
            let is_type = kind.starts_with(|c: char| c.is_ascii_uppercase());
            assert!(
                !is_type || LAYOUTS.contains_key(kind),
                "{} is a {kind}",
                field.name
            );
        }
    }

    #[test]
    fn a_difference_has_the_lines_around_it() {
        let claim = |mode: &str| json!({"accessModes": [mode], "resources": {"requests": {"storage": "1Gi"}}, "volumeName": "v"});
        let expected = "@@ -1,6 +1,6 @@\n {\n  \"AccessModes\": [\n-  \"ReadWriteOnce\"\n+  \
                        \"new\"\n  ],\n  \"Selector\": null,\n  \"Resources\": {\n";
        let actual = difference(
            "PersistentVolumeClaimSpec",
            &claim("ReadWriteOnce"),
            &claim("new"),
        );
        assert_eq!(actual, expected);
    }

    #[test]
    fn fields_are_where_upstream_has_them() {
        let spec = json!({"hostNetwork": true, "securityContext": {}, "containers": []});
        let BadValue::Struct(fields) = shown("PodSpec", &spec) else {
            panic!("a structure");
        };
        let context = fields.iter().find(|(name, _)| *name == "SecurityContext");
        let Some((_, BadValue::Struct(context))) = context else {
            panic!("a security context");
        };
        assert_eq!(context[0], ("HostNetwork", true.into()));
        assert_eq!(context[1], ("HostPID", false.into()));
    }
}
