//! `nodeSelector` and node affinity, required and preferred.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    cluster::Cluster,
    event::Event,
    framework::{Filter, Plugin, Prepared, Rejection, normalize},
    node::NodeInfo,
    pod::PodInfo,
    selector::{NodeTerm, RequiredNodeAffinity},
};

const NAME: &str = "NodeAffinity";

pub(crate) struct NodeAffinity;

#[derive(Clone)]
struct Required(Arc<RequiredNodeAffinity>);

impl Filter for Required {
    fn check(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if self.0.matches(&node.name, node.labels()) {
            return Ok(());
        }
        Err(Rejection::unresolvable(
            NAME,
            "node(s) didn't match Pod's node affinity/selector",
        ))
    }

    fn duplicate(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare(&self, pod: &Arc<PodInfo>, _cluster: &Cluster<'_>) -> Prepared {
        let required = RequiredNodeAffinity::of(&pod.pod);
        if required.is_empty() {
            return Prepared::Skip;
        }
        let named = named_nodes(required.terms());
        let filter = Box::new(Required(Arc::new(required)));
        match named {
            None => Prepared::Check(filter),
            Some(names) if names.is_empty() => {
                Prepared::Reject(Rejection::unresolvable(NAME, "pod affinity terms conflict"))
            }
            Some(names) => Prepared::CheckOnly(filter, names),
        }
    }

    fn weight(&self) -> i64 {
        2
    }

    fn score(
        &self,
        pod: &Arc<PodInfo>,
        _cluster: &Cluster<'_>,
        feasible: &[&NodeInfo],
    ) -> Option<Vec<i64>> {
        let spec = pod.pod.spec.as_ref()?;
        let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
        let preferred: Vec<(i64, NodeTerm)> = affinity
            .preferred_during_scheduling_ignored_during_execution
            .iter()
            .flatten()
            .filter(|term| term.weight != 0)
            .filter_map(|term| Some((term.weight.into(), NodeTerm::parse(&term.preference)?)))
            .collect();
        if preferred.is_empty() {
            return None;
        }
        let wanted = |node: &&NodeInfo| {
            let matching = preferred
                .iter()
                .filter(|(_, term)| term.matches(&node.name, node.labels()));
            matching.map(|(weight, _)| weight).sum()
        };
        let mut scores: Vec<i64> = feasible.iter().map(wanted).collect();
        normalize(&mut scores, false);
        Some(scores)
    }

    fn may_help(&self, pod: &PodInfo, event: &Event<'_>, _cluster: &Cluster<'_>) -> bool {
        let required = RequiredNodeAffinity::of(&pod.pod);
        let matches = |node: &k8s_openapi::api::core::v1::Node| {
            let name = node.metadata.name.as_deref().unwrap_or_default();
            required.matches(name, node.metadata.labels.as_ref())
        };
        match event {
            Event::NodeAdded(node) => matches(node),
            Event::NodeUpdated { old, new, changes } => {
                changes.labels && matches(new) && !matches(old)
            }
            _ => false,
        }
    }
}

/// The nodes that the terms name, if every term names some. DaemonSets name one node for each
/// pod, which then need not be held against all others.
fn named_nodes(terms: &[NodeTerm]) -> Option<BTreeSet<String>> {
    if terms.is_empty() {
        return None;
    }
    let mut all = BTreeSet::new();
    for term in terms {
        all.extend(term.names()?.into_iter().map(str::to_owned));
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, node, pod};
    use serde_json::json;

    #[test]
    fn terms_that_name_nodes_narrow_the_search() {
        let name = |operator: &str, values: &[&str]| json!({"matchFields": [{"key": "metadata.name", "operator": operator, "values": values}]});
        let label = json!({"matchExpressions": [{"key": "a", "operator": "Exists"}]});
        let conflict = json!({"matchFields": [
            {"key": "metadata.name", "operator": "In", "values": ["a"]},
            {"key": "metadata.name", "operator": "In", "values": ["b"]},
        ]});
        let cases = [
            (
                json!([name("In", &["a"]), name("In", &["b"])]),
                Some(vec!["a", "b"]),
            ),
            (json!([name("In", &["a"]), label]), None),
            (json!([name("NotIn", &["a"])]), None),
            (json!([conflict]), Some(vec![])),
        ];
        for (terms, expected) in cases {
            let pod = pod(json!({"spec": {"affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}
            }}}}));
            let found = match NodeAffinity.prepare(&pod, &World::default().cluster()) {
                Prepared::CheckOnly(_, names) => Some(names),
                Prepared::Reject(_) => Some(BTreeSet::new()),
                _ => None,
            };
            let expected = expected.map(|names| names.into_iter().map(str::to_owned).collect());
            assert_eq!(found, expected, "{terms}");
        }
    }

    #[test]
    fn preferences_add_up() {
        let world = World::new([
            node(
                "a",
                json!({"metadata": {"labels": {"disk": "ssd", "zone": "z"}}}),
            ),
            node("b", json!({"metadata": {"labels": {"zone": "z"}}})),
            node("c", json!({})),
        ]);
        let prefer = |weight: i64, key: &str| json!({"weight": weight, "preference": {"matchExpressions": [{"key": key, "operator": "Exists"}]}});
        let pod = pod(json!({"spec": {"affinity": {"nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [prefer(30, "disk"), prefer(10, "zone")]
        }}}}));
        let nodes: Vec<&NodeInfo> = world.cache.nodes().iter().collect();
        let scores = NodeAffinity.score(&pod, &world.cluster(), &nodes);
        assert_eq!(scores, Some(vec![100, 25, 0]));
    }
}
