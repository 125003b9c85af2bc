//! What wakes a pod that a plugin rejected.

use serde_json::{Value, json};

use super::{labels, spread, spreading};
use crate::{
    event::{Event, NodeChanges, PodChanges},
    framework::Plugin,
    plugins::{
        node_affinity::NodeAffinity, node_resources, pod_topology_spread::PodTopologySpread,
        taint_toleration::TaintToleration,
    },
    pod::PodInfo,
    testing::{World, merge, node, pod},
};

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
