//! Strategic merge patches: what differs between two states of an object, so that what others
//! write to the same object stands.

use serde_json::{Map, Value, json};

/// Lists that are merged item by item, and the field that tells items apart (the API's
/// `patchMergeKey`). Other lists are replaced as a whole.
pub type MergedLists = &'static [(&'static str, &'static str)];

/// The patch that makes `before` into `after`; `None` when they are the same.
pub fn difference(
    before: &Map<String, Value>,
    after: &Map<String, Value>,
    merged: MergedLists,
) -> Option<Value> {
    let mut patch = Map::new();
    for (field, value) in after {
        let old = before.get(field);
        if old == Some(value) {
            continue;
        }
        match merged.iter().find(|(list, _)| list == field) {
            Some((_, key)) => merge_list(field, key, old, value, &mut patch),
            None => {
                patch.insert(field.clone(), replacement(old, value));
            }
        }
    }
    for field in before.keys().filter(|field| !after.contains_key(*field)) {
        patch.insert(field.clone(), Value::Null);
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// An object in a patch is merged with the one that is there: what it lost has to be named.
fn replacement(old: Option<&Value>, new: &Value) -> Value {
    let (Some(Value::Object(old)), Value::Object(new)) = (old, new) else {
        return new.clone();
    };
    let mut patch = Map::new();
    for (field, value) in new {
        if old.get(field) != Some(value) {
            patch.insert(field.clone(), replacement(old.get(field), value));
        }
    }
    for field in old.keys().filter(|field| !new.contains_key(*field)) {
        patch.insert(field.clone(), Value::Null);
    }
    Value::Object(patch)
}

fn merge_list(
    field: &str,
    key: &str,
    old: Option<&Value>,
    new: &Value,
    patch: &mut Map<String, Value>,
) {
    let empty = Vec::new();
    let old = old.and_then(Value::as_array).unwrap_or(&empty);
    let new = new.as_array().unwrap_or(&empty);
    let same = |a: &&Value, b: &Value| a[key] == b[key];
    let mut items = Vec::new();
    for item in new {
        match old.iter().find(|old| same(old, item)) {
            Some(old) if old == item => {}
            Some(old) => {
                let mut changed = replacement(Some(old), item);
                changed[key] = item[key].clone();
                items.push(changed);
            }
            None => items.push(item.clone()),
        }
    }
    let gone = old
        .iter()
        .filter(|old| !new.iter().any(|item| same(old, item)));
    for gone in gone {
        items.push(json!({ "$patch": "delete", key: gone[key] }));
    }
    let order: Vec<Value> = new.iter().map(|item| json!({ key: item[key] })).collect();
    patch.insert(format!("$setElementOrder/{field}"), Value::Array(order));
    if !items.is_empty() {
        patch.insert(field.to_owned(), Value::Array(items));
    }
}

/// An object's fields; none when it is no object.
pub fn fields(value: &impl serde::Serialize) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(object)) => object,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTS: MergedLists = &[("conditions", "type"), ("podIPs", "ip")];

    fn of(before: &Value, after: &Value) -> Option<Value> {
        difference(&fields(before), &fields(after), LISTS)
    }

    #[test]
    fn equal_states_have_no_difference() {
        let status = json!({"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]});
        assert_eq!(of(&status, &status), None);
    }

    #[test]
    fn only_what_changed_is_written_and_what_is_gone_is_named() {
        let before = json!({
            "phase": "Pending", "reason": "r", "hostIP": "1.1.1.1",
            "conditions": [
                {"type": "Ready", "status": "False", "reason": "x"},
                {"type": "PodScheduled", "status": "True"},
            ],
            "podIPs": [{"ip": "10.0.0.1"}],
            "containerStatuses": [],
        });
        let after = json!({
            "phase": "Running", "hostIP": "1.1.1.1",
            "conditions": [
                {"type": "PodScheduled", "status": "True"},
                {"type": "Ready", "status": "True"},
            ],
            "podIPs": [{"ip": "10.0.0.2"}],
            "containerStatuses": [],
        });
        assert_eq!(
            of(&before, &after),
            Some(json!({
                "phase": "Running",
                "reason": null,
                "$setElementOrder/conditions": [{"type": "PodScheduled"}, {"type": "Ready"}],
                "conditions": [{"type": "Ready", "status": "True", "reason": null}],
                "$setElementOrder/podIPs": [{"ip": "10.0.0.2"}],
                "podIPs": [{"ip": "10.0.0.2"}, {"$patch": "delete", "ip": "10.0.0.1"}],
            }))
        );
    }
}
