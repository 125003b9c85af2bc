//! `/metrics`: what is exposed, under which names and labels.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::server::Server;

/// Upstream's: name, type and labels of what dashboards and alerts are made of. `le` is left out.
#[rustfmt::skip]
const EXPOSED: &[(&str, &str, &[&str])] = &[
    ("aggregator_unavailable_apiservice", "gauge", &["name"]),
    ("apiserver_admission_controller_admission_duration_seconds", "histogram", &["name", "operation", "rejected", "type"]),
    ("apiserver_admission_step_admission_duration_seconds", "histogram", &["operation", "rejected", "type"]),
    ("apiserver_audit_event_total", "counter", &[]),
    ("apiserver_audit_requests_rejected_total", "counter", &[]),
    ("apiserver_cache_list_total", "counter", &["group", "index", "resource"]),
    ("apiserver_client_certificate_expiration_seconds", "histogram", &[]),
    ("apiserver_current_inflight_requests", "gauge", &["request_kind"]),
    ("apiserver_current_inqueue_requests", "gauge", &["request_kind"]),
    ("apiserver_flowcontrol_current_executing_requests", "gauge", &["flow_schema", "priority_level"]),
    ("apiserver_flowcontrol_current_executing_seats", "gauge", &["flow_schema", "priority_level"]),
    ("apiserver_flowcontrol_current_limit_seats", "gauge", &["priority_level"]),
    ("apiserver_flowcontrol_dispatched_requests_total", "counter", &["flow_schema", "priority_level"]),
    ("apiserver_flowcontrol_nominal_limit_seats", "gauge", &["priority_level"]),
    ("apiserver_flowcontrol_request_execution_seconds", "histogram", &["flow_schema", "priority_level", "type"]),
    ("apiserver_flowcontrol_request_wait_duration_seconds", "histogram", &["execute", "flow_schema", "priority_level"]),
    ("apiserver_longrunning_requests", "gauge", &["component", "group", "resource", "scope", "subresource", "verb", "version"]),
    ("apiserver_request_body_size_bytes", "histogram", &["group", "resource", "verb"]),
    ("apiserver_request_duration_seconds", "histogram", &["component", "dry_run", "group", "resource", "scope", "subresource", "verb", "version"]),
    ("apiserver_request_sli_duration_seconds", "histogram", &["component", "group", "resource", "scope", "subresource", "verb", "version"]),
    ("apiserver_request_total", "counter", &["code", "component", "dry_run", "group", "resource", "scope", "subresource", "verb", "version"]),
    ("apiserver_requested_deprecated_apis", "gauge", &["group", "removed_release", "resource", "subresource", "version"]),
    ("apiserver_resource_objects", "gauge", &["group", "resource"]),
    ("apiserver_response_sizes", "histogram", &["component", "group", "resource", "scope", "subresource", "verb", "version"]),
    ("apiserver_storage_events_received_total", "counter", &["group", "resource"]),
    ("apiserver_storage_objects", "gauge", &["resource"]),
    ("apiserver_watch_cache_events_dispatched_total", "counter", &["group", "resource"]),
    ("apiserver_watch_cache_initializations_total", "counter", &["group", "resource"]),
    ("apiserver_watch_cache_read_wait_seconds", "histogram", &["group", "resource"]),
    ("apiserver_watch_events_sizes", "histogram", &["group", "resource", "version"]),
    ("apiserver_watch_events_total", "counter", &["group", "resource", "version"]),
    ("authenticated_user_requests", "counter", &["username"]),
    ("authentication_attempts", "counter", &["result"]),
    ("authentication_duration_seconds", "histogram", &["result"]),
    ("authorization_attempts_total", "counter", &["result"]),
    ("authorization_duration_seconds", "histogram", &["result"]),
    ("cronjob_controller_job_creation_skew_duration_seconds", "histogram", &[]),
    ("disabled_metrics_total", "counter", &[]),
    ("endpoint_slice_controller_desired_endpoint_slices", "gauge", &[]),
    ("endpoint_slice_controller_endpoints_added_per_sync", "histogram", &[]),
    ("endpoint_slice_controller_endpoints_desired", "gauge", &[]),
    ("endpoint_slice_controller_endpoints_removed_per_sync", "histogram", &[]),
    ("endpoint_slice_controller_num_endpoint_slices", "gauge", &[]),
    ("etcd_request_duration_seconds", "histogram", &["group", "operation", "resource"]),
    ("etcd_requests_total", "counter", &["group", "operation", "resource"]),
    ("hidden_metrics_total", "counter", &[]),
    ("job_controller_job_sync_duration_seconds", "histogram", &["action", "completion_mode", "result"]),
    ("job_controller_job_syncs_total", "counter", &["action", "completion_mode", "result"]),
    ("kubernetes_build_info", "gauge", &["build_date", "compiler", "git_commit", "git_tree_state", "git_version", "go_version", "major", "minor", "platform"]),
    ("pod_security_evaluations_total", "counter", &["decision", "mode", "policy_level", "policy_version", "request_operation", "resource", "subresource"]),
    ("process_cpu_seconds_total", "counter", &[]),
    ("process_resident_memory_bytes", "gauge", &[]),
    ("process_start_time_seconds", "gauge", &[]),
    ("registered_metrics_total", "counter", &["deprecated_version", "stability_level"]),
    ("rest_client_request_duration_seconds", "histogram", &["host", "verb"]),
    ("rest_client_requests_total", "counter", &["code", "host", "method"]),
    ("running_managed_controllers", "gauge", &["manager", "name"]),
    ("scheduler_framework_extension_point_duration_seconds", "histogram", &["extension_point", "profile", "status"]),
    ("scheduler_pending_pods", "gauge", &["queue"]),
    ("scheduler_pod_scheduling_attempts", "histogram", &[]),
    ("scheduler_preemption_attempts_total", "counter", &[]),
    ("scheduler_preemption_victims", "histogram", &[]),
    ("scheduler_queue_incoming_pods_total", "counter", &["event", "queue"]),
    ("scheduler_schedule_attempts_total", "counter", &["profile", "result"]),
    ("scheduler_scheduling_attempt_duration_seconds", "histogram", &["profile", "result"]),
    ("version_info", "gauge", &["binary", "component", "emulation", "min_compat"]),
    ("workqueue_adds_total", "counter", &["name"]),
    ("workqueue_depth", "gauge", &["name"]),
    ("workqueue_longest_running_processor_seconds", "gauge", &["name"]),
    ("workqueue_queue_duration_seconds", "histogram", &["name"]),
    ("workqueue_retries_total", "counter", &["name"]),
    ("workqueue_unfinished_work_seconds", "gauge", &["name"]),
    ("workqueue_work_duration_seconds", "histogram", &["name"]),
];

/// Type and labels of each family of a page.
fn families(page: &str) -> BTreeMap<&str, (&str, BTreeSet<&str>)> {
    let mut families = BTreeMap::new();
    let mut current = "";
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            families.insert(name, (kind, BTreeSet::new()));
            current = name;
        } else if !line.starts_with('#')
            && let Some((_, labels)) = line.split_once('{')
            && let Some((_, seen)) = families.get_mut(current)
        {
            let labels = labels
                .split("\",")
                .filter_map(|label| label.split_once("=\""));
            seen.extend(labels.map(|(name, _)| name).filter(|name| *name != "le"));
        }
    }
    families
}

fn missing(page: &str) -> Vec<String> {
    let families = families(page);
    let wrong = EXPOSED.iter().filter_map(|(name, kind, labels)| {
        let found = families.get(name);
        let expected = (*kind, labels.iter().copied().collect());
        (found != Some(&expected)).then(|| format!("{name}: {found:?}"))
    });
    wrong.collect()
}

#[tokio::test]
async fn every_component_is_counted_under_upstreams_names() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path()).await;
    let client = &server.client;
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": "one" },
        "spec": { "template": { "spec": {
            "restartPolicy": "Never", "containers": [{ "name": "c", "image": "i" }],
        } } },
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "one" },
        "spec": { "selector": { "a": "b" }, "ports": [{ "port": 80 }] },
    });
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "one" } });
    for (path, object) in [
        ("/api/v1/nodes", node),
        ("/apis/batch/v1/namespaces/default/jobs", job),
        ("/api/v1/namespaces/default/services", service),
    ] {
        let post = http::Request::post(path)
            .header("content-type", "application/json")
            .body(object.to_string().into_bytes())
            .expect("a request");
        client.request_text(post).await.expect("it is created");
    }
    let get = |path: &'static str| async move {
        let request = http::Request::get(path)
            .body(Vec::new())
            .expect("a request");
        client.request_text(request).await.expect("an answer")
    };
    get("/api/v1/endpoints").await;
    get("/api/v1/namespaces/default/pods").await;
    let mut left = Vec::new();
    for _ in 0..100 {
        left = missing(&get("/metrics").await);
        if left.is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(left, Vec::<String>::new());

    get("/readyz").await;
    let checks = get("/metrics/slis").await;
    let healthy = "kubernetes_healthcheck{name=\"ping\",type=\"readyz\"} 1";
    assert!(checks.lines().any(|line| line == healthy), "{checks}");
}
