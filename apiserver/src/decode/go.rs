//! Go's words for the result of a strategic merge patch that is not of the kind's types.
//!
//! Upstream reads such a result from maps instead of JSON, and so says the same things otherwise.

use std::fmt::Write as _;

use coracle_api::strategy::Mismatch;
use serde_json::Value;

/// A value as Go prints it with `%+v`.
pub fn printed(value: &Value) -> String {
    let mut out = String::new();
    print(value, &mut out);
    out
}

fn print(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("<nil>"),
        Value::Bool(truth) => out.push_str(if *truth { "true" } else { "false" }),
        // Writing to a string cannot fail.
        Value::Number(number) => drop(write!(out, "{number}")),
        Value::String(text) => out.push_str(text),
        Value::Array(items) => {
            out.push('[');
            separated(items, out, print);
            out.push(']');
        }
        Value::Object(members) => {
            out.push_str("map[");
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_unstable_by_key(|(key, _)| *key);
            separated(sorted, out, |(key, value), out| {
                out.push_str(key);
                out.push(':');
                print(value, out);
            });
            out.push(']');
        }
    }
}

fn separated<T>(
    items: impl IntoIterator<Item = T>,
    out: &mut String,
    mut each: impl FnMut(T, &mut String),
) {
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(' ');
        }
        each(item, out);
    }
}

/// What a mismatch of types is told as for maps.
pub fn for_maps(mismatch: &Mismatch) -> String {
    let (value, of) = (mismatch.value.as_str(), mismatch.plain_type.as_str());
    if mismatch.reads_itself {
        return format!("json: cannot unmarshal {value} into Go value of type {of}");
    }
    let (kind, from) = match value.split(' ').next().unwrap_or(value) {
        "number" if value.contains('.') => ("float64", "float64"),
        "number" => ("int64", "int64"),
        "object" => ("map", "map[string]interface {}"),
        "array" => ("slice", "[]interface {}"),
        other => (other, other),
    };
    let number = |name: &str| name.starts_with("int") || name.starts_with("float");
    if of.starts_with("map[") {
        format!("cannot restore map from {kind}")
    } else if of.starts_with("[]") {
        format!("cannot restore slice from {kind}")
    } else if of == "string" || of == "bool" || number(of) {
        // What Go could convert, though JSON does not.
        if (number(from) && number(of)) || (from == "int64" && of == "string") {
            format!("cannot convert {from} to {}", mismatch.go_type)
        } else {
            format!("unrecognized type: {of}")
        }
    } else {
        format!("cannot restore struct from: {kind}")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_printed_as_by_go() {
        let value = json!({"b": [1, "x", null], "a": {"c": true}});
        assert_eq!(printed(&value), "map[a:map[c:true] b:[1 x <nil>]]");
    }

    #[test]
    fn mismatches_are_told_for_maps() {
        for (value, of, expected) in [
            (
                "string",
                "map[string]string",
                "cannot restore map from string",
            ),
            ("object", "[]v1.Container", "cannot restore slice from map"),
            ("array", "v1.PodSpec", "cannot restore struct from: slice"),
            ("number", "string", "cannot convert int64 to string"),
            ("number 1.5", "int32", "cannot convert float64 to int32"),
            ("bool", "string", "unrecognized type: string"),
        ] {
            let mismatch = Mismatch {
                value: value.to_owned(),
                target: "struct field PodSpec.spec.x".to_owned(),
                go_type: of.to_owned(),
                plain_type: of.to_owned(),
                reads_itself: false,
            };
            assert_eq!(for_maps(&mismatch), expected);
            let time = Mismatch {
                reads_itself: true,
                ..mismatch
            };
            let expected = format!("json: cannot unmarshal {value} into Go value of type {of}");
            assert_eq!(for_maps(&time), expected);
        }
    }
}
