//! Tables over the rules that look at the whole cluster: nodes `a` and `b` in zone `1`, `x` and
//! `y` in zone `2`. One file for each sort of rule.

mod affinity;
mod events;
mod preferences;
mod spreading;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    framework::{Filter, Plugin, Prepared},
    pod::PodInfo,
    testing::{World, merge, node},
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
