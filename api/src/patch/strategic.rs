//! Strategic merge patch: a merge patch that knows which lists are sets and which are maps.
//!
//! Directives in the patch: `$patch: replace | delete | merge`, `$retainKeys`,
//! `$setElementOrder/<list>` and `$deleteFromPrimitiveList/<list>`.
//! Upstream: `k8s.io/apimachinery/pkg/util/strategicpatch`.

mod list;
mod order;

use serde_json::{Map, Value};

use super::{PatchError, not_a_map};
use crate::{
    go_print,
    schema::{Field, Shape, Type},
};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ORDER: &str = "$setElementOrder/";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList/";

type Object = Map<String, Value>;

/// Applies a strategic merge patch to an object of that type.
pub fn apply(document: Value, patch: Value, of: &'static Type) -> Result<Value, PatchError> {
    let patch = match patch {
        Value::Object(patch) => patch,
        Value::Null => Object::new(),
        other => return Err(PatchError::Malformed(not_a_map(&other))),
    };
    let Value::Object(document) = document else {
        return Err(PatchError::Malformed("invalid JSON document".to_owned()));
    };
    merge_object(document, patch, Schema::Object(of)).map(Value::Object)
}

/// What is known of the values of an object.
#[derive(Clone, Copy)]
enum Schema {
    Object(&'static Type),
    /// Any keys; the values have no fields that could merge.
    Map,
}

/// How one field of an object merges.
struct Lookup {
    /// Of the value, or of the items of a list.
    schema: Schema,
    merge: bool,
    replace: bool,
    merge_key: Option<&'static str>,
    is_list: bool,
}

impl Schema {
    fn lookup(self, key: &str) -> Result<Lookup, PatchError> {
        let Schema::Object(of) = self else {
            return Err(PatchError::Other(
                "merging an object in json but data type is not struct, instead is: map".to_owned(),
            ));
        };
        if let Some(field) = of.field(key) {
            return Ok(Lookup {
                schema: schema_of(field),
                merge: field.strategy.merge,
                replace: field.strategy.replace,
                merge_key: field.merge_key,
                is_list: field.shape == Shape::List,
            });
        }
        let name = of.name.rsplit('.').next().unwrap_or(of.name);
        Err(PatchError::Other(format!(
            "unable to find api field in struct {name} for the json field {key:?}"
        )))
    }
}

fn schema_of(field: &'static Field) -> Schema {
    match (field.shape, field.object()) {
        (Shape::One | Shape::List, Some(of)) => Schema::Object(of),
        _ => Schema::Map,
    }
}

fn malformed(list: &str) -> PatchError {
    PatchError::Malformed(format!("invalid patch format of {list}"))
}

fn no_merge_key(item: &Object, key: &str) -> PatchError {
    PatchError::Other(format!(
        "map: {} does not contain declared merge key: {key}",
        go_print::plain_map(item)
    ))
}

fn unknown_directive(directive: &Value, entries: &Object) -> PatchError {
    PatchError::Other(format!(
        "unknown patch type: {} in map: {}",
        go_print::text(directive),
        go_print::plain_map(entries)
    ))
}

fn merge_object(
    mut original: Object,
    mut patch: Object,
    schema: Schema,
) -> Result<Object, PatchError> {
    if let Some(directive) = patch.get(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => {
                patch.remove(DIRECTIVE);
                Ok(patch)
            }
            Some("delete") => Ok(Object::new()),
            _ => Err(unknown_directive(directive, &patch)),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    order::set_orders(&mut original, &mut patch, schema)?;
    for (key, value) in patch {
        match key.strip_prefix(DELETE_FROM_LIST) {
            Some(list) => delete_from_list(&mut original, list, value)?,
            None if key.starts_with("$deleteFromPrimitiveList") => {
                return Err(malformed("primitive list"));
            }
            None => merge_field(&mut original, key, value, schema)?,
        }
    }
    Ok(original)
}

fn merge_field(
    original: &mut Object,
    key: String,
    value: Value,
    schema: Schema,
) -> Result<(), PatchError> {
    match (original.remove(&key), value) {
        (_, Value::Null) => {}
        (Some(Value::Object(old)), Value::Object(new)) => {
            let lookup = schema.lookup(&key)?;
            let merged = if lookup.replace {
                new
            } else {
                merge_object(old, new, lookup.schema)?
            };
            original.insert(key, Value::Object(merged));
        }
        (Some(Value::Array(old)), Value::Array(new)) => {
            let lookup = schema.lookup(&key)?;
            let merged = if lookup.merge {
                list::merge(old, new, &lookup)?
            } else {
                new
            };
            original.insert(key, Value::Array(merged));
        }
        (_, value) => {
            let value = without_nulls(value);
            if let Some(value) = without_directives(value) {
                original.insert(key, value);
            }
        }
    }
    Ok(())
}

/// Drops what `$retainKeys` does not name.
fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), PatchError> {
    let Some(retained) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let Value::Array(retained) = retained else {
        return Err(malformed("retainKeys"));
    };
    let is_retained = |key: &str| retained.iter().any(|name| name.as_str() == Some(key));
    for (key, value) in patch.iter() {
        let is_directive =
            key.starts_with("$deleteFromPrimitiveList") || key.starts_with("$setElementOrder");
        if !value.is_null() && !is_directive && !is_retained(key) {
            return Err(malformed("retainKeys"));
        }
    }
    original.retain(|key, _| is_retained(key));
    Ok(())
}

fn delete_from_list(original: &mut Object, list: &str, value: Value) -> Result<(), PatchError> {
    match (original.get_mut(list), value) {
        (_, Value::Null) => {
            original.remove(list);
        }
        (Some(Value::Array(items)), Value::Array(deleted)) => {
            items.retain(|item| !deleted.contains(item));
        }
        _ => {}
    }
    Ok(())
}

/// Without the keys of objects that are null: there is nothing that they could remove.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(entries) => entries
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key, without_nulls(value)))
            .collect::<Object>()
            .into(),
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

/// Without the objects that have a `$patch`: there is nothing that it could act on.
fn without_directives(value: Value) -> Option<Value> {
    Some(match value {
        Value::Object(entries) if entries.contains_key(DIRECTIVE) => return None,
        Value::Object(entries) => entries
            .into_iter()
            .filter_map(|(key, value)| Some((key, without_directives(value)?)))
            .collect::<Object>()
            .into(),
        Value::Array(items) => items.into_iter().filter_map(without_directives).collect(),
        other => other,
    })
}

#[cfg(test)]
mod tests;
