//! Selectors parsed once and matched often: labels of pods and nodes, fields of nodes.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Node, NodeSelector, NodeSelectorTerm, Pod},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};

pub(crate) type Labels = BTreeMap<String, String>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    Gt,
    Lt,
}

impl Operator {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            "Gt" => Operator::Gt,
            "Lt" => Operator::Lt,
            _ => return None,
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

impl Requirement {
    fn matches(&self, value: Option<&str>) -> bool {
        let listed = |value: &str| self.values.iter().any(|listed| listed == value);
        match self.operator {
            Operator::In => value.is_some_and(listed),
            Operator::NotIn => !value.is_some_and(listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Gt => self.compares(value, |value, bound| value > bound),
            Operator::Lt => self.compares(value, |value, bound| value < bound),
        }
    }

    fn compares(&self, value: Option<&str>, holds: impl Fn(i64, i64) -> bool) -> bool {
        let value = value.and_then(|value| value.parse().ok());
        let bound = self.values.first().and_then(|bound| bound.parse().ok());
        matches!((value, bound), (Some(value), Some(bound)) if holds(value, bound))
    }
}

/// A conjunction of requirements on labels, or nothing at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl Selector {
    pub fn everything() -> Self {
        Selector {
            requirements: Vec::new(),
            nothing: false,
        }
    }

    pub fn nothing() -> Self {
        Selector {
            requirements: Vec::new(),
            nothing: true,
        }
    }

    /// A missing selector selects nothing, an empty one everything.
    pub fn from_label_selector(selector: Option<&LabelSelector>) -> Self {
        let Some(selector) = selector else {
            return Selector::nothing();
        };
        let mut parsed = Selector::everything();
        if let Some(labels) = &selector.match_labels {
            parsed.require_labels(labels);
        }
        for expression in selector.match_expressions.iter().flatten() {
            let Some(operator) = Operator::parse(&expression.operator) else {
                return Selector::nothing();
            };
            parsed.requirements.push(Requirement {
                key: expression.key.clone(),
                operator,
                values: expression.values.clone().unwrap_or_default(),
            });
        }
        parsed
    }

    /// Adds that each of these labels has this value.
    pub fn require_labels(&mut self, labels: &Labels) {
        for (key, value) in labels {
            self.require_label(key, value);
        }
    }

    pub fn require_label(&mut self, key: &str, value: &str) {
        self.requirements.push(Requirement {
            key: key.to_owned(),
            operator: Operator::In,
            values: vec![value.to_owned()],
        });
    }

    /// Adds all that `other` requires.
    pub fn and(&mut self, other: Selector) {
        self.nothing |= other.nothing;
        self.requirements.extend(other.requirements);
    }

    /// Whether it selects everything.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    pub fn matches(&self, labels: Option<&Labels>) -> bool {
        !self.nothing
            && self.requirements.iter().all(|requirement| {
                let value = labels.and_then(|labels| labels.get(&requirement.key));
                requirement.matches(value.map(String::as_str))
            })
    }
}

/// One term of a node selector: requirements on the node's labels and on its name.
#[derive(Clone, Debug)]
pub(crate) struct NodeTerm {
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
    /// An operator that does not exist matches no node.
    invalid: bool,
}

impl NodeTerm {
    /// `None` for an empty term, which matches no node.
    pub fn parse(term: &NodeSelectorTerm) -> Option<Self> {
        let labels = term.match_expressions.iter().flatten();
        let fields = term.match_fields.iter().flatten();
        let mut parsed = NodeTerm {
            labels: Vec::new(),
            fields: Vec::new(),
            invalid: false,
        };
        for (is_field, requirement) in labels
            .map(|label| (false, label))
            .chain(fields.map(|field| (true, field)))
        {
            let Some(operator) = Operator::parse(&requirement.operator) else {
                parsed.invalid = true;
                continue;
            };
            let into = if is_field {
                &mut parsed.fields
            } else {
                &mut parsed.labels
            };
            into.push(Requirement {
                key: requirement.key.clone(),
                operator,
                values: requirement.values.clone().unwrap_or_default(),
            });
        }
        let empty = parsed.labels.is_empty() && parsed.fields.is_empty() && !parsed.invalid;
        (!empty).then_some(parsed)
    }

    pub fn matches(&self, name: &str, labels: Option<&Labels>) -> bool {
        let label = |key: &str| {
            labels
                .and_then(|labels| labels.get(key))
                .map(String::as_str)
        };
        let field = |key: &str| (key == "metadata.name").then_some(name);
        !self.invalid
            && self
                .labels
                .iter()
                .all(|label_of| label_of.matches(label(&label_of.key)))
            && self
                .fields
                .iter()
                .all(|field_of| field_of.matches(field(&field_of.key)))
    }

    /// The names that the term allows, if it names any.
    pub fn names(&self) -> Option<Vec<&str>> {
        let mut names: Option<Vec<&str>> = None;
        for field in &self.fields {
            if field.key != "metadata.name" || field.operator != Operator::In {
                continue;
            }
            let listed = field.values.iter().map(String::as_str);
            names = Some(match names {
                None => listed.collect(),
                Some(known) => listed.filter(|name| known.contains(name)).collect(),
            });
        }
        names
    }
}

/// Where a pod may run: its node selector and its required node affinity.
#[derive(Clone, Debug)]
pub(crate) struct RequiredNodeAffinity {
    labels: Option<Selector>,
    /// Any of these; `None`: no affinity is asked for.
    terms: Option<Vec<NodeTerm>>,
}

impl RequiredNodeAffinity {
    pub fn of(pod: &Pod) -> Self {
        let spec = pod.spec.as_ref();
        let labels = spec
            .and_then(|spec| spec.node_selector.as_ref())
            .filter(|labels| !labels.is_empty())
            .map(|labels| {
                let mut selector = Selector::everything();
                selector.require_labels(labels);
                selector
            });
        let terms = spec
            .and_then(|spec| spec.affinity.as_ref()?.node_affinity.as_ref())
            .and_then(|affinity| {
                affinity
                    .required_during_scheduling_ignored_during_execution
                    .as_ref()
            })
            .map(parse_terms);
        RequiredNodeAffinity { labels, terms }
    }

    /// Whether any node will do.
    pub fn is_empty(&self) -> bool {
        self.labels.is_none() && self.terms.is_none()
    }

    pub fn terms(&self) -> &[NodeTerm] {
        self.terms.as_deref().unwrap_or_default()
    }

    pub fn matches(&self, name: &str, labels: Option<&Labels>) -> bool {
        self.labels
            .as_ref()
            .is_none_or(|selector| selector.matches(labels))
            && self
                .terms
                .as_ref()
                .is_none_or(|terms| terms.iter().any(|term| term.matches(name, labels)))
    }
}

/// Whether the node is one that the selector selects.
pub(crate) fn selects_node(selector: &NodeSelector, node: &Node) -> bool {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let mut terms = selector
        .node_selector_terms
        .iter()
        .filter_map(NodeTerm::parse);
    terms.any(|term| term.matches(name, node.metadata.labels.as_ref()))
}

fn parse_terms(selector: &NodeSelector) -> Vec<NodeTerm> {
    selector
        .node_selector_terms
        .iter()
        .filter_map(NodeTerm::parse)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn labels(of: Value) -> Labels {
        serde_json::from_value(of).expect("labels")
    }

    #[test]
    fn label_selectors() {
        let cases = [
            (json!({}), json!({"a": "1"}), true),
            (
                json!({"matchLabels": {"a": "1"}}),
                json!({"a": "1", "b": "2"}),
                true,
            ),
            (json!({"matchLabels": {"a": "1"}}), json!({"a": "2"}), false),
            (json!({"matchLabels": {"a": "1"}}), json!({}), false),
            (expression("In", &["1", "2"]), json!({"a": "2"}), true),
            (expression("In", &["1", "2"]), json!({}), false),
            (expression("NotIn", &["1"]), json!({"a": "1"}), false),
            (expression("NotIn", &["1"]), json!({}), true),
            (expression("Exists", &[]), json!({"a": ""}), true),
            (expression("DoesNotExist", &[]), json!({"a": ""}), false),
        ];
        for (selector, of, expected) in cases {
            let parsed: LabelSelector =
                serde_json::from_value(selector.clone()).expect("a selector");
            let matches =
                Selector::from_label_selector(Some(&parsed)).matches(Some(&labels(of.clone())));
            assert_eq!(matches, expected, "{selector} {of}");
        }
        assert!(!Selector::from_label_selector(None).matches(None));
    }

    fn expression(operator: &str, values: &[&str]) -> Value {
        json!({"matchExpressions": [{"key": "a", "operator": operator, "values": values}]})
    }

    #[test]
    fn required_node_affinity() {
        let term = |operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": "a", "operator": operator, "values": values}]});
        let name = |values: &[&str]| json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": values}]});
        let cases = [
            (json!({}), json!([]), false),
            (json!({}), json!([term("Gt", &["3"])]), true),
            (json!({}), json!([term("Lt", &["3"])]), false),
            (json!({}), json!([{}]), false),
            (json!({}), json!([name(&["other"]), name(&["node1"])]), true),
            (json!({}), json!([name(&["other"])]), false),
            (json!({"a": "5"}), json!([name(&["node1"])]), true),
            (json!({"a": "6"}), json!([name(&["node1"])]), false),
            (json!({}), json!([term("Bogus", &[])]), false),
        ];
        for (selector, terms, expected) in cases {
            let pod: Pod = serde_json::from_value(json!({"spec": {
                "containers": [],
                "nodeSelector": selector,
                "affinity": {"nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}
                }},
            }}))
            .expect("a pod");
            let required = RequiredNodeAffinity::of(&pod);
            let matches = required.matches("node1", Some(&labels(json!({"a": "5"}))));
            assert_eq!(matches, expected, "{selector} {terms}");
        }
    }
}
