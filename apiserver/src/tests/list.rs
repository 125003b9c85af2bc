//! Lists: selectors, pages, resource versions.

use serde_json::{Value, json};

use super::{CONFIG_MAPS, config_map};
use crate::testing::TestServer;

async fn fill(server: &TestServer, names: &[&str]) {
    for name in names {
        let created = server
            .post(CONFIG_MAPS, &config_map(name, &Value::Null))
            .await;
        assert_eq!(created.code, 201);
    }
}

async fn names(server: &TestServer, query: &str) -> Vec<String> {
    let answer = server.get(&format!("{CONFIG_MAPS}{query}")).await;
    assert_eq!(answer.code, 200, "{query}: {}", answer.message());
    names_of(&answer.json())
}

fn names_of(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn selectors_choose() {
    let server = TestServer::start().await;
    fill(&server, &["a", "b", "c"]).await;
    let list = server.get(CONFIG_MAPS).await.json();
    assert_eq!(list["kind"], "ConfigMapList");
    assert_eq!(names_of(&list), ["a", "b", "c"]);
    // The list says what its items are.
    assert_eq!(list["items"][0].get("kind"), None);
    assert_eq!(list["items"][0].get("apiVersion"), None);
    assert!(list["items"][0]["metadata"]["resourceVersion"].is_string());
    for (query, expected) in [
        ("?labelSelector=app%3Db", &["b"][..]),
        ("?labelSelector=app+in+(a,c)", &["a", "c"]),
        ("?labelSelector=!app", &[]),
        ("?fieldSelector=metadata.name%3Dc", &["c"]),
        ("?fieldSelector=metadata.name!%3Dc", &["a", "b"]),
        (
            "?fieldSelector=metadata.namespace%3Ddefault",
            &["a", "b", "c"],
        ),
    ] {
        assert_eq!(names(&server, query).await, expected, "{query}");
    }
    let all = server
        .get("/api/v1/configmaps?fieldSelector=metadata.name%3Da")
        .await;
    assert_eq!(names_of(&all.json()), ["a"]);
    let elsewhere = server.get("/api/v1/namespaces/other/configmaps").await;
    assert_eq!(elsewhere.json()["items"], json!([]));
    for query in ["?labelSelector=%3D", "?fieldSelector=x%3Dy", "?limit=x"] {
        assert_eq!(
            server.get(&format!("{CONFIG_MAPS}{query}")).await.code,
            400,
            "{query}"
        );
    }
}

#[tokio::test]
async fn pages_show_the_state_of_the_first() {
    let server = TestServer::start().await;
    fill(&server, &["a", "b", "c", "d", "e"]).await;
    let first = server.get(&format!("{CONFIG_MAPS}?limit=2")).await.json();
    assert_eq!(names_of(&first), ["a", "b"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    server
        .delete(&format!("{CONFIG_MAPS}/c"), &Value::Null)
        .await;
    fill(&server, &["bb", "f"]).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = server
        .get(&format!("{CONFIG_MAPS}?limit=2&continue={token}"))
        .await
        .json();
    assert_eq!(names_of(&second), ["c", "d"]);
    assert_eq!(
        second["metadata"]["resourceVersion"],
        first["metadata"]["resourceVersion"]
    );
    let token = second["metadata"]["continue"].as_str().unwrap();
    let third = server
        .get(&format!("{CONFIG_MAPS}?limit=2&continue={token}"))
        .await
        .json();
    assert_eq!(names_of(&third), ["e"]);
    assert!(third["metadata"].get("continue").is_none());
    assert_eq!(names(&server, "").await, ["a", "b", "bb", "d", "e", "f"]);
    let bad = server
        .get(&format!("{CONFIG_MAPS}?continue=nonsense"))
        .await;
    assert_eq!(bad.code, 400);
}

#[tokio::test]
async fn exact_versions_show_the_past_and_future_ones_fail() {
    let server = TestServer::start().await;
    fill(&server, &["a"]).await;
    let past = server.get(CONFIG_MAPS).await.json();
    fill(&server, &["b"]).await;
    // From here on the cache has seen both.
    assert_eq!(names(&server, "").await, ["a", "b"]);
    let version = past["metadata"]["resourceVersion"].as_str().unwrap();
    let exact = format!("?resourceVersion={version}&resourceVersionMatch=Exact");
    assert_eq!(names(&server, &exact).await, ["a"]);
    let recent = format!("?resourceVersion={version}&resourceVersionMatch=NotOlderThan");
    assert_eq!(names(&server, &recent).await, ["a", "b"]);
    assert_eq!(names(&server, "?resourceVersion=0").await, ["a", "b"]);
    // Such a list has no pages.
    let whole = "?resourceVersion=0&limit=1";
    assert_eq!(names(&server, whole).await, ["a", "b"]);
    for query in [
        "?resourceVersionMatch=Exact",
        "?resourceVersion=1&resourceVersionMatch=Other",
    ] {
        assert_eq!(
            server.get(&format!("{CONFIG_MAPS}{query}")).await.code,
            422,
            "{query}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn future_versions_time_out() {
    let server = TestServer::start().await;
    let future = server
        .get(&format!("{CONFIG_MAPS}?resourceVersion=1000"))
        .await;
    assert_eq!(future.code, 504);
    assert!(
        future
            .message()
            .contains("Too large resource version: 1000"),
        "{}",
        future.message()
    );
}

#[tokio::test]
async fn tables_and_metadata_of_lists() {
    let server = TestServer::start().await;
    fill(&server, &["a", "b"]).await;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let answer = server.get_as(CONFIG_MAPS, table).await.json();
    assert_eq!(answer["rows"].as_array().unwrap().len(), 2);
    let partial = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let answer = server.get_as(CONFIG_MAPS, partial).await.json();
    assert_eq!(answer["kind"], "PartialObjectMetadataList");
    assert_eq!(names_of(&answer), ["a", "b"]);
}

#[tokio::test]
async fn a_kind_that_is_a_view_of_another_selects_by_its_own_fields() {
    let server = TestServer::start().await;
    let event = json!({
        "metadata": {"name": "e"},
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reason": "Tested",
        "type": "Normal",
    });
    server
        .post("/api/v1/namespaces/default/events", &event)
        .await;
    let view = "/apis/events.k8s.io/v1/namespaces/default/events";
    for (field, count) in [
        ("regarding.name%3Dp", 1),
        ("regarding.name%3Dq", 0),
        ("reason!%3Dx", 1),
    ] {
        let list = server
            .get(&format!("{view}?fieldSelector={field}"))
            .await
            .json();
        assert_eq!(list["items"].as_array().unwrap().len(), count, "{field}");
    }
    let one = server.get(&format!("{view}/e")).await.json();
    assert_eq!(one["apiVersion"], "events.k8s.io/v1");
    assert_eq!(one["regarding"]["name"], "p");
    let unknown = server
        .get(&format!("{view}?fieldSelector=involvedObject.name%3Dp"))
        .await;
    assert_eq!(unknown.code, 400);
}
