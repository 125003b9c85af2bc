//! Roles, bindings and reviews on a server.

use coracle_api::Identity;
use http::{Method, Request, StatusCode, header};
use serde_json::{Value, json};

use axum::body::Body;

use super::{Rbac, escalation::EscalationCheck};
use crate::{
    Config, Plugins,
    admission::Chain,
    authz::{Authorizer, Authorizers, PrivilegedGroup, reviews},
    handler::{Handlers, Place},
    testing::{Answer, TestServer},
};
use std::sync::Arc;

struct Fixture(TestServer);

impl Fixture {
    async fn start() -> Self {
        let server = TestServer::with(Config::default(), |registry| {
            let rbac = Arc::new(Rbac::new(registry));
            let authorizer: Arc<dyn Authorizer> =
                Arc::new(Authorizers(vec![Arc::new(PrivilegedGroup), rbac.clone()]));
            let check = EscalationCheck::new(rbac.clone(), authorizer.clone());
            let place = |resource| Place {
                group: "authorization.k8s.io",
                resource,
                subresource: "",
            };
            let access = reviews::SubjectAccessReviews(authorizer.clone());
            let rules = reviews::SelfSubjectRulesReviews(rbac);
            Plugins {
                authorizer,
                admission: Chain::new(vec![Arc::new(check)]),
                handlers: Handlers::new([
                    (place("subjectaccessreviews"), Arc::new(access) as Arc<_>),
                    (place("selfsubjectrulesreviews"), Arc::new(rules) as Arc<_>),
                ]),
                ..Plugins::default()
            }
        })
        .await;
        let fixture = Fixture(server);
        fixture
            .create(
                "clusterroles",
                json!({"metadata": {"name": "reader", "labels": {"gather": "yes"}}, "rules": [
                    {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/log"]},
                    {"verbs": ["get"], "nonResourceURLs": ["/metrics"]},
                ]}),
            )
            .await;
        fixture
    }

    async fn create(&self, resource: &str, object: Value) {
        let path = format!("/apis/rbac.authorization.k8s.io/v1/{resource}");
        let answer = self.0.post(&path, &object).await;
        assert_eq!(answer.code, 201, "{}", answer.message());
        self.0.server.registry().fresh().await.unwrap();
    }

    async fn bind(&self, resource: &str, name: &str, role: (&str, &str), subject: Value) {
        let binding = json!({
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role.0, "name": role.1},
            "subjects": [subject],
        });
        self.create(resource, binding).await;
    }

    async fn send(&self, user: &str, method: Method, path: &str, body: &Value) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string()))
            .unwrap();
        request.extensions_mut().insert(Identity {
            user: user.to_owned(),
            groups: vec!["dev".to_owned()],
            ..Identity::default()
        });
        self.0.request(request).await
    }

    async fn get(&self, user: &str, path: &str) -> (StatusCode, String) {
        let answer = self.send(user, Method::GET, path, &Value::Null).await;
        (answer.code, answer.message())
    }
}

fn user(name: &str) -> Value {
    json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": name})
}

#[tokio::test]
async fn bindings_allow_and_their_end_forbids() {
    let fixture = Fixture::start().await;
    let pods = "/api/v1/namespaces/ns/pods";
    assert_eq!(
        fixture.get("jane", pods).await,
        (
            StatusCode::FORBIDDEN,
            "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"ns\"".to_owned()
        )
    );
    let bindings = "namespaces/ns/rolebindings";
    fixture
        .bind(bindings, "b", ("ClusterRole", "reader"), user("jane"))
        .await;
    assert_eq!(fixture.get("jane", pods).await.0, StatusCode::OK);
    assert_eq!(
        fixture.get("jane", "/api/v1/pods").await.1,
        "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" at the cluster scope"
    );
    let group = json!({"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "dev"});
    fixture
        .bind("clusterrolebindings", "c", ("ClusterRole", "reader"), group)
        .await;
    assert_eq!(fixture.get("joe", "/api/v1/pods").await.0, StatusCode::OK);
    fixture
        .0
        .delete(
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/c",
            &Value::Null,
        )
        .await;
    fixture.0.server.registry().fresh().await.unwrap();
    assert_eq!(
        fixture.get("joe", "/api/v1/pods").await.0,
        StatusCode::FORBIDDEN
    );
    fixture
        .bind(bindings, "d", ("Role", "gone"), user("joe"))
        .await;
    let (_, message) = fixture.get("joe", pods).await;
    assert!(
        message.ends_with(": RBAC: role.rbac.authorization.k8s.io \"gone\" not found"),
        "{message}"
    );
}

#[tokio::test]
async fn roles_gather_others_and_accounts_are_users() {
    let fixture = Fixture::start().await;
    let gatherer = json!({
        "metadata": {"name": "gatherer"},
        "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"gather": "yes"}}]},
    });
    fixture.create("clusterroles", gatherer).await;
    let account = json!({"kind": "ServiceAccount", "name": "robot", "namespace": "ns"});
    fixture
        .bind(
            "clusterrolebindings",
            "b",
            ("ClusterRole", "gatherer"),
            account,
        )
        .await;
    let robot = "system:serviceaccount:ns:robot";
    assert_eq!(fixture.get(robot, "/api/v1/pods").await.0, StatusCode::OK);
}

#[tokio::test]
async fn reviews_give_reasons() {
    let fixture = Fixture::start().await;
    fixture
        .bind(
            "namespaces/ns/rolebindings",
            "b",
            ("ClusterRole", "reader"),
            user("jane"),
        )
        .await;
    let review = async |spec: Value| {
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let answer = fixture.0.post(path, &json!({"spec": spec})).await;
        (
            answer.code.as_u16(),
            answer.message(),
            answer.json()["status"].clone(),
        )
    };
    let attributes =
        json!({"verb": "get", "namespace": "ns", "resource": "pods", "subresource": "log"});
    let (_, _, status) = review(json!({"user": "jane", "resourceAttributes": attributes})).await;
    assert_eq!(
        status,
        json!({"allowed": true, "reason": "RBAC: allowed by RoleBinding \"b/ns\" of ClusterRole \"reader\" to User \"jane\""})
    );
    let attributes = json!({"verb": "delete", "namespace": "ns", "resource": "pods"});
    let (_, _, status) = review(json!({"user": "jane", "resourceAttributes": attributes})).await;
    assert_eq!(status, json!({"allowed": false}));
    let (code, message, _) = review(json!({"user": "jane"})).await;
    assert_eq!(code, 422);
    assert!(
        message.contains("exactly one of nonResourceAttributes or resourceAttributes"),
        "{message}"
    );
}

#[tokio::test]
async fn nobody_grants_what_they_do_not_have() {
    let fixture = Fixture::start().await;
    fixture
        .create(
            "clusterroles",
            json!({"metadata": {"name": "roles"}, "rules": [
                {"verbs": ["*"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"]},
            ]}),
        )
        .await;
    for role in ["roles", "reader"] {
        fixture
            .bind(
                "namespaces/ns/rolebindings",
                role,
                ("ClusterRole", role),
                user("jane"),
            )
            .await;
    }
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/ns/roles";
    let role = |name: &str, verb: &str| {
        json!({"metadata": {"name": name}, "rules": [
            {"verbs": [verb], "apiGroups": [""], "resources": ["pods"]},
        ]})
    };
    let answer = fixture
        .send("jane", Method::POST, roles, &role("get", "get"))
        .await;
    // The verb `escalate` is among all verbs on roles.
    assert_eq!(answer.code, 201, "{}", answer.message());

    fixture
        .create(
            "clusterroles",
            json!({"metadata": {"name": "writer"}, "rules": [
                {"verbs": ["create", "update"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"]},
                {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]},
            ]}),
        )
        .await;
    fixture
        .bind(
            "namespaces/ns/rolebindings",
            "w",
            ("ClusterRole", "writer"),
            user("joe"),
        )
        .await;
    let answer = fixture
        .send("joe", Method::POST, roles, &role("mine", "get"))
        .await;
    assert_eq!(answer.code, 201, "{}", answer.message());
    let answer = fixture
        .send("joe", Method::POST, roles, &role("more", "delete"))
        .await;
    assert_eq!(
        (answer.code.as_u16(), answer.message()),
        (
            403,
            "roles.rbac.authorization.k8s.io \"more\" is forbidden: user \"joe\" (groups=[\"dev\" \"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}".to_owned()
        )
    );
    let binding = json!({
        "metadata": {"name": "x"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader"},
        "subjects": [user("joe")],
    });
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/ns/rolebindings";
    let answer = fixture.send("joe", Method::POST, bindings, &binding).await;
    assert_eq!(answer.code, 403);
    let answer = fixture.send("jane", Method::POST, bindings, &binding).await;
    assert_eq!(answer.code, 201, "{}", answer.message());
}

#[tokio::test]
async fn a_user_can_list_their_rules() {
    let fixture = Fixture::start().await;
    fixture
        .bind(
            "clusterrolebindings",
            "b",
            ("ClusterRole", "reader"),
            user("jane"),
        )
        .await;
    fixture
        .create(
            "clusterroles",
            json!({"metadata": {"name": "basic"}, "rules": [
                {"verbs": ["create"], "apiGroups": ["authorization.k8s.io"], "resources": ["selfsubjectrulesreviews"]},
            ]}),
        )
        .await;
    fixture
        .bind(
            "clusterrolebindings",
            "basic",
            ("ClusterRole", "basic"),
            user("jane"),
        )
        .await;
    let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let body = json!({"spec": {"namespace": "ns"}});
    let answer = fixture.send("jane", Method::POST, path, &body).await;
    assert_eq!(answer.code, 201, "{}", answer.message());
    let status = &answer.json()["status"];
    assert_eq!(status["incomplete"], false);
    assert_eq!(
        status["nonResourceRules"],
        json!([{"verbs": ["get"], "nonResourceURLs": ["/metrics"]}])
    );
    assert_eq!(status["resourceRules"].as_array().unwrap().len(), 2);
}
