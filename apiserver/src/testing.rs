//! An API server in this process, for tests.
//!
//! Enter at [`TestServer::start`]. It stands on a store in memory, serves every built-in kind
//! and lets everyone do everything, unless the test says otherwise.

use std::{sync::Arc, time::Duration};

use axum::body::{Body, BodyDataStream};
use bytes::{Bytes, BytesMut};
use coracle_api::{Kind, kinds};
use coracle_store::{MemoryStore, Store};
use futures::StreamExt as _;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{ApiServer, Config, Plugins, Registry};

/// How long a test waits for something that must happen.
const DEADLINE: Duration = Duration::from_secs(10);

/// A running server. It ends when it is dropped.
pub struct TestServer {
    pub server: ApiServer,
    shutdown: CancellationToken,
    _run: AbortOnDropHandle<()>,
}

/// What came back.
pub struct Answer {
    pub code: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON; `Null` when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The message of a `Status`.
    pub fn message(&self) -> String {
        self.json()["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// The texts of the `Warning` headers.
    pub fn warnings(&self) -> Vec<String> {
        self.headers
            .get_all(header::WARNING)
            .iter()
            .filter_map(|value| Some(value.to_str().ok()?.to_owned()))
            .collect()
    }
}

impl TestServer {
    /// A server with every default.
    pub async fn start() -> Self {
        Self::with(Config::default(), |_| Plugins::default()).await
    }

    /// A server whose plugins are made from its registry.
    pub async fn with(config: Config, plugins: impl FnOnce(&Registry) -> Plugins) -> Self {
        Self::on(
            Arc::new(MemoryStore::default()),
            config,
            kinds::builtin(),
            plugins,
        )
        .await
    }

    /// A server on a given store, of given kinds.
    pub async fn on(
        store: Arc<dyn Store>,
        config: Config,
        kinds: &[Arc<Kind>],
        plugins: impl FnOnce(&Registry) -> Plugins,
    ) -> Self {
        let registry = Registry::new(store, kinds);
        let plugins = plugins(&registry);
        let server = ApiServer::new(config, registry, plugins);
        let shutdown = CancellationToken::new();
        let run = tokio::spawn({
            let (server, shutdown) = (server.clone(), shutdown.clone());
            async move { server.run(shutdown).await }
        });
        server.registry().ready().await;
        TestServer {
            server,
            shutdown,
            _run: AbortOnDropHandle::new(run),
        }
    }

    /// Ends the server as a signal would.
    pub fn shut_down(&self) {
        self.shutdown.cancel();
    }

    /// Sends a request with a JSON body, or none for `Null`.
    pub async fn send(&self, method: Method, target: &str, body: &Value) -> Answer {
        let json = if body.is_null() {
            Body::empty()
        } else {
            Body::from(body.to_string())
        };
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(header::CONTENT_TYPE, "application/json");
        self.request(request.body(json).expect("a test's request is valid"))
            .await
    }

    /// Sends any request.
    pub async fn request(&self, request: Request<Body>) -> Answer {
        let response = self.server.handle(request).await;
        let (parts, body) = response.into_parts();
        let collected = tokio::time::timeout(DEADLINE, body.collect()).await;
        let body = collected
            .expect("the answer ends in time")
            .expect("the answer is whole")
            .to_bytes();
        Answer {
            code: parts.status,
            headers: parts.headers,
            body,
        }
    }

    pub async fn get(&self, target: &str) -> Answer {
        self.send(Method::GET, target, &Value::Null).await
    }

    /// `GET` with an `Accept` header.
    pub async fn get_as(&self, target: &str, accept: &str) -> Answer {
        let request = Request::builder()
            .uri(target)
            .header(header::ACCEPT, accept)
            .body(Body::empty());
        self.request(request.expect("a test's request is valid"))
            .await
    }

    pub async fn post(&self, target: &str, body: &Value) -> Answer {
        self.send(Method::POST, target, body).await
    }

    pub async fn put(&self, target: &str, body: &Value) -> Answer {
        self.send(Method::PUT, target, body).await
    }

    pub async fn delete(&self, target: &str, options: &Value) -> Answer {
        self.send(Method::DELETE, target, options).await
    }

    /// Sends a patch of the given kind: `json`, `merge`, `strategic-merge` or `apply`.
    pub async fn patch(&self, target: &str, kind: &str, patch: &Value) -> Answer {
        let content_type = match kind {
            "apply" => "application/apply-patch+yaml".to_owned(),
            kind => format!("application/{kind}-patch+json"),
        };
        let request = Request::builder()
            .method(Method::PATCH)
            .uri(target)
            .header(header::CONTENT_TYPE, content_type)
            .body(Body::from(patch.to_string()));
        self.request(request.expect("a test's request is valid"))
            .await
    }

    /// Opens a watch.
    pub async fn watch(&self, target: &str) -> Events {
        self.watch_as(target, "application/json").await
    }

    /// Opens a watch with an `Accept` header.
    pub async fn watch_as(&self, target: &str, accept: &str) -> Events {
        let request = Request::builder()
            .uri(target)
            .header(header::ACCEPT, accept)
            .body(Body::empty())
            .expect("a test's request is valid");
        let response = self.server.handle(request).await;
        assert_eq!(response.status(), StatusCode::OK, "{target}");
        Events {
            stream: response.into_body().into_data_stream(),
            buffer: BytesMut::new(),
        }
    }
}

/// The events of a watch.
pub struct Events {
    stream: BodyDataStream,
    buffer: BytesMut,
}

impl Events {
    /// The next event; `None` when the watch has ended.
    ///
    /// # Panics
    /// None comes within ten seconds.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                return Some(serde_json::from_slice(&line).expect("an event is JSON"));
            }
            let frame = tokio::time::timeout(DEADLINE, self.stream.next())
                .await
                .expect("an event comes in time")?;
            self.buffer
                .extend_from_slice(&frame.expect("the watch is not broken off"));
        }
    }

    /// Type and name of the next event.
    pub async fn next_name(&mut self) -> Option<(String, String)> {
        let event = self.next().await?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Some((
            text(&event["type"]),
            text(&event["object"]["metadata"]["name"]),
        ))
    }
}
