//! An object without some of its fields, or with no others.

use serde_json::{Map, Value};

use super::{
    element::PathElement,
    model::Model,
    set::{Node, Set},
};

/// What is done with the fields of a set.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Remove,
    Extract,
}

/// The object without these fields. What holds them stays, even when nothing is left in it.
pub fn remove_items(model: Model, object: &Value, fields: &Set) -> Value {
    walk(model, object, fields, Mode::Remove).unwrap_or(Value::Null)
}

/// The object with only these fields and what holds them.
pub fn extract_items(model: Model, object: &Value, fields: &Set) -> Value {
    walk(model, object, fields, Mode::Extract).unwrap_or(Value::Null)
}

/// `None`: nothing is left.
fn walk(model: Model, value: &Value, fields: &Set, mode: Mode) -> Option<Value> {
    if model.is_leaf() && !model.is_atomic_container() {
        return Some(value.clone());
    }
    let is_empty = match value {
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Null => true,
        _ => return Some(value.clone()),
    };
    if is_empty || model.is_atomic_container() {
        return (mode == Mode::Extract).then(|| value.clone());
    }
    match value {
        Value::Array(list) => match model.items() {
            Some(_) => walk_list(model, list, fields, mode),
            None => Some(value.clone()),
        },
        Value::Object(map) => walk_map(model, map, fields, mode),
        _ => None,
    }
}

fn walk_list(model: Model, list: &[Value], fields: &Set, mode: Mode) -> Option<Value> {
    let items = model.items()?;
    let mut kept = Vec::with_capacity(list.len());
    let mut touched = false;
    for item in list {
        let node = model
            .element_of(items, item)
            .ok()
            .and_then(|element| fields.get(&element));
        match (node, mode) {
            (None, Mode::Extract) => {}
            (None, Mode::Remove) => kept.push(item.clone()),
            (Some(node), Mode::Remove) if node.is_member => {}
            (Some(node), _) => {
                touched = true;
                kept.push(inner(model.item(), item, node, mode));
            }
        }
    }
    (!kept.is_empty() || touched && mode == Mode::Remove).then_some(Value::Array(kept))
}

fn walk_map(model: Model, map: &Map<String, Value>, fields: &Set, mode: Mode) -> Option<Value> {
    let mut kept = Map::new();
    let mut touched = false;
    for (name, value) in map {
        let field = model.field(name);
        let node = field
            .as_ref()
            .and_then(|(name, _)| fields.get(&PathElement::Field(name.clone())));
        let of = field.as_ref().map_or_else(Model::deduced, |(_, of)| *of);
        match (node, mode) {
            (None, Mode::Extract) => {}
            (None, Mode::Remove) => {
                kept.insert(name.clone(), value.clone());
            }
            (Some(node), Mode::Remove) if node.is_member => {}
            (Some(node), _) => {
                touched = true;
                kept.insert(name.clone(), inner(of, value, node, mode));
            }
        }
    }
    (!kept.is_empty() || touched && mode == Mode::Remove).then_some(Value::Object(kept))
}

/// A part in which something goes, or that alone stays. A field of which nothing is named
/// below is extracted whole.
fn inner(model: Model, value: &Value, node: &Node, mode: Mode) -> Value {
    if node.children.is_empty() {
        return value.clone();
    }
    walk(model, value, &node.children, mode).unwrap_or_else(|| match (mode, value) {
        (Mode::Remove, Value::Object(_)) => Value::Object(Map::new()),
        (Mode::Remove, Value::Array(_)) => Value::Array(Vec::new()),
        _ => Value::Null,
    })
}
