//! Making room for a pod by removing pods of lower priority.
//!
//! Enter at [`find`]. It only chooses; removing is done by the caller.

use std::{cmp::Reverse, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::{
    cluster::Cluster,
    framework::Rejection,
    node::NodeInfo,
    pod::PodInfo,
    schedule::{Diagnosis, Filters, Turn},
    selector::Selector,
};

/// At least this share of the possible nodes is tried, in percent.
const LEAST_PERCENT: usize = 10;
/// At least this many nodes are tried.
const LEAST_NODES: usize = 100;

/// What preemption can do for a pod.
#[derive(Debug)]
pub(crate) enum Preemption {
    /// The victims have to go from the node; then the pod fits there.
    Possible {
        node: Arc<str>,
        victims: Vec<Arc<PodInfo>>,
    },
    /// No node can be cleared; an earlier nomination is void.
    Impossible(String),
    /// The pod may not preempt, or not now; an earlier nomination stands.
    Ineligible(String),
}

impl Preemption {
    /// Why it does nothing for the pod.
    pub fn futile(&self) -> Option<&str> {
        match self {
            Preemption::Possible { .. } => None,
            Preemption::Impossible(why) | Preemption::Ineligible(why) => Some(why),
        }
    }
}

/// The pods that would have to leave one node.
struct Candidate {
    node: Arc<str>,
    /// The most important first.
    victims: Vec<Arc<PodInfo>>,
    budget_violations: usize,
}

/// Looks for the node where making room hurts least.
pub(crate) fn find(
    pod: &Arc<PodInfo>,
    cluster: &Cluster<'_>,
    filters: &Filters,
    diagnosis: &Diagnosis,
    turn: &mut Turn,
) -> Preemption {
    if let Some(why) = ineligible(pod, cluster, diagnosis) {
        return Preemption::Ineligible(why.to_owned());
    }
    let possible: Vec<usize> = diagnosis
        .rejected
        .iter()
        .filter(|(_, rejection)| !rejection.unresolvable)
        .map(|(&index, _)| index)
        .collect();
    let mut futile = Diagnosis::default();
    let candidates = try_nodes(pod, cluster, filters, &possible, turn, &mut futile);
    match choose(candidates) {
        Some(candidate) => Preemption::Possible {
            node: candidate.node,
            victims: candidate.victims,
        },
        None => {
            let reason = "Preemption is not helpful for scheduling";
            futile.others = Some(Rejection::unresolvable("DefaultPreemption", reason));
            Preemption::Impossible(futile.message(cluster.cache.nodes().len()))
        }
    }
}

fn ineligible(pod: &PodInfo, cluster: &Cluster<'_>, diagnosis: &Diagnosis) -> Option<&'static str> {
    let spec = pod.pod.spec.as_ref();
    if spec.and_then(|spec| spec.preemption_policy.as_deref()) == Some("Never") {
        return Some("not eligible due to preemptionPolicy=Never.");
    }
    let nodes = cluster.cache.nodes();
    let index = nodes
        .iter()
        .position(|node| *node.name == *pod.nominated_node_name())?;
    let rejection = diagnosis.rejected.get(&index).or(diagnosis.others.as_ref());
    if rejection.is_some_and(|rejection| rejection.unresolvable) {
        return None;
    }
    // Victims of an earlier preemption are still on their way out: wait for them.
    let leaving = |other: &Arc<PodInfo>| other.priority < pod.priority && is_preempted(other);
    nodes[index]
        .pods
        .iter()
        .any(leaving)
        .then_some("not eligible due to a terminating pod on the nominated node.")
}

fn is_preempted(pod: &PodInfo) -> bool {
    let status = pod.pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    pod.is_terminating()
        && conditions.any(|condition| {
            condition.type_ == "DisruptionTarget"
                && condition.status == "True"
                && condition.reason.as_deref() == Some("PreemptionByScheduler")
        })
}

fn try_nodes(
    pod: &Arc<PodInfo>,
    cluster: &Cluster<'_>,
    filters: &Filters,
    possible: &[usize],
    turn: &mut Turn,
    futile: &mut Diagnosis,
) -> Vec<Candidate> {
    let mut candidates: Vec<Candidate> = Vec::new();
    if possible.is_empty() {
        return candidates;
    }
    let enough = (possible.len() * LEAST_PERCENT / 100).max(LEAST_NODES);
    let budgets = cluster.surroundings.disruption_budgets();
    let start = turn.below(possible.len());
    for &index in possible[start..].iter().chain(&possible[..start]) {
        let node = &cluster.cache.nodes()[index];
        match victims_on(node, pod, cluster, filters, &budgets) {
            Ok(candidate) => candidates.push(candidate),
            Err(rejection) => {
                futile.rejected.insert(index, rejection);
            }
        }
        let harmless = candidates
            .iter()
            .any(|candidate| candidate.budget_violations == 0);
        if harmless && candidates.len() >= enough {
            break;
        }
    }
    candidates
}

/// The least important pods that have to leave the node for the pod to fit.
fn victims_on(
    node: &NodeInfo,
    pod: &Arc<PodInfo>,
    cluster: &Cluster<'_>,
    filters: &Filters,
    budgets: &[Arc<PodDisruptionBudget>],
) -> Result<Candidate, Rejection> {
    let mut lower: Vec<Arc<PodInfo>> = node
        .pods
        .iter()
        .filter(|other| other.priority < pod.priority)
        .cloned()
        .collect();
    if lower.is_empty() {
        let reason = "No preemption victims found for incoming pod";
        return Err(Rejection::unresolvable("DefaultPreemption", reason));
    }
    let (mut node, mut filters) = (node.clone(), filters.duplicate());
    for other in &lower {
        node.remove_pod(&other.key);
        filters.pod_removed(other, &node);
    }
    filters.check_with_nominated(pod, &node, cluster)?;

    lower.sort_by_cached_key(|other| importance(other));
    let (violating, harmless) = split_by_budgets(lower, budgets);
    let violating_count = violating.len();
    let mut victims: Vec<Arc<PodInfo>> = Vec::new();
    let mut budget_violations = 0;
    // As many as possible stay, those that budgets protect before all others.
    for (index, other) in violating.into_iter().chain(harmless).enumerate() {
        node.add_pod(other.clone());
        filters.pod_added(&other, &node);
        if filters.check_with_nominated(pod, &node, cluster).is_ok() {
            continue;
        }
        node.remove_pod(&other.key);
        filters.pod_removed(&other, &node);
        budget_violations += usize::from(index < violating_count);
        victims.push(other);
    }
    if victims.is_empty() {
        let reason = format!("expected at least one victim pod on node {:?}", node.name);
        return Err(Rejection::resolvable("DefaultPreemption", reason));
    }
    victims.sort_by_cached_key(|victim| importance(victim));
    Ok(Candidate {
        node: node.name,
        victims,
        budget_violations,
    })
}

/// Sorts the most important first: by priority, then by how long the pod has been running.
fn importance(pod: &PodInfo) -> (Reverse<i32>, Timestamp) {
    (Reverse(pod.priority), started(pod))
}

/// A pod that has not started counts as starting now.
fn started(pod: &PodInfo) -> Timestamp {
    let status = pod.pod.status.as_ref();
    let time = status.and_then(|status| status.start_time.as_ref());
    time.map_or_else(Timestamp::now, |time| time.0)
}

/// The pods whose removal breaks a budget, and the others, both in the order given.
fn split_by_budgets(
    pods: Vec<Arc<PodInfo>>,
    budgets: &[Arc<PodDisruptionBudget>],
) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
    let mut allowed: Vec<i32> = budgets
        .iter()
        .map(|budget| {
            let status = budget.status.as_ref();
            status
                .and_then(|status| status.disruptions_allowed)
                .unwrap_or(0)
        })
        .collect();
    pods.into_iter().partition(|pod| {
        let mut violates = false;
        for (budget, allowed) in budgets.iter().zip(&mut allowed) {
            if protects(budget, pod) {
                *allowed -= 1;
                violates |= *allowed < 0;
            }
        }
        violates
    })
}

/// Whether the budget covers the pod and does not count it as disrupted already.
fn protects(budget: &PodDisruptionBudget, pod: &PodInfo) -> bool {
    if budget.metadata.namespace.as_deref() != Some(pod.namespace())
        || pod.labels().is_none_or(|labels| labels.is_empty())
    {
        return false;
    }
    let spec = budget.spec.as_ref();
    let selector = spec.and_then(|spec| spec.selector.as_ref());
    let selector = Selector::from_label_selector(selector);
    let disrupted = budget
        .status
        .as_ref()
        .and_then(|status| status.disrupted_pods.as_ref())
        .is_some_and(|disrupted| disrupted.contains_key(pod.name()));
    !selector.is_everything() && selector.matches(pod.labels()) && !disrupted
}

/// The candidate that hurts least: fewest broken budgets, then the lowest highest priority, the
/// lowest sum of priorities, the fewest pods, and the pods that have run for the shortest time.
fn choose(candidates: Vec<Candidate>) -> Option<Candidate> {
    candidates.into_iter().min_by_key(|candidate| {
        let victims = &candidate.victims;
        let highest = victims.first().map_or(i32::MIN, |victim| victim.priority);
        let sum: i64 = victims
            .iter()
            .map(|victim| i64::from(victim.priority) + i64::from(i32::MAX) + 1)
            .sum();
        let earliest = victims
            .iter()
            .take_while(|victim| victim.priority == highest)
            .map(|victim| started(victim))
            .min();
        (
            candidate.budget_violations,
            highest,
            sum,
            victims.len(),
            Reverse(earliest),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        plugins,
        schedule::{Outcome, schedule},
        testing::{World, node, pod},
    };
    use serde_json::{Value, json};

    fn asking(cpu: &str, priority: i32) -> Value {
        json!({"spec": {"priority": priority, "containers": [
            {"name": "c", "resources": {"requests": {"cpu": cpu}}}
        ]}})
    }

    fn started_at(mut value: Value, hour: u32) -> Value {
        value["status"] = json!({"startTime": format!("2026-01-01T{hour:02}:00:00Z")});
        value
    }

    /// `node: victims`, or why not.
    fn preempt(world: &World, value: Value) -> String {
        let outcome = schedule(
            &pod(value),
            &world.cluster(),
            &plugins::table(),
            &mut Turn::new(3),
        );
        let Outcome::Unfit(unfit) = outcome else {
            panic!("{outcome:?}");
        };
        match unfit.preemption {
            Preemption::Possible { node, victims } => {
                let names: Vec<&str> = victims.iter().map(|victim| victim.name()).collect();
                format!("{node}: {}", names.join(" "))
            }
            Preemption::Impossible(why) | Preemption::Ineligible(why) => why,
        }
    }

    #[test]
    fn as_few_as_possible_and_the_least_important_go() {
        let mut world = World::new([node("n", json!({}))]);
        world.running("low", "n", asking("1", 1));
        world.running("middle", "n", asking("1", 2));
        world.running("high", "n", asking("1", 3));
        world.running("same", "n", asking("1", 9));
        assert_eq!(preempt(&world, asking("1", 9)), "n: low");
        assert_eq!(preempt(&world, asking("2", 9)), "n: middle low");
        assert_eq!(
            preempt(&world, asking("4", 9)),
            "0/1 nodes are available: 1 Insufficient cpu.",
        );
        assert_eq!(
            preempt(&world, asking("1", 1)),
            "0/1 nodes are available: 1 No preemption victims found for incoming pod."
        );
    }

    #[test]
    fn the_node_where_it_hurts_least_is_chosen() {
        let budget = |name: &str| {
            let budget: PodDisruptionBudget = serde_json::from_value(json!({
                "metadata": {"namespace": "default", "name": name},
                "spec": {"selector": {"matchLabels": {"app": name}}},
                "status": {"disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1},
            }))
            .expect("a budget");
            Arc::new(budget)
        };
        let labelled = |mut value: Value, app: &str| {
            value["metadata"] = json!({"labels": {"app": app}});
            value
        };
        let cases = [
            (
                "budgets first",
                vec![
                    ("a", labelled(asking("4", 0), "guarded")),
                    ("b", asking("4", 5)),
                ],
                "b",
            ),
            (
                "the lower priority",
                vec![("a", asking("4", 2)), ("b", asking("4", 1))],
                "b",
            ),
            (
                "the lower sum",
                vec![
                    ("a", asking("2", 2)),
                    ("a", asking("2", 2)),
                    ("b", asking("2", 2)),
                    ("b", asking("2", 1)),
                ],
                "b",
            ),
            (
                "the younger",
                vec![
                    ("a", started_at(asking("4", 1), 1)),
                    ("b", started_at(asking("4", 1), 2)),
                ],
                "b",
            ),
        ];
        for (what, running, expected) in cases {
            let mut world = World::new([node("a", json!({})), node("b", json!({}))]);
            world.surroundings.budgets.push(budget("guarded"));
            for (index, (on, value)) in running.into_iter().enumerate() {
                world.running(&index.to_string(), on, value);
            }
            let chosen = preempt(&world, asking("4", 9));
            assert!(
                chosen.starts_with(&format!("{expected}: ")),
                "{what}: {chosen}"
            );
        }
    }

    #[test]
    fn nobody_is_preempted_while_victims_are_leaving() {
        let mut world = World::new([node("n", json!({}))]);
        let mut leaving = asking("4", 1);
        leaving["metadata"] = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        leaving["status"] = json!({"conditions": [
            {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}
        ]});
        world.running("leaving", "n", leaving);
        let mut value = asking("4", 9);
        value["status"] = json!({"nominatedNodeName": "n"});
        assert_eq!(
            preempt(&world, value),
            "not eligible due to a terminating pod on the nominated node."
        );
    }
}
