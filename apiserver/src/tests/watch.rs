//! Watches: starts, selectors, bookmarks, ends.

use std::time::Duration;

use serde_json::{Value, json};

use super::{CONFIG_MAPS, config_map};
use crate::testing::TestServer;

async fn create(server: &TestServer, name: &str) -> String {
    let created = server
        .post(CONFIG_MAPS, &config_map(name, &Value::Null))
        .await;
    assert_eq!(created.code, 201);
    created.json()["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn named(event: &str, name: &str) -> Option<(String, String)> {
    Some((event.to_owned(), name.to_owned()))
}

#[tokio::test]
async fn a_watch_begins_where_it_is_told_to() {
    let server = TestServer::start().await;
    let first = create(&server, "a").await;
    create(&server, "b").await;
    let mut events = server
        .watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={first}"))
        .await;
    assert_eq!(events.next_name().await, named("ADDED", "b"));
    let mut all = server.watch(&format!("{CONFIG_MAPS}?watch=1")).await;
    assert_eq!(all.next_name().await, named("ADDED", "a"));
    assert_eq!(all.next_name().await, named("ADDED", "b"));
    server
        .delete(&format!("{CONFIG_MAPS}/a"), &Value::Null)
        .await;
    let latest = create(&server, "c").await;
    let deleted = all.next().await.unwrap();
    assert_eq!(deleted["type"], "DELETED");
    let version: u64 = deleted["object"]["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(version > first.parse().unwrap() && version < latest.parse().unwrap());
    assert_eq!(all.next_name().await, named("ADDED", "c"));
}

#[tokio::test]
async fn a_watch_of_one_object_sees_only_that() {
    let server = TestServer::start().await;
    create(&server, "a").await;
    create(&server, "b").await;
    let query = "?watch=1&fieldSelector=metadata.name%3Db";
    let mut events = server.watch(&format!("{CONFIG_MAPS}{query}")).await;
    assert_eq!(events.next_name().await, named("ADDED", "b"));
    server
        .delete(&format!("{CONFIG_MAPS}/a"), &Value::Null)
        .await;
    server
        .delete(&format!("{CONFIG_MAPS}/b"), &Value::Null)
        .await;
    assert_eq!(events.next_name().await, named("DELETED", "b"));
}

#[tokio::test(start_paused = true)]
async fn bookmarks_and_timeouts() {
    let server = TestServer::start().await;
    let version = create(&server, "a").await;
    let query = format!(
        "{CONFIG_MAPS}?watch=1&allowWatchBookmarks=true&resourceVersion={version}&timeoutSeconds=1000"
    );
    let mut events = server.watch(&query).await;
    for _ in 0..2 {
        tokio::time::advance(Duration::from_secs(61)).await;
        let event = events.next().await.unwrap();
        assert_eq!(event["type"], "BOOKMARK");
        assert_eq!(event["object"]["kind"], "ConfigMap");
        assert_eq!(
            event["object"]["metadata"]["resourceVersion"],
            version.as_str()
        );
    }
    tokio::time::advance(Duration::from_secs(1000)).await;
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    let server = TestServer::start().await;
    let version = create(&server, "a").await;
    let query = "?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut events = server.watch(&format!("{CONFIG_MAPS}{query}")).await;
    assert_eq!(events.next_name().await, named("ADDED", "a"));
    let end = events.next().await.unwrap();
    assert_eq!(end["type"], "BOOKMARK");
    assert_eq!(
        end["object"]["metadata"]["resourceVersion"],
        version.as_str()
    );
    assert_eq!(
        end["object"]["metadata"]["annotations"],
        json!({"k8s.io/initial-events-end": "true"})
    );
}

#[tokio::test]
async fn shutdown_ends_watches() {
    let server = TestServer::start().await;
    let mut events = server.watch(&format!("{CONFIG_MAPS}?watch=1")).await;
    server.shut_down();
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn a_table_names_its_columns_once() {
    let server = TestServer::start().await;
    create(&server, "a").await;
    create(&server, "b").await;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let mut events = server
        .watch_as(&format!("{CONFIG_MAPS}?watch=1"), table)
        .await;
    let first = events.next().await.unwrap();
    assert_eq!(first["object"]["columnDefinitions"][0]["name"], "Name");
    let second = events.next().await.unwrap();
    assert_eq!(second["object"]["columnDefinitions"], json!([]));
    assert_eq!(second["object"]["rows"][0]["cells"][0], "b");
}

#[tokio::test(start_paused = true)]
async fn events_go_by_themselves() {
    const EVENTS: &str = "/api/v1/namespaces/default/events";
    let server = TestServer::start().await;
    let event = json!({
        "metadata": {"name": "e"},
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reason": "Tested",
        "type": "Normal",
    });
    let created = server.post(EVENTS, &event).await;
    assert_eq!(created.code, 201, "{}", created.message());
    let mut events = server
        .watch(&format!("{EVENTS}?watch=1&timeoutSeconds=100000"))
        .await;
    assert_eq!(events.next_name().await, named("ADDED", "e"));
    tokio::time::advance(Duration::from_secs(3500)).await;
    assert_eq!(server.get(&format!("{EVENTS}/e")).await.code, 200);
    tokio::time::advance(Duration::from_secs(101)).await;
    assert_eq!(events.next_name().await, named("DELETED", "e"));
}

#[tokio::test]
async fn a_watch_may_begin_in_the_future() {
    let server = TestServer::start().await;
    let version: u64 = create(&server, "a").await.parse().unwrap();
    let future = version + 1;
    let mut events = server
        .watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={future}"))
        .await;
    create(&server, "b").await;
    create(&server, "c").await;
    assert_eq!(events.next_name().await, named("ADDED", "c"));
}
