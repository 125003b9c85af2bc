//! As much of an API server as the informers of the proxy need: lists and watches of objects that
//! a test puts there.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Body, extract::Request, response::Response};
use coracle_client::in_process;
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// Events that a watcher has not read yet.
const WAITING: usize = 4096;

#[derive(Default)]
struct Kept {
    version: u64,
    /// By path of the collection, then namespace and name.
    objects: BTreeMap<String, BTreeMap<String, Value>>,
    watchers: Vec<(String, mpsc::Sender<String>)>,
}

/// The objects. Cheap to clone.
#[derive(Clone, Default)]
pub struct FakeApi(Arc<Mutex<Kept>>);

impl FakeApi {
    pub fn client(&self) -> kube::Client {
        let api = self.clone();
        let answer = move |request: Request| {
            let api = api.clone();
            async move { api.answer(&request) }
        };
        in_process(
            Router::new().fallback(answer),
            coracle_api::Identity::default(),
        )
    }

    /// Creates the object or puts it in place of the one of its name.
    pub fn put(&self, object: Value) {
        self.change(object, false);
    }

    pub fn delete(&self, object: Value) {
        self.change(object, true);
    }

    fn change(&self, mut object: Value, deleted: bool) {
        let mut kept = self.0.lock().expect("no test panics with it");
        kept.version += 1;
        let path = match object["kind"].as_str() {
            Some("Service") => "/api/v1/services",
            Some("EndpointSlice") => "/apis/discovery.k8s.io/v1/endpointslices",
            Some("Node") => "/api/v1/nodes",
            other => panic!("no such kind: {other:?}"),
        };
        object["metadata"]["resourceVersion"] = kept.version.to_string().into();
        let metadata = &object["metadata"];
        let key = format!("{}/{}", metadata["namespace"], metadata["name"]);
        let objects = kept.objects.entry(path.to_owned()).or_default();
        let kind = match (deleted, objects.contains_key(&key)) {
            (true, _) => "DELETED",
            (false, true) => "MODIFIED",
            (false, false) => "ADDED",
        };
        match deleted {
            true => objects.remove(&key),
            false => objects.insert(key, object.clone()),
        };
        let event = format!("{}\n", json!({ "type": kind, "object": object }));
        kept.watchers
            .retain(|(of, watcher)| of != path || watcher.try_send(event.clone()).is_ok());
    }

    fn answer(&self, request: &Request) -> Response {
        let mut kept = self.0.lock().expect("no test panics with it");
        let path = request.uri().path().to_owned();
        let is_watch = request
            .uri()
            .query()
            .unwrap_or_default()
            .contains("watch=true");
        let body = if is_watch {
            // What came between the list and the watch would be missed, so it is told again.
            let (sender, receiver) = mpsc::channel(WAITING);
            for object in kept
                .objects
                .get(&path)
                .into_iter()
                .flat_map(BTreeMap::values)
            {
                let event = json!({ "type": "MODIFIED", "object": object });
                sender
                    .try_send(format!("{event}\n"))
                    .expect("there is room");
            }
            kept.watchers.push((path, sender));
            let lines = tokio_stream(receiver).map(Ok::<_, std::convert::Infallible>);
            Body::from_stream(lines)
        } else {
            let items: Vec<&Value> = kept
                .objects
                .get(&path)
                .into_iter()
                .flat_map(|of| of.values())
                .collect();
            let list = json!({ "kind": "List", "apiVersion": "v1", "items": items,
                "metadata": { "resourceVersion": kept.version.to_string() } });
            Body::from(list.to_string())
        };
        Response::builder()
            .header("content-type", "application/json")
            .body(body)
            .expect("a good response")
    }
}

fn tokio_stream(receiver: mpsc::Receiver<String>) -> impl futures::Stream<Item = String> {
    futures::stream::unfold(receiver, |mut receiver| async {
        let line = receiver.recv().await?;
        Some((line, receiver))
    })
}
