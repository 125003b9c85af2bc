//! JSON patch (RFC 6902) as upstream's library applies it: `replace` does not ask whether the key
//! is there, and an index may count from the end.

use serde_json::{Map, Value};

use super::PatchError;
use crate::decode;

/// Upstream's limit.
const MAX_OPERATIONS: usize = 10_000;

/// Applies a JSON patch. `problems` takes what strict decoding of the patch would refuse.
pub fn apply(
    mut document: Value,
    patch: &[u8],
    problems: &mut Vec<String>,
) -> Result<Value, PatchError> {
    let operations = read(patch, problems)?;
    if operations.len() > MAX_OPERATIONS {
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            operations.len()
        )));
    }
    for operation in &operations {
        apply_one(&mut document, operation).map_err(PatchError::DoesNotApply)?;
    }
    Ok(document)
}

fn read(patch: &[u8], problems: &mut Vec<String>) -> Result<Vec<Map<String, Value>>, PatchError> {
    let mut found = Vec::new();
    let patch = decode::untyped(patch, &mut found)
        .map_err(|error| PatchError::Malformed(format!("error decoding patch: {error}")))?;
    let patch = match patch {
        Value::Null => Value::Array(Vec::new()),
        patch => patch,
    };
    let wrong = |value: &Value, of: &str| {
        PatchError::Malformed(format!(
            "error decoding patch: json: cannot unmarshal {} into Go value of type {of}",
            type_name(value)
        ))
    };
    let Value::Array(items) = patch else {
        return Err(wrong(&patch, "[]handlers.jsonPatchOp"));
    };
    let mut operations = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let operation = match item {
            Value::Object(operation) => operation,
            Value::Null => Map::new(),
            item => return Err(wrong(&item, "handlers.jsonPatchOp")),
        };
        for name in ["from", "op", "path"] {
            let value = operation.get(name).unwrap_or(&Value::Null);
            if !value.is_string() && !value.is_null() {
                return Err(PatchError::Malformed(format!(
                    "error decoding patch: json: cannot unmarshal {} into Go struct field \
                     jsonPatchOp.{name} of type string",
                    type_name(value)
                )));
            }
        }
        let known = |name: &str| matches!(name, "op" | "path" | "from" | "value");
        for name in operation.keys().filter(|name| !known(name)) {
            found.push(format!("unknown field \"[{index}].{name}\""));
        }
        operations.push(operation);
    }
    // The operations are read one after the other.
    found.sort_by_key(|problem| {
        let index = problem.split(['[', ']']).nth(1);
        index.and_then(|index| index.parse::<usize>().ok())
    });
    problems.extend(
        found
            .into_iter()
            .map(|problem| format!("json patch {problem}")),
    );
    Ok(operations)
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

const MISSING: &str = "missing value";

fn text<'a>(operation: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    operation.get(name).and_then(Value::as_str)
}

fn apply_one(document: &mut Value, operation: &Map<String, Value>) -> Result<(), String> {
    let kind = text(operation, "op").unwrap_or("unknown");
    let path = |name: &str| {
        text(operation, name)
            .ok_or_else(|| format!("{kind} operation failed to decode {name}: {MISSING}"))
    };
    let value = || operation.get("value").cloned().unwrap_or_default();
    match kind {
        "add" => add(document, path("path")?, value()),
        "remove" => remove(document, path("path")?),
        "replace" => replace(document, path("path")?, value()),
        "move" => move_value(document, path("from")?, path("path")?),
        "copy" => copy(document, path("from")?, path("path")?),
        "test" => test(document, path("path")?, operation.get("value")),
        other => Err(format!("Unexpected kind: {other}")),
    }
}

/// The object or array that holds the last part of the path, and that part.
fn find<'a>(document: &'a mut Value, path: &str) -> Option<(&'a mut Value, String)> {
    let decode = |part: &str| part.replace("~1", "/").replace("~0", "~");
    let mut parts = path.split('/').skip(1);
    let mut part = parts.next()?;
    let mut holder = document;
    for next in parts {
        let key = decode(part);
        holder = match holder {
            Value::Object(entries) => entries.get_mut(&key)?,
            Value::Array(items) => {
                let index = index(&key, items.len()).ok()?;
                items.get_mut(index)?
            }
            _ => return None,
        };
        part = next;
    }
    matches!(holder, Value::Object(_) | Value::Array(_)).then(|| (holder, decode(part)))
}

/// An index of an array of that length; a negative one counts from the end.
fn index(key: &str, length: usize) -> Result<usize, String> {
    let number: i64 = key
        .parse()
        .map_err(|_| format!("strconv.Atoi: parsing {key:?}: invalid syntax"))?;
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let index = if number < 0 { number + length } else { number };
    usize::try_from(index)
        .ok()
        .filter(|_| index < length)
        .ok_or_else(|| {
            format!("Unable to access invalid index: {number}: invalid index referenced")
        })
}

fn add(document: &mut Value, path: &str, value: Value) -> Result<(), String> {
    let (holder, key) = find(document, path).ok_or_else(|| {
        format!("add operation does not apply: doc is missing path: \"{path}\": {MISSING}")
    })?;
    insert(holder, &key, value).map_err(|error| format!("error in add for path: '{path}': {error}"))
}

fn insert(holder: &mut Value, key: &str, value: Value) -> Result<(), String> {
    match holder {
        Value::Object(entries) => {
            entries.insert(key.to_owned(), value);
        }
        Value::Array(items) if key == "-" => items.push(value),
        Value::Array(items) => {
            if key.parse::<i64>().is_err() {
                return Err(format!(
                    "value was not a proper array index: '{key}': strconv.Atoi: parsing {key:?}: \
                     invalid syntax"
                ));
            }
            items.insert(index(key, items.len() + 1)?, value);
        }
        _ => {}
    }
    Ok(())
}

fn take(holder: &mut Value, key: &str) -> Result<Value, String> {
    match holder {
        Value::Object(entries) => entries
            .remove(key)
            .ok_or_else(|| format!("Unable to remove nonexistent key: {key}: {MISSING}")),
        Value::Array(items) => Ok(items.remove(index(key, items.len())?)),
        _ => Ok(Value::Null),
    }
}

fn remove(document: &mut Value, path: &str) -> Result<(), String> {
    let (holder, key) = find(document, path).ok_or_else(|| {
        format!("remove operation does not apply: doc is missing path: \"{path}\": {MISSING}")
    })?;
    take(holder, &key)
        .map(drop)
        .map_err(|error| format!("error in remove for path: '{path}': {error}"))
}

fn replace(document: &mut Value, path: &str, value: Value) -> Result<(), String> {
    if path.is_empty() {
        if !matches!(value, Value::Object(_) | Value::Array(_)) {
            return Err("replace operation value must be object or array: %!w(<nil>)".to_owned());
        }
        *document = value;
        return Ok(());
    }
    let (holder, key) = find(document, path).ok_or_else(|| {
        format!("replace operation does not apply: doc is missing path: {path}: {MISSING}")
    })?;
    match holder {
        Value::Object(entries) => {
            entries.insert(key, value);
        }
        Value::Array(items) => {
            let index = index(&key, items.len()).map_err(|_| {
                format!("replace operation does not apply: doc is missing key: {path}: {MISSING}")
            })?;
            items[index] = value;
        }
        _ => {}
    }
    Ok(())
}

/// The value itself; a key that an object does not have is null.
fn get(holder: &Value, key: &str) -> Result<Option<Value>, String> {
    Ok(match holder {
        Value::Object(entries) => entries.get(key).cloned(),
        Value::Array(items) => Some(items[index(key, items.len())?].clone()),
        _ => None,
    })
}

fn move_value(document: &mut Value, from: &str, path: &str) -> Result<(), String> {
    let (holder, key) = find(document, from).ok_or_else(|| {
        format!("move operation does not apply: doc is missing from path: {from}: {MISSING}")
    })?;
    let value =
        take(holder, &key).map_err(|error| format!("error in move for path: '{key}': {error}"))?;
    let (holder, key) = find(document, path).ok_or_else(|| {
        format!("move operation does not apply: doc is missing destination path: {path}: {MISSING}")
    })?;
    insert(holder, &key, value)
        .map_err(|error| format!("error in move for path: '{path}': {error}"))
}

fn copy(document: &mut Value, from: &str, path: &str) -> Result<(), String> {
    let (holder, key) = find(document, from).ok_or_else(|| {
        format!("copy operation does not apply: doc is missing from path: {from}: {MISSING}")
    })?;
    let value = get(holder, &key)
        .map_err(|error| format!("error in copy for from: '{from}': {error}"))?
        .unwrap_or_default();
    let (holder, key) = find(document, path).ok_or_else(|| {
        format!("copy operation does not apply: doc is missing destination path: {path}: {MISSING}")
    })?;
    insert(holder, &key, value)
        .map_err(|error| format!("error while adding value during copy: {error}"))
}

fn test(document: &mut Value, path: &str, expected: Option<&Value>) -> Result<(), String> {
    let expected = expected.unwrap_or(&Value::Null);
    let found = if path.is_empty() {
        document.clone()
    } else {
        let (holder, key) = find(document, path).ok_or_else(|| {
            format!("test operation does not apply: is missing path: {path}: {MISSING}")
        })?;
        get(holder, &key)
            .map_err(|error| format!("error in test for path: '{path}': {error}"))?
            .unwrap_or_default()
    };
    if found == *expected {
        Ok(())
    } else {
        Err(format!("testing value {path} failed: test failed"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(document: Value, patch: &Value) -> Result<Value, String> {
        apply(document, patch.to_string().as_bytes(), &mut Vec::new())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn operations_do_what_they_say() {
        let document = json!({"a": {"b/c": 1}, "l": [1, 2, 3]});
        for (patch, expected) in [
            (
                json!([{"op": "add", "path": "/a/d", "value": {"e": 1}}]),
                json!({"a": {"b/c": 1, "d": {"e": 1}}, "l": [1, 2, 3]}),
            ),
            (
                json!([{"op": "add", "path": "/l/-", "value": 4},
                       {"op": "add", "path": "/l/0", "value": 0}]),
                json!({"a": {"b/c": 1}, "l": [0, 1, 2, 3, 4]}),
            ),
            (
                json!([{"op": "remove", "path": "/l/-1"}, {"op": "remove", "path": "/a/b~1c"}]),
                json!({"a": {}, "l": [1, 2]}),
            ),
            (
                json!([{"op": "replace", "path": "/new", "value": 1}]),
                json!({"a": {"b/c": 1}, "l": [1, 2, 3], "new": 1}),
            ),
            (
                json!([{"op": "move", "from": "/a", "path": "/m"},
                       {"op": "copy", "from": "/l", "path": "/m/l"}]),
                json!({"l": [1, 2, 3], "m": {"b/c": 1, "l": [1, 2, 3]}}),
            ),
            (
                json!([{"op": "test", "path": "/none", "value": null},
                       {"op": "test", "path": "/l", "value": [1, 2, 3]}]),
                document.clone(),
            ),
        ] {
            assert_eq!(patched(document.clone(), &patch), Ok(expected), "{patch}");
        }
    }

    #[test]
    fn errors_are_upstreams() {
        for (patch, error) in [
            (
                json!([{"op": "test", "path": "/a", "value": 2}]),
                "testing value /a failed: test failed",
            ),
            (
                json!([{"op": "remove", "path": "/b"}]),
                "error in remove for path: '/b': Unable to remove nonexistent key: b: missing \
                 value",
            ),
            (
                json!([{"op": "add", "path": "/b/c", "value": 1}]),
                "add operation does not apply: doc is missing path: \"/b/c\": missing value",
            ),
            (
                json!([{"op": "replace", "path": "/l/7", "value": 1}]),
                "replace operation does not apply: doc is missing key: /l/7: missing value",
            ),
            (json!([{"op": "nop", "path": "/a"}]), "Unexpected kind: nop"),
            (
                json!({"a": 1}),
                "error decoding patch: json: cannot unmarshal object into Go value of type \
                 []handlers.jsonPatchOp",
            ),
            (
                json!([{"op": "add", "path": {}}]),
                "error decoding patch: json: cannot unmarshal object into Go struct field \
                 jsonPatchOp.path of type string",
            ),
            (
                json!([{"op": "test", "path": "/a", "value": 1, "from": 1}]),
                "error decoding patch: json: cannot unmarshal number into Go struct field \
                 jsonPatchOp.from of type string",
            ),
            (
                json!([5]),
                "error decoding patch: json: cannot unmarshal number into Go value of type \
                 handlers.jsonPatchOp",
            ),
            (json!([null]), "Unexpected kind: unknown"),
        ] {
            assert_eq!(
                patched(json!({"a": 1, "l": []}), &patch),
                Err(error.to_owned()),
                "{patch}"
            );
        }
    }

    #[test]
    fn strict_problems_are_told() {
        let mut problems = Vec::new();
        let patch = br#"[{"op": "add", "path": "/a", "path": "/b", "value": 1, "foo": 2}]"#;
        apply(json!({}), patch, &mut problems).unwrap();
        assert_eq!(
            problems,
            [
                "json patch duplicate field \"[0].path\"",
                "json patch unknown field \"[0].foo\""
            ]
        );
    }

    #[test]
    fn operations_are_limited() {
        let operation = json!({"op": "test", "path": "/a", "value": null});
        let patch = Value::from(vec![operation; MAX_OPERATIONS + 1]);
        assert_eq!(
            patched(json!({}), &patch),
            Err("The allowed maximum operations in a JSON patch is 10000, got 10001".to_owned())
        );
    }
}
