//! The decision: on which node should a pod run?
//!
//! Enter at [`schedule`]. It reads the cluster and changes nothing.

mod diagnosis;
mod filters;

use std::{borrow::Cow, collections::BTreeSet, sync::Arc, time::Instant};

pub(crate) use diagnosis::Diagnosis;
pub(crate) use filters::Filters;

use crate::{
    cluster::Cluster,
    devices::binding::Plan,
    framework::{Listed, PostFilter, Prepared, Rejection},
    metrics::Point,
    node::NodeInfo,
    plugins::dynamic_resources,
    pod::PodInfo,
    preemption::{self, Preemption},
};

/// In a cluster with more nodes than this the search ends when enough have been found.
const SEARCH_ALL: usize = 100;
/// The share of nodes, in percent, that is never gone below in a large cluster.
const LEAST_PERCENT: usize = 5;

/// What came of looking for a node.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The pod should run on this node, with these devices.
    Node { name: Arc<str>, devices: Plan },
    /// It cannot be told.
    Error(String),
    /// There is no node at all.
    NoNodes,
    /// It fits nowhere.
    Unfit(Unfit),
}

/// Why a pod fits nowhere, and what is done about it.
#[derive(Debug)]
pub(crate) struct Unfit {
    /// For the pod's condition and its event.
    pub message: String,
    /// The plugins that stood against it: what they wait for may let it in.
    pub rejectors: BTreeSet<&'static str>,
    pub preemption: Preemption,
    /// What is to be done with a claim of devices.
    pub claims: PostFilter,
}

/// Turns that the decisions of one scheduler take.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    /// Where the next search starts, so that all nodes of a large cluster get their share.
    start: usize,
    random: u64,
}

impl Turn {
    /// `seed` decides among equals.
    pub fn new(seed: u64) -> Self {
        Turn {
            start: 0,
            random: seed,
        }
    }

    /// A number below `bound`. Spreads load; needs not be hard to guess.
    pub fn below(&mut self, bound: usize) -> usize {
        // Marsaglia's xorshift64.
        let mut random = self.random | 1;
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        self.random = random;
        (random >> 11) as usize % bound.max(1)
    }
}

/// Looks for a node for the pod.
pub(crate) fn schedule(
    pod: &Arc<PodInfo>,
    cluster: &Cluster<'_>,
    plugins: &[Listed],
    turn: &mut Turn,
) -> Outcome {
    let nodes = cluster.cache.nodes();
    if nodes.is_empty() {
        return Outcome::NoNodes;
    }
    let since = Instant::now();
    let (filters, only, rejected) = prepare(pod, cluster, plugins);
    Point::PreFilter.over(rejected.is_none(), since);
    if let Some(rejection) = rejected {
        if rejection.error {
            let (plugin, why) = (rejection.plugin, rejection.reasons.join(", "));
            return Outcome::Error(format!("running PreFilter plugin {plugin:?}: {why}"));
        }
        let diagnosis = Diagnosis {
            others: Some(rejection),
            at_once: true,
            ..Diagnosis::default()
        };
        return unfit(pod, cluster, &filters, &diagnosis, turn);
    }
    if let Some(node) = nominated(pod, cluster, &filters) {
        return chosen(node, &filters);
    }
    let mut diagnosis = Diagnosis::default();
    let candidates: Vec<usize> = match &only {
        None => {
            let start = turn.start % nodes.len();
            (start..nodes.len()).chain(0..start).collect()
        }
        Some(only) => {
            let reason: Cow<'static, str> =
                format!("node(s) didn't satisfy plugin(s) [{}]", only.plugin).into();
            diagnosis.others = Some(Rejection::unresolvable(only.plugin, reason));
            (0..nodes.len())
                .filter(|&index| only.names.contains(&*nodes[index].name))
                .collect()
        }
    };
    let since = Instant::now();
    let feasible = find(pod, cluster, &filters, &candidates, &mut diagnosis);
    Point::Filter.over(!feasible.is_empty(), since);
    turn.start = (turn.start + feasible.len() + diagnosis.rejected.len()) % nodes.len();
    let mut rejected = diagnosis.rejected.values();
    if let Some(rejection) = rejected.find(|rejection| rejection.error) {
        let (plugin, why) = (rejection.plugin, rejection.reasons.join(", "));
        return Outcome::Error(format!("running {plugin:?} filter plugin: {why}"));
    }
    match feasible.len() {
        0 => unfit(pod, cluster, &filters, &diagnosis, turn),
        1 => chosen(feasible[0], &filters),
        _ => {
            let node = best(pod, cluster, plugins, &filters, &feasible, turn);
            chosen(node, &filters)
        }
    }
}

fn chosen(node: &NodeInfo, filters: &Filters) -> Outcome {
    Outcome::Node {
        name: node.name.clone(),
        devices: filters.devices_on(&node.name),
    }
}

/// The only nodes that a plugin lets pass.
struct Only {
    plugin: &'static str,
    names: BTreeSet<String>,
}

fn prepare(
    pod: &Arc<PodInfo>,
    cluster: &Cluster<'_>,
    plugins: &[Listed],
) -> (Filters, Option<Only>, Option<Rejection>) {
    let mut filters = Filters::default();
    let mut only: Option<Only> = None;
    for plugin in plugins {
        let prepared = plugin.prepare(pod, cluster);
        if !matches!(prepared, Prepared::Skip) {
            plugin.evaluated.add(Point::PreFilter, 1);
        }
        match prepared {
            Prepared::Skip => {}
            Prepared::Reject(rejection) => return (filters, only, Some(rejection)),
            Prepared::Check(filter) => filters.add(filter, plugin),
            Prepared::CheckOnly(filter, mut names) => {
                filters.add(filter, plugin);
                if let Some(known) = &only {
                    names.retain(|name| known.names.contains(name));
                }
                let plugin = plugin.name();
                only = Some(Only { plugin, names });
            }
        }
    }
    (filters, only, None)
}

/// The node that was cleared for the pod, if it fits there now.
fn nominated<'a>(pod: &PodInfo, cluster: &Cluster<'a>, filters: &Filters) -> Option<&'a NodeInfo> {
    let node = cluster.cache.node(pod.nominated_node_name())?;
    filters
        .check_with_nominated(pod, node, cluster)
        .is_ok()
        .then_some(node)
}

/// The nodes that can run the pod, or enough of them.
fn find<'a>(
    pod: &PodInfo,
    cluster: &Cluster<'a>,
    filters: &Filters,
    candidates: &[usize],
    diagnosis: &mut Diagnosis,
) -> Vec<&'a NodeInfo> {
    let nodes = cluster.cache.nodes();
    let enough = enough(candidates.len());
    let mut feasible = Vec::new();
    for &index in candidates {
        let node = &nodes[index];
        match filters.check_with_nominated(pod, node, cluster) {
            Ok(()) => feasible.push(node),
            Err(rejection) => {
                let error = rejection.error;
                diagnosis.rejected.insert(index, rejection);
                if error {
                    break;
                }
            }
        }
        if feasible.len() >= enough {
            break;
        }
    }
    feasible
}

/// How many feasible nodes are enough to choose from.
fn enough(nodes: usize) -> usize {
    if nodes < SEARCH_ALL {
        return nodes.max(1);
    }
    let percent = 50usize.saturating_sub(nodes / 125).max(LEAST_PERCENT);
    (nodes * percent / 100).max(SEARCH_ALL)
}

/// The node with the best weighted sum of scores; among equals, any.
fn best<'a>(
    pod: &Arc<PodInfo>,
    cluster: &Cluster<'_>,
    plugins: &[Listed],
    filters: &Filters,
    feasible: &[&'a NodeInfo],
    turn: &mut Turn,
) -> &'a NodeInfo {
    let since = Instant::now();
    let mut totals = vec![0; feasible.len()];
    let mut add = |weight: i64, scores: Vec<i64>| {
        for (total, score) in totals.iter_mut().zip(scores) {
            *total += score * weight;
        }
    };
    for plugin in plugins {
        let weight = plugin.weight();
        if weight == 0 {
            continue;
        }
        if let Some(scores) = plugin.score(pod, cluster, feasible) {
            plugin.evaluated.add(Point::Score, feasible.len());
            add(weight, scores);
        }
    }
    for filter in filters.all() {
        if let Some((weight, scores)) = filter.score(feasible) {
            add(weight, scores);
        }
    }
    Point::Score.over(true, since);
    let most = totals.iter().copied().max().unwrap_or(0);
    let equals: Vec<usize> = (0..totals.len())
        .filter(|&index| totals[index] == most)
        .collect();
    feasible[equals[turn.below(equals.len())]]
}

/// The pod fits nowhere: whether lower priorities can make way for it, and what it is told.
fn unfit(
    pod: &Arc<PodInfo>,
    cluster: &Cluster<'_>,
    filters: &Filters,
    diagnosis: &Diagnosis,
    turn: &mut Turn,
) -> Outcome {
    let nodes = cluster.cache.nodes().len();
    let mut message = diagnosis.message(nodes);
    let rejectors = diagnosis.rejectors();
    // Upstream's DynamicResources comes before preemption, which it ends with this error when an
    // earlier plugin turned the pod away before it was asked.
    let asked = !diagnosis.at_once || rejectors.contains(dynamic_resources::NAME);
    let since = Instant::now();
    let preemption = match asked {
        true => preemption::find(pod, cluster, filters, diagnosis, turn),
        false => Preemption::Ineligible("not found".to_owned()),
    };
    let possible = matches!(preemption, Preemption::Possible { .. });
    Point::PostFilter.over(possible, since);
    let claims = filters.all().find_map(|filter| filter.post_filter());
    let done = match &claims {
        None => "no new claims to deallocate",
        Some(PostFilter::Nothing) => "still not schedulable",
        Some(PostFilter::Deallocate(_)) => "deallocation of ResourceClaim completed",
        Some(PostFilter::Delete(_)) => "deletion of ResourceClaim completed",
    };
    match preemption.futile() {
        None => {}
        Some(futile) if asked => message.push_str(&format!(" {done}, preemption: {futile}")),
        Some(error) => message.push_str(&format!(" {error}")),
    }
    Outcome::Unfit(Unfit {
        message,
        rejectors,
        preemption,
        claims: claims.unwrap_or(PostFilter::Nothing),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        plugins,
        testing::{World, node, pod},
    };
    use serde_json::{Value, json};

    fn decide(world: &World, value: Value) -> Outcome {
        schedule(
            &pod(value),
            &world.cluster(),
            &plugins::table(),
            &mut Turn::new(7),
        )
    }

    fn message(world: &World, value: Value) -> String {
        match decide(world, value) {
            Outcome::Unfit(unfit) => unfit.message,
            other => panic!("{other:?}"),
        }
    }

    fn asking(cpu: &str) -> Value {
        json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}})
    }

    #[test]
    fn the_message_says_what_is_wrong_with_how_many_nodes() {
        let mut world = World::new([
            node("full", json!({})),
            node("cordoned", json!({"spec": {"unschedulable": true}})),
            node(
                "tainted",
                json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}}),
            ),
        ]);
        world.running("r", "full", asking("3"));
        assert_eq!(
            message(&world, asking("2")),
            "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s), \
             1 node(s) were unschedulable. no new claims to deallocate, preemption: \
             0/3 nodes are available: 1 No preemption victims found for incoming pod, \
             2 Preemption is not helpful for scheduling."
        );
        let world = World::new([node("n", json!({}))]);
        assert_eq!(
            message(&world, asking("5")),
            "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, \
             preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
        );
        let never = json!({"spec": {"preemptionPolicy": "Never", "nodeSelector": {"a": "b"}}});
        assert_eq!(
            message(&world, never),
            "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. \
             no new claims to deallocate, preemption: not eligible due to preemptionPolicy=Never."
        );
    }

    #[test]
    fn nodes_outside_a_list_of_names_are_not_looked_at() {
        let world = World::new([
            node("a", json!({"spec": {"unschedulable": true}})),
            node("b", json!({})),
            node("c", json!({})),
        ]);
        let on = |name: &str| {
            json!({"spec": {"affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                    {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}
                ]}
            }}}})
        };
        assert!(matches!(decide(&world, on("b")), Outcome::Node { name, .. } if &*name == "b"));
        assert!(message(&world, on("a")).starts_with(
            "0/3 nodes are available: 1 node(s) were unschedulable, \
             2 node(s) didn't satisfy plugin(s) [NodeAffinity]."
        ));
    }

    #[test]
    fn the_emptiest_node_is_chosen() {
        let mut world = World::new([
            node("a", json!({})),
            node("b", json!({})),
            node("c", json!({})),
        ]);
        world.running("1", "a", asking("2"));
        world.running("2", "b", asking("1"));
        assert!(matches!(decide(&world, asking("1")), Outcome::Node { name, .. } if &*name == "c"));
        assert!(matches!(
            decide(&World::default(), asking("1")),
            Outcome::NoNodes
        ));
    }

    #[test]
    fn room_that_was_promised_is_left() {
        let mut world = World::new([node("n", json!({}))]);
        let promised = |priority: i32| {
            let mut value = asking("3");
            value["metadata"] = json!({"name": "promised"});
            value["spec"]["priority"] = json!(priority);
            pod(value)
        };
        world.nominator.set(promised(10), "n");
        assert!(matches!(decide(&world, asking("2")), Outcome::Unfit(_)));
        world.nominator.set(promised(-1), "n");
        assert!(matches!(decide(&world, asking("2")), Outcome::Node { .. }));
    }

    #[test]
    fn a_large_cluster_is_searched_in_part() {
        assert_eq!(
            [
                enough(50),
                enough(100),
                enough(500),
                enough(5000),
                enough(10_000)
            ],
            [50, 100, 230, 500, 500]
        );
    }
}
