//! Reads of objects in JSON send bytes that were made when the objects were written: they parse
//! nothing.

use serde_json::{Value, json};

use super::{CONFIG_MAPS, config_map};
use crate::{cache::parsed, testing::TestServer};

#[tokio::test]
async fn reads_parse_no_object() {
    let server = TestServer::start().await;
    let first = server
        .post(CONFIG_MAPS, &config_map("a", &Value::Null))
        .await
        .json()["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut events = server
        .watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={first}"))
        .await;
    for name in ["b", "c", "d"] {
        server
            .post(CONFIG_MAPS, &config_map(name, &json!({"key": "value"})))
            .await;
    }
    server
        .delete(&format!("{CONFIG_MAPS}/d"), &Value::Null)
        .await;
    let before = parsed::so_far();
    for query in [
        "/a",
        "/a?resourceVersion=0",
        "",
        "?limit=2",
        "?labelSelector=app+in+(a,c)",
        "?fieldSelector=metadata.name%3Db",
        "?resourceVersion=0",
        "?resourceVersion=1&resourceVersionMatch=NotOlderThan",
    ] {
        let answer = server.get(&format!("{CONFIG_MAPS}{query}")).await;
        assert_eq!(answer.code, 200, "{query}");
        assert_eq!(parsed::so_far(), before, "{query}");
    }
    let metadata = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    assert_eq!(server.get_as(CONFIG_MAPS, metadata).await.code, 200);
    for event in ["ADDED", "ADDED", "ADDED", "DELETED"] {
        assert_eq!(events.next().await.unwrap()["type"], event);
    }
    let initial = "?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut initial = server.watch(&format!("{CONFIG_MAPS}{initial}")).await;
    assert_eq!(initial.next().await.unwrap()["type"], "ADDED");
    assert_eq!(parsed::so_far(), before);

    // The counter counts: a table shows what only the parsed object tells.
    let table = "application/json;as=Table;g=meta.k8s.io;v=v1";
    assert_eq!(server.get_as(CONFIG_MAPS, table).await.code, 200);
    assert_eq!(parsed::so_far(), before + 3);
}
