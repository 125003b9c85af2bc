//! Tables over the rules that look at the whole cluster: nodes `a` and `b` in zone `1`, `x` and
//! `y` in zone `2`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    image_locality::ImageLocality, inter_pod_affinity::InterPodAffinity,
    node_affinity::NodeAffinity, node_resources, pod_topology_spread::PodTopologySpread,
    taint_toleration::TaintToleration,
};
use crate::{
    event::{Event, NodeChanges, PodChanges},
    framework::{Filter, Plugin, Prepared},
    node::NodeInfo,
    pod::PodInfo,
    testing::{World, merge, node, pod},
};

/// Labels from names.
fn labels(names: &str) -> Value {
    let names = names.split(' ').filter(|name| !name.is_empty());
    names.map(|name| (name.to_owned(), json!(""))).collect()
}

/// With pods, each as `node: labels`.
fn world(running: &[&str]) -> World {
    let on = |name: &str, zone: &str| {
        let labels = json!({ "zone": zone, "node": name });
        node(name, json!({ "metadata": { "labels": labels } }))
    };
    let mut world = World::new([on("a", "1"), on("b", "1"), on("x", "2"), on("y", "2")]);
    run(&mut world, running);
    world
}

fn run(world: &mut World, running: &[&str]) {
    for (index, text) in running.iter().enumerate() {
        let (node, names) = text.split_once(": ").unwrap_or((text, ""));
        let value = json!({ "metadata": { "labels": labels(names) } });
        world.running(&format!("{node}{index}"), node, value);
    }
}

/// The nodes that pass; `*` after those where removing pods would not help.
fn passing(plugin: &dyn Plugin, world: &World, pod: &Arc<PodInfo>) -> String {
    let Prepared::Check(filter) = plugin.prepare(pod, &world.cluster()) else {
        return "skip".to_owned();
    };
    judged(&*filter, world)
}

fn judged(filter: &dyn Filter, world: &World) -> String {
    let nodes = world.cache.nodes().iter();
    let told = nodes.filter_map(|node| match filter.check(node) {
        Ok(()) => Some(node.name.to_string()),
        Err(rejection) if rejection.unresolvable => Some(format!("{}*", node.name)),
        Err(_) => None,
    });
    told.collect::<Vec<_>>().join(" ")
}

/// A constraint on this key, over pods with this label, with more.
fn spread(key: &str, label: &str, more: Value) -> Value {
    let mut constraint = json!({ "maxSkew": 1, "topologyKey": key,
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": { "matchExpressions": [{ "key": label, "operator": "Exists" }] } });
    merge(&mut constraint, more);
    constraint
}

fn spreading(own: &str, constraints: &[Value]) -> Value {
    json!({ "metadata": { "labels": labels(own) },
        "spec": { "topologySpreadConstraints": constraints } })
}

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

#[test]
fn nodes_are_preferred() {
    let taint = |key: &str| json!({ "key": key, "effect": "PreferNoSchedule" });
    let tainted = |name: &str, keys: &[&str]| {
        let taints: Vec<Value> = keys.iter().map(|key| taint(key)).collect();
        node(name, json!({ "spec": { "taints": taints } }))
    };
    let world = World::new([
        tainted("a", &[]),
        tainted("b", &["k"]),
        tainted("c", &["k", "l"]),
    ]);
    let nodes: Vec<&NodeInfo> = world.cache.nodes().iter().collect();
    let score = |tolerations: Value| {
        let pod = pod(json!({ "spec": { "tolerations": tolerations } }));
        TaintToleration.score(&pod, &world.cluster(), &nodes)
    };
    assert_eq!(score(json!([])), Some(vec![100, 50, 0]));
    assert_eq!(
        score(json!([{ "key": "k", "operator": "Exists" }])),
        Some(vec![100, 100, 0])
    );
    let wrong = json!([{ "key": "k", "operator": "Exists", "effect": "NoSchedule" }]);
    assert_eq!(score(wrong), Some(vec![100, 50, 0]));

    let image = |name: &str, size: i64| json!({ "names": [name], "sizeBytes": size << 20 });
    let having = |name: &str, images: Value| node(name, json!({ "status": { "images": images } }));
    let world = World::new([
        having("a", json!([image("small:latest", 40)])),
        having(
            "b",
            json!([image("large:v1", 300), image("volume:latest", 300)]),
        ),
    ]);
    let nodes: Vec<&NodeInfo> = world.cache.nodes().iter().collect();
    let score =
        |spec: Value| ImageLocality.score(&pod(json!({ "spec": spec })), &world.cluster(), &nodes);
    let containers = |images: &[&str]| -> Value {
        images
            .iter()
            .map(|image| json!({ "name": "c", "image": image }))
            .collect()
    };
    // Half of the size counts, as half of the nodes have it: 150 - 23 of 1000 - 23.
    assert_eq!(
        score(json!({ "containers": containers(&["large:v1"]) })),
        Some(vec![0, 12])
    );
    assert_eq!(
        score(json!({ "containers": containers(&["small", "large:v1"]) })),
        Some(vec![0, 6])
    );
    let volume = json!([{ "name": "v", "image": { "reference": "volume" } }]);
    assert_eq!(
        score(json!({ "containers": containers(&["large:v1"]), "volumes": volume })),
        Some(vec![0, 28])
    );
    assert_eq!(score(json!({ "containers": containers(&["none"]) })), None);
}

/// Resources decide by what is left after the pod: upstream's worked examples.
#[test]
fn free_and_balanced_nodes_are_preferred() {
    let sized = |name: &str, cpu: &str, memory: &str| {
        node(
            name,
            json!({ "status": { "allocatable": { "cpu": cpu, "memory": memory } } }),
        )
    };
    let score = |plugin: &dyn Plugin,
                 nodes: [(&str, &str); 2],
                 running: &[(&str, &str, &str)],
                 asks: Option<(&str, &str)>| {
        let mut world = World::new([
            sized("one", nodes[0].0, nodes[0].1),
            sized("two", nodes[1].0, nodes[1].1),
        ]);
        let asking = |cpu: &str, memory: &str| {
            json!({ "spec": { "containers": [{ "name": "c", "resources": {
                "requests": { "cpu": cpu, "memory": memory } } }] } })
        };
        for (index, (on, cpu, memory)) in running.iter().enumerate() {
            world.running(&index.to_string(), on, asking(cpu, memory));
        }
        let value = asks.map_or(json!({}), |(cpu, memory)| asking(cpu, memory));
        let nodes: Vec<&NodeInfo> = world.cache.nodes().iter().collect();
        plugin.score(&pod(value), &world.cluster(), &nodes)
    };
    let (fit, balanced) = (&node_resources::Fit, &node_resources::BalancedAllocation);
    let same = [("4", "10000"), ("4", "10000")];
    let larger = [("4", "10000"), ("6", "10000")];
    let three = Some(("3", "5000"));
    // (4000-3000)/4000 and (10000-5000)/10000; (6000-3000)/6000 and the same.
    assert_eq!(score(fit, larger, &[], three), Some(vec![37, 50]));
    let running = [
        ("one", "3", "0"),
        ("one", "3", "0"),
        ("two", "3", "0"),
        ("two", "3", "5000"),
    ];
    let large = [("10", "20000"), ("10", "20000")];
    assert_eq!(
        score(fit, large, &running, Some(("0", "0"))),
        Some(vec![70, 57])
    );
    assert_eq!(
        score(
            fit,
            [("4", "10000"), ("4", "10000")],
            &running,
            Some(("0", "0"))
        ),
        Some(vec![50, 25])
    );
    assert_eq!(
        score(balanced, same, &[], None),
        None,
        "a pod that asks for nothing"
    );
    // 3/4 and 1/2 against 1/2 and 1/2: a deviation of 0.125 or none.
    assert_eq!(score(balanced, larger, &[], three), Some(vec![68, 75]));
}

/// Whether the event wakes a pod that the plugin rejected.
#[test]
fn events_wake_whom_they_may_help() {
    let world = World::default();
    let helps = |plugin: &dyn Plugin, pod: &PodInfo, event: &Event<'_>| {
        plugin.may_help(pod, event, &world.cluster())
    };
    let updated = |plugin: &dyn Plugin, waiting: &PodInfo, old: Value, new: Value| {
        let (old, new) = (node("n", old), node("n", new));
        NodeChanges::between(&old, &new).is_some_and(|changes| {
            let event = Event::NodeUpdated {
                old: &old,
                new: &new,
                changes,
            };
            helps(plugin, waiting, &event)
        })
    };
    let labelled = |value: &str| json!({ "metadata": { "labels": { "k": value } } });
    let selecting = pod(json!({ "spec": { "nodeSelector": { "k": "v" } } }));
    assert!(updated(
        &NodeAffinity,
        &selecting,
        labelled("w"),
        labelled("v")
    ));
    assert!(!updated(
        &NodeAffinity,
        &selecting,
        labelled("w"),
        labelled("x")
    ));
    assert!(!updated(
        &NodeAffinity,
        &selecting,
        labelled("v"),
        json!({ "metadata": { "labels": { "k": "v", "l": "" } } })
    ));
    assert!(!helps(
        &NodeAffinity,
        &selecting,
        &Event::NodeAdded(&node("n", labelled("w")))
    ));

    let taints = |value: Value| json!({ "spec": { "taints": value } });
    let plain = pod(json!({}));
    let no_schedule = json!([{ "key": "k", "effect": "NoSchedule" }]);
    assert!(updated(
        &TaintToleration,
        &plain,
        taints(no_schedule.clone()),
        taints(json!([]))
    ));
    assert!(!updated(
        &TaintToleration,
        &plain,
        taints(json!([])),
        taints(no_schedule.clone())
    ));
    assert!(!helps(
        &TaintToleration,
        &plain,
        &Event::NodeAdded(&node("n", taints(no_schedule)))
    ));

    let fit = &node_resources::Fit;
    let asking = |cpu: &str| {
        pod(
            json!({ "spec": { "containers": [{ "name": "c", "resources": { "requests": { "cpu": cpu } } }] } }),
        )
    };
    let room = |cpu: &str, memory: &str| json!({ "status": { "allocatable": { "cpu": cpu, "memory": memory, "pods": "10" } } });
    assert!(updated(
        fit,
        &asking("2"),
        room("1", "1Gi"),
        room("2", "1Gi")
    ));
    assert!(
        !updated(fit, &asking("3"), room("1", "1Gi"), room("2", "1Gi")),
        "still too small"
    );
    assert!(
        !updated(fit, &asking("1"), room("2", "1Gi"), room("2", "2Gi")),
        "more of what it does not need"
    );
    let scaled = |uid: &str, on: &str, from: &str, to: &str| {
        let of = |cpu: &str| {
            pod(
                json!({ "metadata": { "uid": uid }, "spec": { "nodeName": on, "containers": [
                { "name": "c", "resources": { "requests": { "cpu": cpu } } }] } }),
            )
        };
        let (old, new) = (of(from), of(to));
        let changes = PodChanges::between(&old, &new).expect("a change");
        helps(
            fit,
            &asking("1"),
            &Event::PodUpdated {
                old: &old,
                new: &new,
                changes,
            },
        )
    };
    assert!(scaled("other", "n", "2", "1"));
    assert!(
        !scaled("other", "", "2", "1"),
        "a pod on no node frees nothing"
    );
    assert!(scaled("uid", "", "2", "1"), "it asks for less itself");

    let web = spreading("foo", &[spread("zone", "foo", json!({}))]);
    let running = |value: Value| {
        let mut running = json!({ "metadata": { "uid": "other" }, "spec": { "nodeName": "n" } });
        merge(&mut running, value);
        pod(running)
    };
    let gone = |value: Value| {
        helps(
            &PodTopologySpread,
            &pod(web.clone()),
            &Event::PodDeleted(&running(value)),
        )
    };
    assert!(gone(json!({ "metadata": { "labels": labels("foo") } })));
    assert!(!gone(json!({ "metadata": { "labels": labels("bar") } })));
    assert!(!gone(
        json!({ "metadata": { "labels": labels("foo"), "namespace": "elsewhere" } })
    ));
}
