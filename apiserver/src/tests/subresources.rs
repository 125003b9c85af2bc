//! Parts of objects, and what is done to them by another kind.

use serde_json::{Value, json};

use crate::testing::TestServer;

const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    })
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
            },
        },
    })
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let server = TestServer::start().await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let created = server.post(path, &deployment()).await;
    assert_eq!(created.code, 201, "{}", created.message());
    let mut object = created.json();
    assert_eq!(object["metadata"]["generation"], 1);
    object["spec"]["replicas"] = json!(5);
    object["status"] = json!({"replicas": 3});
    let status = server.put(&format!("{path}/d/status"), &object).await;
    assert_eq!(status.code, 200, "{}", status.message());
    let mut object = status.json();
    assert_eq!(
        (&object["spec"]["replicas"], &object["status"]["replicas"]),
        (&json!(2), &json!(3))
    );
    assert_eq!(object["metadata"]["generation"], 1);
    object["spec"]["replicas"] = json!(5);
    object["status"]["replicas"] = json!(4);
    let main = server.put(&format!("{path}/d"), &object).await.json();
    assert_eq!(
        (&main["spec"]["replicas"], &main["status"]["replicas"]),
        (&json!(5), &json!(3))
    );
    assert_eq!(main["metadata"]["generation"], 2);
}

#[tokio::test]
async fn scale_is_a_view_of_the_workload() {
    let server = TestServer::start().await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    server.post(path, &deployment()).await;
    let target = format!("{path}/d/scale");
    let mut scale = server.get(&target).await.json();
    assert_eq!(scale["kind"], "Scale");
    assert_eq!(scale["spec"]["replicas"], 2);
    assert_eq!(scale["status"]["selector"], "app=web");
    scale["spec"]["replicas"] = json!(0);
    let updated = server.put(&target, &scale).await;
    assert_eq!(updated.code, 200, "{}", updated.message());
    let patched = server
        .patch(&target, "merge", &json!({"spec": {"replicas": 7}}))
        .await;
    assert_eq!(
        patched.json()["spec"]["replicas"],
        7,
        "{}",
        patched.message()
    );
    assert_eq!(
        server.get(&format!("{path}/d")).await.json()["spec"]["replicas"],
        7
    );
    let negative = server
        .patch(&target, "merge", &json!({"spec": {"replicas": -1}}))
        .await;
    assert_eq!(negative.code, 422);
    assert_eq!(server.put(&target, &scale).await.code, 409);
    for (metadata, code) in [
        (json!({}), 400),
        (json!({"name": "other"}), 400),
        (json!({"name": "d", "uid": "other"}), 409),
    ] {
        let scale = json!({"metadata": metadata, "spec": {"replicas": 3}});
        assert_eq!(server.put(&target, &scale).await.code, code, "{scale}");
    }
}

#[tokio::test]
async fn a_pod_is_bound_to_one_node() {
    let server = TestServer::start().await;
    server.post(PODS, &pod("p")).await;
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    let bound = server.post(&format!("{PODS}/p/binding"), &binding).await;
    assert_eq!(
        (bound.code.as_u16(), &bound.json()["status"]),
        (201, &json!("Success")),
        "{}",
        bound.message()
    );
    assert_eq!(
        server.get(&format!("{PODS}/p")).await.json()["spec"]["nodeName"],
        "n1"
    );
    let again = server
        .post("/api/v1/namespaces/default/bindings", &binding)
        .await;
    assert_eq!(again.code, 409);
    assert!(
        again.message().contains("already assigned to node \"n1\""),
        "{}",
        again.message()
    );
    let selected = server
        .get(&format!("{PODS}?fieldSelector=spec.nodeName%3Dn1"))
        .await
        .json();
    assert_eq!(selected["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn an_eviction_asks_the_budget() {
    let server = TestServer::start().await;
    for name in ["a", "b"] {
        server.post(PODS, &pod(name)).await;
        let running = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        let status = server
            .patch(&format!("{PODS}/{name}/status"), "merge", &running)
            .await;
        assert_eq!(status.code, 200, "{}", status.message());
    }
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({"metadata": {"name": "pdb"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
    let created = server.post(budgets, &budget).await;
    assert_eq!(created.code, 201, "{}", created.message());
    let status = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2}});
    let status = server
        .patch(&format!("{budgets}/pdb/status"), "merge", &status)
        .await;
    assert_eq!(status.code, 200, "{}", status.message());
    let eviction = |name: &str| json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
    let first = server
        .post(&format!("{PODS}/a/eviction"), &eviction("a"))
        .await;
    assert_eq!(first.code, 201, "{}", first.message());
    let second = server
        .post(&format!("{PODS}/b/eviction"), &eviction("b"))
        .await;
    assert_eq!(second.code, 429);
    assert_eq!(
        second.message(),
        "Cannot evict pod as it would violate the pod's disruption budget."
    );
    let left = server.get(&format!("{budgets}/pdb")).await.json();
    assert_eq!(
        left["status"]["disruptedPods"].as_object().unwrap().len(),
        1
    );
}

#[tokio::test]
async fn an_eviction_that_is_not_as_it_should_be() {
    let server = TestServer::start().await;
    server.post(PODS, &pod("a")).await;
    let url = format!("{PODS}/a/eviction?dryRun=All");
    for (body, code, message) in [
        (
            json!({"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": {"name": "a"}}),
            201,
            "",
        ),
        (
            json!({"metadata": {"name": "a"}, "deleteOptions": {"propagationPolicy": "X"}}),
            422,
            r#"DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "X": supported values: "Foreground", "Background", "Orphan", "nil""#,
        ),
        (
            json!({"metadata": {"name": "a"}, "deleteOptions": {"dryRun": ["X"]}}),
            500,
            "Non-matching dry-run options in request and content: [All] and [X]",
        ),
    ] {
        let answer = server.post(&url, &body).await;
        assert_eq!(
            (answer.code.as_u16(), answer.message().as_str()),
            (code, message)
        );
    }
}

#[tokio::test]
async fn a_scale_of_something_else_is_refused() {
    let server = TestServer::start().await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    server.post(path, &deployment()).await;
    let uid = server.get(&format!("{path}/d")).await.json()["metadata"]["uid"].clone();
    let uid = uid.as_str().unwrap();
    let url = format!("{path}/d/scale");
    let why = format!("Precondition failed: UID in precondition: x, UID in object meta: {uid}");
    let scale = json!({"metadata": {"name": "d", "uid": "x"}, "spec": {"replicas": 2}});
    let put = server.put(&url, &scale).await;
    assert_eq!(put.code, 409);
    assert_eq!(
        put.message(),
        format!(
            "Operation cannot be fulfilled on deployments.apps \"d\": StorageError: invalid object, Code: 4, Key: /deployments/default/d, ResourceVersion: 0, AdditionalErrorMsg: {why}"
        )
    );
    let patched = server.patch(&url, "merge", &scale).await;
    assert_eq!(
        patched.message(),
        format!("Operation cannot be fulfilled on deployments/scale.apps \"d\": {why}")
    );
    let elsewhere = json!({"metadata": {"namespace": "other"}});
    assert_eq!(server.patch(&url, "merge", &elsewhere).await.code, 400);
    let half = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"}, "spec": {"replicas": 1.5}});
    let applied = server
        .patch(&format!("{url}?fieldManager=m&force=true"), "apply", &half)
        .await;
    assert_eq!(
        applied.message(),
        "failed to convert new object (/d; autoscaling/v1, Kind=Scale) to proper version: unable to convert unstructured object to autoscaling/v1, Kind=Scale: cannot convert float64 to int32"
    );
}

#[tokio::test]
async fn a_strategic_patch_is_refused_in_the_words_for_maps() {
    let server = TestServer::start().await;
    server.post(PODS, &pod("a")).await;
    let patch = json!({"status": {"startTime": "x"}});
    let patched = server
        .patch(&format!("{PODS}/a/status"), "strategic-merge", &patch)
        .await;
    let message = patched.message();
    assert!(
        message.contains(r#"map[status:map[startTime:x]]": parsing time "x""#),
        "{message}"
    );
}

#[tokio::test]
async fn a_binding_by_the_older_resource_names_its_pod_only() {
    let server = TestServer::start().await;
    let bindings = "/api/v1/namespaces/default/bindings";
    let nothing = server.post(bindings, &json!({})).await;
    assert_eq!(nothing.code, 500);
    assert_eq!(nothing.message(), "target.name: Required value");
    server.post(PODS, &pod("a")).await;
    let body = json!({"metadata": {"name": "a", "uid": "other"}, "target": {"name": "n"}});
    let bound = server.post(bindings, &body).await;
    assert_eq!(bound.code, 201, "{}", bound.message());
}

#[tokio::test]
async fn a_namespace_ends_when_it_is_finalized() {
    let server = TestServer::start().await;
    let body = json!({"metadata": {"name": "n"}, "spec": {"finalizers": ["kubernetes"]}});
    server.post("/api/v1/namespaces", &body).await;
    let deleted = server
        .delete("/api/v1/namespaces/n", &Value::Null)
        .await
        .json();
    assert_eq!(deleted["status"]["phase"], "Terminating");
    let mut object = server.get("/api/v1/namespaces/n").await.json();
    object["spec"]["finalizers"] = json!([]);
    let finalized = server.put("/api/v1/namespaces/n/finalize", &object).await;
    assert_eq!(finalized.code, 200, "{}", finalized.message());
    assert_eq!(server.get("/api/v1/namespaces/n").await.code, 404);
}

#[tokio::test]
async fn what_a_resource_does_not_have() {
    let server = TestServer::start().await;
    assert_eq!(
        server
            .get("/api/v1/namespaces/default/configmaps/a/status")
            .await
            .code,
        404
    );
    let unserved = server.delete("/api/v1/namespaces", &Value::Null).await;
    assert_eq!(unserved.code, 405);
}

#[tokio::test]
async fn a_strategic_patch_merges_lists_by_key() {
    let server = TestServer::start().await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    server.post(path, &deployment()).await;
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "j"}, {"name": "x", "image": "k"}]}}}});
    let patched = server
        .patch(&format!("{path}/d"), "strategic-merge", &patch)
        .await;
    assert_eq!(patched.code, 200, "{}", patched.message());
    let containers = patched.json()["spec"]["template"]["spec"]["containers"].clone();
    let images: Vec<_> = containers
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["image"].clone())
        .collect();
    assert_eq!(images.len(), 2);
    assert!(images.contains(&json!("j")) && images.contains(&json!("k")));
}

#[tokio::test]
async fn a_strategic_patch_may_name_another_type() {
    let server = TestServer::start().await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    server.post(path, &deployment()).await;
    let patch = json!({"kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 7}});
    let scale = format!("{path}/d/scale");
    let patched = server.patch(&scale, "strategic-merge", &patch).await;
    assert_eq!(patched.code, 200, "{}", patched.message());
    assert_eq!(patched.json()["kind"], "Scale");
    assert_eq!(patched.json()["spec"]["replicas"], 7);
    let wrong = server
        .patch(&scale, "strategic-merge", &json!({"kind": 5}))
        .await;
    assert_eq!(wrong.code, 422);
}
