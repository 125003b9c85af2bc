//! Whether rules allow at least what other rules allow: nobody may grant what they do not have.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::rbac::v1::PolicyRule;

const ALL: &str = "*";

/// One verb on one resource or path: what rules are broken down to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Right {
    Resource {
        group: String,
        resource: String,
        name: Option<String>,
        verb: String,
    },
    Path {
        url: String,
        verb: String,
    },
}

/// The rights that `owned` does not cover, described as upstream does, one a line; empty if it
/// covers all.
pub fn missing(owned: &[PolicyRule], granted: &[PolicyRule]) -> Vec<String> {
    let uncovered: Vec<Right> = granted
        .iter()
        .flat_map(break_down)
        .filter(|right| !owned.iter().any(|rule| covers(rule, right)))
        .collect();
    describe(&uncovered)
}

fn break_down(rule: &PolicyRule) -> Vec<Right> {
    let list = |of: &Option<Vec<String>>| of.clone().unwrap_or_default();
    let names: Vec<Option<String>> = match list(&rule.resource_names) {
        names if names.is_empty() => vec![None],
        names => names.into_iter().map(Some).collect(),
    };
    let mut rights = Vec::new();
    for verb in &rule.verbs {
        for group in list(&rule.api_groups) {
            for resource in list(&rule.resources) {
                rights.extend(names.iter().map(|name| Right::Resource {
                    group: group.clone(),
                    resource: resource.clone(),
                    name: name.clone(),
                    verb: verb.clone(),
                }));
            }
        }
        rights.extend(
            list(&rule.non_resource_urls)
                .into_iter()
                .map(|url| Right::Path {
                    url,
                    verb: verb.clone(),
                }),
        );
    }
    rights
}

fn covers(rule: &PolicyRule, right: &Right) -> bool {
    let has =
        |list: &[String], wanted: &str| list.iter().any(|entry| entry == ALL || entry == wanted);
    match right {
        Right::Resource {
            group,
            resource,
            name,
            verb,
        } => {
            let names = rule.resource_names.as_deref().unwrap_or_default();
            let subresource = resource.split_once('/').map(|(_, sub)| format!("*/{sub}"));
            let resources = rule.resources.as_deref().unwrap_or_default();
            has(&rule.verbs, verb)
                && has(rule.api_groups.as_deref().unwrap_or_default(), group)
                && (has(resources, resource)
                    || subresource.is_some_and(|any| resources.contains(&any)))
                && (names.is_empty() || name.as_ref().is_some_and(|name| names.contains(name)))
        }
        Right::Path { url, verb } => {
            let urls = rule.non_resource_urls.as_deref().unwrap_or_default();
            has(&rule.verbs, verb)
                && urls.iter().any(|owned| {
                    owned == url
                        || owned
                            .strip_suffix('*')
                            .is_some_and(|prefix| url.starts_with(prefix))
                })
        }
    }
}

/// Rights that differ only in their verb become one line.
fn describe(rights: &[Right]) -> Vec<String> {
    type Key<'a> = (Option<&'a str>, &'a str, Option<&'a str>);
    let mut verbs: BTreeMap<Key<'_>, Vec<&str>> = BTreeMap::new();
    for right in rights {
        let (key, verb): (Key<'_>, &str) = match right {
            Right::Resource {
                group,
                resource,
                name,
                verb,
            } => ((Some(group), resource, name.as_deref()), verb),
            Right::Path { url, verb } => ((None, url, None), verb),
        };
        let verbs = verbs.entry(key).or_default();
        if !verbs.contains(&verb) {
            verbs.push(verb);
        }
    }
    let lines: BTreeSet<String> = verbs
        .into_iter()
        .map(|((group, what, name), verbs)| {
            // As Go prints a list.
            let verbs = format!("Verbs:{verbs:?}").replace(", ", " ");
            match (group, name) {
                (None, _) => format!("{{NonResourceURLs:[{what:?}], {}}}", verbs),
                (Some(group), None) => {
                    format!("{{APIGroups:[{group:?}], Resources:[{what:?}], {}}}", verbs)
                }
                (Some(group), Some(name)) => format!(
                    "{{APIGroups:[{group:?}], Resources:[{what:?}], ResourceNames:[{name:?}], {}}}",
                    verbs
                ),
            }
        })
        .collect();
    lines.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rules(value: Value) -> Vec<PolicyRule> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_is_not_held_is_named() {
        let owned = rules(json!([
            {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "*/scale"]},
            {"verbs": ["get"], "nonResourceURLs": ["/healthz/*"]},
            {"verbs": ["update"], "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["a"]},
        ]));
        let covered = [
            json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]),
            json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["x"]}]),
            json!([{"verbs": ["list"], "apiGroups": [""], "resources": ["deployments/scale"]}]),
            json!([{"verbs": ["get"], "nonResourceURLs": ["/healthz/etcd"]}]),
            json!([{"verbs": ["update"], "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["a"]}]),
        ];
        for granted in covered {
            assert!(
                missing(&owned, &rules(granted.clone())).is_empty(),
                "{granted}"
            );
        }
        let granted = rules(json!([
            {"verbs": ["get", "watch", "delete"], "apiGroups": [""], "resources": ["pods"]},
            {"verbs": ["update"], "apiGroups": [""], "resources": ["configmaps"]},
            {"verbs": ["get"], "nonResourceURLs": ["/metrics"]},
        ]));
        assert_eq!(
            missing(&owned, &granted),
            [
                r#"{APIGroups:[""], Resources:["configmaps"], Verbs:["update"]}"#,
                r#"{APIGroups:[""], Resources:["pods"], Verbs:["watch" "delete"]}"#,
                r#"{NonResourceURLs:["/metrics"], Verbs:["get"]}"#,
            ]
        );
    }
}
