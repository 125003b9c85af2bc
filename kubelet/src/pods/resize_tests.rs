//! What a resize leads to.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;

fn pod(containers: &Value) -> Arc<Pod> {
    let pod = json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "u", "generation": 2},
        "spec": {"containers": containers},
    });
    Arc::new(serde_json::from_value(pod).expect("a pod"))
}

fn container(name: &str, cpu: &str, memory: &str, restart: &[&str]) -> Value {
    let amounts = json!({"cpu": cpu, "memory": memory});
    let policies: Vec<Value> = restart
        .iter()
        .map(|name| json!({"resourceName": name, "restartPolicy": "RestartContainer"}))
        .collect();
    json!({
        "name": name, "image": "i", "resizePolicy": policies,
        "resources": {"requests": amounts, "limits": amounts},
    })
}

fn running_container(name: &str) -> Seen {
    Seen {
        id: name.to_owned(),
        sandbox_id: "s".to_owned(),
        name: name.to_owned(),
        restart_count: 0,
        hash: 0,
        activity: Activity::Running,
        image: String::new(),
        image_ref: String::new(),
        created_at: Timestamp::UNIX_EPOCH,
        started_at: None,
        finished_at: None,
        exit_code: 0,
        reason: String::new(),
        message: String::new(),
        log_path: String::new(),
        user: None,
    }
}

fn actuated(pod: &Pod) -> HashMap<String, Compute> {
    let containers = spec(pod).containers.iter();
    containers
        .map(|container| (container.name.clone(), Compute::of(pod, container)))
        .collect()
}

#[test]
fn containers_that_give_up_something_come_first() {
    let old = pod(&json!([
        container("a", "1", "1Gi", &[]),
        container("b", "2", "1Gi", &[]),
        container("c", "1", "1Gi", &[]),
    ]));
    let new = pod(&json!([
        container("a", "2", "1Gi", &[]),
        container("b", "1", "512Mi", &[]),
        container("c", "1", "1Gi", &[]),
    ]));
    let mut observed = Observed::default();
    for name in ["a", "b", "c"] {
        observed.put_container(running_container(name));
    }
    let has = actuated(&old);
    assert!(is_in_progress(&new, &observed, &has));
    assert!(!is_in_progress(&old, &observed, &has));
    let mut actions = Actions::default();
    let updates = plan(&new, &observed, &has, &mut actions);
    let seen: Vec<_> = updates
        .iter()
        .map(|update| {
            (
                update.name.as_str(),
                update.linux().cpu_quota,
                update.less_memory,
            )
        })
        .collect();
    assert_eq!(
        seen,
        [("b", 100_000, Some(512 << 20)), ("a", 200_000, None)]
    );
    assert_eq!(actions, Actions::default());
}

#[test]
fn a_policy_may_ask_for_a_restart() {
    let old = pod(&json!([container("a", "1", "1Gi", &["memory"])]));
    let cpu = pod(&json!([container("a", "2", "1Gi", &["memory"])]));
    let memory = pod(&json!([container("a", "1", "2Gi", &["memory"])]));
    let mut observed = Observed::default();
    observed.put_container(running_container("a"));
    let has = actuated(&old);
    let mut actions = Actions::default();
    assert_eq!(plan(&cpu, &observed, &has, &mut actions).len(), 1);
    assert!(plan(&memory, &observed, &has, &mut actions).is_empty());
    assert_eq!(actions.regular, [0]);
    assert_eq!(
        actions.kill[0].message,
        "Container a resize requires restart"
    );
}

#[test]
fn a_pod_keeps_what_is_allocated_to_it() {
    let old = pod(&json!([container("a", "1", "1Gi", &[])]));
    let new = pod(&json!([container("a", "2", "1Gi", &[])]));
    assert!(Arc::ptr_eq(&with_allocation_of(&new, &new), &new));
    let kept = with_allocation_of(&new, &old);
    assert_eq!(spec(&kept).containers, spec(&old).containers);

    assert!(Arc::ptr_eq(&with_reported_allocation(&new), &new));
    let mut restarted = Pod::clone(&new);
    let status = json!({"containerStatuses": [{
        "name": "a", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
        "state": {"running": {}},
        "resources": spec(&old).containers[0].resources,
    }]});
    restarted.status = serde_json::from_value(status).expect("a status");
    let kept = with_reported_allocation(&Arc::new(restarted));
    assert_eq!(spec(&kept).containers, spec(&old).containers);
}

#[test]
fn events_tell_the_resources() {
    let of = pod(&json!([{"name": "a", "resources": {"requests": {"cpu": "1"}}}]));
    assert_eq!(
        message("Pod resize completed", &of, Some(2), ""),
        r#"Pod resize completed: {"containers":[{"name":"a","resources":{"requests":{"cpu":"1"}}}],"generation":2}"#
    );
}
