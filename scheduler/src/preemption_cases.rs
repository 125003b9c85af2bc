//! Tables of who has to go for a more important pod.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    plugins,
    preemption::Preemption,
    schedule::{Outcome, Turn, schedule},
    testing::{World, merge, node, pod},
};

/// A pod as `name on node: priority cpu hour`, started at that hour; with more.
struct Running(&'static str, Value);

fn asking(cpu: &str, priority: i32, more: Value) -> Value {
    let mut value = json!({ "spec": { "priority": priority, "containers": [
        { "name": "c", "resources": { "requests": { "cpu": cpu } } }] } });
    merge(&mut value, more);
    value
}

fn world(running: Vec<Running>) -> World {
    let zoned =
        |name: &str, zone: &str| node(name, json!({ "metadata": { "labels": { "zone": zone } } }));
    let mut world = World::new([zoned("a", "1"), zoned("b", "2")]);
    for Running(text, more) in running {
        let words: Vec<&str> = text.split([' ', ':']).filter(|it| !it.is_empty()).collect();
        let [name, "on", node, priority, cpu, hour] = words[..] else {
            panic!("{text}");
        };
        let mut value = asking(cpu, priority.parse().unwrap(), more);
        let start = format!("2026-01-01T{hour:0>2}:00:00Z");
        merge(&mut value, json!({ "status": { "startTime": start } }));
        world.running(name, node, value);
    }
    world
}

/// `node: victims`, or why there are none.
fn told(world: &World, value: Value) -> String {
    let (pod, plugins) = (pod(value), plugins::table());
    match schedule(&pod, &world.cluster(), &plugins, &mut Turn::new(5)) {
        Outcome::Unfit(unfit) => match unfit.preemption {
            Preemption::Possible { node, victims } => {
                let names: Vec<&str> = victims.iter().map(|victim| victim.name()).collect();
                format!("{node}: {}", names.join(" "))
            }
            Preemption::Impossible(why) | Preemption::Ineligible(why) => why,
        },
        Outcome::Node { name, .. } => format!("{name} as it is"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn victims_and_nodes() {
    let plain = |text: &'static str| Running(text, json!({}));
    let cases = [
        (
            "the smaller one stays though it is less important",
            vec![
                plain("small on a: 0 1 1"),
                plain("medium on a: 5 3 1"),
                plain("high on b: 20 4 1"),
            ],
            asking("3", 10, json!({})),
            "a: medium",
        ),
        (
            "the younger of two equals goes",
            vec![
                plain("old on a: 1 2 1"),
                plain("new on a: 1 2 2"),
                plain("high on b: 20 4 1"),
            ],
            asking("2", 10, json!({})),
            "a: new",
        ),
        (
            "the lowest highest priority",
            vec![
                plain("one on a: 5 2 1"),
                plain("two on a: 1 2 1"),
                plain("three on b: 4 4 1"),
            ],
            asking("4", 10, json!({})),
            "b: three",
        ),
        (
            "then the lowest sum, negative priorities included",
            vec![
                plain("one on a: 1 1 1"),
                plain("two on a: -5 1 1"),
                plain("three on a: -5 2 1"),
                plain("four on b: 1 2 1"),
                plain("five on b: 0 2 1"),
            ],
            asking("4", 10, json!({})),
            "b: four five",
        ),
        (
            "then the one that has run for the shortest time",
            vec![
                plain("one on a: 1 2 1"),
                plain("two on a: 1 2 9"),
                plain("three on b: 1 2 2"),
                plain("four on b: 1 2 3"),
            ],
            asking("4", 10, json!({})),
            "b: three four",
        ),
        (
            "of which only the most important count",
            vec![
                plain("one on a: 2 2 3"),
                plain("two on a: 1 2 1"),
                plain("three on b: 2 2 2"),
                plain("four on b: 1 2 9"),
            ],
            asking("4", 10, json!({})),
            "a: one two",
        ),
        (
            "nobody is less important",
            vec![plain("one on a: 10 4 1"), plain("two on b: 11 4 1")],
            asking("4", 10, json!({})),
            "0/2 nodes are available: 2 No preemption victims found for incoming pod.",
        ),
        (
            "nothing helps on one and nobody is there on the other",
            vec![
                plain("one on a: 1 1 1"),
                plain("big on a: 20 2 1"),
                plain("two on b: 11 4 1"),
            ],
            asking("4", 10, json!({})),
            "0/2 nodes are available: 1 Insufficient cpu, 1 No preemption victims found for incoming pod.",
        ),
        (
            "who keeps the pod away by anti-affinity goes",
            vec![
                Running(
                    "shy on a: 1 1 1",
                    json!({ "spec": { "affinity": { "podAntiAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": [{ "topologyKey": "zone",
                        "labelSelector": { "matchLabels": { "app": "web" } } }] } } } }),
                ),
                plain("other on a: 0 1 1"),
                plain("high on b: 20 4 1"),
            ],
            asking(
                "1",
                10,
                json!({ "metadata": { "labels": { "app": "web" } } }),
            ),
            "a: shy",
        ),
        (
            "who is in the way of spreading goes",
            vec![
                Running(
                    "one on a: 1 1 1",
                    json!({ "metadata": { "labels": { "app": "web" } } }),
                ),
                plain("other on a: 0 1 1"),
                plain("high on b: 20 4 1"),
            ],
            asking(
                "1",
                10,
                json!({ "metadata": { "labels": { "app": "web" } },
                "spec": { "topologySpreadConstraints": [{ "maxSkew": 1, "topologyKey": "zone",
                    "whenUnsatisfiable": "DoNotSchedule",
                    "labelSelector": { "matchLabels": { "app": "web" } } }] } }),
            ),
            "a: one",
        ),
    ];
    for (what, running, value, expected) in cases {
        assert_eq!(told(&world(running), value), expected, "{what}");
    }
}

#[test]
fn budgets_are_kept_where_they_can_be() {
    let guarded = |text: &'static str| {
        Running(
            text,
            json!({ "metadata": { "labels": { "app": "guarded" } } }),
        )
    };
    let plain = |text: &'static str| Running(text, json!({}));
    let with_budget = |running: Vec<Running>, allowed: i32, disrupted: Value| {
        let mut world = world(running);
        let budget = json!({ "metadata": { "namespace": "default", "name": "budget" },
            "spec": { "selector": { "matchLabels": { "app": "guarded" } } },
            "status": { "disruptionsAllowed": allowed, "disruptedPods": disrupted,
                "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1 } });
        let budget = serde_json::from_value(budget).expect("a budget");
        world.surroundings.budgets.push(Arc::new(budget));
        world
    };
    let both = || {
        vec![
            guarded("one on a: 0 2 1"),
            plain("two on a: 5 2 1"),
            plain("high on b: 20 4 1"),
        ]
    };
    let none = || json!({});
    assert_eq!(
        told(&with_budget(both(), 0, none()), asking("2", 10, none())),
        "a: two"
    );
    assert_eq!(
        told(&with_budget(both(), 1, none()), asking("2", 10, none())),
        "a: one"
    );
    let counted = json!({ "one": "2026-01-01T00:00:00Z" });
    assert_eq!(
        told(&with_budget(both(), 0, counted), asking("2", 10, none())),
        "a: one",
        "it is counted as disrupted already"
    );
    let many = || {
        vec![
            guarded("one on a: 0 2 1"),
            guarded("two on a: 0 2 2"),
            guarded("three on b: 0 2 1"),
            plain("four on b: 9 2 1"),
        ]
    };
    assert_eq!(
        told(&with_budget(many(), 1, none()), asking("4", 10, none())),
        "b: four three",
        "one budget can be kept there, though a more important pod goes"
    );
    assert_eq!(
        told(&with_budget(many(), 0, none()), asking("4", 10, none())),
        "b: four three",
        "fewer are broken there"
    );
}

#[test]
fn a_nominated_pod_may_preempt_again_only_where_waiting_is_pointless() {
    let leaving = || {
        json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" }, "status": { "conditions": [
            { "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler" }] } })
    };
    let nominated = |more: Value| {
        let mut value = asking("4", 10, json!({ "status": { "nominatedNodeName": "a" } }));
        merge(&mut value, more);
        value
    };
    let running = |more: Value| {
        world(vec![
            Running("one on a: 1 4 1", more),
            Running("two on b: 2 4 1", json!({})),
        ])
    };
    let waits = "not eligible due to a terminating pod on the nominated node.";
    assert_eq!(told(&running(leaving()), nominated(json!({}))), waits);
    let by_hand = json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } });
    assert_eq!(
        told(&running(by_hand), nominated(json!({}))),
        "a: one",
        "it goes for other reasons"
    );
    let elsewhere = json!({ "spec": { "nodeSelector": { "zone": "2" } } });
    assert_eq!(
        told(&running(leaving()), nominated(elsewhere)),
        "b: two",
        "the node will not do"
    );
}
