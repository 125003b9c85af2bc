//! JSON merge patch (RFC 7386).

use serde_json::{Map, Value};

use super::{PatchError, not_a_map};
use crate::decode;

/// Applies a JSON merge patch. `problems` takes what strict decoding of the patch would refuse.
pub fn apply(
    mut document: Value,
    patch: &[u8],
    problems: &mut Vec<String>,
) -> Result<Value, PatchError> {
    let patch = decode::untyped(patch, problems)
        .map_err(|error| PatchError::Malformed(format!("error decoding patch: {error}")))?;
    let patch = match patch {
        Value::Object(patch) => patch,
        Value::Null => return Err(PatchError::Malformed("Invalid JSON Patch".to_owned())),
        other => {
            let error = not_a_map(&other);
            return Err(PatchError::Malformed(format!(
                "error decoding patch: {error}"
            )));
        }
    };
    match &mut document {
        Value::Object(entries) => merge(entries, patch),
        other => *other = pruned(Value::Object(patch)),
    }
    Ok(document)
}

fn merge(into: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (key, value) in patch {
        match (value, into.get_mut(&key)) {
            (Value::Null, _) => {
                into.remove(&key);
            }
            (Value::Object(patch), Some(Value::Object(entries))) => merge(entries, patch),
            (value, _) => {
                into.insert(key, pruned(value));
            }
        }
    }
}

/// Without the keys that are null: there is nothing that they could remove.
fn pruned(value: Value) -> Value {
    match value {
        Value::Object(entries) => entries
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key, pruned(value)))
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(items) => items.into_iter().map(pruned).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn patches_merge() {
        for (document, patch, expected) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": "b", "b": "c"}),
                json!({"a": null}),
                json!({"b": "c"}),
            ),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (
                json!({"a": [{"b": "c"}]}),
                json!({"a": [1]}),
                json!({"a": [1]}),
            ),
            (
                json!({}),
                json!({"a": {"bb": {"ccc": null}}}),
                json!({"a": {"bb": {}}}),
            ),
        ] {
            let result = apply(document, patch.to_string().as_bytes(), &mut Vec::new());
            assert_eq!(result, Ok(expected), "{patch}");
        }
    }

    #[test]
    fn what_is_no_object_is_malformed() {
        let result = apply(json!({}), b"[1]", &mut Vec::new());
        assert_eq!(
            result,
            Err(PatchError::Malformed(
                "error decoding patch: json: cannot unmarshal array into Go value of type \
                 map[string]interface {}"
                    .to_owned()
            ))
        );
    }
}
