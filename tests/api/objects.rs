//! Objects through `kube`'s client: a client library that knows nothing of us.

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
};
use serde_json::json;

use crate::server::Server;

fn config_map(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(
        json!({"metadata": {"name": name, "labels": {"value": value}}, "data": {"key": value}}),
    )
    .expect("a ConfigMap")
}

#[tokio::test]
async fn a_watch_resumes_where_the_list_ended() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let api: Api<ConfigMap> = Api::namespaced(server.client.clone(), "default");
    api.create(&PostParams::default(), &config_map("a", "one"))
        .await
        .unwrap();
    let list = api
        .list(&ListParams::default().labels("value"))
        .await
        .unwrap();
    let version = list.metadata.resource_version.unwrap();
    api.create(&PostParams::default(), &config_map("b", "one"))
        .await
        .unwrap();
    let patch = Patch::Merge(json!({"data": {"key": "two"}}));
    api.patch("a", &PatchParams::default(), &patch)
        .await
        .unwrap();
    api.delete("b", &DeleteParams::default()).await.unwrap();

    let params = WatchParams::default().labels("value");
    let events: Vec<String> = api
        .watch(&params, &version)
        .await
        .unwrap()
        .map_ok(|event| match event {
            WatchEvent::Added(object) => format!("+{}", object.name_any()),
            WatchEvent::Modified(object) => format!("~{}", object.name_any()),
            WatchEvent::Deleted(object) => format!("-{}", object.name_any()),
            other => format!("{other:?}"),
        })
        .take(3)
        .try_collect()
        .await
        .unwrap();
    assert_eq!(events, ["+b", "~a", "-b"]);
}

#[tokio::test]
async fn pages_show_one_moment() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let api: Api<ConfigMap> = Api::namespaced(server.client.clone(), "default");
    for number in 0..10 {
        api.create(
            &PostParams::default(),
            &config_map(&format!("n{number}"), "x"),
        )
        .await
        .unwrap();
    }
    let mut params = ListParams::default().labels("value=x").limit(4);
    let mut names = Vec::new();
    loop {
        let page = api.list(&params).await.unwrap();
        names.extend(page.iter().map(ResourceExt::name_any));
        api.delete("n9", &DeleteParams::default()).await.ok();
        match page.metadata.continue_ {
            Some(token) if !token.is_empty() => params = params.continue_token(&token),
            _ => break,
        }
    }
    assert_eq!(names.len(), 10, "{names:?}");
}

#[tokio::test]
async fn a_stale_update_is_a_conflict_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let api: Api<ConfigMap> = Api::namespaced(server.client.clone(), "default");
    let mut stale = api
        .create(&PostParams::default(), &config_map("a", "one"))
        .await
        .unwrap();
    let patch = Patch::Merge(json!({"data": {"key": "two"}}));
    api.patch("a", &PatchParams::default(), &patch)
        .await
        .unwrap();
    stale.data = None;
    let error = api
        .replace("a", &PostParams::default(), &stale)
        .await
        .unwrap_err();
    let kube::Error::Api(status) = error else {
        panic!("{error}");
    };
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    assert_eq!(api.get("a").await.unwrap().data.unwrap()["key"], "two");
}

#[tokio::test]
async fn an_invalid_object_is_refused_with_every_cause() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let api: Api<Pod> = Api::namespaced(server.client.clone(), "default");
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "bad"},
        "spec": {"containers": [{"name": "A_B"}], "restartPolicy": "Sometimes"},
    }))
    .unwrap();
    let kube::Error::Api(status) = api.create(&PostParams::default(), &pod).await.unwrap_err()
    else {
        panic!("the API answers");
    };
    assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
    let causes: Vec<String> = status
        .details
        .as_ref()
        .unwrap()
        .causes
        .iter()
        .map(|cause| format!("{} {}", cause.field, cause.reason))
        .collect();
    assert_eq!(
        causes,
        [
            "spec.containers[0].name FieldValueInvalid",
            "spec.containers[0].image FieldValueRequired",
            "spec.restartPolicy FieldValueNotSupported"
        ]
    );
}

#[tokio::test]
async fn string_data_becomes_data() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let api: Api<Secret> = Api::namespaced(server.client.clone(), "default");
    let secret: Secret =
        serde_json::from_value(json!({"metadata": {"name": "s"}, "stringData": {"word": "open"}}))
            .unwrap();
    let stored = api.create(&PostParams::default(), &secret).await.unwrap();
    assert_eq!(stored.data.unwrap()["word"].0, b"open");
    assert_eq!(
        (stored.type_.as_deref(), stored.string_data),
        (Some("Opaque"), None)
    );
}

#[tokio::test]
async fn many_writers_of_one_object_lose_no_update() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let api: Api<ConfigMap> = Api::namespaced(server.client.clone(), "default");
    api.create(&PostParams::default(), &config_map("counter", "0"))
        .await
        .unwrap();
    let writers = (0..8).map(|_| {
        let api = api.clone();
        async move {
            let mut done = 0;
            while done < 10 {
                let mut object = api.get("counter").await.unwrap();
                let data = object.data.get_or_insert_default();
                let next = data["key"].parse::<u32>().unwrap() + 1;
                data.insert("key".to_owned(), next.to_string());
                match api
                    .replace("counter", &PostParams::default(), &object)
                    .await
                {
                    Ok(_) => done += 1,
                    Err(kube::Error::Api(status)) if status.code == 409 => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    });
    futures::stream::iter(writers)
        .buffer_unordered(8)
        .collect::<Vec<()>>()
        .await;
    assert_eq!(api.get("counter").await.unwrap().data.unwrap()["key"], "80");
}
