//! Label selectors, matched in place.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

pub(crate) type Labels = BTreeMap<String, String>;

/// Whether the selector selects these labels. An empty selector selects everything; one with an
/// unknown operator, nothing.
pub(crate) fn selects(selector: &LabelSelector, labels: Option<&Labels>) -> bool {
    let equal = selector.match_labels.iter().flatten();
    let required = selector.match_expressions.iter().flatten();
    equal
        .into_iter()
        .all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
        && required
            .into_iter()
            .all(|requirement| meets(requirement, labels))
}

/// Whether every pair of `wanted` is among `labels`.
pub(crate) fn contains(labels: Option<&Labels>, wanted: Option<&Labels>) -> bool {
    wanted
        .into_iter()
        .flatten()
        .all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

/// Whether the selector has no requirement at all.
pub(crate) fn is_empty(selector: &LabelSelector) -> bool {
    selector
        .match_labels
        .as_ref()
        .is_none_or(BTreeMap::is_empty)
        && selector
            .match_expressions
            .as_ref()
            .is_none_or(Vec::is_empty)
}

fn meets(requirement: &LabelSelectorRequirement, labels: Option<&Labels>) -> bool {
    let value = labels.and_then(|labels| labels.get(&requirement.key));
    let listed = |value: &String| requirement.values.iter().flatten().any(|one| one == value);
    match requirement.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_select_as_upstream() {
        let labels: Labels = [("app", "web"), ("tier", "front")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        let cases = [
            (json!({}), true),
            (json!({ "matchLabels": { "app": "web" } }), true),
            (json!({ "matchLabels": { "app": "db" } }), false),
            (json!({ "matchLabels": { "none": "" } }), false),
            (one("app", "In", &["db", "web"]), true),
            (one("app", "In", &["db"]), false),
            (one("none", "In", &["db"]), false),
            (one("app", "NotIn", &["web"]), false),
            (one("none", "NotIn", &["web"]), true),
            (one("app", "Exists", &[]), true),
            (one("none", "Exists", &[]), false),
            (one("none", "DoesNotExist", &[]), true),
            (one("app", "Weird", &[]), false),
        ];
        for (selector, expected) in cases {
            let parsed: LabelSelector =
                serde_json::from_value(selector.clone()).expect("a selector");
            assert_eq!(selects(&parsed, Some(&labels)), expected, "{selector}");
        }
        assert!(selects(&LabelSelector::default(), None));
    }

    fn one(key: &str, operator: &str, values: &[&str]) -> serde_json::Value {
        json!({ "matchExpressions": [{ "key": key, "operator": operator, "values": values }] })
    }
}
