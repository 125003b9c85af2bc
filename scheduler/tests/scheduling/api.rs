//! As much of an API server as the scheduler talks to: lists, watches, creations, bindings, status
//! patches and deletions over objects in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::{Method, Request, Response},
};
use coracle_api::Identity;
use coracle_client::{Informers, in_process};
use coracle_scheduler::{Config, Scheduler};
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

/// Nothing in these tests takes this long.
const DEADLINE: Duration = Duration::from_secs(20);

#[derive(Clone)]
pub struct Api(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    events: broadcast::Sender<(String, Value)>,
    stop: CancellationToken,
}

#[derive(Default)]
struct State {
    revision: u64,
    /// By resource, then by `namespace/name`.
    objects: BTreeMap<String, BTreeMap<String, Value>>,
    unbindable: BTreeSet<String>,
}

impl Api {
    /// Starts a scheduler on an empty cluster.
    pub fn start() -> Self {
        let api = Api(Arc::new(Shared {
            state: Mutex::default(),
            events: broadcast::channel(65_536).0,
            stop: CancellationToken::new(),
        }));
        let serving = api.clone();
        let router = tower::service_fn(move |request: Request<Body>| {
            let api = serving.clone();
            async move { Ok::<_, Infallible>(api.serve(request).await) }
        });
        let identity = Identity {
            user: "system:kube-scheduler".to_owned(),
            ..Identity::default()
        };
        let client = in_process(router, identity);
        let informers = Informers::new(client.clone());
        let scheduler = Scheduler::new(Config::default(), client, informers);
        tokio::spawn(scheduler.run(api.0.stop.clone()));
        api
    }

    /// Creates or replaces a node with room for 4 CPUs.
    pub fn node(&self, name: &str, cpu: &str) {
        self.put(
            "nodes",
            json!({
                "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
                "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"}},
            }),
        );
    }

    /// Creates or replaces a pod that asks for `cpu`.
    pub fn pod(&self, name: &str, cpu: &str, spec: &Value) {
        let mut pod = json!({
            "metadata": {"namespace": "default", "name": name, "uid": format!("uid-{name}")},
            "spec": {
                "schedulerName": "default-scheduler",
                "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}],
            },
        });
        for (key, value) in spec.as_object().expect("an object") {
            pod["spec"][key] = value.clone();
        }
        self.put("pods", pod);
    }

    /// Lets bindings of the pod fail, or succeed again.
    pub fn set_bindable(&self, pod: &str, bindable: bool) {
        let mut state = self.0.state.lock().expect("the state");
        if bindable {
            state.unbindable.remove(pod);
        } else {
            state.unbindable.insert(pod.to_owned());
        }
    }

    /// Returns once the pod fulfils the condition.
    pub async fn until(&self, pod: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        self.until_any("pods", what, |found| {
            found["metadata"]["name"] == pod && holds(found)
        })
        .await
    }

    /// The node that the pod is bound to, once it is.
    pub async fn bound(&self, pod: &str) -> String {
        let pod = self
            .until(pod, "is bound", |pod| pod["spec"]["nodeName"].is_string())
            .await;
        pod["spec"]["nodeName"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// The message of the condition that says why the pod is not scheduled, once it is there.
    pub async fn refused(&self, pod: &str) -> String {
        let pod = self
            .until(pod, "is refused", |pod| {
                pod["status"]["conditions"][0]["status"] == "False"
            })
            .await;
        let message = &pod["status"]["conditions"][0]["message"];
        message.as_str().unwrap_or_default().to_owned()
    }

    /// Returns an event with that reason about the pod, once there is one.
    pub async fn event(&self, pod: &str, reason: &str) -> Value {
        self.until_any("events", reason, |event| {
            event["involvedObject"]["name"] == pod && event["reason"] == reason
        })
        .await
    }

    /// Returns once the claim of devices fulfils the condition.
    pub async fn until_claim(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        self.until_any("resourceclaims", what, holds).await
    }

    async fn until_any(&self, resource: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let mut events = self.0.events.subscribe();
        let found = || {
            let state = self.0.state.lock().expect("the state");
            let objects = state.objects.get(resource)?;
            objects.values().find(|object| holds(object)).cloned()
        };
        let wait = async {
            loop {
                if let Some(object) = found() {
                    return object;
                }
                events.recv().await.expect("the API is there");
            }
        };
        tokio::time::timeout(DEADLINE, wait)
            .await
            .unwrap_or_else(|_| panic!("{resource}: {what}: not before the deadline"))
    }

    pub fn exists(&self, pod: &str) -> bool {
        let state = self.0.state.lock().expect("the state");
        let pods = state.objects.get("pods");
        pods.is_some_and(|pods| pods.contains_key(&format!("default/{pod}")))
    }

    pub fn put(&self, resource: &str, mut object: Value) {
        let mut state = self.0.state.lock().expect("the state");
        state.revision += 1;
        object["metadata"]["resourceVersion"] = json!(state.revision.to_string());
        let known = state.objects.entry(resource.to_owned()).or_default();
        let kind = match known.insert(key(&object), object.clone()) {
            None => "ADDED",
            Some(_) => "MODIFIED",
        };
        let event = json!({"type": kind, "object": object});
        let _ = self.0.events.send((resource.to_owned(), event));
    }

    pub fn delete(&self, resource: &str, key: &str) -> Option<Value> {
        let mut state = self.0.state.lock().expect("the state");
        let object = state.objects.get_mut(resource)?.remove(key)?;
        let event = json!({"type": "DELETED", "object": object});
        let _ = self.0.events.send((resource.to_owned(), event));
        Some(object)
    }

    async fn serve(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().trim_start_matches('/').to_owned();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let mut segments: Vec<&str> = path.split('/').collect();
        // `api/v1` or `apis/group/version`.
        segments.drain(..if segments[0] == "api" { 2 } else { 3 });
        let namespace = match segments[..] {
            ["namespaces", namespace, _, ..] => {
                segments.drain(..2);
                namespace
            }
            _ => "",
        };
        let body = axum::body::to_bytes(body, usize::MAX)
            .await
            .expect("a body");
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let key = format!("{namespace}/{}", segments.get(1).unwrap_or(&""));
        match (&parts.method, &segments[..]) {
            (&Method::GET, [resource]) if query.contains("watch=true") => self.watch(resource),
            (&Method::GET, [resource]) => self.list(resource),
            (&Method::POST, [resource]) => {
                self.put(resource, body.clone());
                answer(201, &body)
            }
            (&Method::POST, ["pods", name, "binding"]) => self.bind(name, &key, &body),
            (&Method::PATCH, ["pods", _, "status"]) => self.patch_status(&key, &body),
            (&Method::PUT, [resource, _] | [resource, _, "status"]) => {
                self.replace(resource, &key, body)
            }
            (&Method::PATCH, ["resourceclaims", _, "status"]) => self.release(&key, &body),
            (&Method::DELETE, ["pods", _]) => match self.delete("pods", &key) {
                Some(pod) => answer(200, &pod),
                None => failure(404, "NotFound"),
            },
            _ => failure(404, "NotFound"),
        }
    }

    fn list(&self, resource: &str) -> Response<Body> {
        let state = self.0.state.lock().expect("the state");
        let objects = state.objects.get(resource);
        let items: Vec<&Value> = objects.into_iter().flat_map(|of| of.values()).collect();
        answer(
            200,
            &json!({"metadata": {"resourceVersion": state.revision.to_string()}, "items": items}),
        )
    }

    /// Everything that is there is sent again, so that nothing between list and watch is missed.
    fn watch(&self, resource: &str) -> Response<Body> {
        let state = self.0.state.lock().expect("the state");
        let objects = state.objects.get(resource);
        let known: Vec<Value> = objects
            .into_iter()
            .flat_map(|of| of.values())
            .map(|object| json!({"type": "MODIFIED", "object": object}))
            .collect();
        let resource = resource.to_owned();
        let receiver = self.0.events.subscribe();
        let coming = futures::stream::unfold(receiver, move |mut receiver| {
            let resource = resource.clone();
            async move {
                loop {
                    let (of, event) = receiver.recv().await.ok()?;
                    if of == resource {
                        return Some((event, receiver));
                    }
                }
            }
        });
        let lines = futures::stream::iter(known)
            .chain(coming)
            .map(|event| Ok::<_, Infallible>(Bytes::from(format!("{event}\n"))));
        Response::new(Body::from_stream(lines))
    }

    fn bind(&self, name: &str, key: &str, binding: &Value) -> Response<Body> {
        let pod = {
            let state = self.0.state.lock().expect("the state");
            if state.unbindable.contains(name) {
                return failure(409, "Conflict");
            }
            state
                .objects
                .get("pods")
                .and_then(|pods| pods.get(key))
                .cloned()
        };
        let Some(mut pod) = pod else {
            return failure(404, "NotFound");
        };
        assert!(pod["spec"]["nodeName"].is_null(), "{name} is bound once");
        pod["spec"]["nodeName"] = binding["target"]["name"].clone();
        self.put("pods", pod);
        answer(201, &json!({"kind": "Status", "status": "Success"}))
    }

    /// As it is written, unless it was changed meanwhile.
    fn replace(&self, resource: &str, key: &str, object: Value) -> Response<Body> {
        let known = {
            let state = self.0.state.lock().expect("the state");
            let known = state.objects.get(resource);
            known.and_then(|known| known.get(key)).cloned()
        };
        let Some(known) = known else {
            return failure(404, "NotFound");
        };
        if known["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"] {
            return failure(409, "Conflict");
        }
        self.put(resource, object);
        let state = self.0.state.lock().expect("the state");
        answer(200, &state.objects[resource][key])
    }

    /// Takes a pod from those that a claim is reserved for.
    fn release(&self, key: &str, patch: &Value) -> Response<Body> {
        let claim = {
            let state = self.0.state.lock().expect("the state");
            state.objects["resourceclaims"].get(key).cloned()
        };
        let Some(mut claim) = claim else {
            return failure(404, "NotFound");
        };
        let gone = &patch["status"]["reservedFor"][0];
        assert_eq!(gone["$patch"], "delete");
        if let Some(users) = claim["status"]["reservedFor"].as_array_mut() {
            users.retain(|user| user["uid"] != gone["uid"]);
        }
        self.put("resourceclaims", claim.clone());
        answer(200, &claim)
    }

    fn patch_status(&self, key: &str, patch: &Value) -> Response<Body> {
        let pod = {
            let state = self.0.state.lock().expect("the state");
            state
                .objects
                .get("pods")
                .and_then(|pods| pods.get(key))
                .cloned()
        };
        let Some(mut pod) = pod else {
            return failure(404, "NotFound");
        };
        for (field, value) in patch["status"].as_object().expect("a status") {
            pod["status"][field] = value.clone();
        }
        self.put("pods", pod.clone());
        answer(200, &pod)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn key(object: &Value) -> String {
    let metadata = &object["metadata"];
    let text = |field: &str| metadata[field].as_str().unwrap_or_default();
    format!("{}/{}", text("namespace"), text("name"))
}

fn answer(code: u16, object: &Value) -> Response<Body> {
    Response::builder()
        .status(code)
        .body(Body::from(object.to_string()))
        .expect("a response")
}

fn failure(code: u16, reason: &str) -> Response<Body> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "message": format!("refused: {reason}"), "reason": reason, "code": code,
    });
    answer(code, &status)
}
