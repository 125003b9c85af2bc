//! Nodes that pass, and which of them are liked better.

use serde_json::{Value, json};

use crate::{
    framework::Plugin,
    node::NodeInfo,
    plugins::{image_locality::ImageLocality, node_resources, taint_toleration::TaintToleration},
    testing::{World, node, pod},
};

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
