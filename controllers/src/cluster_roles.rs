//! ClusterRoles that are made up of others: they have the rules of all that their selectors select.
//!
//! Enter at [`run`]. Upstream: `pkg/controller/clusterroleaggregation`.

use std::sync::Arc;

use coracle_client::Queue;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::{ResourceExt as _, api::Patch};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    Context, Error,
    changes::{self, Pace, Seen},
    labels,
    objects::Objects,
    work::{Done, Key},
};

const NAME: &str = "clusterrole-aggregation-controller";
const WORKERS: usize = 5;

/// Runs the controller.
pub(crate) async fn run(context: Context, shutdown: CancellationToken) -> Result<(), Error> {
    let roles: Objects<ClusterRole> = context.objects();
    let pace = Pace {
        name: NAME,
        queue: "ClusterRoleAggregator",
        workers: WORKERS,
    };
    let see = |queue: &Queue<Key>, seen: Seen<ClusterRole>| {
        // Any role may be part of any other.
        let all = !matches!(&seen, Seen::Applied { old: Some(old), new }
            if old.rules == new.rules && old.metadata.labels == new.metadata.labels
                && old.aggregation_rule == new.aggregation_rule);
        if all {
            for role in roles.cache.list() {
                if role.aggregation_rule.is_some() {
                    queue.add(Key::of(&role.metadata));
                }
            }
        }
    };
    let sync = |key| sync(&roles, key);
    changes::follow(pace, &roles.cache, &shutdown, see, sync).await;
    Ok(())
}

async fn sync(roles: &Objects<ClusterRole>, key: Key) -> Result<Done, Error> {
    let Some(role) = roles.get("", &key.name) else {
        return Ok(Done::Settled);
    };
    let all = roles.cache.list();
    let Some(rules) = aggregated(&role, &all) else {
        return Ok(Done::Settled);
    };
    let patch = json!({
        "metadata": { "uid": role.uid(), "resourceVersion": role.resource_version() },
        "rules": rules,
    });
    roles.patch("", &key.name, Patch::Merge(patch)).await?;
    Ok(Done::Settled)
}

/// The rules that the role is to have; `None` when it has them, or is not made up of others. `all`
/// is in order of name.
fn aggregated<'a>(role: &ClusterRole, all: &'a [Arc<ClusterRole>]) -> Option<Vec<&'a PolicyRule>> {
    let selectors = role
        .aggregation_rule
        .as_ref()?
        .cluster_role_selectors
        .iter();
    let mut rules: Vec<&PolicyRule> = Vec::new();
    for selector in selectors.flatten() {
        let others = all.iter().filter(|other| {
            other.metadata.name != role.metadata.name
                && labels::selects(selector, other.metadata.labels.as_ref())
        });
        for rule in others.flat_map(|other| other.rules.iter().flatten()) {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
    }
    let known = role.rules.as_deref().unwrap_or_default();
    let same =
        known.len() == rules.len() && known.iter().zip(&rules).all(|(one, other)| one == *other);
    (!same).then_some(rules)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn role(name: &str, aggregate_to: &str, verbs: &[&str], selects: &Value) -> Arc<ClusterRole> {
        let rules: Vec<_> = verbs
            .iter()
            .map(|verb| json!({ "verbs": [verb], "resources": ["pods"], "apiGroups": [""] }))
            .collect();
        Arc::new(
            serde_json::from_value(json!({
                "metadata": { "name": name, "labels": { "to": aggregate_to } },
                "rules": rules, "aggregationRule": selects,
            }))
            .expect("a role"),
        )
    }

    #[test]
    fn a_role_has_the_rules_of_those_it_selects() {
        let selects = || {
            json!({ "clusterRoleSelectors": [
                { "matchLabels": { "to": "edit" } }, { "matchLabels": { "to": "view" } }] })
        };
        let edit = role("edit", "edit", &[], &selects());
        let all = [
            role("a", "edit", &["create"], &Value::Null),
            edit.clone(),
            role("other", "none", &["delete"], &Value::Null),
            role("v", "view", &["get", "create"], &Value::Null),
        ];
        let verbs = |rules: Vec<&PolicyRule>| -> Vec<String> {
            rules.iter().flat_map(|rule| rule.verbs.clone()).collect()
        };
        let found = aggregated(&edit, &all).map(verbs);
        assert_eq!(found.expect("rules"), ["create", "get"]);
        let done = role("edit", "edit", &["create", "get"], &selects());
        assert_eq!(aggregated(&done, &all), None);
        assert_eq!(aggregated(&all[0], &all), None);
    }
}
