//! Spreads pods evenly over zones, hosts and other domains: `topologySpreadConstraints`, and
//! mild defaults for pods of a Service or controller that have none.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::core::v1::{Node, TopologySpreadConstraint};

use crate::{
    cluster::Cluster,
    event::Event,
    framework::{Filter, MAX_SCORE, Plugin, Prepared, Rejection},
    node::{self, NodeInfo},
    pod::PodInfo,
    selector::{RequiredNodeAffinity, Selector},
    taints,
};

const NAME: &str = "PodTopologySpread";
const NOT_MATCHED: &str = "node(s) didn't match pod topology spread constraints";
const LABEL_MISSING: &str =
    "node(s) didn't match pod topology spread constraints (missing required label)";
const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

pub(crate) struct PodTopologySpread;

#[derive(Clone, Debug)]
struct Constraint {
    max_skew: i64,
    topology_key: String,
    selector: Selector,
    min_domains: usize,
    honor_affinity: bool,
    honor_taints: bool,
}

impl Constraint {
    fn parse(constraint: &TopologySpreadConstraint, pod: &PodInfo) -> Self {
        let mut selector = Selector::from_label_selector(constraint.label_selector.as_ref());
        for key in constraint.match_label_keys.iter().flatten() {
            if let Some(value) = pod.labels().and_then(|labels| labels.get(key)) {
                selector.require_label(key, value);
            }
        }
        let min_domains = constraint.min_domains.unwrap_or(1);
        Constraint {
            max_skew: constraint.max_skew.into(),
            topology_key: constraint.topology_key.clone(),
            selector,
            min_domains: usize::try_from(min_domains).unwrap_or(1),
            honor_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
        }
    }

    /// Whether pods on the node are counted.
    fn includes(&self, node: &NodeInfo, pod: &PodInfo, required: &RequiredNodeAffinity) -> bool {
        (!self.honor_affinity || required.matches(&node.name, node.labels()))
            && (!self.honor_taints || !taints::untolerated(node.taints(), pod.tolerations()))
    }

    fn count(&self, node: &NodeInfo, namespace: &str) -> i64 {
        if self.selector.is_everything() {
            return 0;
        }
        let counted = |pod: &&Arc<PodInfo>| {
            pod.namespace() == namespace
                && !pod.is_terminating()
                && self.selector.matches(pod.labels())
        };
        node.pods.iter().filter(counted).count() as i64
    }
}

/// The pod's own constraints of one kind: `DoNotSchedule` or `ScheduleAnyway`.
fn constraints(pod: &PodInfo, when_unsatisfiable: &str) -> Vec<Constraint> {
    own_constraints(pod)
        .iter()
        .filter(|constraint| constraint.when_unsatisfiable == when_unsatisfiable)
        .map(|constraint| Constraint::parse(constraint, pod))
        .collect()
}

fn own_constraints(pod: &PodInfo) -> &[TopologySpreadConstraint] {
    let spec = pod.pod.spec.as_ref();
    spec.and_then(|spec| spec.topology_spread_constraints.as_deref())
        .unwrap_or_default()
}

/// What upstream applies to pods without constraints (`systemDefaultConstraints`).
fn default_constraints(selector: &Selector) -> Vec<Constraint> {
    let constraint = |topology_key: &str, max_skew: i64| Constraint {
        max_skew,
        topology_key: topology_key.to_owned(),
        selector: selector.clone(),
        min_domains: 1,
        honor_affinity: true,
        honor_taints: false,
    };
    vec![constraint(HOSTNAME, 3), constraint(ZONE, 5)]
}

fn has_all_keys(node: &Node, constraints: &[Constraint]) -> bool {
    constraints
        .iter()
        .all(|constraint| node::label(node, &constraint.topology_key).is_some())
}

/// The hard constraints of a pod against the pods that there are.
#[derive(Clone)]
struct Spread {
    pod: Arc<PodInfo>,
    required: Arc<RequiredNodeAffinity>,
    constraints: Arc<[Constraint]>,
    /// For each constraint the number of matching pods in each domain.
    counts: Vec<HashMap<String, i64>>,
    /// For each constraint the least of its counts.
    least: Vec<i64>,
}

impl Spread {
    fn new(pod: &Arc<PodInfo>, constraints: Vec<Constraint>, nodes: &[NodeInfo]) -> Self {
        let mut spread = Spread {
            pod: pod.clone(),
            required: Arc::new(RequiredNodeAffinity::of(&pod.pod)),
            counts: vec![HashMap::new(); constraints.len()],
            least: vec![0; constraints.len()],
            constraints: constraints.into(),
        };
        for node in nodes {
            spread.count(node);
        }
        for index in 0..spread.constraints.len() {
            spread.find_least(index);
        }
        spread
    }

    fn count(&mut self, node: &NodeInfo) {
        if !has_all_keys(&node.node, &self.constraints) {
            return;
        }
        for (constraint, counts) in self.constraints.iter().zip(&mut self.counts) {
            if !constraint.includes(node, &self.pod, &self.required) {
                continue;
            }
            let domain = node.label(&constraint.topology_key).unwrap_or_default();
            let count = constraint.count(node, self.pod.namespace());
            match counts.get_mut(domain) {
                Some(known) => *known += count,
                None => {
                    counts.insert(domain.to_owned(), count);
                }
            }
        }
    }

    fn find_least(&mut self, index: usize) {
        let counts = &self.counts[index];
        // Domains that do not exist yet count as empty ones.
        let missing = counts.len() < self.constraints[index].min_domains;
        let least = counts.values().copied().min().unwrap_or(0);
        self.least[index] = if missing { 0 } else { least };
    }

    fn update(&mut self, pod: &PodInfo, node: &NodeInfo, by: i64) {
        if pod.namespace() != self.pod.namespace() || !has_all_keys(&node.node, &self.constraints) {
            return;
        }
        let constraints = self.constraints.clone();
        for (index, constraint) in constraints.iter().enumerate() {
            if !constraint.selector.matches(pod.labels())
                || !constraint.includes(node, &self.pod, &self.required)
            {
                continue;
            }
            let domain = node.label(&constraint.topology_key).unwrap_or_default();
            *self.counts[index].entry(domain.to_owned()).or_insert(0) += by;
            self.find_least(index);
        }
    }
}

impl Filter for Spread {
    fn check(&self, node: &NodeInfo) -> Result<(), Rejection> {
        for (index, constraint) in self.constraints.iter().enumerate() {
            let Some(domain) = node.label(&constraint.topology_key) else {
                return Err(Rejection::unresolvable(NAME, LABEL_MISSING));
            };
            let own = i64::from(constraint.selector.matches(self.pod.labels()));
            let count = self.counts[index].get(domain).copied().unwrap_or(0);
            if count + own - self.least[index] > constraint.max_skew {
                return Err(Rejection::resolvable(NAME, NOT_MATCHED));
            }
        }
        Ok(())
    }

    fn pod_added(&mut self, pod: &PodInfo, node: &NodeInfo) {
        self.update(pod, node, 1);
    }

    fn pod_removed(&mut self, pod: &PodInfo, node: &NodeInfo) {
        self.update(pod, node, -1);
    }

    fn duplicate(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}

impl Plugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare(&self, pod: &Arc<PodInfo>, cluster: &Cluster<'_>) -> Prepared {
        let constraints = constraints(pod, "DoNotSchedule");
        if constraints.is_empty() {
            return Prepared::Skip;
        }
        Prepared::Check(Box::new(Spread::new(
            pod,
            constraints,
            cluster.cache.nodes(),
        )))
    }

    fn weight(&self) -> i64 {
        2
    }

    fn score(
        &self,
        pod: &Arc<PodInfo>,
        cluster: &Cluster<'_>,
        feasible: &[&NodeInfo],
    ) -> Option<Vec<i64>> {
        let defaulted = own_constraints(pod).is_empty();
        let constraints = if defaulted {
            default_constraints(&cluster.surroundings.default_selector(pod)?)
        } else {
            constraints(pod, "ScheduleAnyway")
        };
        if constraints.is_empty() {
            return None;
        }
        let ignored = |node: &NodeInfo| !defaulted && !has_all_keys(&node.node, &constraints);
        let domains = domains(&constraints, feasible, ignored);
        let counts = count_domains(pod, cluster, &constraints, &domains, ignored);
        let raw: Vec<Option<i64>> = feasible
            .iter()
            .map(|node| {
                (!ignored(node)).then(|| crowding(pod, node, &constraints, &domains, &counts))
            })
            .collect();
        Some(invert(&raw))
    }

    fn may_help(&self, pod: &PodInfo, event: &Event<'_>, _cluster: &Cluster<'_>) -> bool {
        let constraints = constraints(pod, "DoNotSchedule");
        let matches = |other: &PodInfo| {
            constraints
                .iter()
                .any(|constraint| constraint.selector.matches(other.labels()))
        };
        match event {
            Event::NodeAdded(node) | Event::NodeDeleted(node) => has_all_keys(node, &constraints),
            Event::NodeUpdated { old, new, changes } => {
                (changes.labels || changes.taints) && node_matters(old, new, &constraints)
            }
            Event::PodAdded(other) | Event::PodDeleted(other) => {
                other.namespace() == pod.namespace() && matches(other)
            }
            Event::PodUpdated { old, new, changes } => {
                let itself = new.uid() == pod.uid();
                let taints_matter = || constraints.iter().any(|constraint| constraint.honor_taints);
                itself && changes.tolerations && taints_matter()
                    || changes.labels
                        && (itself || new.namespace() == pod.namespace())
                        && constraints.iter().any(|constraint| {
                            constraint.selector.matches(old.labels())
                                != constraint.selector.matches(new.labels())
                        })
            }
            _ => false,
        }
    }
}

/// Whether the change of a node changes the domains.
fn node_matters(old: &Node, new: &Node, constraints: &[Constraint]) -> bool {
    let (before, after) = (
        has_all_keys(old, constraints),
        has_all_keys(new, constraints),
    );
    let moved = || {
        constraints.iter().any(|constraint| {
            let key = &constraint.topology_key;
            node::label(old, key) != node::label(new, key)
        })
    };
    before != after || after && (moved() || node::taints(old) != node::taints(new))
}

/// The domains of the feasible nodes and how much each constraint weighs.
struct Domains<'a> {
    /// Nothing for hostnames: those are counted node by node.
    names: Vec<Vec<&'a str>>,
    weights: Vec<f64>,
}

fn domains<'a>(
    constraints: &[Constraint],
    feasible: &[&'a NodeInfo],
    ignored: impl Fn(&NodeInfo) -> bool,
) -> Domains<'a> {
    let counted: Vec<&NodeInfo> = feasible
        .iter()
        .copied()
        .filter(|node| !ignored(node))
        .collect();
    let mut domains = Domains {
        names: Vec::new(),
        weights: Vec::new(),
    };
    for constraint in constraints {
        let mut names: Vec<&str> = Vec::new();
        let mut size = counted.len();
        if constraint.topology_key != HOSTNAME {
            let key = &constraint.topology_key;
            names.extend(
                counted
                    .iter()
                    .map(|node| node.label(key).unwrap_or_default()),
            );
            names.sort_unstable();
            names.dedup();
            size = names.len();
        }
        domains.names.push(names);
        // More domains hold fewer pods each; the logarithm makes up for it.
        domains.weights.push(((size + 2) as f64).ln());
    }
    domains
}

/// For each constraint the number of matching pods in each of its domains.
fn count_domains(
    pod: &PodInfo,
    cluster: &Cluster<'_>,
    constraints: &[Constraint],
    domains: &Domains<'_>,
    ignored: impl Fn(&NodeInfo) -> bool,
) -> Vec<Vec<i64>> {
    let mut counts: Vec<Vec<i64>> = domains
        .names
        .iter()
        .map(|names| vec![0; names.len()])
        .collect();
    let required = RequiredNodeAffinity::of(&pod.pod);
    for (index, constraint) in constraints.iter().enumerate() {
        let names = &domains.names[index];
        if names.iter().all(|name| name.is_empty()) {
            continue;
        }
        for node in cluster.cache.nodes() {
            let domain = node.label(&constraint.topology_key).unwrap_or_default();
            let Ok(at) = names.binary_search(&domain) else {
                continue;
            };
            if !ignored(node) && constraint.includes(node, pod, &required) {
                counts[index][at] += constraint.count(node, pod.namespace());
            }
        }
    }
    counts
}

/// How crowded the node's domains are with pods like this one.
fn crowding(
    pod: &PodInfo,
    node: &NodeInfo,
    constraints: &[Constraint],
    domains: &Domains<'_>,
    counts: &[Vec<i64>],
) -> i64 {
    let mut score = 0.0;
    for (index, constraint) in constraints.iter().enumerate() {
        let Some(domain) = node.label(&constraint.topology_key) else {
            continue;
        };
        let count = if constraint.topology_key == HOSTNAME {
            constraint.count(node, pod.namespace())
        } else {
            let at = domains.names[index].binary_search(&domain);
            at.map_or(0, |at| counts[index][at])
        };
        score += count as f64 * domains.weights[index] + (constraint.max_skew - 1) as f64;
    }
    score.round() as i64
}

/// The less crowded, the better; nodes that were not judged get nothing.
fn invert(raw: &[Option<i64>]) -> Vec<i64> {
    let least = raw.iter().flatten().copied().min().unwrap_or(0);
    let most = raw.iter().flatten().copied().max().unwrap_or(0);
    raw.iter()
        .map(|score| match score {
            None => 0,
            Some(_) if most == 0 => MAX_SCORE,
            Some(score) => MAX_SCORE * (most + least - score) / most,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, merge, node, pod};
    use serde_json::{Value, json};

    fn zoned(name: &str, zone: &str) -> Arc<Node> {
        node(name, json!({"metadata": {"labels": {ZONE: zone}}}))
    }

    fn labelled() -> Value {
        json!({"metadata": {"labels": {"app": "web"}}})
    }

    fn spreading(constraint: Value) -> Arc<PodInfo> {
        let mut full = json!({
            "maxSkew": 1, "topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": "web"}},
        });
        merge(&mut full, constraint);
        pod(
            json!({"metadata": {"labels": {"app": "web"}}, "spec": {"topologySpreadConstraints": [full]}}),
        )
    }

    /// The nodes that the pod may run on.
    fn allowed(world: &World, pod: &Arc<PodInfo>) -> Vec<String> {
        let Prepared::Check(filter) = PodTopologySpread.prepare(pod, &world.cluster()) else {
            panic!("the pod has constraints");
        };
        let nodes = world.cache.nodes().iter();
        nodes
            .filter(|node| filter.check(node).is_ok())
            .map(|node| node.name.to_string())
            .collect()
    }

    #[test]
    fn the_skew_is_kept_within_bounds() {
        let mut world = World::new([
            zoned("a1", "a"),
            zoned("a2", "a"),
            zoned("b1", "b"),
            node("x", json!({})),
        ]);
        world.running("1", "a1", labelled());
        let cases = [
            ("an emptier zone", json!({}), vec!["b1"]),
            (
                "a larger skew",
                json!({"maxSkew": 2}),
                vec!["a1", "a2", "b1"],
            ),
            (
                "hosts",
                json!({"topologyKey": HOSTNAME}),
                vec!["a2", "b1", "x"],
            ),
            (
                "domains that are missing are empty",
                json!({"minDomains": 3, "maxSkew": 1}),
                vec!["b1"],
            ),
            (
                "another selector",
                json!({"labelSelector": {"matchLabels": {"app": "db"}}}),
                vec!["a1", "a2", "b1"],
            ),
        ];
        for (what, constraint, expected) in cases {
            assert_eq!(allowed(&world, &spreading(constraint)), expected, "{what}");
        }
        world.running("2", "b1", labelled());
        assert_eq!(allowed(&world, &spreading(json!({}))), ["a1", "a2", "b1"]);
        assert_eq!(
            allowed(&world, &spreading(json!({"minDomains": 3}))),
            [""; 0]
        );
    }

    #[test]
    fn nodes_that_the_pod_cannot_use_are_not_counted() {
        let tainted = node(
            "c1",
            json!({
                "metadata": {"labels": {ZONE: "c"}},
                "spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]},
            }),
        );
        let mut world = World::new([zoned("a1", "a"), zoned("b1", "b"), tainted]);
        world.running("1", "a1", labelled());
        world.running("2", "b1", labelled());
        assert_eq!(allowed(&world, &spreading(json!({}))), ["c1"]);
        assert_eq!(
            allowed(&world, &spreading(json!({"nodeTaintsPolicy": "Honor"}))),
            ["a1", "b1", "c1"]
        );
    }

    #[test]
    fn removing_a_pod_makes_room() {
        let mut world = World::new([zoned("a1", "a"), zoned("b1", "b")]);
        world.running("1", "a1", labelled());
        let spread = spreading(json!({}));
        let Prepared::Check(mut filter) = PodTopologySpread.prepare(&spread, &world.cluster())
        else {
            panic!("the pod has constraints");
        };
        let node = &world.cache.nodes()[0];
        let running = node.pods[0].clone();
        assert!(filter.check(node).is_err());
        filter.pod_removed(&running, node);
        assert!(filter.check(node).is_ok());
        filter.pod_added(&running, node);
        assert!(filter.check(node).is_err());
    }

    #[test]
    fn siblings_are_spread_by_default() {
        let mut world = World::new([zoned("a1", "a"), zoned("a2", "a"), zoned("b1", "b")]);
        world.running("1", "a1", labelled());
        let mut selector = Selector::everything();
        selector.require_label("app", "web");
        world.surroundings.owners = Some(selector);
        let nodes: Vec<&NodeInfo> = world.cache.nodes().iter().collect();
        let scores = PodTopologySpread
            .score(&pod(labelled()), &world.cluster(), &nodes)
            .expect("scores");
        assert!(scores[0] < scores[1] && scores[1] < scores[2], "{scores:?}");
    }
}
