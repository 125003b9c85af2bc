//! Decisions on daemon sets.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{Node, Pod},
};
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::{
    decide::{Plan, World},
    pod::{self, Fit},
};
use crate::history::POD_LABEL;

const NEW: &str = "new";
const OLD: &str = "old";

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().expect("a time")
}

fn parsed<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object")
}

/// A set that rolls with these limits; the strategy is `OnDelete` without.
fn set(limits: Option<(Value, Value)>, template: Value) -> DaemonSet {
    let strategy = match limits {
        Some((surge, unavailable)) => json!({
            "type": "RollingUpdate",
            "rollingUpdate": { "maxSurge": surge, "maxUnavailable": unavailable },
        }),
        None => json!({ "type": "OnDelete" }),
    };
    let mut template = template;
    template["containers"] = json!([{ "name": "c", "image": "i" }]);
    parsed(json!({
        "metadata": { "name": "d", "namespace": "default", "uid": "d", "generation": 2 },
        "spec": {
            "selector": { "matchLabels": { "app": "d" } },
            "template": { "metadata": { "labels": { "app": "d" } }, "spec": template },
            "updateStrategy": strategy,
        },
    }))
}

fn node(name: &str, taints: &Value) -> Arc<Node> {
    Arc::new(parsed(json!({
        "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
        "spec": { "taints": taints },
    })))
}

fn nodes(count: usize) -> Vec<Arc<Node>> {
    let names = (0..count).map(|number| format!("n{number}"));
    names.map(|name| node(&name, &json!([]))).collect()
}

struct Daemon(Value);

impl Daemon {
    fn on(node: &str, hash: &str, ready: bool) -> Self {
        let status = if ready { "True" } else { "False" };
        Daemon(json!({
            "metadata": { "name": format!("{node}-{hash}"), "namespace": "default",
                "uid": format!("{node}-{hash}"), "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": { "app": "d", POD_LABEL: hash } },
            "spec": { "nodeName": node, "containers": [] },
            "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": status,
                "lastTransitionTime": "2026-01-01T00:30:00Z" }] },
        }))
    }

    fn phase(mut self, phase: &str) -> Self {
        self.0["status"]["phase"] = json!(phase);
        self
    }

    fn deleted(mut self) -> Self {
        self.0["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:40:00Z");
        self
    }

    fn named(mut self, name: &str) -> Self {
        self.0["metadata"]["name"] = json!(name);
        self
    }

    fn done(self) -> Arc<Pod> {
        Arc::new(parsed(self.0))
    }
}

fn deleted(plan: &Plan) -> Vec<String> {
    let mut names: Vec<_> = plan.delete.iter().map(|pod| pod.name_any()).collect();
    names.sort();
    names
}

fn managed(set: &DaemonSet, nodes: &[Arc<Node>], pods: &[Arc<Pod>]) -> Plan {
    World::new(set, nodes, pods, NEW, now()).manage(|_| None)
}

fn rolled(set: &DaemonSet, nodes: &[Arc<Node>], pods: &[Arc<Pod>]) -> Plan {
    World::new(set, nodes, pods, NEW, now()).roll()
}

fn in_place(unavailable: i32) -> DaemonSet {
    set(Some((json!(0), json!(unavailable))), json!({}))
}

fn surging(surge: i32) -> DaemonSet {
    set(Some((json!(surge), json!(0))), json!({}))
}

#[test]
fn every_node_that_fits_gets_one_pod() {
    let nodes = [
        node("a", &json!([])),
        node("b", &json!([])),
        node("tainted", &json!([{ "key": "k", "effect": "NoSchedule" }])),
        node(
            "cordoned",
            &json!([
            { "key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule" }]),
        ),
    ];
    let pods = [
        Daemon::on("b", NEW, true).done(),
        Daemon::on("b", NEW, true).named("second").done(),
        Daemon::on("tainted", NEW, true).done(),
        Daemon::on("gone", NEW, true).done(),
    ];
    let plan = managed(&in_place(1), &nodes, &pods);
    assert_eq!(plan.create, ["a", "cordoned"]);
    assert_eq!(deleted(&plan), ["second"]);

    let chosen = set(
        None,
        json!({ "nodeSelector": { "kubernetes.io/hostname": "a" } }),
    );
    let plan = managed(&chosen, &nodes, &pods);
    assert_eq!(plan.create, ["a"]);
    assert_eq!(deleted(&plan), ["b-new", "second", "tainted-new"]);
}

#[test]
fn a_pod_that_waits_for_a_node_that_is_gone_goes() {
    let set = in_place(1);
    let mut pod = pod::new(&set, &set.spec.as_ref().expect("a spec").template, NEW);
    pod::pin(&mut pod, "gone");
    assert_eq!(pod::target(&pod), Some("gone"));
    let plan = managed(&set, &[], &[Arc::new(pod)]);
    assert_eq!(plan.delete.len(), 1);
}

#[test]
fn daemons_that_end_are_replaced_one_by_one() {
    let (set, nodes) = (in_place(1), nodes(3));
    let pods = [
        Daemon::on("n0", NEW, false).phase("Failed").done(),
        Daemon::on("n1", NEW, false).phase("Succeeded").done(),
        Daemon::on("n2", NEW, false)
            .phase("Failed")
            .deleted()
            .done(),
    ];
    let plan = managed(&set, &nodes, &pods);
    assert_eq!((plan.failed.len(), plan.succeeded.len()), (1, 1));
    assert_eq!(plan.create, ["n2"]);
    let later =
        World::new(&set, &nodes, &pods, NEW, now()).manage(|_| Some(Duration::from_secs(4)));
    assert!(later.failed.is_empty());
    assert_eq!(later.again, Some(Duration::from_secs(4)));
}

#[test]
fn a_terminating_pod_holds_its_node() {
    let pods = [Daemon::on("n0", OLD, true).deleted().done()];
    assert!(managed(&in_place(1), &nodes(1), &pods).is_empty());
}

#[test]
fn old_pods_go_as_far_as_the_limit_of_unavailable_ones_allows() {
    let nodes = nodes(4);
    let pods = |first_ready: bool| -> Vec<_> {
        let pod = |number: usize| {
            Daemon::on(&format!("n{number}"), OLD, number > 0 || first_ready).done()
        };
        (0..4).map(pod).collect()
    };
    assert_eq!(
        deleted(&rolled(&in_place(1), &nodes, &pods(true))),
        ["n0-old"]
    );
    assert_eq!(
        deleted(&rolled(&in_place(2), &nodes, &pods(true))),
        ["n0-old", "n1-old"]
    );
    // What is down already goes in any case, and counts.
    assert_eq!(
        deleted(&rolled(&in_place(1), &nodes, &pods(false))),
        ["n0-old"]
    );
    let half = set(Some((json!(0), json!("50%"))), json!({}));
    assert_eq!(
        deleted(&rolled(&half, &nodes, &pods(true))),
        ["n0-old", "n1-old"]
    );
    let mut waiting = pods(true);
    waiting[3] = Daemon::on("n3", NEW, false).done();
    assert!(rolled(&in_place(1), &nodes, &waiting).is_empty());
    assert!(rolled(&set(None, json!({})), &nodes, &pods(true)).is_empty());
}

#[test]
fn with_a_surge_new_pods_come_before_old_ones_go() {
    let nodes = nodes(3);
    let mut pods: Vec<_> = (0..3)
        .map(|number| Daemon::on(&format!("n{number}"), OLD, true).done())
        .collect();
    let plan = rolled(&surging(1), &nodes, &pods);
    assert_eq!(plan.create, ["n0"]);
    assert!(plan.delete.is_empty());

    pods.push(Daemon::on("n0", NEW, false).done());
    assert!(rolled(&surging(1), &nodes, &pods).is_empty());
    pods[3] = Daemon::on("n0", NEW, true).done();
    let plan = managed(&surging(1), &nodes, &pods);
    assert_eq!(deleted(&plan), ["n0-old"]);
    let plan = rolled(&surging(1), &nodes, &pods);
    assert_eq!((plan.create, plan.delete.len()), (vec!["n1".to_owned()], 1));
}

#[test]
fn limits_that_allow_nothing_allow_one() {
    let stuck = set(Some((json!(0), json!(0))), json!({}));
    let pods = [Daemon::on("n0", OLD, true).done()];
    assert_eq!(rolled(&stuck, &nodes(1), &pods).delete.len(), 1);
}

#[test]
fn the_status_counts_nodes() {
    let nodes = [
        node("a", &json!([])),
        node("b", &json!([])),
        node("c", &json!([])),
        node("tainted", &json!([{ "key": "k", "effect": "NoExecute" }])),
    ];
    let pods = [
        Daemon::on("a", NEW, true).done(),
        Daemon::on("b", OLD, false).done(),
        Daemon::on("tainted", NEW, true).done(),
    ];
    let mut set = in_place(1);
    let status = World::new(&set, &nodes, &pods, NEW, now()).status();
    let expected = json!({
        "currentNumberScheduled": 2, "desiredNumberScheduled": 3, "numberAvailable": 1,
        "numberMisscheduled": 1, "numberReady": 1, "numberUnavailable": 2,
        "observedGeneration": 2, "updatedNumberScheduled": 1,
    });
    assert_eq!(serde_json::to_value(&status).expect("JSON"), expected);
    set.status = status;
    assert_eq!(World::new(&set, &nodes, &pods, NEW, now()).status(), None);
}

#[test]
fn daemons_tolerate_what_is_wrong_with_their_node() {
    let host: DaemonSet = set(None, json!({ "hostNetwork": true }));
    let spec = host.spec.expect("a spec").template.spec.expect("a pod");
    let tolerations = pod::tolerations(&spec);
    let fit = |taints: Value| pod::fit(&spec, &tolerations, &node("n", &taints));
    let cases = [
        ("node.kubernetes.io/not-ready", "NoExecute", Fit::Run),
        (
            "node.kubernetes.io/network-unavailable",
            "NoSchedule",
            Fit::Run,
        ),
        ("other", "NoSchedule", Fit::Stay),
        ("other", "NoExecute", Fit::No),
        ("other", "PreferNoSchedule", Fit::Run),
    ];
    for (key, effect, expected) in cases {
        let found = fit(json!([{ "key": key, "effect": effect }]));
        assert_eq!(found, expected, "{key}:{effect}");
    }
}
