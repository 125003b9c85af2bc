//! Which fields a value has, and which differ between two values.
//!
//! Enter at [`fields_of`] and [`compare`].

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::{Map, Value};

use super::{
    element::PathElement,
    model::{Form, ItemError, Items, Model},
    set::{Node, Set},
};

/// What differs between two values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    pub added: Set,
    pub modified: Set,
    pub removed: Set,
}

impl Comparison {
    pub fn is_same(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }

    /// Each of the three sets through `filter`.
    pub fn filter(&self, filter: impl Fn(&Set) -> Set) -> Self {
        Comparison {
            added: filter(&self.added),
            modified: filter(&self.modified),
            removed: filter(&self.removed),
        }
    }
}

/// Every field that an object has.
///
/// # Errors
/// An item of a list cannot be told from the others.
pub fn fields_of(model: Model, object: &Value) -> Result<Set, ItemError> {
    Ok(fields(model, object)?.children)
}

fn fields(model: Model, value: &Value) -> Result<Node, ItemError> {
    let mut node = Node::default();
    match (model.form(), value) {
        _ if model.is_leaf() => node.is_member = true,
        (Form::Record(_) | Form::Map(_) | Form::Deduced, Value::Object(map)) => {
            for (name, value) in map {
                let Some((name, of)) = model.field(name) else {
                    continue;
                };
                let mut below = fields(of, value)?;
                let is_empty = matches!(value, Value::Object(map) if map.is_empty());
                if value.is_null() || is_empty || !model.is_named_field(&name) {
                    below.is_member = true;
                }
                node.children.put(PathElement::Field(name), below);
            }
        }
        (Form::Deduced, Value::Null) | (Form::Record(_) | Form::Map(_), _) => {}
        (Form::Deduced, _) => node.is_member = true,
        (Form::List(_), Value::Array(list)) => {
            let Some(items) = model.items() else {
                return Ok(Node::MEMBER);
            };
            for (element, found) in index(model, items, list)? {
                let mut below = match found[..] {
                    [one] => fields(model.item(), one)?,
                    // Items that are the same are owned together.
                    _ => Node::default(),
                };
                below.is_member = true;
                node.children.put(element, below);
            }
        }
        (Form::List(_) | Form::Scalar(_) | Form::Any, _) => {}
    }
    Ok(node)
}

/// The items of a list by what tells them apart.
fn index(
    model: Model,
    items: Items,
    list: &[Value],
) -> Result<BTreeMap<PathElement, Vec<&Value>>, ItemError> {
    let mut found: BTreeMap<PathElement, Vec<&Value>> = BTreeMap::new();
    for item in list {
        let element = model.element_of(items, item)?;
        found.entry(element).or_default().push(item);
    }
    Ok(found)
}

/// What was added, modified and removed from `old` to `new`.
///
/// # Errors
/// An item of a list cannot be told from the others.
pub fn compare(model: Model, old: &Value, new: &Value) -> Result<Comparison, ItemError> {
    let difference = both(model, old, new)?;
    Ok(Comparison {
        added: difference.added.children,
        modified: difference.modified.children,
        removed: difference.removed.children,
    })
}

#[derive(Default)]
struct Difference {
    added: Node,
    modified: Node,
    removed: Node,
}

impl Difference {
    fn modified() -> Self {
        Difference {
            modified: Node::MEMBER,
            ..Difference::default()
        }
    }

    /// Takes in what differs in a part.
    fn take(&mut self, element: PathElement, part: Self) {
        let is_in = [&part.added, &part.modified, &part.removed].map(|node| !node.is_empty());
        let count = is_in.iter().filter(|is_in| **is_in).count();
        let parts = [part.added, part.modified, part.removed];
        let sets = [&mut self.added, &mut self.modified, &mut self.removed];
        if count == 1 {
            // The common case needs no copy of the element.
            for (set, part) in sets.into_iter().zip(parts) {
                if !part.is_empty() {
                    return set.children.put(element, part);
                }
            }
        } else if count > 1 {
            for (set, part) in sets.into_iter().zip(parts) {
                set.children.put(element.clone(), part);
            }
        }
    }
}

fn parts(model: Model, old: Option<&Value>, new: Option<&Value>) -> Result<Difference, ItemError> {
    match (old, new) {
        (None, None) => Ok(Difference::default()),
        (Some(old), None) => Ok(Difference {
            removed: whole(model, old)?,
            ..Difference::default()
        }),
        (None, Some(new)) => Ok(Difference {
            added: whole(model, new)?,
            ..Difference::default()
        }),
        (Some(old), Some(new)) => both(model, old, new),
    }
}

fn both(model: Model, old: &Value, new: &Value) -> Result<Difference, ItemError> {
    let leaf = |is_same: bool| {
        Ok(if is_same {
            Difference::default()
        } else {
            Difference::modified()
        })
    };
    if model.is_leaf() {
        return leaf(same(old, new));
    }
    match model.form() {
        Form::List(_) => match (list(old), list(new)) {
            ([], []) => leaf(old == new),
            (old, new) => both_lists(model, old, new),
        },
        Form::Deduced if !old.is_object() && !new.is_object() => leaf(same(old, new)),
        _ => {
            let (old_map, new_map) = (map(old), map(new));
            if old_map.is_none_or(Map::is_empty) && new_map.is_none_or(Map::is_empty) {
                return leaf(old == new);
            }
            let mut difference = both_maps(model, old_map, new_map)?;
            let is_deduced = matches!(model.form(), Form::Deduced);
            if is_deduced && old.is_object() != new.is_object() {
                difference.modified.is_member = true;
            }
            Ok(difference)
        }
    }
}

fn both_maps(
    model: Model,
    old: Option<&Map<String, Value>>,
    new: Option<&Map<String, Value>>,
) -> Result<Difference, ItemError> {
    let mut difference = Difference::default();
    let of = |name: &String| model.field(name);
    let is_null = |name: &str| model.nulls().contains(&name);
    for (name, old) in old.into_iter().flatten() {
        let new = match new.map(|new| new.get(name)) {
            Some(None) if is_null(name) => Some(&Value::Null),
            new => new.flatten(),
        };
        if new == Some(old) {
            continue;
        }
        if let Some((name, model)) = of(name) {
            let part = parts(model, Some(old), new)?;
            difference.take(PathElement::Field(name), part);
        }
    }
    for (name, new) in new.into_iter().flatten() {
        if old.is_some_and(|old| old.contains_key(name)) {
            continue;
        }
        if let Some((name, model)) = of(name) {
            let old = old.filter(|_| is_null(&name)).map(|_| &Value::Null);
            let part = parts(model, old, Some(new))?;
            difference.take(PathElement::Field(name), part);
        }
    }
    Ok(difference)
}

fn both_lists(model: Model, old: &[Value], new: &[Value]) -> Result<Difference, ItemError> {
    let mut difference = Difference::default();
    if old == new {
        return Ok(difference);
    }
    let Some(items) = model.items() else {
        return Ok(Difference::modified());
    };
    let old = index(model, items, old)?;
    let mut new = index(model, items, new)?;
    let item = model.item();
    for (element, old) in old {
        let new = new.remove(&element).unwrap_or_default();
        let part = match (&old[..], &new[..]) {
            ([old], [new]) => both(item, old, new)?,
            ([old], []) => parts(item, Some(old), None)?,
            (_, []) => Difference {
                removed: Node::MEMBER,
                ..Difference::default()
            },
            // Of several items that are the same only all together are known.
            ([old], _) => Difference {
                added: Node::MEMBER,
                ..parts(item, Some(old), None)?
            },
            (_, [new]) => Difference {
                removed: Node::MEMBER,
                ..parts(item, None, Some(new))?
            },
            (old, new) if old == new => continue,
            _ => Difference::modified(),
        };
        difference.take(element, part);
    }
    for (element, new) in new {
        let part = match new[..] {
            [new] => parts(item, None, Some(new))?,
            _ => Difference {
                added: Node::MEMBER,
                ..Difference::default()
            },
        };
        difference.take(element, part);
    }
    Ok(difference)
}

/// A value that the other side lacks: it, and all in it.
fn whole(model: Model, value: &Value) -> Result<Node, ItemError> {
    let mut node = Node::MEMBER;
    if model.is_leaf() {
        return Ok(node);
    }
    match (model.form(), value) {
        (Form::Record(_) | Form::Map(_) | Form::Deduced, Value::Object(map)) => {
            for (name, value) in map {
                if let Some((name, of)) = model.field(name) {
                    node.children
                        .put(PathElement::Field(name), whole(of, value)?);
                }
            }
            for name in model.nulls() {
                if !map.contains_key(*name) {
                    let element = PathElement::Field(Cow::Borrowed(name));
                    node.children.put(element, Node::MEMBER);
                }
            }
        }
        (Form::List(_), Value::Array(list)) => {
            let Some(items) = model.items() else {
                return Ok(node);
            };
            for (element, found) in index(model, items, list)? {
                let below = match found[..] {
                    [one] => whole(model.item(), one)?,
                    _ => Node::MEMBER,
                };
                node.children.put(element, below);
            }
        }
        _ => {}
    }
    Ok(node)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn map(value: &Value) -> Option<&Map<String, Value>> {
    value.as_object()
}

/// Whether two values that are owned whole are the same: numbers by what they are.
pub(super) fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => {
            left == right || left.as_f64() == right.as_f64()
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(l, r)| same(l, r))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .all(|(name, l)| right.get(name).is_some_and(|r| same(l, r)))
        }
        (left, right) => left == right,
    }
}
