//! The whole scheduler against an API in memory: what users of the API see.

mod api;

use std::collections::BTreeMap;

use api::Api;
use serde_json::json;

#[tokio::test]
async fn a_pod_is_bound_and_told_so() {
    let api = Api::start();
    api.node("node1", "4");
    api.pod("web", "1", &json!({}));
    assert_eq!(api.bound("web").await, "node1");
    let event = api.event("web", "Scheduled").await;
    assert_eq!(
        event["message"],
        "Successfully assigned default/web to node1"
    );
    assert_eq!(event["type"], "Normal");
    assert_eq!(event["reportingComponent"], "default-scheduler");
}

#[tokio::test]
async fn pods_of_other_schedulers_are_left_alone() {
    let api = Api::start();
    api.node("node1", "4");
    api.pod("theirs", "1", &json!({"schedulerName": "other"}));
    api.pod("ours", "1", &json!({}));
    api.bound("ours").await;
    let theirs = api.until("theirs", "exists", |_| true).await;
    assert!(theirs["spec"]["nodeName"].is_null());
    assert!(theirs["status"].is_null());
}

#[tokio::test]
async fn a_pod_that_fits_nowhere_is_tried_again_when_something_changes() {
    let api = Api::start();
    api.pod("web", "2", &json!({}));
    assert_eq!(
        api.refused("web").await,
        "no nodes available to schedule pods"
    );
    api.node("node1", "1");
    let what = "0/1 nodes are available: 1 Insufficient cpu.";
    let pod = api
        .until("web", "does not fit", |pod| {
            let message = pod["status"]["conditions"][0]["message"].as_str();
            message.is_some_and(|message| message.starts_with(what))
        })
        .await;
    let condition = &pod["status"]["conditions"][0];
    assert_eq!(condition["type"], "PodScheduled");
    assert_eq!(condition["reason"], "Unschedulable");
    let event = api.event("web", "FailedScheduling").await;
    assert_eq!(event["type"], "Warning");
    api.node("node1", "2");
    assert_eq!(api.bound("web").await, "node1");
}

#[tokio::test]
async fn a_deleted_pod_leaves_its_room() {
    let api = Api::start();
    api.node("node1", "4");
    api.pod("first", "4", &json!({}));
    api.bound("first").await;
    api.pod("second", "4", &json!({}));
    api.refused("second").await;
    api.delete("pods", "default/first");
    assert_eq!(api.bound("second").await, "node1");
}

#[tokio::test]
async fn gates_are_waited_for() {
    let api = Api::start();
    api.node("node1", "4");
    api.pod(
        "gated",
        "1",
        &json!({"schedulingGates": [{"name": "wait"}]}),
    );
    api.pod("other", "1", &json!({}));
    api.bound("other").await;
    let gated = api.until("gated", "exists", |_| true).await;
    assert!(gated["spec"]["nodeName"].is_null());
    api.pod("gated", "1", &json!({}));
    assert_eq!(api.bound("gated").await, "node1");
}

#[tokio::test]
async fn a_more_important_pod_takes_the_place_of_another() {
    let api = Api::start();
    api.node("node1", "4");
    api.pod("low", "3", &json!({}));
    api.pod("lowest", "1", &json!({"priority": -1}));
    api.bound("low").await;
    api.bound("lowest").await;
    api.pod("high", "3", &json!({"priority": 10}));
    let event = api.event("low", "Preempted").await;
    assert_eq!(event["message"], "Preempted by pod uid-high on node node1");
    assert_eq!(api.bound("high").await, "node1");
    assert!(!api.exists("low"));
    assert!(api.exists("lowest"), "removing one pod was enough");
    let high = api.until("high", "exists", |_| true).await;
    assert_eq!(high["status"]["nominatedNodeName"], "node1");
}

#[tokio::test(start_paused = true)]
async fn a_binding_that_fails_is_tried_again() {
    let api = Api::start();
    api.node("node1", "4");
    api.set_bindable("web", false);
    api.pod("web", "4", &json!({}));
    let message = api.refused("web").await;
    assert!(
        message.starts_with("running Bind plugin \"DefaultBinder\": "),
        "{message}"
    );
    api.pod("other", "4", &json!({}));
    assert_eq!(api.bound("other").await, "node1", "its room was given back");
    api.delete("pods", "default/other");
    api.set_bindable("web", true);
    assert_eq!(api.bound("web").await, "node1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_pods_fill_many_nodes_evenly() {
    const NODES: usize = 20;
    const PODS: usize = 400;
    let api = Api::start();
    for node in 0..NODES {
        api.node(&format!("node{node}"), "2");
    }
    for pod in 0..PODS {
        api.pod(&format!("web{pod}"), "100m", &json!({}));
    }
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for pod in 0..PODS {
        *counts
            .entry(api.bound(&format!("web{pod}")).await)
            .or_default() += 1;
    }
    assert_eq!(counts.len(), NODES);
    assert!(
        counts.values().all(|count| *count == PODS / NODES),
        "{counts:?}"
    );
}

/// A node with one device, and a class of such devices.
fn with_device(api: &Api) {
    api.node("node1", "4");
    api.put(
        "deviceclasses",
        json!({"metadata": {"name": "class"}, "spec": {}}),
    );
    api.put(
        "resourceslices",
        json!({"metadata": {"name": "slice"}, "spec": {
            "driver": "d", "nodeName": "node1", "devices": [{"name": "x"}],
            "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}}}),
    );
}

fn claim(name: &str) -> serde_json::Value {
    json!({
        "metadata": {"namespace": "default", "name": name, "uid": format!("uid-{name}")},
        "spec": {"devices": {"requests": [
            {"name": "r", "exactly": {"deviceClassName": "class", "count": 1}}]}},
    })
}

fn claiming(name: &str) -> serde_json::Value {
    json!({"resourceClaims": [{"name": "c", "resourceClaimName": name}]})
}

#[tokio::test]
async fn devices_are_given_to_the_claim_before_the_pod_is_bound() {
    let api = Api::start();
    with_device(&api);
    api.put("resourceclaims", claim("one"));
    api.put("resourceclaims", claim("two"));
    api.pod("first", "1", &claiming("one"));
    assert_eq!(api.bound("first").await, "node1");
    let given = api
        .until_claim("is allocated", |claim| claim["metadata"]["name"] == "one")
        .await;
    let status = &given["status"];
    let finalizers = &given["metadata"]["finalizers"];
    assert_eq!(
        *finalizers,
        json!(["resource.kubernetes.io/delete-protection"])
    );
    assert_eq!(status["reservedFor"][0]["uid"], "uid-first");
    assert_eq!(status["allocation"]["devices"]["results"][0]["device"], "x");

    // The device is taken until its claim is deallocated.
    api.pod("second", "1", &claiming("two"));
    let why = api.refused("second").await;
    let expected = "0/1 nodes are available: 1 cannot allocate all claims. still not schedulable, ";
    assert!(why.starts_with(expected), "{why}");
    let mut free = given.clone();
    free["status"] = json!({});
    api.put("resourceclaims", free);
    assert_eq!(api.bound("second").await, "node1");
}

#[tokio::test]
async fn a_pod_waits_silently_for_its_claim() {
    let api = Api::start();
    with_device(&api);
    api.pod("web", "1", &claiming("late"));
    api.pod("other", "1", &json!({}));
    api.bound("other").await;
    let web = api.until("web", "exists", |_| true).await;
    assert!(web["status"].is_null(), "it has not even been tried");
    api.put("resourceclaims", claim("late"));
    assert_eq!(api.bound("web").await, "node1");
}

#[tokio::test]
async fn a_reservation_is_given_back_when_the_pod_cannot_be_bound() {
    let api = Api::start();
    with_device(&api);
    api.put("resourceclaims", claim("one"));
    api.set_bindable("web", false);
    api.pod("web", "1", &claiming("one"));
    let why = api.refused("web").await;
    assert!(why.starts_with("running Bind plugin"), "{why}");
    api.until_claim("is reserved for nobody", |claim| {
        let status = &claim["status"];
        status["allocation"].is_object() && status["reservedFor"] == json!([])
    })
    .await;
    api.set_bindable("web", true);
    assert_eq!(api.bound("web").await, "node1");
}

#[tokio::test]
async fn a_pod_that_still_waits_for_its_devices_makes_room_without_being_deleted() {
    let api = Api::start();
    with_device(&api);
    api.put(
        "resourceslices",
        json!({"metadata": {"name": "slice"}, "spec": {
            "driver": "d", "nodeName": "node1",
            "devices": [{"name": "x", "bindingConditions": ["Prepared"]}],
            "pool": {"name": "p", "generation": 2, "resourceSliceCount": 1}}}),
    );
    api.put("resourceclaims", claim("one"));
    api.pod("waiting", "3", &claiming("one"));
    let announced = api
        .until("waiting", "is announced", |pod| {
            pod["status"]["nominatedNodeName"].is_string()
        })
        .await;
    assert_eq!(announced["status"]["nominatedNodeName"], "node1");
    api.event("waiting", "BindingConditionsPending").await;
    api.pod("vip", "3", &json!({"priority": 9}));
    assert_eq!(api.bound("vip").await, "node1");
    let event = api.event("waiting", "Preempted").await;
    assert_eq!(
        event["message"],
        "Preempted by pod uid-vip on node node1 (in kube-scheduler memory)."
    );
    assert!(api.exists("waiting"));
    api.refused("waiting").await;
}
