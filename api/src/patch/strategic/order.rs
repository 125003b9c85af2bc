//! In which order the items of a merged list stand.
//!
//! The items that the client knows stand in its order; the items that only the server knows keep
//! their order among themselves, and their place before the items they stood before.

use serde_json::Value;

use super::{
    DIRECTIVE, Object, PatchError, SET_ORDER, Schema,
    list::{self, object},
    malformed, no_merge_key, without_directives,
};
use crate::go_print;

/// Acts on every `$setElementOrder/<list>` of the patch, and takes it and the list out of it.
pub(super) fn set_orders(
    original: &mut Object,
    patch: &mut Object,
    schema: Schema,
) -> Result<(), PatchError> {
    let directives: Vec<String> = patch
        .keys()
        .filter(|key| key.starts_with("$setElementOrder"))
        .cloned()
        .collect();
    for directive in directives {
        let order = patch.remove(&directive).unwrap_or_default();
        let key = directive
            .strip_prefix(SET_ORDER)
            .ok_or_else(|| malformed("setElementOrder list"))?;
        set_order(original, patch, key, order, schema)?;
    }
    Ok(())
}

fn set_order(
    original: &mut Object,
    patch: &mut Object,
    key: &str,
    order: Value,
    schema: Schema,
) -> Result<(), PatchError> {
    let order = array(order)?;
    let current = original.get(key).cloned().map(array).transpose()?;
    let patched = patch.get(key).cloned().map(array).transpose()?;
    let lookup = schema.lookup(key)?;
    if !lookup.is_list {
        return Err(PatchError::Other(
            "expected slice or array type, but got: struct".to_owned(),
        ));
    }
    check_order(
        patched.as_deref().unwrap_or_default(),
        &order,
        lookup.merge_key,
    )?;
    let server_order = current.clone().unwrap_or_default();
    let merged = match (current, patched) {
        (None, None) => return Ok(()),
        (Some(current), None) => current,
        (None, Some(patched)) => patched.into_iter().filter_map(without_directives).collect(),
        (Some(current), Some(patched)) if lookup.merge => list::merge(current, patched, &lookup)?,
        (Some(_), Some(patched)) => patched,
    };
    patch.remove(key);
    if merged.is_empty() {
        original.insert(key.to_owned(), Value::Array(merged));
        return Ok(());
    }
    let ordered = normalize(merged, &order, &server_order, lookup.merge_key)?;
    original.insert(key.to_owned(), Value::Array(ordered));
    Ok(())
}

fn array(value: Value) -> Result<Vec<Value>, PatchError> {
    match value {
        Value::Array(items) => Ok(items),
        other => Err(PatchError::Other(format!(
            "expected a []interface {{}}, but received a {}",
            go_print::type_name(&other)
        ))),
    }
}

/// The items of the patch must come in the order that it sets.
fn check_order(
    patch: &[Value],
    order: &[Value],
    merge_key: Option<&str>,
) -> Result<(), PatchError> {
    if patch.is_empty() || order.is_empty() {
        return Ok(());
    }
    let is_delete = |item: &&Value| {
        merge_key.is_some() && item.get(DIRECTIVE).and_then(Value::as_str) == Some("delete")
    };
    let mut rest = order.iter();
    for item in patch.iter().filter(|item| !is_delete(item)) {
        if item.get(DIRECTIVE).is_some() {
            continue;
        }
        let identity = identity(item, merge_key)?;
        if !rest.any(|other| identity_or_null(other, merge_key) == identity) {
            let [patch, order] =
                [patch, order].map(|items| go_print::plain(&Value::Array(items.to_vec())));
            return Err(PatchError::Other(format!(
                "The order in patch list:\n{patch}\n doesn't match $setElementOrder list:\n{order}\n"
            )));
        }
    }
    Ok(())
}

/// What an item is told apart by: its merge key, or itself.
fn identity<'a>(item: &'a Value, merge_key: Option<&str>) -> Result<&'a Value, PatchError> {
    match merge_key {
        None => Ok(item),
        Some(key) => {
            let entries = object(item)?;
            entries.get(key).ok_or_else(|| no_merge_key(entries, key))
        }
    }
}

fn identity_or_null<'a>(item: &'a Value, merge_key: Option<&str>) -> &'a Value {
    match merge_key {
        None => item,
        Some(key) => item.get(key).unwrap_or(&Value::Null),
    }
}

/// Puts merged items in order: those that `order` names in its order, the others between them
/// as `server_order` has them.
pub(super) fn normalize(
    merged: Vec<Value>,
    order: &[Value],
    server_order: &[Value],
    merge_key: Option<&str>,
) -> Result<Vec<Value>, PatchError> {
    let position = |items: &[Value], item: &Value| {
        let identity = identity_or_null(item, merge_key);
        items
            .iter()
            .position(|other| identity_or_null(other, merge_key) == identity)
    };
    let (mut known, mut server_only) = (Vec::new(), Vec::new());
    for item in merged {
        identity(&item, merge_key)?;
        match position(order, &item) {
            Some(at) => known.push((at, item)),
            None => server_only.push((position(server_order, &item), item)),
        }
    }
    known.sort_by_key(|(at, _)| *at);
    server_only.sort_by_key(|(at, _)| at.unwrap_or(usize::MAX));
    let mut known = known.into_iter().map(|(_, item)| item).peekable();
    let mut server_only = server_only.into_iter().peekable();
    let mut ordered = Vec::new();
    loop {
        let from_server = match (server_only.peek(), known.peek()) {
            (None, None) => return Ok(ordered),
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some((Some(at), _)), Some(item)) => {
                position(server_order, item).is_some_and(|other| *at < other)
            }
            (Some((None, _)), Some(_)) => false,
        };
        ordered.extend(if from_server {
            server_only.next().map(|(_, item)| item)
        } else {
            known.next()
        });
    }
}
