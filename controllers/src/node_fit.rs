//! Whether a pod may be on a node: node selectors and required node affinity.

use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec,
};

use crate::labels;

/// Whether the pod's `nodeSelector` and required node affinity select the node.
pub(crate) fn selects(spec: &PodSpec, node: &Node) -> bool {
    let required = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|affinity| {
            affinity
                .required_during_scheduling_ignored_during_execution
                .as_ref()
        });
    labels::contains(node.metadata.labels.as_ref(), spec.node_selector.as_ref())
        && required.is_none_or(|selector| matches(selector, node))
}

/// Whether some term of the selector selects the node. One without terms selects nothing.
pub(crate) fn matches(selector: &NodeSelector, node: &Node) -> bool {
    let mut terms = selector.node_selector_terms.iter();
    terms.any(|term| term_matches(term, node))
}

fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let labels = node.metadata.labels.as_ref();
    expressions.iter().all(|requirement| {
        let value = labels.and_then(|labels| labels.get(&requirement.key));
        meets(requirement, value.map(String::as_str))
    }) && fields.iter().all(|requirement| {
        requirement.key == "metadata.name" && meets(requirement, node.metadata.name.as_deref())
    })
}

fn meets(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let listed = |value: &str| requirement.values.iter().flatten().any(|one| one == value);
    match requirement.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        operator @ ("Gt" | "Lt") => {
            let bound = requirement.values.iter().flatten().next();
            let (Some(value), Some(bound)) = (number(value), number(bound.map(String::as_str)))
            else {
                return false;
            };
            if operator == "Gt" {
                value > bound
            } else {
                value < bound
            }
        }
        _ => false,
    }
}

fn number(text: Option<&str>) -> Option<i64> {
    text?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn fits(spec: &Value) -> bool {
        let node: Node = serde_json::from_value(json!({
            "metadata": { "name": "n", "labels": { "disk": "ssd", "cores": "8" } },
        }))
        .expect("a node");
        let mut spec = spec.clone();
        spec["containers"] = json!([]);
        selects(&serde_json::from_value(spec).expect("a spec"), &node)
    }

    fn term(term: &Value) -> Value {
        json!({ "affinity": { "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [term] },
        }}})
    }

    fn label(key: &str, operator: &str, values: &[&str]) -> Value {
        term(&json!({ "matchExpressions": [
            { "key": key, "operator": operator, "values": values },
        ]}))
    }

    #[test]
    fn nodes_are_selected_as_upstream() {
        let cases = [
            (json!({}), true),
            (json!({ "nodeSelector": { "disk": "ssd" } }), true),
            (json!({ "nodeSelector": { "disk": "hdd" } }), false),
            (label("disk", "In", &["hdd", "ssd"]), true),
            (label("disk", "NotIn", &["ssd"]), false),
            (label("none", "NotIn", &["ssd"]), true),
            (label("disk", "Exists", &[]), true),
            (label("disk", "DoesNotExist", &[]), false),
            (label("cores", "Gt", &["4"]), true),
            (label("cores", "Lt", &["4"]), false),
            (label("disk", "Gt", &["4"]), false),
            (term(&json!({})), false),
            (
                term(&json!({ "matchFields": [
                    { "key": "metadata.name", "operator": "In", "values": ["n"] }] })),
                true,
            ),
            (
                term(&json!({ "matchFields": [
                    { "key": "metadata.name", "operator": "In", "values": ["m"] }] })),
                false,
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(fits(&spec), expected, "{spec}");
        }
    }
}
