//! The taints that say what is wrong with a node.

use k8s_openapi::{
    api::core::v1::{Node, Taint, Toleration},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{ResourceExt as _, api::Patch};
use serde_json::json;

use crate::objects::Objects;

pub(super) const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub(super) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
pub(super) const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
pub(crate) const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
pub(crate) const NO_SCHEDULE: &str = "NoSchedule";
pub(crate) const NO_EXECUTE: &str = "NoExecute";

/// A condition's type and status, and the taint that goes with it.
const BY_CONDITION: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    (
        "MemoryPressure",
        "True",
        "node.kubernetes.io/memory-pressure",
    ),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    (
        "NetworkUnavailable",
        "True",
        "node.kubernetes.io/network-unavailable",
    ),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];

pub(crate) fn list(node: &Node) -> &[Taint] {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref());
    taints.unwrap_or_default()
}

pub(super) fn has(node: &Node, key: &str, effect: &str) -> bool {
    list(node)
        .iter()
        .any(|taint| taint.key == key && taint.effect == effect)
}

/// The taints that the node should have: those against scheduling follow its conditions and
/// `spec.unschedulable`. `None` when it has them.
pub(super) fn following_conditions(node: &Node, now: &Time) -> Option<Vec<Taint>> {
    let conditions = node.status.iter().flat_map(|status| &status.conditions);
    let mut wanted: Vec<&str> = conditions
        .flatten()
        .filter_map(|condition| {
            let known = BY_CONDITION.iter().find(|(type_, status, _)| {
                condition.type_ == *type_ && condition.status == *status
            });
            known.map(|(_, _, key)| *key)
        })
        .collect();
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        wanted.push(UNSCHEDULABLE);
    }
    let ours = |key: &str| key == UNSCHEDULABLE || BY_CONDITION.iter().any(|one| one.2 == key);
    let surplus: Vec<&str> = list(node)
        .iter()
        .filter(|taint| taint.effect == NO_SCHEDULE && ours(&taint.key))
        .map(|taint| taint.key.as_str())
        .filter(|key| !wanted.contains(key))
        .collect();
    changed(node, NO_SCHEDULE, &wanted, &surplus, now)
}

/// The node's taints with some of this effect added and others removed. `None` when that changes
/// nothing.
pub(super) fn changed(
    node: &Node,
    effect: &str,
    add: &[&str],
    remove: &[&str],
    now: &Time,
) -> Option<Vec<Taint>> {
    let known = list(node);
    let mut taints: Vec<Taint> = known
        .iter()
        .filter(|taint| taint.effect != effect || !remove.contains(&taint.key.as_str()))
        .cloned()
        .collect();
    for key in add {
        let there = taints
            .iter()
            .any(|taint| taint.key == *key && taint.effect == effect);
        if !there {
            taints.push(Taint {
                key: (*key).to_owned(),
                effect: effect.to_owned(),
                value: None,
                time_added: Some(now.clone()),
            });
        }
    }
    (taints != known).then_some(taints)
}

/// Writes the node's taints, unless somebody else has written the node meanwhile.
pub(super) async fn write(
    nodes: &Objects<Node>,
    node: &Node,
    taints: &[Taint],
) -> Result<Node, kube::Error> {
    let patch = Patch::Merge(json!({
        "metadata": { "resourceVersion": node.resource_version() },
        "spec": { "taints": taints },
    }));
    nodes.patch("", &node.name_any(), patch).await
}

pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    let value = toleration.value.as_deref().unwrap_or_default();
    let tainted = taint.value.as_deref().unwrap_or_default();
    let applies =
        (effect.is_empty() || effect == taint.effect) && (key.is_empty() || key == taint.key);
    applies
        && match toleration.operator.as_deref().unwrap_or_default() {
            "" | "Equal" => value == tainted,
            "Exists" => true,
            operator @ ("Lt" | "Gt") => compares(operator, tainted, value),
            _ => false,
        }
}

/// Whether the taint's number is less, or greater, than the toleration's.
fn compares(operator: &str, tainted: &str, tolerated: &str) -> bool {
    let (Ok(tainted), Ok(tolerated)) = (tainted.parse::<i64>(), tolerated.parse::<i64>()) else {
        return false;
    };
    if operator == "Lt" {
        tainted < tolerated
    } else {
        tainted > tolerated
    }
}

/// How long a pod may stay on a node with these taints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tolerated {
    ForEver,
    /// Zero when some taint is not tolerated at all.
    Seconds(i64),
}

pub(super) fn tolerated(tolerations: &[Toleration], taints: &[Taint]) -> Tolerated {
    let mut shortest: Option<i64> = None;
    for taint in taints {
        let mut matching = tolerations
            .iter()
            .filter(|toleration| tolerates(toleration, taint))
            .peekable();
        // As upstream, the first toleration that matches a taint is the one that counts.
        let Some(used) = matching.peek() else {
            return Tolerated::Seconds(0);
        };
        if let Some(seconds) = used.toleration_seconds {
            let seconds = seconds.max(0);
            shortest = Some(shortest.map_or(seconds, |known| known.min(seconds)));
        }
    }
    shortest.map_or(Tolerated::ForEver, Tolerated::Seconds)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn keys(taints: Option<Vec<Taint>>) -> Option<Vec<String>> {
        let taints = taints?.into_iter();
        Some(
            taints
                .map(|taint| format!("{}:{}", taint.key, taint.effect))
                .collect(),
        )
    }

    #[test]
    fn taints_follow_conditions_and_leave_others_alone() {
        let node: Node = serde_json::from_value(json!({
            "metadata": { "name": "n" },
            "spec": { "unschedulable": true, "taints": [
                { "key": "mine", "effect": "NoSchedule" },
                { "key": NOT_READY, "effect": "NoSchedule" },
                { "key": NOT_READY, "effect": "NoExecute" },
            ]},
            "status": { "conditions": [
                { "type": "Ready", "status": "True" },
                { "type": "DiskPressure", "status": "True" },
                { "type": "PIDPressure", "status": "False" },
            ]},
        }))
        .expect("a node");
        let now = Time(jiff::Timestamp::UNIX_EPOCH);
        let taints = following_conditions(&node, &now).expect("a change");
        let mut settled = node;
        if let Some(spec) = &mut settled.spec {
            spec.taints = Some(taints.clone());
        }
        assert_eq!(
            keys(Some(taints)).expect("taints"),
            [
                "mine:NoSchedule",
                "node.kubernetes.io/not-ready:NoExecute",
                "node.kubernetes.io/disk-pressure:NoSchedule",
                "node.kubernetes.io/unschedulable:NoSchedule",
            ]
        );
        assert_eq!(following_conditions(&settled, &now), None);
    }

    #[test]
    fn the_shortest_toleration_counts_and_an_untolerated_taint_ends_it() {
        let toleration =
            |value: Value| -> Toleration { serde_json::from_value(value).expect("a toleration") };
        let taint = |key: &str| Taint {
            key: key.to_owned(),
            effect: NO_EXECUTE.to_owned(),
            ..Taint::default()
        };
        let tolerations = [
            toleration(json!({ "key": "a", "operator": "Exists", "tolerationSeconds": 60 })),
            toleration(
                json!({ "key": "b", "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": 30 }),
            ),
            toleration(json!({ "key": "c", "operator": "Exists" })),
            toleration(json!({ "key": "d", "value": "other" })),
            toleration(json!({ "key": "e", "operator": "Exists", "tolerationSeconds": -1 })),
        ];
        let cases = [
            (vec!["a"], Tolerated::Seconds(60)),
            (vec!["a", "b", "c"], Tolerated::Seconds(30)),
            (vec!["c"], Tolerated::ForEver),
            (vec!["a", "d"], Tolerated::Seconds(0)),
            (vec!["e", "a"], Tolerated::Seconds(0)),
            (vec![], Tolerated::ForEver),
        ];
        for (given, expected) in cases {
            let taints: Vec<Taint> = given.iter().map(|key| taint(key)).collect();
            assert_eq!(tolerated(&tolerations, &taints), expected, "{given:?}");
        }
        let all = [toleration(json!({ "operator": "Exists" }))];
        assert_eq!(tolerated(&all, &[taint("x")]), Tolerated::ForEver);
    }
}
