//! The scheduler, the taint manager and what they need of the API, as upstream's conformance tests
//! look at them, on nodes without machines.

use k8s_openapi::api::{
    apps::v1::ReplicaSet,
    core::v1::{Event, Node, Pod},
    scheduling::v1::PriorityClass,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    crash::world::{World, nothing, same},
    fakes::node_name,
};

const RESOURCE: &str = "example.com/thing";

/// Lets a node have so many of a resource that no kubelet knows.
async fn offer(world: &World, node: usize, amount: &str) {
    let nodes: Api<Node> = Api::all(world.client.clone());
    let amount = json!({RESOURCE: amount});
    let patch = json!({"status": {"capacity": amount, "allocatable": amount}});
    let params = PatchParams::default();
    let patched = nodes
        .patch_status(&node_name(node), &params, &Patch::Strategic(patch))
        .await;
    patched.expect("the patch is taken");
}

async fn priority_classes(world: &World, values: &[(&str, i32)]) {
    let classes: Api<PriorityClass> = Api::all(world.client.clone());
    for (name, value) in values {
        let class = json!({"metadata": {"name": name}, "value": value});
        let class = serde_json::from_value(class).expect("a priority class");
        let created = classes.create(&PostParams::default(), &class).await;
        created.expect("the class is taken");
    }
}

/// A pod that takes so many of the resource.
fn taking(name: &str, class: &str, amount: &str) -> Value {
    let amount = json!({RESOURCE: amount});
    json!({
        "metadata": {"name": name},
        "spec": {
            "priorityClassName": class,
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "main",
                "image": "example/main",
                "resources": {"requests": amount, "limits": amount},
            }],
        },
    })
}

fn only_on(mut pod: Value, node: usize) -> Value {
    pod["spec"]["affinity"] = json!({"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{
            "matchFields": [{"key": "metadata.name", "operator": "In", "values": [node_name(node)]}],
        }]},
    }});
    pod
}

async fn get(world: &World, name: &str) -> Option<Pod> {
    world.api::<Pod>().get_opt(name).await.expect("a read")
}

async fn runs(world: &World, name: &str) -> Result<(), String> {
    let pod = get(world, name).await.ok_or("it is gone")?;
    let phase = pod.status.and_then(|status| status.phase);
    same("the phase", phase.as_deref(), Some("Running"))
}

async fn until_running(world: &World, names: &[&str]) {
    for name in names {
        world
            .until(&format!("{name} runs"), async || runs(world, name).await)
            .await;
    }
}

/// Returns the message of the pod's `FailedScheduling` event.
async fn until_refused(world: &World, name: &str) -> String {
    let failure = async || {
        let events = world.list::<Event>().await;
        let mut failures = events.into_iter().filter(|event| {
            event.involved_object.name.as_deref() == Some(name)
                && event.reason.as_deref() == Some("FailedScheduling")
        });
        failures.next().and_then(|event| event.message)
    };
    world
        .until(&format!("{name} is refused"), async || {
            failure().await.map(|_| ()).ok_or("no event".to_owned())
        })
        .await;
    failure().await.unwrap_or_default()
}

/// A new node has taints until its conditions are seen.
async fn until_untainted(world: &World, node: usize) {
    let nodes: Api<Node> = Api::all(world.client.clone());
    world
        .until("the node is ready for pods", async || {
            let node = nodes.get_opt(&node_name(node)).await.expect("a read");
            let spec = node.ok_or("no node")?.spec.unwrap_or_default();
            nothing(spec.taints.into_iter().flatten().map(|taint| taint.key))
        })
        .await;
}

fn disrupted_by(pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions
        .iter()
        .find(|condition| condition.type_ == "DisruptionTarget" && condition.status == "True");
    condition?.reason.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_least_important_pod_makes_room() {
    let world = World::calm(2).await;
    priority_classes(&world, &[("low", 1), ("medium", 100), ("high", 1000)]).await;
    for node in 0..2 {
        offer(&world, node, "5").await;
    }
    for (name, class, node) in [
        ("victim", "low", 0),
        ("a", "medium", 0),
        ("b", "medium", 1),
        ("c", "medium", 1),
    ] {
        world
            .create::<Pod>(only_on(taking(name, class, "2"), node))
            .await;
    }
    until_running(&world, &["victim", "a", "b", "c"]).await;
    world.create::<Pod>(taking("preemptor", "high", "2")).await;
    until_running(&world, &["preemptor", "a", "b", "c"]).await;
    assert!(get(&world, "victim").await.is_none(), "it was preempted");
    let preemptor = get(&world, "preemptor").await.expect("it is there");
    let spec = preemptor.spec.clone().unwrap_or_default();
    assert_eq!(spec.node_name, Some(node_name(0)));
    let events = world.list::<Event>().await;
    let preempted = events
        .iter()
        .find(|event| event.reason.as_deref() == Some("Preempted"))
        .expect("the victim is told");
    let message = format!(
        "Preempted by pod {} on node {}",
        preemptor.uid().unwrap_or_default(),
        node_name(0)
    );
    assert_eq!(preempted.message.as_deref(), Some(message.as_str()));
    // A critical pod is more important than all that users run.
    let critical = taking("critical", "system-cluster-critical", "5");
    priority_classes(&world, &[("system-cluster-critical", 2_000_000_000)]).await;
    let system: Api<Pod> = Api::namespaced(world.client.clone(), "kube-system");
    let critical: Pod = serde_json::from_value(only_on(critical, 1)).expect("a pod");
    let created = system.create(&PostParams::default(), &critical).await;
    created.expect("the pod is taken");
    world
        .until("two more make room", async || {
            let left = world.list::<Pod>().await;
            let names: Vec<String> = left.iter().map(ResourceExt::name_any).collect();
            same("pods", names, vec!["a".to_owned(), "preemptor".to_owned()])
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preempted_pod_says_why_it_goes() {
    let world = World::calm(1).await;
    priority_classes(&world, &[("low", 1), ("high", 1000)]).await;
    offer(&world, 0, "1").await;
    let mut victim = only_on(taking("victim", "low", "1"), 0);
    victim["metadata"]["finalizers"] = json!(["example.com/held"]);
    world.create::<Pod>(victim).await;
    until_running(&world, &["victim"]).await;
    world
        .create::<Pod>(only_on(taking("preemptor", "high", "1"), 0))
        .await;
    world
        .until("the victim is going", async || {
            let pod = get(&world, "victim").await.ok_or("it is gone")?;
            same("going", pod.metadata.deletion_timestamp.is_some(), true)?;
            let reason = disrupted_by(&pod);
            same(
                "the reason",
                reason.as_deref(),
                Some("PreemptionByScheduler"),
            )
        })
        .await;
    // It has ended, so its room is free although the object is held.
    until_running(&world, &["preemptor"]).await;
    let preemptor = get(&world, "preemptor").await.expect("it is there");
    let status = preemptor.status.unwrap_or_default();
    assert_eq!(
        status.nominated_node_name, None,
        "it is cleared at the binding"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_is_preempted_than_needed() {
    let world = World::calm(1).await;
    priority_classes(&world, &[("p1", 1), ("p2", 2), ("p3", 3), ("p4", 4)]).await;
    offer(&world, 0, "1000").await;
    for (number, amount) in [(1, "200"), (2, "300"), (3, "450")] {
        let name = format!("pod{number}");
        let mut template = taking(&name, &format!("p{number}"), amount);
        template["metadata"] = json!({"labels": {"name": name}});
        world
            .create::<ReplicaSet>(json!({
                "metadata": {"name": format!("rs-{name}")},
                "spec": {
                    "replicas": 1,
                    "selector": {"matchLabels": {"name": name}},
                    "template": template,
                },
            }))
            .await;
    }
    world
        .until("three run", async || {
            for set in world.list::<ReplicaSet>().await {
                let status = set.status.unwrap_or_default();
                same("ready", status.ready_replicas, Some(1))?;
            }
            Ok(())
        })
        .await;
    world.create::<Pod>(taking("pod4", "p4", "500")).await;
    until_running(&world, &["pod4"]).await;
    world
        .until("both have been made anew", async || {
            same("pods", world.pods_ever(), 3 + 1 + 2)
        })
        .await;
    let third = world.list::<Pod>().await.into_iter().find(|pod| {
        let labels = pod.labels();
        labels.get("name").map(String::as_str) == Some("pod3")
    });
    let third = third.map(|pod| pod.name_any()).unwrap_or_default();
    until_running(&world, &[&third]).await;
    // Those made anew wait and preempt nobody.
    for pod in world.list::<Pod>().await {
        let class = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.priority_class_name.as_deref());
        if matches!(class, Some("p1" | "p2")) {
            until_refused(&world, &pod.name_any()).await;
        }
    }
    assert_eq!(world.pods_ever(), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spreading_may_take_more_victims() {
    let world = World::calm(2).await;
    priority_classes(&world, &[("low", 1), ("medium", 100), ("high", 1000)]).await;
    for node in 0..2 {
        offer(&world, node, "10").await;
    }
    let spread = |mut pod: Value| {
        pod["metadata"]["labels"] = json!({"spread": "yes"});
        pod
    };
    world
        .create::<Pod>(spread(only_on(taking("high", "high", "9"), 0)))
        .await;
    for name in ["low-1", "low-2", "low-3"] {
        world
            .create::<Pod>(spread(only_on(taking(name, "low", "3"), 1)))
            .await;
    }
    until_running(&world, &["high", "low-1", "low-2", "low-3"]).await;
    let mut medium = spread(taking("medium", "medium", "3"));
    medium["spec"]["topologySpreadConstraints"] = json!([{
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchExpressions": [{"key": "spread", "operator": "Exists"}]},
    }]);
    world.create::<Pod>(medium).await;
    until_running(&world, &["high", "medium"]).await;
    world
        .until("one of the lowest is left", async || {
            let left = world.list::<Pod>().await;
            same("pods", left.len(), 3)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_say_why() {
    let world = World::calm(1).await;
    until_untainted(&world, 0).await;
    world
        .create::<Pod>(json!({
            "metadata": {"name": "restricted"},
            "spec": {
                "nodeSelector": {"label": "nonempty"},
                "containers": [{"name": "main", "image": "example/main"}],
            },
        }))
        .await;
    assert_eq!(
        until_refused(&world, "restricted").await,
        "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. \
         no new claims to deallocate, preemption: 0/1 nodes are available: \
         1 Preemption is not helpful for scheduling."
    );
    let on_port = |name: &str, address: Option<&str>| {
        json!({
            "metadata": {"name": name},
            "spec": {"containers": [{
                "name": "main",
                "image": "example/main",
                "ports": [{"containerPort": 80, "hostPort": 54322, "hostIP": address}],
            }]},
        })
    };
    world.create::<Pod>(on_port("everywhere", None)).await;
    until_running(&world, &["everywhere"]).await;
    world
        .create::<Pod>(on_port("here", Some("192.168.0.1")))
        .await;
    assert_eq!(
        until_refused(&world, "here").await,
        "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports. \
         no new claims to deallocate, preemption: 0/1 nodes are available: \
         1 No preemption victims found for incoming pod."
    );
    let params = DeleteParams::default();
    let deleted = world.api::<Pod>().delete("everywhere", &params).await;
    deleted.expect("the deletion is taken");
    until_running(&world, &["here"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn taints_evict_when_tolerations_end() {
    let world = World::calm(1).await;
    let tolerating = |name: &str, seconds: u32| {
        json!({
            "metadata": {"name": name},
            "spec": {
                "containers": [{"name": "main", "image": "example/main"}],
                "tolerations": [{
                    "key": "example.com/evict",
                    "operator": "Equal",
                    "value": "yes",
                    "effect": "NoExecute",
                    "tolerationSeconds": seconds,
                }],
            },
        })
    };
    for (name, seconds) in [("soon", 1), ("later", 600)] {
        world.create::<Pod>(tolerating(name, seconds)).await;
    }
    let mut held = tolerating("held", 1);
    held["metadata"]["finalizers"] = json!(["example.com/held"]);
    world.create::<Pod>(held).await;
    until_running(&world, &["soon", "later", "held"]).await;
    let nodes: Api<Node> = Api::all(world.client.clone());
    let taint = async |taints: Value| {
        let patch = Patch::Merge(json!({"spec": {"taints": taints}}));
        let patched = nodes
            .patch(&node_name(0), &PatchParams::default(), &patch)
            .await;
        patched.expect("the patch is taken");
    };
    taint(json!([{"key": "example.com/evict", "value": "yes", "effect": "NoExecute"}])).await;
    world
        .until("the first is evicted", async || {
            nothing(get(&world, "soon").await.map(|pod| pod.name_any()))?;
            let held = get(&world, "held").await.ok_or("it is gone")?;
            let reason = disrupted_by(&held);
            same(
                "the reason",
                reason.as_deref(),
                Some("DeletionByTaintManager"),
            )
        })
        .await;
    taint(Value::Null).await;
    world
        .until("the eviction is cancelled", async || {
            let events = world.list::<Event>().await;
            let told = events.iter().any(|event| {
                event.reason.as_deref() == Some("TaintManagerEviction")
                    && event.message.as_deref() == Some("Cancelling deletion of Pod crash/later")
            });
            same("told", told, true)
        })
        .await;
    until_running(&world, &["later"]).await;
}
