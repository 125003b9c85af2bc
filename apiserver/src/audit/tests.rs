//! The audit log of a whole server.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use axum::body::Body;
use coracle_api::Identity;
use http::{Method, Request, Response, StatusCode, header};
use serde_json::{Value, json};

use super::{Auditor, Format, LogConfig, LogFile, Policy};
use crate::{
    ApiError, Config, Plugins,
    authz::{Attributes, Authorizer, Decision},
    handler::{Handlers, PathCall, PathHandler},
    testing::TestServer,
};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

struct NotSecrets;

#[async_trait]
impl Authorizer for NotSecrets {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        if attributes.resource == "secrets" {
            return Decision::NoOpinion("no secrets".to_owned());
        }
        Decision::Allow("all may".to_owned())
    }
}

struct Breaks;

#[async_trait]
impl PathHandler for Breaks {
    async fn handle(&self, _call: PathCall<'_>) -> Result<Response<Body>, ApiError> {
        panic!("as it should");
    }
}

struct Fixture {
    server: TestServer,
    auditor: Arc<Auditor>,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Fixture {
    async fn start(rules: &str, format: Format) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let log = LogFile::open(LogConfig {
            path: path.clone(),
            format,
            max_age_days: 0,
            max_backups: 0,
            max_megabytes: 0,
        });
        let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{rules}\n");
        let policy = Policy::parse(&text).unwrap();
        let auditor = Arc::new(Auditor::new(policy, log.unwrap()));
        let breaks: Arc<dyn PathHandler> = Arc::new(Breaks);
        let server = TestServer::with(Config::default(), |_| Plugins {
            authorizer: Arc::new(NotSecrets),
            handlers: Handlers::default().with_paths([("/breaks", breaks)]),
            audit: Some(auditor.clone()),
            ..Plugins::default()
        });
        Fixture {
            server: server.await,
            auditor,
            path,
            _folder: folder,
        }
    }

    async fn lines(self) -> Vec<String> {
        self.auditor.close().await;
        let text = std::fs::read_to_string(&self.path).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    async fn events(self) -> Vec<Value> {
        let lines = self.lines().await;
        lines
            .iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}})
}

#[tokio::test]
async fn a_request_is_told_of_with_what_was_sent_and_answered() {
    let rules = "omitStages: [RequestReceived]\nrules: [{level: RequestResponse}]";
    let fixture = Fixture::start(rules, Format::Json).await;
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("{MAPS}?fieldManager=me"))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, "tester/1")
        .header("audit-id", "given")
        .header("x-forwarded-for", "10.1.2.3")
        .extension(Identity {
            user: "jane".to_owned(),
            groups: vec!["ops".to_owned()],
            ..Identity::default()
        })
        .body(Body::from(map("m").to_string()));
    let answer = fixture.server.request(request.unwrap()).await;
    assert_eq!(answer.code, StatusCode::CREATED);
    assert_eq!(answer.headers["audit-id"], "given");
    let created = answer.json();
    let again = fixture.server.post(MAPS, &map("m")).await;
    assert_eq!(again.code, StatusCode::CONFLICT);
    assert_eq!(again.headers["audit-id"].len(), 36);
    fixture
        .server
        .delete(&format!("{MAPS}/m"), &json!({"gracePeriodSeconds": 0}))
        .await;
    let events = fixture.events().await;
    let event = &events[0];
    let time = event["stageTimestamp"].as_str().unwrap();
    assert!(time.ends_with('Z') && time.len() == 27, "{time}");
    let mut known = event.clone();
    for name in ["stageTimestamp", "requestReceivedTimestamp"] {
        known.as_object_mut().unwrap().remove(name);
    }
    let sent = known["requestObject"].take();
    assert_eq!(
        (&sent["kind"], &sent["data"]["a"]),
        (&json!("ConfigMap"), &json!("b"))
    );
    assert_eq!(known["responseObject"].take(), created);
    assert_eq!(
        known,
        json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "RequestResponse",
            "auditID": "given", "stage": "ResponseComplete",
            "requestURI": "/api/v1/namespaces/default/configmaps?fieldManager=me",
            "verb": "create", "user": {"username": "jane", "groups": ["ops", "system:authenticated"]},
            "sourceIPs": ["10.1.2.3"], "userAgent": "tester/1",
            "objectRef": {"resource": "configmaps", "namespace": "default", "name": "m", "apiVersion": "v1"},
            "responseStatus": {"metadata": {}, "code": 201},
            "requestObject": null, "responseObject": null,
            "annotations": {"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": "all may"},
        })
    );
    let refused = &events[1]["responseStatus"];
    assert_eq!(
        (&refused["reason"], &refused["code"]),
        (&json!("AlreadyExists"), &json!(409))
    );
    assert_eq!(refused.get("kind"), None);
    assert_eq!(events[2]["requestObject"]["gracePeriodSeconds"], 0);
    assert_eq!(events[2]["responseStatus"]["status"], "Success");
    assert_eq!(events.len(), 3);
}

#[tokio::test]
async fn the_policy_decides_what_is_told() {
    let rules = "rules:
- {level: None, verbs: [get], resources: [{group: '', resources: [configmaps]}]}
- {level: Metadata, resources: [{group: '', resources: [secrets]}], omitStages: [RequestReceived]}
- {level: Metadata, verbs: [watch], resources: [{group: '*', resources: ['*']}]}
- {level: Request, verbs: [patch], omitStages: [RequestReceived]}
- {level: Metadata, nonResourceURLs: ['/break*']}";
    let fixture = Fixture::start(rules, Format::Json).await;
    fixture.server.post(MAPS, &map("m")).await;
    fixture.server.get(&format!("{MAPS}/m")).await;
    fixture.server.get("/api/v1/secrets").await;
    let patch = json!({"data": {"a": "c"}});
    fixture
        .server
        .patch(&format!("{MAPS}/m"), "merge", &patch)
        .await;
    let mut watch = fixture.server.watch(&format!("{MAPS}?watch=1")).await;
    assert!(watch.next().await.is_some());
    drop(watch);
    let broken = fixture.server.get("/breaks").await;
    assert_eq!(broken.code, StatusCode::INTERNAL_SERVER_ERROR);
    let events = fixture.events().await;
    let told: Vec<_> = events
        .iter()
        .map(|event| {
            let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
            (text("verb"), text("level"), text("stage"))
        })
        .collect();
    let told: Vec<_> = told
        .iter()
        .map(|(verb, level, stage)| (verb.as_str(), level.as_str(), stage.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("list", "Metadata", "ResponseComplete"),
            ("patch", "Request", "ResponseComplete"),
            ("watch", "Metadata", "RequestReceived"),
            ("watch", "Metadata", "ResponseStarted"),
            ("watch", "Metadata", "ResponseComplete"),
            ("get", "Metadata", "RequestReceived"),
            ("get", "Metadata", "Panic"),
        ]
    );
    let annotations = &events[0]["annotations"];
    assert_eq!(annotations["authorization.k8s.io/decision"], "forbid");
    assert_eq!(annotations["authorization.k8s.io/reason"], "no secrets");
    assert_eq!(events[0]["responseStatus"]["code"], 403);
    assert_eq!(events[1]["requestObject"], patch);
    assert_eq!(events[1].get("responseObject"), None);
    assert_eq!(events[4]["responseStatus"]["code"], 200);
    assert_eq!(events[6]["responseStatus"]["code"], 500);
}

#[tokio::test]
async fn managed_fields_can_be_left_out_and_lines_be_legacy() {
    let rules = "omitManagedFields: true\nrules: [{level: RequestResponse}]";
    let fixture = Fixture::start(rules, Format::Json).await;
    fixture.server.post(MAPS, &map("m")).await;
    let list = fixture.server.get(MAPS).await;
    assert!(list.json()["items"][0]["metadata"]["managedFields"].is_array());
    let lines = fixture.lines().await;
    assert!(lines.len() == 4 && !lines.concat().contains("managedFields"));
    let fixture = Fixture::start("rules: [{level: Metadata}]", Format::Legacy).await;
    fixture.server.get(MAPS).await;
    let lines = fixture.lines().await;
    assert!(lines[0].contains(" AUDIT: id=\""), "{}", lines[0]);
    let end = "as=\"<self>\" asgroups=\"<lookup>\" user-agent=\"\" namespace=\"default\" uri=\"/api/v1/namespaces/default/configmaps\" response=\"200\"";
    assert!(lines[1].ends_with(end), "{}", lines[1]);
}

#[test]
fn policies_are_refused_in_upstreams_words() {
    let refused = |rules: &str| {
        let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{rules}\n");
        Policy::parse(&text).unwrap_err().to_string()
    };
    for (rules, message) in [
        ("rules: []", "loaded illegal policy with 0 rules"),
        ("rules: [{}]", "rules[0].level: Required value"),
        (
            "rules: [{level: All}]",
            "rules[0].level: Unsupported value: \"All\": supported values: \"None\", \"Metadata\", \"Request\", \"RequestResponse\"",
        ),
        (
            "rules: [{level: None, nonResourceURLs: [healthz]}]",
            "rules[0].nonResourceURLs[0]: Invalid value: \"healthz\": non-resource URL rules must begin with a '/' character",
        ),
        (
            "rules: [{level: None, omitStages: [Later]}]",
            "rules[0].omitStages[0]: Invalid value: \"Later\": allowed stages are RequestReceived,ResponseStarted,ResponseComplete,Panic",
        ),
    ] {
        assert_eq!(refused(rules), message);
    }
}
