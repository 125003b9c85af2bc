//! Writing a status: only what differs from the one in the API goes over the wire, as a
//! strategic merge patch, so that what others write to the same object stands.

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::{Map, Value, json};

use crate::pods::spec::uid;

/// How the lists of a status are merged: by which key (the API's `patchMergeKey`). Others are
/// replaced as a whole.
const MERGED_LISTS: [(&str, &str); 3] =
    [("conditions", "type"), ("podIPs", "ip"), ("hostIPs", "ip")];

/// What became of writing a status.
#[derive(Debug)]
pub enum Written {
    /// There was nothing to write.
    Unchanged,
    /// The pod as it is in the API now.
    Changed(Box<Pod>),
    /// The pod is gone, or another one has its name.
    Gone,
}

/// Writes `status` to the API, where `pod` was last seen.
pub async fn patch(client: &Client, pod: &Pod, status: &PodStatus) -> Result<Written, kube::Error> {
    let before = pod.status.clone().unwrap_or_default();
    let Some(patch) = difference(&before, status) else {
        return Ok(Written::Unchanged);
    };
    let body = json!({ "metadata": { "uid": uid(pod) }, "status": patch });
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let result = api
        .patch_status(
            &pod.name_any(),
            &PatchParams::default(),
            &Patch::Strategic(body),
        )
        .await;
    match result {
        Ok(pod) => Ok(Written::Changed(Box::new(pod))),
        // A conflict tells that the identity in the patch is another's.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(Written::Gone),
        Err(error) => Err(error),
    }
}

/// The patch that makes `before` into `after`; `None` when they are the same.
fn difference(before: &PodStatus, after: &PodStatus) -> Option<Value> {
    let object = |status: &PodStatus| match serde_json::to_value(status) {
        Ok(Value::Object(object)) => object,
        _ => Map::new(),
    };
    let before = object(before);
    let after = object(after);
    let mut patch = Map::new();
    for (field, value) in &after {
        let old = before.get(field);
        if old == Some(value) {
            continue;
        }
        match MERGED_LISTS.iter().find(|(list, _)| list == field) {
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
    for gone in old
        .iter()
        .filter(|old| !new.iter().any(|item| same(old, item)))
    {
        items.push(json!({ "$patch": "delete", key: gone[key] }));
    }
    let order: Vec<Value> = new.iter().map(|item| json!({ key: item[key] })).collect();
    patch.insert(format!("$setElementOrder/{field}"), Value::Array(order));
    if !items.is_empty() {
        patch.insert(field.to_owned(), Value::Array(items));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(value: Value) -> PodStatus {
        serde_json::from_value(value).expect("a status")
    }

    #[test]
    fn equal_statuses_have_no_difference() {
        let status = status(json!({"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]}));
        assert_eq!(difference(&status, &status), None);
    }

    #[test]
    fn only_what_changed_is_written_and_what_is_gone_is_named() {
        let before = status(json!({
            "phase": "Pending", "reason": "r", "hostIP": "1.1.1.1",
            "conditions": [
                {"type": "Ready", "status": "False", "reason": "x"},
                {"type": "PodScheduled", "status": "True"},
            ],
            "podIPs": [{"ip": "10.0.0.1"}],
            "containerStatuses": [],
        }));
        let after = status(json!({
            "phase": "Running", "hostIP": "1.1.1.1",
            "conditions": [
                {"type": "PodScheduled", "status": "True"},
                {"type": "Ready", "status": "True"},
            ],
            "podIPs": [{"ip": "10.0.0.2"}],
            "containerStatuses": [],
        }));
        assert_eq!(
            difference(&before, &after),
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
