//! An API that tests make up: paths and what they answer. Watches stay silent.
//!
//! Enter at [`FakeApi::client`].

use std::{collections::HashMap, convert::Infallible, sync::Arc, time::Duration};

use http::{Request, Response};
use kube::{Client, client::Body};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

/// A request that was made.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub method: String,
    pub path: String,
    /// As it stands in the URL, encoded.
    pub query: String,
    pub body: Value,
}

#[derive(Default)]
pub(crate) struct FakeApi {
    answers: Mutex<HashMap<String, Vec<(u16, Value)>>>,
    asked: watch::Sender<Vec<Asked>>,
}

/// A `Status` that says why not.
pub(crate) fn status(code: u16, reason: &str, message: &str) -> (u16, Value) {
    let body = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
        "reason": reason, "message": message });
    (code, body)
}

impl FakeApi {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Answers `GET /path` and the like, the query apart. Several answers to the same are given in
    /// turn, the last of them for good.
    pub fn answer(&self, request: &str, code: u16, body: Value) {
        let mut answers = self.answers.lock();
        answers
            .entry(request.to_owned())
            .or_default()
            .push((code, body));
    }

    pub fn client(self: &Arc<Self>) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.serve(request).await) }
        });
        Client::new(service, "default")
    }

    /// Waits until a request of this kind has been made.
    pub async fn asked(&self, request: &str, holds: impl Fn(&Asked) -> bool) -> Asked {
        let is =
            |asked: &&Asked| format!("{} {}", asked.method, asked.path) == request && holds(asked);
        let mut asked = self.asked.subscribe();
        let found = asked.wait_for(|asked| asked.iter().any(|asked| is(&asked)));
        let found = tokio::time::timeout(Duration::from_secs(10), found);
        let found = found.await.expect("asked in time").expect("alive");
        found.iter().find(is).cloned().expect("just seen")
    }

    /// All that was asked so far.
    pub fn all(&self) -> Vec<Asked> {
        self.asked.borrow().clone()
    }

    async fn serve(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await.expect("a body");
        let path = parts.uri.path().to_owned();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        if query.contains("watch=") {
            std::future::pending::<()>().await;
        }
        let (code, answer) = self.answer_to(&format!("{} {path}", parts.method));
        let asked = Asked {
            method: parts.method.to_string(),
            path,
            query,
            body: serde_json::from_slice(&body).unwrap_or_default(),
        };
        self.asked.send_modify(|all| all.push(asked));
        let response = Response::builder().status(code);
        response
            .body(Body::from(answer.to_string().into_bytes()))
            .expect("a response")
    }

    fn answer_to(&self, request: &str) -> (u16, Value) {
        let mut answers = self.answers.lock();
        match answers.get_mut(request) {
            Some(answers) if answers.len() > 1 => answers.remove(0),
            Some(answers) => answers[0].clone(),
            None => status(404, "NotFound", "404 page not found"),
        }
    }
}
