//! Spreading over zones and nodes.

use serde_json::{Value, json};

use super::{labels, passing, run, spread, spreading, world};
use crate::{
    framework::Plugin as _,
    node::NodeInfo,
    plugins::pod_topology_spread::PodTopologySpread,
    testing::{World, merge, node, pod},
};

#[test]
fn pods_are_spread() {
    let zone = |label: &str| spread("zone", label, json!({}));
    let host = |label: &str| spread("node", label, json!({}));
    let with = |mut value: Value, more: Value| {
        merge(&mut value["spec"], more);
        value
    };
    let not_b = json!({ "affinity": { "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [
            { "matchExpressions": [{ "key": "node", "operator": "NotIn", "values": ["b"] }] }] } } } });
    let three = &["a: foo", "a: foo", "b: foo", "y: foo", "y: foo", "y: foo"][..];
    let cases: Vec<(&str, &[&str], Value, &str)> = vec![
        (
            "nothing runs",
            &[],
            spreading("foo", &[zone("foo")]),
            "a b x y",
        ),
        ("3/3", three, spreading("foo", &[zone("foo")]), "a b x y"),
        ("2/1/0/3", three, spreading("foo", &[host("foo")]), "x"),
        (
            "2/1/0/3, skew 2",
            three,
            spreading("foo", &[spread("node", "foo", json!({ "maxSkew": 2 }))]),
            "b x",
        ),
        (
            "2/1/0/3, not itself",
            three,
            spreading("bar", &[host("foo")]),
            "b x",
        ),
        (
            "no label on any node",
            three,
            spreading("foo", &[spread("rack", "foo", json!({}))]),
            "a* b* x* y*",
        ),
        (
            "no selector",
            three,
            spreading(
                "foo",
                &[spread("node", "foo", json!({ "labelSelector": null }))],
            ),
            "a b x y",
        ),
        (
            "3/3 and 2/1/0/3",
            three,
            spreading("foo", &[zone("foo"), host("foo")]),
            "x",
        ),
        (
            "0/~2~/0/1",
            &["b: foo", "b: foo", "y: foo"],
            with(spreading("foo", &[zone("foo")]), not_b.clone()),
            "a b",
        ),
        (
            "0/2/0/1, all nodes counted",
            &["b: foo", "b: foo", "y: foo"],
            with(
                spreading(
                    "foo",
                    &[spread(
                        "zone",
                        "foo",
                        json!({ "nodeAffinityPolicy": "Ignore" }),
                    )],
                ),
                not_b,
            ),
            "x y",
        ),
        (
            "1/0 and 1/0/0/1",
            &["a: foo", "y: bar"],
            spreading("foo bar", &[zone("foo"), host("bar")]),
            "x",
        ),
        (
            "1/0 and 0/0/1/1",
            &["a: foo", "x: bar", "y: bar"],
            spreading("foo bar", &[zone("foo"), host("bar")]),
            "",
        ),
        (
            "2/3 and 1/0/0/1",
            &["a: foo", "a: foo bar", "y: foo", "y: foo bar", "y: foo"],
            spreading("foo bar", &[zone("foo"), host("bar")]),
            "b",
        ),
        (
            "1/0 and 0/0/1/1, not itself",
            &["a: foo", "x: bar", "y: bar"],
            spreading("bar", &[zone("foo"), host("bar")]),
            "a b",
        ),
        (
            "3/3 and 2/1 of one key",
            &[
                "a: foo bar",
                "a: foo",
                "b: foo bar",
                "y: foo",
                "y: foo bar",
                "y: foo",
            ],
            spreading("foo bar", &[zone("bar"), zone("foo")]),
            "x y",
        ),
        (
            "2/1 of three domains",
            &["a: foo", "b: foo", "y: foo"],
            spreading(
                "foo",
                &[spread(
                    "zone",
                    "foo",
                    json!({ "maxSkew": 2, "minDomains": 3 }),
                )],
            ),
            "x y",
        ),
        (
            "2/1 of one domain",
            &["a: foo", "b: foo", "y: foo"],
            spreading(
                "foo",
                &[spread(
                    "zone",
                    "foo",
                    json!({ "maxSkew": 2, "minDomains": 1 }),
                )],
            ),
            "a b x y",
        ),
        (
            "a preference",
            three,
            spreading(
                "foo",
                &[spread(
                    "node",
                    "foo",
                    json!({ "whenUnsatisfiable": "ScheduleAnyway" }),
                )],
            ),
            "skip",
        ),
        (
            "the pod's own value of a key",
            &["a: foo", "b: foo bar", "x: foo"],
            spreading(
                "foo bar",
                &[spread(
                    "node",
                    "foo",
                    json!({ "matchLabelKeys": ["bar", "none"] }),
                )],
            ),
            "a x y",
        ),
    ];
    for (what, running, value, expected) in cases {
        let found = passing(&PodTopologySpread, &world(running), &pod(value));
        assert_eq!(found, expected, "{what}");
    }
    let mut going = world(&["a: foo"]);
    let leaving = json!({ "metadata": { "labels": labels("foo"),
        "deletionTimestamp": "2026-01-01T00:00:00Z" } });
    going.running("leaving", "x", leaving);
    let found = passing(
        &PodTopologySpread,
        &going,
        &pod(spreading("foo", &[zone("foo")])),
    );
    assert_eq!(found, "x y", "a pod that is going does not count");
    let mut tainted = world(&["a: foo"]);
    let labels = json!({ "zone": "3", "node": "t" });
    let taints = json!([{ "key": "k", "effect": "NoSchedule" }]);
    let tainted_node = json!({ "metadata": { "labels": labels }, "spec": { "taints": taints } });
    tainted.cache.set_node(node("t", tainted_node));
    run(&mut tainted, &["x: foo"]);
    let honor = spread("zone", "foo", json!({ "nodeTaintsPolicy": "Honor" }));
    let honoring = spreading("foo", &[honor]);
    let found = passing(&PodTopologySpread, &tainted, &pod(honoring.clone()));
    assert_eq!(found, "a b x y t");
    let tolerating = with(
        honoring,
        json!({ "tolerations": [{ "operator": "Exists" }] }),
    );
    assert_eq!(passing(&PodTopologySpread, &tainted, &pod(tolerating)), "t");
}

#[test]
fn spreading_is_scored() {
    let score = |world: &World, value: Value| {
        let nodes: Vec<&NodeInfo> = world.cache.nodes().iter().collect();
        PodTopologySpread.score(&pod(value), &world.cluster(), &nodes)
    };
    let soft = |key: &str, more: Value| {
        let mut constraint = spread(key, "foo", json!({ "whenUnsatisfiable": "ScheduleAnyway" }));
        merge(&mut constraint, more);
        spreading("foo", &[constraint])
    };
    let spread_out = world(&["a: foo", "a: foo", "b: foo", "y: foo", "y: foo", "y: foo"]);
    // Upstream's example: 2/1/0/3 over four hosts.
    assert_eq!(
        score(&spread_out, soft("kubernetes.io/hostname", json!({}))),
        Some(vec![20, 60, 100, 0]),
    );
    assert_eq!(
        score(&spread_out, soft("zone", json!({}))),
        Some(vec![100; 4])
    );
    let uneven = world(&["a: foo", "y: foo", "y: foo"]);
    assert_eq!(
        score(&uneven, soft("zone", json!({}))),
        Some(vec![100, 100, 33, 33])
    );
    assert_eq!(
        score(&world(&[]), soft("zone", json!({}))),
        Some(vec![100; 4])
    );
    let mut partly = world(&["a: foo"]);
    partly.cache.set_node(node(
        "n",
        json!({ "metadata": { "labels": { "node": "n" } } }),
    ));
    let scores = score(&partly, soft("zone", json!({}))).unwrap();
    assert_eq!(
        scores[4], 0,
        "a node without the label is worst: {scores:?}"
    );
}
