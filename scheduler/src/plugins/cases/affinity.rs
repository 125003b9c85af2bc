//! Pods near pods, and away from them.

use serde_json::{Value, json};

use super::{labels, passing, world};
use crate::{
    framework::Plugin as _, node::NodeInfo, plugins::inter_pod_affinity::InterPodAffinity,
    testing::pod,
};

#[test]
fn pods_are_kept_together_and_apart() {
    let term = |key: &str, label: &str| {
        json!({ "topologyKey": key, "labelSelector": { "matchExpressions": [
            { "key": label, "operator": "Exists" }] } })
    };
    let wants = |own: &str, near: Value, far: Value| {
        json!({ "metadata": { "labels": labels(own) }, "spec": { "affinity": {
            "podAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": near },
            "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": far } } } })
    };
    let none = || json!([]);
    let cases: Vec<(&str, &[&str], Value, &str)> = vec![
        (
            "both terms in one place",
            &["a: foo bar"],
            wants(
                "",
                json!([term("zone", "foo"), term("node", "bar")]),
                none(),
            ),
            "a b* x* y*",
        ),
        (
            "terms met by different pods are not met",
            &["a: foo", "b: bar"],
            wants(
                "",
                json!([term("zone", "foo"), term("zone", "bar")]),
                none(),
            ),
            "a* b* x* y*",
        ),
        (
            "near and far",
            &["a: foo", "b: bar"],
            wants(
                "",
                json!([term("zone", "foo")]),
                json!([term("node", "bar")]),
            ),
            "a x* y*",
        ),
        (
            "the first of its kind",
            &[],
            wants("foo", json!([term("zone", "foo")]), none()),
            "a b x y",
        ),
        (
            "not the first of its kind",
            &["x: foo"],
            wants("foo", json!([term("zone", "foo")]), none()),
            "a* b* x y",
        ),
        (
            "the first, of two terms",
            &[],
            wants(
                "foo",
                json!([term("zone", "foo"), term("zone", "bar")]),
                none(),
            ),
            "a* b* x* y*",
        ),
        (
            "far from its like",
            &["a: foo"],
            wants("foo", none(), json!([term("zone", "foo")])),
            "x y",
        ),
        (
            "far, any of two terms",
            &["a: foo", "x: bar"],
            wants(
                "",
                none(),
                json!([term("node", "foo"), term("node", "bar")]),
            ),
            "b y",
        ),
    ];
    for (what, running, value, expected) in cases {
        let found = passing(&InterPodAffinity, &world(running), &pod(value));
        assert_eq!(found, expected, "{what}");
    }
    let preferred = |weight: i64, label: &str| json!({ "weight": weight, "podAffinityTerm": term("zone", label) });
    let score = |running: &[&str], near: Value, far: Value| {
        let world = world(running);
        let nodes: Vec<&NodeInfo> = world.cache.nodes().iter().collect();
        let value = json!({ "spec": { "affinity": {
            "podAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": near },
            "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": far } } } });
        InterPodAffinity.score(&pod(value), &world.cluster(), &nodes)
    };
    let running = &["a: foo", "a: foo", "x: foo bar"][..];
    assert_eq!(
        score(running, json!([preferred(8, "foo")]), none()),
        Some(vec![100, 100, 0, 0])
    );
    assert_eq!(
        score(running, none(), json!([preferred(8, "bar")])),
        Some(vec![100, 100, 0, 0])
    );
    assert_eq!(
        score(
            running,
            json!([preferred(2, "foo"), preferred(9, "bar")]),
            none()
        ),
        Some(vec![0, 0, 100, 100])
    );
}
