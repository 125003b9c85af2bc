//! Pods that want to be near other pods, or far from them.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use k8s_openapi::api::core::v1::Node;

use crate::{
    cluster::Cluster,
    event::Event,
    framework::{Filter, MAX_SCORE, Plugin, Prepared, Rejection},
    node::{self, NodeInfo},
    pod::{AffinityTerm, PodInfo, WeightedTerm},
    selector::{Labels, Selector},
};

const NAME: &str = "InterPodAffinity";
/// What a required affinity of a running pod counts for when another pod looks for a node.
const HARD_WEIGHT: i64 = 1;

pub(crate) struct InterPodAffinity;

/// Counts by topology key and domain. Domains with the count 0 are left out.
#[derive(Clone, Debug, Default)]
struct Counts(HashMap<String, HashMap<String, i64>>);

impl Counts {
    fn add(&mut self, node: &NodeInfo, key: &str, by: i64) {
        let Some(domain) = node.label(key) else {
            return;
        };
        let domains = match self.0.get_mut(key) {
            Some(domains) => domains,
            None => self.0.entry(key.to_owned()).or_default(),
        };
        let count = match domains.get_mut(domain) {
            Some(count) => count,
            None => domains.entry(domain.to_owned()).or_insert(0),
        };
        *count += by;
        if *count == 0 {
            domains.remove(domain);
            if domains.is_empty() {
                self.0.remove(key);
            }
        }
    }

    fn at(&self, node: &NodeInfo, key: &str) -> i64 {
        let domain = node
            .label(key)
            .and_then(|domain| self.0.get(key)?.get(domain));
        domain.copied().unwrap_or(0)
    }

    /// The sum over all keys that the node is labelled with.
    fn sum(&self, node: &NodeInfo) -> i64 {
        self.0.keys().map(|key| self.at(node, key)).sum()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The required terms of a pod, and of running pods that object to it, against the pods that
/// there are.
#[derive(Clone)]
struct Required {
    pod: Arc<PodInfo>,
    affinity: Arc<[AffinityTerm]>,
    anti_affinity: Arc<[AffinityTerm]>,
    namespace_labels: Option<Arc<Labels>>,
    /// Pods that match all affinity terms.
    near: Counts,
    /// Pods that match an anti-affinity term.
    far: Counts,
    /// Pods with an anti-affinity term that matches this pod.
    objections: Counts,
}

impl Required {
    fn new(pod: &Arc<PodInfo>, cluster: &Cluster<'_>) -> Self {
        let resolve = |terms: &[AffinityTerm]| -> Arc<[AffinityTerm]> {
            terms
                .iter()
                .map(|term| resolved(term, cluster).into_owned())
                .collect()
        };
        let mut required = Required {
            pod: pod.clone(),
            affinity: resolve(&pod.required_affinity),
            anti_affinity: resolve(&pod.required_anti_affinity),
            namespace_labels: cluster
                .surroundings
                .namespace_labels(pod.namespace())
                .map(Arc::new),
            near: Counts::default(),
            far: Counts::default(),
            objections: Counts::default(),
        };
        let has_terms = !required.affinity.is_empty() || !required.anti_affinity.is_empty();
        for node in cluster.cache.nodes() {
            for existing in &node.with_affinity {
                required.count_objections(existing, node, 1);
            }
            if has_terms {
                for existing in &node.pods {
                    required.count_own(existing, node, 1);
                }
            }
        }
        required
    }

    fn count_own(&mut self, existing: &PodInfo, node: &NodeInfo, by: i64) {
        if matches_all(&self.affinity, existing, None) {
            for term in &*self.affinity {
                self.near.add(node, &term.topology_key, by);
            }
        }
        for term in &*self.anti_affinity {
            if term.matches(existing, None) {
                self.far.add(node, &term.topology_key, by);
            }
        }
    }

    fn count_objections(&mut self, existing: &PodInfo, node: &NodeInfo, by: i64) {
        for term in &existing.required_anti_affinity {
            if term.matches(&self.pod, self.namespace_labels.as_deref()) {
                self.objections.add(node, &term.topology_key, by);
            }
        }
    }

    fn affinity_holds(&self, node: &NodeInfo) -> bool {
        let labelled = |term: &AffinityTerm| node.label(&term.topology_key).is_some();
        if !self.affinity.iter().all(labelled) {
            return false;
        }
        let satisfied = |term: &AffinityTerm| self.near.at(node, &term.topology_key) > 0;
        // The first pod of a group that wants to be together may start anywhere.
        self.affinity.iter().all(satisfied)
            || self.near.is_empty() && matches_all(&self.affinity, &self.pod, None)
    }
}

impl Filter for Required {
    fn check(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if !self.affinity_holds(node) {
            let reason = "node(s) didn't match pod affinity rules";
            return Err(Rejection::unresolvable(NAME, reason));
        }
        let near = |term: &AffinityTerm| self.far.at(node, &term.topology_key) > 0;
        if self.anti_affinity.iter().any(near) {
            let reason = "node(s) didn't match pod anti-affinity rules";
            return Err(Rejection::resolvable(NAME, reason));
        }
        if self.objections.sum(node) > 0 {
            let reason = "node(s) didn't satisfy existing pods anti-affinity rules";
            return Err(Rejection::resolvable(NAME, reason));
        }
        Ok(())
    }

    fn pod_added(&mut self, pod: &PodInfo, node: &NodeInfo) {
        self.count_own(pod, node, 1);
        self.count_objections(pod, node, 1);
    }

    fn pod_removed(&mut self, pod: &PodInfo, node: &NodeInfo) {
        self.count_own(pod, node, -1);
        self.count_objections(pod, node, -1);
    }

    fn duplicate(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}

/// Whether there are terms and the pod matches every one.
fn matches_all(terms: &[AffinityTerm], pod: &PodInfo, namespace_labels: Option<&Labels>) -> bool {
    !terms.is_empty() && terms.iter().all(|term| term.matches(pod, namespace_labels))
}

/// The term with its namespace selector worked out, as namespaces by name.
fn resolved<'a>(term: &'a AffinityTerm, cluster: &Cluster<'_>) -> Cow<'a, AffinityTerm> {
    let selector = &term.namespace_selector;
    if selector.is_everything() || *selector == Selector::nothing() {
        return Cow::Borrowed(term);
    }
    let mut term = term.clone();
    let matching = cluster
        .surroundings
        .namespaces_matching(&term.namespace_selector);
    term.namespaces.extend(matching);
    term.namespace_selector = Selector::nothing();
    Cow::Owned(term)
}

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare(&self, pod: &Arc<PodInfo>, cluster: &Cluster<'_>) -> Prepared {
        let own = !pod.required_affinity.is_empty() || !pod.required_anti_affinity.is_empty();
        let objecting = |pod: &Arc<PodInfo>| !pod.required_anti_affinity.is_empty();
        let mut nodes = cluster.cache.nodes().iter();
        if !own && !nodes.any(|node| node.with_affinity.iter().any(objecting)) {
            return Prepared::Skip;
        }
        let required = Required::new(pod, cluster);
        if !own && required.objections.is_empty() {
            return Prepared::Skip;
        }
        Prepared::Check(Box::new(required))
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
        let sums = preferences(pod, cluster);
        if sums.is_empty() {
            return None;
        }
        let raw: Vec<i64> = feasible.iter().map(|node| sums.sum(node)).collect();
        let least = raw.iter().copied().min()?;
        let span = raw.iter().copied().max()? - least;
        if span == 0 {
            return None;
        }
        let score = |raw: i64| (MAX_SCORE as f64 * ((raw - least) as f64 / span as f64)) as i64;
        Some(raw.into_iter().map(score).collect())
    }

    fn may_help(&self, pod: &PodInfo, event: &Event<'_>, cluster: &Cluster<'_>) -> bool {
        let (terms, anti_terms) = (&pod.required_affinity, &pod.required_anti_affinity);
        let labels = |other: &PodInfo| cluster.surroundings.namespace_labels(other.namespace());
        let wanted = |other: &PodInfo| matches_all(terms, other, labels(other).as_ref());
        let unwanted = |other: &PodInfo| matches_all(anti_terms, other, labels(other).as_ref());
        match event {
            Event::NodeAdded(node) => {
                !anti_terms.is_empty()
                    || terms
                        .iter()
                        .any(|term| node::label(node, &term.topology_key).is_some())
            }
            Event::NodeUpdated { old, new, changes } => {
                changes.labels && domains_changed(pod, old, new)
            }
            Event::PodAdded(other) => wanted(other),
            Event::PodUpdated { new, changes, .. } if new.uid() == pod.uid() => changes.labels,
            Event::PodUpdated { old, new, changes } => {
                changes.labels && (!wanted(old) && wanted(new) || unwanted(old) && !unwanted(new))
            }
            Event::PodDeleted(other) => {
                let objected =
                    || matches_all(&other.required_anti_affinity, pod, labels(pod).as_ref());
                unwanted(other) || objected()
            }
            _ => false,
        }
    }
}

/// Whether the node came into a domain that the pod seeks or left one that it shuns.
fn domains_changed(pod: &PodInfo, old: &Node, new: &Node) -> bool {
    let changed = |term: &AffinityTerm| {
        let (old, new) = (
            node::label(old, &term.topology_key),
            node::label(new, &term.topology_key),
        );
        (old != new).then_some((old, new))
    };
    let sought = pod.required_affinity.iter().filter_map(changed);
    let shunned = pod.required_anti_affinity.iter().filter_map(changed);
    sought.into_iter().any(|(_, new)| new.is_some())
        || shunned.into_iter().any(|(old, _)| old.is_some())
}

/// For each domain the sum of what the pod and the running pods prefer.
fn preferences(pod: &Arc<PodInfo>, cluster: &Cluster<'_>) -> Counts {
    let mut sums = Counts::default();
    let own = !pod.preferred_affinity.is_empty() || !pod.preferred_anti_affinity.is_empty();
    let mut nodes = cluster.cache.nodes().iter();
    if !own && nodes.all(|node| node.with_affinity.is_empty()) {
        return sums;
    }
    let labels = cluster.surroundings.namespace_labels(pod.namespace());
    let resolve = |terms: &[WeightedTerm], sign: i64| -> Vec<(i64, AffinityTerm)> {
        let resolve = |weighted: &WeightedTerm| {
            let term = resolved(&weighted.term, cluster).into_owned();
            (sign * weighted.weight, term)
        };
        terms.iter().map(resolve).collect()
    };
    let mut wishes = resolve(&pod.preferred_affinity, 1);
    wishes.extend(resolve(&pod.preferred_anti_affinity, -1));
    for node in cluster.cache.nodes() {
        if own {
            for existing in &node.pods {
                for (weight, term) in &wishes {
                    if term.matches(existing, None) {
                        sums.add(node, &term.topology_key, *weight);
                    }
                }
            }
        }
        for existing in &node.with_affinity {
            for (weight, term) in wishes_of(existing) {
                if term.matches(pod, labels.as_ref()) {
                    sums.add(node, &term.topology_key, weight);
                }
            }
        }
    }
    sums
}

/// What a running pod thinks of newcomers.
fn wishes_of(pod: &PodInfo) -> impl Iterator<Item = (i64, &AffinityTerm)> {
    let hard = pod.required_affinity.iter().map(|term| (HARD_WEIGHT, term));
    let soft = pod.preferred_affinity.iter();
    let soft = soft.map(|weighted| (weighted.weight, &weighted.term));
    let anti = pod.preferred_anti_affinity.iter();
    let anti = anti.map(|weighted| (-weighted.weight, &weighted.term));
    hard.chain(soft).chain(anti)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, merge, node, pod};
    use serde_json::{Value, json};

    fn term(key: &str, app: &str) -> Value {
        json!({"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}})
    }

    fn required(kind: &str, term: Value) -> Value {
        let mut value = json!({"spec": {"affinity": {kind: {}}}});
        value["spec"]["affinity"][kind]["requiredDuringSchedulingIgnoredDuringExecution"] =
            Value::Array(vec![term]);
        value
    }

    fn world() -> World {
        let zoned =
            |name: &str, zone: &str| node(name, json!({"metadata": {"labels": {"zone": zone}}}));
        let mut world = World::new([zoned("a1", "a"), zoned("a2", "a"), zoned("b1", "b")]);
        world.running("db", "a1", json!({"metadata": {"labels": {"app": "db"}}}));
        world
    }

    fn allowed(world: &World, value: Value) -> Vec<String> {
        let Prepared::Check(filter) = InterPodAffinity.prepare(&pod(value), &world.cluster())
        else {
            return vec!["any".to_owned()];
        };
        let nodes = world.cache.nodes().iter();
        nodes
            .filter(|node| filter.check(node).is_ok())
            .map(|node| node.name.to_string())
            .collect()
    }

    #[test]
    fn required_terms() {
        let mut world = world();
        let labels = |app: &str| json!({"metadata": {"labels": {"app": app}}});
        let with_app = |app: &str, mut value: Value| {
            value["metadata"] = labels(app)["metadata"].clone();
            value
        };
        let cases = [
            ("no terms", json!({}), vec!["any"]),
            (
                "near",
                required("podAffinity", term("zone", "db")),
                vec!["a1", "a2"],
            ),
            (
                "near on the host",
                required("podAffinity", term("kubernetes.io/hostname", "db")),
                vec!["a1"],
            ),
            (
                "near nobody",
                required("podAffinity", term("zone", "none")),
                vec![],
            ),
            (
                "the first of a group",
                with_app("new", required("podAffinity", term("zone", "new"))),
                vec!["a1", "a2", "b1"],
            ),
            (
                "a key that no node has",
                with_app("new", required("podAffinity", term("rack", "new"))),
                vec![],
            ),
            (
                "far",
                required("podAntiAffinity", term("zone", "db")),
                vec!["b1"],
            ),
            (
                "far from nobody",
                required("podAntiAffinity", term("zone", "none")),
                vec!["a1", "a2", "b1"],
            ),
        ];
        for (what, value, expected) in cases {
            assert_eq!(allowed(&world, value), expected, "{what}");
        }
        world.running(
            "shy",
            "b1",
            required("podAntiAffinity", term("zone", "web")),
        );
        assert_eq!(allowed(&world, labels("web")), ["a1", "a2"]);
        assert_eq!(allowed(&world, labels("other")), ["any"]);
    }

    #[test]
    fn namespaces_are_part_of_a_term() {
        let mut world = world();
        world.surroundings.namespaces.insert(
            "default".to_owned(),
            Labels::from([("team".to_owned(), "x".to_owned())]),
        );
        let from = |extra: Value| {
            let mut near = term("zone", "db");
            merge(&mut near, extra);
            let mut value = required("podAffinity", near);
            value["metadata"] = json!({"namespace": "other"});
            value
        };
        let near = ["a1", "a2"];
        assert_eq!(allowed(&world, from(json!({}))), [""; 0]);
        assert_eq!(
            allowed(&world, from(json!({"namespaces": ["default"]}))),
            near
        );
        assert_eq!(
            allowed(&world, from(json!({"namespaceSelector": {}}))),
            near
        );
        let team = |team: &str| json!({"namespaceSelector": {"matchLabels": {"team": team}}});
        assert_eq!(allowed(&world, from(team("x"))), near);
        assert_eq!(allowed(&world, from(team("y"))), [""; 0]);
    }

    #[test]
    fn preferred_terms_of_both_sides_add_up() {
        let mut world = world();
        let preferred = |kind: &str, weight: i64, app: &str| {
            json!({"spec": {"affinity": {kind: {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": weight, "podAffinityTerm": term("zone", app)}
            ]}}}})
        };
        let score = |world: &World, value: Value| {
            let nodes: Vec<&NodeInfo> = world.cache.nodes().iter().collect();
            InterPodAffinity.score(&pod(value), &world.cluster(), &nodes)
        };
        assert_eq!(score(&world, json!({})), None);
        assert_eq!(
            score(&world, preferred("podAffinity", 5, "db")),
            Some(vec![100, 100, 0])
        );
        assert_eq!(
            score(&world, preferred("podAntiAffinity", 5, "db")),
            Some(vec![0, 0, 100])
        );
        world.running("fan", "b1", preferred("podAffinity", 7, "web"));
        assert_eq!(
            score(&world, json!({"metadata": {"labels": {"app": "web"}}})),
            Some(vec![0, 0, 100])
        );
    }
}
