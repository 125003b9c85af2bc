//! How Go prints JSON values, where clients see it in upstream's messages.

use serde_json::{Map, Value};

/// The type that Go reads the value as.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// `%v`
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => list(items, plain),
        Value::Object(entries) => plain_map(entries),
        other => other.to_string(),
    }
}

/// `%v` of an object.
pub(crate) fn plain_map(entries: &Map<String, Value>) -> String {
    map(entries, plain)
}

/// `%s`, which tells of what is no text.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "%!s(<nil>)".to_owned(),
        Value::Bool(truth) => format!("%!s(bool={truth})"),
        Value::Number(number) => format!("%!s({}={number})", type_name(value)),
        Value::Array(items) => list(items, text),
        Value::Object(entries) => map(entries, text),
    }
}

/// `%#v`
pub(crate) fn syntax(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".to_owned(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(syntax).collect();
            format!("[]interface {{}}{{{}}}", items.join(", "))
        }
        Value::Object(entries) => {
            let entries: Vec<String> = sorted(entries)
                .map(|(name, value)| format!("{name:?}:{}", syntax(value)))
                .collect();
            format!("map[string]interface {{}}{{{}}}", entries.join(", "))
        }
        scalar => scalar.to_string(),
    }
}

fn list(items: &[Value], of: fn(&Value) -> String) -> String {
    let items: Vec<String> = items.iter().map(of).collect();
    format!("[{}]", items.join(" "))
}

fn map(entries: &Map<String, Value>, of: fn(&Value) -> String) -> String {
    let entries: Vec<String> = sorted(entries)
        .map(|(key, value)| format!("{key}:{}", of(value)))
        .collect();
    format!("map[{}]", entries.join(" "))
}

fn sorted(entries: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    let mut entries: Vec<_> = entries.iter().collect();
    entries.sort_unstable_by_key(|(key, _)| *key);
    entries.into_iter()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_printed_as_go_prints_them() {
        let value = json!({"b": [1, "x", null, true, 1.5], "a": {}});
        assert_eq!(plain(&value), "map[a:map[] b:[1 x <nil> true 1.5]]");
        assert_eq!(
            text(&value),
            "map[a:map[] b:[%!s(int64=1) x %!s(<nil>) %!s(bool=true) %!s(float64=1.5)]]"
        );
        assert_eq!(
            syntax(&value),
            r#"map[string]interface {}{"a":map[string]interface {}{}, "b":[]interface {}{1, "x", interface {}(nil), true, 1.5}}"#
        );
        assert_eq!(type_name(&value["b"]), "[]interface {}");
    }
}
