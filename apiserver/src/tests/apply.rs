//! Server-side apply, and who owns what after every other write.

use axum::body::Body;
use http::{Method, Request, header};
use serde_json::{Value, json};

use super::CONFIG_MAPS;
use crate::testing::{Answer, TestServer};

const A: &str = "/api/v1/namespaces/default/configmaps/a";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const WEB: &str = "/apis/apps/v1/namespaces/default/deployments/web";

/// `manager operation subresource` and fields of each entry.
fn owners(object: &Value) -> Value {
    let entries = object["metadata"]["managedFields"].as_array();
    let entry = |entry: &Value| {
        let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        let name = [text("manager"), text("operation"), text("subresource")].join(" ");
        (name.trim_end().to_owned(), entry["fieldsV1"].clone())
    };
    Value::Object(entries.into_iter().flatten().map(entry).collect())
}

async fn apply(server: &TestServer, target: &str, manager: &str, config: &Value) -> Answer {
    let target = format!("{target}?fieldManager={manager}");
    server.patch(&target, "apply", config).await
}

fn map(data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data})
}

fn deployment(replicas: Option<i32>) -> Value {
    let mut deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
            },
        },
    });
    if let Some(replicas) = replicas {
        deployment["spec"]["replicas"] = json!(replicas);
    }
    deployment
}

#[tokio::test]
async fn an_apply_creates_changes_and_gives_up() {
    let server = TestServer::start().await;
    let created = apply(&server, A, "one", &map(&json!({"x": "1", "y": "1"}))).await;
    assert_eq!(created.code, 201, "{}", created.message());
    let created = created.json();
    assert_eq!(
        owners(&created),
        json!({"one Apply": {"f:data": {"f:x": {}, "f:y": {}}}})
    );
    let again = apply(&server, A, "one", &map(&json!({"x": "1", "y": "1"}))).await;
    assert_eq!((again.code.as_u16(), again.json()), (200, created));
    let shared = apply(&server, A, "two", &map(&json!({"x": "1"})))
        .await
        .json();
    assert_eq!(owners(&shared)["two Apply"], json!({"f:data": {"f:x": {}}}));
    let gone = apply(&server, A, "one", &map(&json!({}))).await.json();
    assert_eq!(gone["data"], json!({"x": "1"}));
    assert_eq!(
        owners(&gone),
        json!({"one Apply": {"f:data": {}}, "two Apply": {"f:data": {"f:x": {}}}})
    );
}

#[tokio::test]
async fn a_conflict_names_the_owner_and_can_be_forced() {
    let server = TestServer::start().await;
    let body = map(&json!({"x": "1", "y": "1"}));
    let target = format!("{CONFIG_MAPS}?fieldManager=creator");
    server.post(&target, &body).await;
    let conflict = apply(&server, A, "two", &map(&json!({"x": "2", "y": "2"}))).await;
    assert_eq!(conflict.code, 409);
    assert_eq!(
        conflict.message(),
        "Apply failed with 2 conflicts: conflicts with \"creator\" using v1:\n- .data.x\n- .data.y"
    );
    let status = conflict.json();
    assert_eq!(status["reason"], "Conflict");
    assert_eq!(
        status["details"]["causes"][0],
        json!({"reason": "FieldManagerConflict", "field": ".data.x",
            "message": "conflict with \"creator\" using v1"})
    );
    let target = format!("{A}?fieldManager=two&force=true");
    let forced = server
        .patch(&target, "apply", &map(&json!({"x": "2"})))
        .await
        .json();
    assert_eq!(forced["data"], json!({"x": "2", "y": "1"}));
    assert_eq!(
        owners(&forced),
        json!({"two Apply": {"f:data": {"f:x": {}}},
            "creator Update": {"f:data": {".": {}, "f:y": {}}}})
    );
}

#[tokio::test]
async fn what_cannot_be_applied() {
    let server = TestServer::start().await;
    let fails = async |target: &str, config: Value| {
        let answer = server.patch(target, "apply", &config).await;
        (answer.code.as_u16(), answer.message())
    };
    let named = format!("{A}?fieldManager=m");
    let (code, message) = fails(A, map(&json!({}))).await;
    assert_eq!(code, 422);
    assert!(message.contains("fieldManager: Required value: is required for apply patch"));
    let mut other = map(&json!({}));
    other["kind"] = json!("Secret");
    assert_eq!(
        fails(&named, other).await,
        (400, "invalid object type: /v1, Kind=Secret".to_owned())
    );
    let mut managed = map(&json!({}));
    managed["metadata"]["managedFields"] = json!([{}]);
    assert_eq!(
        fails(&named, managed).await,
        (400, "metadata.managedFields must be nil".to_owned())
    );
    let mut unknown = map(&json!({}));
    unknown["spec"] = json!({});
    assert_eq!(
        fails(&named, unknown).await,
        (500, "failed to create typed patch object (/a; /v1, Kind=ConfigMap): .spec: field not declared in schema".to_owned())
    );
    let mut with_uid = map(&json!({}));
    with_uid["metadata"]["uid"] = json!("u");
    assert_eq!(
        fails(&named, with_uid).await,
        (409, "Operation cannot be fulfilled on configmaps \"a\": uid mismatch: the provided object specified uid u, and no existing object was found".to_owned())
    );
    let twice = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  x: a\n  x: b\n";
    let request = |validation: &str| {
        Request::builder()
            .method(Method::PATCH)
            .uri(format!("{named}&fieldValidation={validation}"))
            .header(header::CONTENT_TYPE, "application/apply-patch+yaml")
            .body(Body::from(twice))
            .unwrap()
    };
    let strict = server.request(request("Strict")).await;
    assert_eq!(strict.code, 400);
    assert!(
        strict
            .message()
            .contains("line 7: key \"x\" already set in map")
    );
    let warned = server.request(request("Warn")).await;
    assert_eq!((warned.code.as_u16(), warned.warnings().len()), (201, 1));
    let cbor = Request::builder()
        .method(Method::PATCH)
        .uri(&named)
        .header(header::CONTENT_TYPE, "application/apply-patch+cbor")
        .body(Body::from(twice))
        .unwrap();
    assert_eq!(server.request(cbor).await.code, 415);
}

#[tokio::test]
async fn who_changes_a_field_owns_it() {
    let server = TestServer::start().await;
    let create = Request::builder()
        .method(Method::POST)
        .uri(DEPLOYMENTS)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, "kubectl/v1.36.0 (linux/amd64)")
        .body(Body::from(deployment(None).to_string()))
        .unwrap();
    let created = server.request(create).await.json();
    let spec = &owners(&created)["kubectl Update"]["f:spec"];
    assert_eq!(spec["f:replicas"], json!({}));
    assert_eq!(spec["f:strategy"]["f:type"], json!({}));
    let container = &spec["f:template"]["f:spec"]["f:containers"]["k:{\"name\":\"c\"}"];
    assert_eq!(container["f:resources"], json!({}));
    assert_eq!(owners(&created)["kubectl Update"].get("f:status"), None);
    let status = json!({"status": {"replicas": 1, "observedGeneration": 1}});
    let target = format!("{WEB}/status?fieldManager=controller");
    let updated = server.patch(&target, "merge", &status).await.json();
    assert_eq!(
        owners(&updated)["controller Update status"],
        json!({"f:status": {"f:observedGeneration": {}, "f:replicas": {}}})
    );
    let target = format!("{WEB}/scale?fieldManager=scaler");
    server
        .patch(&target, "merge", &json!({"spec": {"replicas": 4}}))
        .await;
    let scaled = server.get(WEB).await.json();
    let entries = scaled["metadata"]["managedFields"].as_array().unwrap();
    let scaler = entries.iter().find(|entry| entry["manager"] == "scaler");
    assert_eq!(scaler.unwrap().get("time"), None);
    assert_eq!(
        owners(&scaled)["scaler Update scale"],
        json!({"f:spec": {"f:replicas": {}}})
    );
    assert_eq!(
        owners(&scaled)["kubectl Update"]["f:spec"].get("f:replicas"),
        None
    );
    let conflict = apply(&server, WEB, "me", &deployment(Some(2))).await;
    assert_eq!(
        conflict.message(),
        "Apply failed with 1 conflict: conflict with \"scaler\" with subresource \"scale\" using apps/v1: .spec.replicas"
    );
}

#[tokio::test]
async fn the_scale_can_be_applied() {
    let server = TestServer::start().await;
    apply(&server, WEB, "me", &deployment(Some(2))).await;
    let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale",
        "metadata": {"name": "web", "namespace": "default"}, "spec": {"replicas": 5}});
    let conflict = apply(&server, &format!("{WEB}/scale"), "scaler", &scale).await;
    assert_eq!(
        conflict.message(),
        "Apply failed with 1 conflict: conflict with \"me\": .spec.replicas"
    );
    let target = format!("{WEB}/scale?fieldManager=scaler&force=true");
    let forced = server.patch(&target, "apply", &scale).await;
    assert_eq!(forced.json()["spec"]["replicas"], 5, "{}", forced.message());
    let scaled = server.get(WEB).await.json();
    assert_eq!(
        owners(&scaled)["scaler Apply scale"],
        json!({"f:spec": {"f:replicas": {}}})
    );
    assert_eq!(
        owners(&scaled)["me Apply"]["f:spec"].get("f:replicas"),
        None
    );
}

#[tokio::test]
async fn managed_fields_can_be_cleared_and_stay_as_they_were_otherwise() {
    let server = TestServer::start().await;
    let body = map(&json!({"x": "1"}));
    let created = server.post(CONFIG_MAPS, &body).await.json();
    let kept = server
        .put(A, &map(&json!({"x": "1", "y": "2"})))
        .await
        .json();
    assert_eq!(
        owners(&kept),
        json!({"unknown Update": {"f:data": {".": {}, "f:x": {}, "f:y": {}}}})
    );
    let mut garbage = created.clone();
    garbage["metadata"]["resourceVersion"] = Value::Null;
    garbage["metadata"]["managedFields"] = json!([{"manager": "x", "operation": "Update",
        "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"nonsense": {}}}]);
    let kept = server.put(A, &garbage).await.json();
    assert_eq!(
        owners(&kept),
        json!({"unknown Update": {"f:data": {".": {}, "f:x": {}}}})
    );
    let clear = json!({"metadata": {"managedFields": [{}]}});
    let cleared = server.patch(A, "merge", &clear).await.json();
    assert_eq!(cleared["metadata"].get("managedFields"), None);
    let untracked = server
        .patch(A, "merge", &json!({"data": {"x": "2"}}))
        .await
        .json();
    assert_eq!(untracked["metadata"].get("managedFields"), None);
    let conflict = apply(&server, A, "m", &map(&json!({"x": "3"}))).await;
    assert_eq!(
        conflict.message(),
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.x"
    );
}

#[tokio::test]
async fn kubectl_takes_over_what_it_applied_on_its_own_side() {
    let server = TestServer::start().await;
    let mut body = map(&json!({"x": "1"}));
    let recorded = body.to_string();
    body["metadata"]["annotations"] =
        json!({"kubectl.kubernetes.io/last-applied-configuration": recorded});
    let target = format!("{CONFIG_MAPS}?fieldManager=kubectl-client-side-apply");
    server.post(&target, &body).await;
    let other = apply(&server, A, "other", &map(&json!({"x": "2"}))).await;
    assert_eq!(other.code, 409);
    let taken = apply(&server, A, "kubectl", &map(&json!({"x": "2"}))).await;
    assert_eq!(taken.code, 200, "{}", taken.message());
    let taken = taken.json();
    assert_eq!(
        owners(&taken)["kubectl Apply"],
        json!({"f:data": {"f:x": {}}})
    );
    let recorded =
        &taken["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"];
    assert!(recorded.as_str().unwrap().contains(r#""x":"2""#));
}

#[tokio::test]
async fn an_owner_of_another_version_is_found_in_this_one() {
    let server = TestServer::start().await;
    let v1 = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers/h";
    let v2 = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers/h";
    let config = |version: &str, max: i32| {
        json!({"apiVersion": format!("autoscaling/{version}"), "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "h"}, "spec": {"maxReplicas": max,
            "scaleTargetRef": {"kind": "Deployment", "name": "web", "apiVersion": "apps/v1"}}})
    };
    let created = apply(&server, v1, "one", &config("v1", 3)).await;
    assert_eq!(created.code, 201, "{}", created.message());
    let conflict = apply(&server, v2, "two", &config("v2", 4)).await;
    assert_eq!(
        conflict.message(),
        "Apply failed with 1 conflict: conflict with \"one\": .spec.maxReplicas"
    );
    let moved = apply(&server, v2, "one", &config("v2", 4)).await;
    assert_eq!(moved.code, 200, "{}", moved.message());
    assert_eq!(
        moved.json()["metadata"]["managedFields"][0]["apiVersion"],
        "autoscaling/v2"
    );
}
