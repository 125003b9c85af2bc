//! An object with what a configuration says put into it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Map, Value};

use super::{
    element::PathElement,
    model::{Form, ItemError, Items, Model},
};

/// Puts `config` into `live`: values that are owned whole are replaced, items of sets and of
/// keyed lists are added or merged. Nothing is removed.
///
/// # Errors
/// An item of a list cannot be told from the others.
pub fn merge(model: Model, live: &Value, config: &Value) -> Result<Value, ItemError> {
    if model.is_leaf() {
        return Ok(config.clone());
    }
    match (model.form(), live, config) {
        (Form::List(_), Value::Array(old), Value::Array(new)) if !old.is_empty() => {
            match model.items() {
                Some(items) => merge_lists(model, items, old, new),
                None => Ok(config.clone()),
            }
        }
        // An empty list or object says nothing of the items that there are.
        (Form::List(_), Value::Array(old), Value::Null) if !old.is_empty() => Ok(live.clone()),
        (Form::Record(_) | Form::Map(_), Value::Object(old), Value::Null) if !old.is_empty() => {
            Ok(live.clone())
        }
        (
            Form::Record(_) | Form::Map(_) | Form::Deduced,
            Value::Object(old),
            Value::Object(new),
        ) => merge_maps(model, old, new),
        _ => Ok(config.clone()),
    }
}

fn merge_maps(
    model: Model,
    live: &Map<String, Value>,
    config: &Map<String, Value>,
) -> Result<Value, ItemError> {
    let mut merged = live.clone();
    for (name, config) in config {
        let value = match (live.get(name), model.field(name)) {
            (Some(live), Some((_, of))) => merge(of, live, config)?,
            _ => config.clone(),
        };
        merged.insert(name.clone(), value);
    }
    Ok(Value::Object(merged))
}

/// Merges lists whose items are told apart.
///
/// The items of the configuration come in its order; those that only the object has stay where
/// they are between them, as far as the two orders agree.
fn merge_lists(
    model: Model,
    items: Items,
    live: &[Value],
    config: &[Value],
) -> Result<Value, ItemError> {
    let elements = |list: &[Value]| -> Result<Vec<PathElement>, ItemError> {
        list.iter()
            .map(|item| model.element_of(items, item))
            .collect()
    };
    let (old, new) = (elements(live)?, elements(config)?);
    let mut known: BTreeMap<&PathElement, Option<&Value>> = BTreeMap::new();
    for (element, item) in old.iter().zip(live) {
        known
            .entry(element)
            // Of items that are the same, none is the one to merge into.
            .and_modify(|known| *known = None)
            .or_insert(Some(item));
    }
    let wanted: BTreeSet<&PathElement> = new.iter().collect();
    let mut shared: VecDeque<&PathElement> = new
        .iter()
        .filter(|element| known.contains_key(element))
        .collect();
    let mut done: BTreeSet<&PathElement> = BTreeSet::new();
    let mut merged = Vec::with_capacity(old.len().max(new.len()));
    let combine = |at: usize| match known.get(&new[at]).copied().flatten() {
        Some(live) => merge(model.item(), live, &config[at]),
        None => Ok(config[at].clone()),
    };
    let (mut at_old, mut at_new) = (0, 0);
    while at_old < old.len() || at_new < new.len() {
        let matches = at_old < old.len() && old.get(at_old) == new.get(at_new);
        if let Some(element) = old.get(at_old).filter(|_| !matches) {
            if !wanted.contains(element) {
                merged.push(live[at_old].clone());
                at_old += 1;
                continue;
            }
            let is_next = shared.front().is_none_or(|next| *next == element);
            if at_new < new.len() && !is_next {
                at_old += 1;
                continue;
            }
            if done.contains(element) {
                at_old += 1;
            }
        }
        let Some(element) = new.get(at_new) else {
            continue;
        };
        merged.push(combine(at_new)?);
        done.insert(element);
        if matches {
            at_old += 1;
        }
        if shared.front() == Some(&element) {
            shared.pop_front();
        }
        at_new += 1;
    }
    Ok(Value::Array(merged))
}
