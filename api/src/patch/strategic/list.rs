//! How a list merges: scalars as a set, objects by their merge key.

use serde_json::Value;

use super::{
    DIRECTIVE, Lookup, Object, PatchError, merge_object, no_merge_key, order, unknown_directive,
};
use crate::go_print;

/// Merges a list. What the patch does not name keeps its place.
pub(super) fn merge(
    original: Vec<Value>,
    patch: Vec<Value>,
    lookup: &Lookup,
) -> Result<Vec<Value>, PatchError> {
    if original.is_empty() && patch.is_empty() {
        return Ok(original);
    }
    if !is_list_of_objects(&original, &patch)? {
        let order = original.clone();
        let mut merged = original;
        for item in &patch {
            if !merged.contains(item) {
                merged.push(item.clone());
            }
        }
        return order::normalize(merged, &patch, &order, None);
    }
    let Some(key) = lookup.merge_key else {
        return Err(PatchError::Other(
            "cannot merge lists without merge key for struct".to_owned(),
        ));
    };
    let (mut merged, patch) = apply_directives(original, patch, key)?;
    let order = merged.clone();
    for item in &patch {
        merge_item(&mut merged, item, key, lookup)?;
    }
    order::normalize(merged, &patch, &order, Some(key))
}

/// # Errors
/// When the items are not all of one type, or are lists.
pub(super) fn is_list_of_objects(original: &[Value], patch: &[Value]) -> Result<bool, PatchError> {
    let mut items = original.iter().chain(patch);
    let Some(first) = items.next() else {
        return Err(PatchError::Other(
            "no elements in any of the given slices".to_owned(),
        ));
    };
    if first.is_array() {
        return Err(PatchError::DoesNotApply(
            "lists of lists are not supported".to_owned(),
        ));
    }
    let kind = std::mem::discriminant(first);
    if items.any(|item| std::mem::discriminant(item) != kind) {
        let [original, patch] =
            [original, patch].map(|items| go_print::plain(&Value::Array(items.to_vec())));
        return Err(PatchError::Other(format!(
            "list element types are not identical: [{original} {patch}]"
        )));
    }
    Ok(first.is_object())
}

/// Acts on the items that are directives; the other items of the patch remain.
fn apply_directives(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let mut items = Vec::with_capacity(patch.len());
    let mut replace = false;
    for item in patch {
        let Some(directive) = item.get(DIRECTIVE) else {
            items.push(item);
            continue;
        };
        let entries = object(&item)?;
        match directive.as_str() {
            Some("delete") => {
                let value = entries.get(key).ok_or_else(|| no_merge_key(entries, key))?;
                original.retain(|other| other.get(key) != Some(value));
            }
            Some("replace") => replace = true,
            Some("merge") => {
                return Err(PatchError::Other(
                    "merging lists cannot yet be specified in the patch".to_owned(),
                ));
            }
            _ => return Err(unknown_directive(directive, entries)),
        }
    }
    // With `replace`, what the patch holds is all there is.
    Ok(if replace {
        (items, Vec::new())
    } else {
        (original, items)
    })
}

fn merge_item(
    merged: &mut Vec<Value>,
    item: &Value,
    key: &str,
    lookup: &Lookup,
) -> Result<(), PatchError> {
    let patch = object(item)?;
    let value = patch.get(key).ok_or_else(|| no_merge_key(patch, key))?;
    match merged
        .iter_mut()
        .find(|other| other.get(key) == Some(value))
    {
        Some(Value::Object(original)) => {
            let original_item = std::mem::take(original);
            *original = merge_object(original_item, patch.clone(), lookup.schema)?;
        }
        _ => merged.push(item.clone()),
    }
    Ok(())
}

pub(super) fn object(item: &Value) -> Result<&Object, PatchError> {
    item.as_object().ok_or_else(|| {
        PatchError::Other(format!(
            "expected a map[string]interface {{}}, but received a {}",
            go_print::type_name(item)
        ))
    })
}
