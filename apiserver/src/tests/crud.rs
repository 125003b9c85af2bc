//! Single objects: create, get, delete.

use axum::body::Body;
use coracle_api::codec::protobuf;
use http::Request;
use serde_json::{Value, json};

use super::{CONFIG_MAPS, config_map};
use crate::testing::TestServer;

#[tokio::test]
async fn what_was_created_can_be_read_and_deleted() {
    let server = TestServer::start().await;
    let created = server
        .post(CONFIG_MAPS, &config_map("a", &json!({"k": "v"})))
        .await;
    assert_eq!(created.code, 201, "{:?}", created.body);
    let object = created.json();
    assert_eq!(object["data"], json!({"k": "v"}));
    assert_eq!(object["metadata"]["namespace"], "default");
    for field in ["uid", "creationTimestamp", "resourceVersion"] {
        assert!(object["metadata"][field].is_string(), "{field}");
    }
    let path = format!("{CONFIG_MAPS}/a");
    let got = server.get(&path).await;
    assert_eq!((got.code.as_u16(), got.body), (200, created.body));

    let again = server
        .post(CONFIG_MAPS, &config_map("a", &Value::Null))
        .await;
    assert_eq!(again.code, 409);
    assert_eq!(again.message(), r#"configmaps "a" already exists"#);

    let deleted = server.delete(&path, &Value::Null).await;
    assert_eq!(deleted.code, 200);
    assert_eq!(deleted.json()["status"], "Success");
    assert_eq!(deleted.json()["details"]["kind"], "configmaps");
    let gone = server.get(&path).await;
    assert_eq!(gone.code, 404);
    assert_eq!(gone.message(), r#"configmaps "a" not found"#);
    assert_eq!(
        gone.json()["details"],
        json!({"name": "a", "kind": "configmaps"})
    );
}

#[tokio::test]
async fn names_can_be_generated() {
    let server = TestServer::start().await;
    let body = json!({"metadata": {"generateName": "web-"}});
    let first = server.post(CONFIG_MAPS, &body).await.json();
    let second = server.post(CONFIG_MAPS, &body).await.json();
    let name = first["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("web-") && name.len() == 9);
    assert_ne!(first["metadata"]["name"], second["metadata"]["name"]);
}

#[tokio::test]
async fn bad_objects_are_refused_as_upstream_does() {
    let server = TestServer::start().await;
    let invalid = server
        .post(CONFIG_MAPS, &json!({"metadata": {"name": "A_"}}))
        .await;
    assert_eq!(invalid.code, 422);
    assert!(
        invalid.message().starts_with(r#"ConfigMap "A_" is invalid: metadata.name: Invalid value: "A_": a lowercase RFC 1123 subdomain"#),
        "{}", invalid.message()
    );
    let nameless = server.post(CONFIG_MAPS, &json!({"metadata": {}})).await;
    assert_eq!(
        nameless.message(),
        r#"ConfigMap "" is invalid: metadata.name: Required value: name or generateName is required"#
    );
    let elsewhere = json!({"metadata": {"name": "a", "namespace": "other"}});
    let elsewhere = server.post(CONFIG_MAPS, &elsewhere).await;
    assert_eq!(
        elsewhere.message(),
        "the namespace of the provided object does not match the namespace sent on the request"
    );
    let unknown = json!({"metadata": {"name": "b"}, "nonsense": 1});
    let warned = server.post(CONFIG_MAPS, &unknown).await;
    assert_eq!(warned.code, 201);
    assert_eq!(warned.warnings(), [r#"299 - "unknown field \"nonsense\"""#]);
    let strict = format!("{CONFIG_MAPS}?fieldValidation=Strict");
    assert_eq!(server.post(&strict, &unknown).await.code, 400);
}

#[tokio::test]
async fn dry_run_writes_nothing() {
    let server = TestServer::start().await;
    let target = format!("{CONFIG_MAPS}?dryRun=All");
    let created = server.post(&target, &config_map("a", &Value::Null)).await;
    assert_eq!(created.code, 201);
    assert_eq!(server.get(&format!("{CONFIG_MAPS}/a")).await.code, 404);
    server
        .post(CONFIG_MAPS, &config_map("a", &Value::Null))
        .await;
    assert_eq!(
        server
            .post(&target, &config_map("a", &Value::Null))
            .await
            .code,
        409
    );
    let deleted = server
        .delete(&format!("{CONFIG_MAPS}/a?dryRun=All"), &Value::Null)
        .await;
    assert_eq!(deleted.code, 200);
    assert_eq!(server.get(&format!("{CONFIG_MAPS}/a")).await.code, 200);
}

#[tokio::test]
async fn jobs_are_not_deleted_without_a_word_on_their_pods() {
    let server = TestServer::start().await;
    let jobs = "/apis/batch/v1/namespaces/default/jobs";
    let template =
        json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
    let body = json!({"metadata": {"name": "j"}, "spec": {"template": template}});
    assert_eq!(server.post(jobs, &body).await.code, 201);
    let path = format!("{jobs}/j");
    for (options, warnings, code) in [
        (json!({"dryRun": ["All"]}), 1, 200),
        (
            json!({"dryRun": ["All"], "propagationPolicy": "Foreground"}),
            0,
            200,
        ),
        (
            json!({"dryRun": ["All"], "propagationPolicy": "Orphan"}),
            0,
            200,
        ),
        (
            json!({"dryRun": ["All"], "orphanDependents": false}),
            0,
            200,
        ),
        (json!({"propagationPolicy": "Foreground"}), 0, 200),
        (json!({"propagationPolicy": "Foreground"}), 0, 200),
    ] {
        let deleted = server.delete(&path, &options).await;
        assert_eq!(deleted.warnings().len(), warnings, "{options}");
        assert_eq!(deleted.code, code, "{options}");
    }
}

#[tokio::test]
async fn finalizers_keep_an_object() {
    let server = TestServer::start().await;
    let body = json!({"metadata": {"name": "a", "finalizers": ["example.com/x"]}});
    server.post(CONFIG_MAPS, &body).await;
    let path = format!("{CONFIG_MAPS}/a");
    let deleted = server.delete(&path, &Value::Null).await;
    assert!(deleted.json()["metadata"]["deletionTimestamp"].is_string());
    let precondition = json!({"preconditions": {"uid": "other"}});
    let conflict = server.delete(&path, &precondition).await;
    assert_eq!(conflict.code, 409);
    assert!(
        conflict
            .message()
            .contains("does not match the UID in record")
    );
    assert_eq!(server.get(&path).await.code, 200);
}

#[tokio::test]
async fn paths_that_are_not_served() {
    let server = TestServer::start().await;
    for path in [
        "/api/v1/nonsense",
        "/apis/example.com/v1/things",
        "/nonsense",
    ] {
        assert_eq!(server.get(path).await.code, 404, "{path}");
    }
}

#[tokio::test]
async fn other_representations() {
    let server = TestServer::start().await;
    server
        .post(CONFIG_MAPS, &config_map("a", &json!({"k": "v"})))
        .await;
    let path = format!("{CONFIG_MAPS}/a");
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let answer = server.get_as(&path, table).await.json();
    assert_eq!(answer["kind"], "Table");
    assert_eq!(answer["columnDefinitions"][0]["name"], "Name");
    assert_eq!(answer["rows"][0]["cells"][0], "a");
    assert_eq!(answer["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let partial = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    let answer = server.get_as(&path, partial).await.json();
    assert_eq!(answer["metadata"]["labels"]["app"], "a");
    assert!(answer.get("data").is_none());
    let yaml = server.get_as(&path, "application/yaml").await;
    assert!(
        yaml.body
            .starts_with(b"apiVersion: v1\ndata:\n  k: v\nkind: ConfigMap\n")
    );
    assert_eq!(server.get_as(&path, "text/html").await.code, 406);
}

#[tokio::test]
async fn protobuf_in_and_out() {
    const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
    let server = TestServer::start().await;
    let object = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "a"},
        "data": {"k": "v"},
    });
    let body = protobuf::from_json(object.to_string().as_bytes()).unwrap();
    let request = Request::post(CONFIG_MAPS)
        .header("content-type", PROTOBUF)
        .header("accept", format!("{PROTOBUF},application/json"))
        .body(Body::from(body))
        .unwrap();
    let created = server.request(request).await;
    assert_eq!(created.code, 201, "{}", created.message());
    assert_eq!(created.headers["content-type"], PROTOBUF);
    let decode = |body: &[u8]| -> Value {
        serde_json::from_slice(&protobuf::to_json(body, "", "").unwrap()).unwrap()
    };
    assert_eq!(decode(&created.body)["data"]["k"], "v");
    let list = server.get_as(CONFIG_MAPS, PROTOBUF).await;
    assert_eq!(decode(&list.body)["items"][0]["metadata"]["name"], "a");
    let missing = server.get_as(&format!("{CONFIG_MAPS}/b"), PROTOBUF).await;
    assert_eq!(decode(&missing.body)["reason"], "NotFound");
    let request = Request::get(format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1"))
        .header("accept", PROTOBUF)
        .body(Body::empty())
        .unwrap();
    let watched = server.request(request).await;
    assert_eq!(
        watched.headers["content-type"],
        "application/vnd.kubernetes.protobuf;stream=watch"
    );
    let length = u32::from_be_bytes(watched.body[..4].try_into().unwrap());
    assert_eq!(watched.body.len(), 4 + length as usize);
}

#[tokio::test]
async fn only_nodes_are_created_with_their_status() {
    let server = TestServer::start().await;
    let node = json!({"metadata": {"name": "n"}, "status": {"capacity": {"cpu": "4"}}});
    let created = server.post("/api/v1/nodes", &node).await.json();
    assert_eq!(created["status"]["allocatable"]["cpu"], "4");
    let namespace = json!({"metadata": {"name": "n"}, "status": {"phase": "Terminating"}});
    let created = server.post("/api/v1/namespaces", &namespace).await.json();
    assert_eq!(created["status"]["phase"], "Active");
}
