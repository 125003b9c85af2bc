//! Authentication through the whole server.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::body::Body;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use coracle_transport::{
    ClientCertificates, ClientIdentity, Peer, certified_key, parse_certificates,
};
use http::{Method, Request, header};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair,
};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{StaticTokens, oidc::Anonymous, service_accounts::SigningKey};
use crate::{
    Config, Plugins,
    admission::Chain,
    authz::AlwaysAllow,
    node_proxy::NodeTls,
    standard::{Security, plugins},
    testing::{Answer, TestServer},
};

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

fn nodes(authorities: &[CertificateDer<'_>]) -> NodeTls {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::default().self_signed(&key).unwrap();
    let (chain, key) = (certificate.pem(), key.serialize_pem());
    let identity = certified_key(chain.as_bytes(), key.as_bytes()).unwrap();
    NodeTls::new(authorities, Arc::new(ClientIdentity::new(identity))).unwrap()
}

struct Fixture {
    server: TestServer,
    authority: Issuer<'static, KeyPair>,
    service_account_key: String,
}

impl Fixture {
    async fn start() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        let authorities = parse_certificates(pem.as_bytes()).unwrap();
        let service_account_key = KeyPair::generate().unwrap().serialize_pem();
        let security = Security {
            client_authorities: ClientCertificates::new(&authorities).unwrap(),
            front_proxy: None,
            service_account_key: service_account_key.clone(),
            issuer: ISSUER.to_owned(),
            external_address: "10.0.0.1:6443".to_owned(),
            static_tokens: StaticTokens::parse("secret,jane,7,dev").unwrap(),
            encryption: None,
            audit: None,
            issuers: Arc::default(),
            anonymous: Arc::new(ArcSwap::from_pointee(Anonymous {
                enabled: true,
                ..Anonymous::default()
            })),
            nodes: nodes(&authorities),
            shutdown: CancellationToken::new(),
        };
        let server = TestServer::with(Config::default(), |registry| Plugins {
            authorizer: Arc::new(AlwaysAllow),
            admission: Chain::default(),
            ..plugins(registry, security).unwrap()
        })
        .await;
        Fixture {
            server,
            authority: Issuer::new(params, key),
            service_account_key,
        }
    }

    fn peer(&self, issuer: &Issuer<'_, KeyPair>) -> Peer {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.distinguished_name = DistinguishedName::new();
        for (kind, text) in [
            (DnType::CommonName, "system:kube-scheduler"),
            (DnType::OrganizationName, "ops"),
        ] {
            params.distinguished_name.push(kind, text);
        }
        let certificate = params.signed_by(&key, issuer).unwrap();
        let chain: Arc<[_]> = [certificate.der().clone()].into();
        Peer::new("127.0.0.1:1".parse().unwrap(), chain)
    }

    async fn whoami(&self, build: impl FnOnce(&mut Request<Body>)) -> Answer {
        let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
        let mut request = Request::builder()
            .method(Method::POST)
            .uri("/apis/authentication.k8s.io/v1/selfsubjectreviews")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string()))
            .unwrap();
        build(&mut request);
        self.server.request(request).await
    }

    async fn whoami_with(&self, headers: &[(&'static str, &str)]) -> (u16, Value) {
        let answer = self
            .whoami(|request| {
                for &(name, value) in headers {
                    request.headers_mut().append(name, value.parse().unwrap());
                }
            })
            .await;
        (
            answer.code.as_u16(),
            answer.json()["status"]["userInfo"].clone(),
        )
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let answer = self.server.post(path, &body).await;
        assert!(answer.code.is_success(), "{path}: {}", answer.message());
        answer.json()
    }

    async fn token(&self, spec: Value) -> String {
        let path = "/api/v1/namespaces/default/serviceaccounts/robot/token";
        let body =
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
        let request = self.post(path, body).await;
        request["status"]["token"].as_str().unwrap().to_owned()
    }

    async fn account(&self) {
        self.post(
            "/api/v1/namespaces/default/serviceaccounts",
            json!({"metadata": {"name": "robot"}}),
        )
        .await;
    }
}

fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

#[tokio::test]
async fn reviews_have_no_columns() {
    let fixture = Fixture::start().await;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    for (accept, code) in [(table, 406), ("application/json", 201)] {
        let (answered, _) = fixture.whoami_with(&[("accept", accept)]).await;
        assert_eq!(answered, code, "{accept}");
    }
}

#[tokio::test]
async fn certificates_name_users() {
    let fixture = Fixture::start().await;
    let peer = fixture.peer(&fixture.authority);
    for _ in 0..2 {
        let answer = fixture
            .whoami(|request| {
                request.extensions_mut().insert(peer.clone());
            })
            .await;
        let user = &answer.json()["status"]["userInfo"];
        assert_eq!(user["username"], "system:kube-scheduler");
        assert_eq!(user["groups"], json!(["ops", "system:authenticated"]));
        let credential = user["extra"]["authentication.kubernetes.io/credential-id"][0].as_str();
        assert!(credential.unwrap().starts_with("X509SHA256="));
    }
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let foreign = fixture.peer(&Issuer::new(params, key));
    let answer = fixture
        .whoami(|request| {
            request.extensions_mut().insert(foreign);
        })
        .await;
    assert_eq!(answer.code, 401);
    assert_eq!(answer.message(), "Unauthorized");
}

#[tokio::test]
async fn tokens_of_a_file_anonymity_and_impersonation() {
    let fixture = Fixture::start().await;
    let (_, user) = fixture.whoami_with(&[]).await;
    assert_eq!(
        user,
        json!({"username": "system:anonymous", "groups": ["system:unauthenticated"]})
    );
    let (_, user) = fixture
        .whoami_with(&[("authorization", "Bearer secret")])
        .await;
    assert_eq!(
        user,
        json!({"username": "jane", "uid": "7", "groups": ["dev", "system:authenticated"]})
    );
    let (code, _) = fixture
        .whoami_with(&[("authorization", "Bearer wrong")])
        .await;
    assert_eq!(code, 401);
    let (_, user) = fixture
        .whoami_with(&[
            ("authorization", "Bearer secret"),
            ("impersonate-user", "system:serviceaccount:ns:x"),
        ])
        .await;
    assert_eq!(user["username"], "system:serviceaccount:ns:x");
    assert_eq!(
        user["groups"],
        json!([
            "system:serviceaccounts",
            "system:serviceaccounts:ns",
            "system:authenticated"
        ])
    );
}

#[tokio::test]
async fn a_service_account_token_lives_as_long_as_its_account() {
    let fixture = Fixture::start().await;
    fixture.account().await;
    let token = fixture.token(json!({})).await;
    let authorization = format!("Bearer {token}");
    let claims = claims(&token);
    assert_eq!(claims["iss"], ISSUER);
    assert_eq!(claims["aud"], json!([ISSUER]));
    assert_eq!(claims["sub"], "system:serviceaccount:default:robot");
    let lifetime = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert_eq!(lifetime, 3600);
    let (_, user) = fixture
        .whoami_with(&[("authorization", &authorization)])
        .await;
    assert_eq!(user["username"], "system:serviceaccount:default:robot");
    assert_eq!(
        user["extra"]["authentication.kubernetes.io/credential-id"][0],
        format!("JTI={}", claims["jti"].as_str().unwrap())
    );
    let forged = format!("{}x", &authorization[..authorization.len() - 1]);
    assert_eq!(
        fixture.whoami_with(&[("authorization", &forged)]).await.0,
        401
    );

    fixture
        .server
        .delete(
            "/api/v1/namespaces/default/serviceaccounts/robot",
            &Value::Null,
        )
        .await;
    fixture.account().await;
    fixture.server.server.registry().fresh().await.unwrap();
    let (code, _) = fixture
        .whoami_with(&[("authorization", &authorization)])
        .await;
    assert_eq!(code, 401, "another account of the same name");
}

#[tokio::test]
async fn a_bound_token_dies_with_its_pod() {
    let fixture = Fixture::start().await;
    fixture.account().await;
    let pod = json!({
        "metadata": {"name": "p"},
        "spec": {"serviceAccountName": "robot", "containers": [{"name": "c", "image": "i"}]},
    });
    fixture.post("/api/v1/namespaces/default/pods", pod).await;
    let reference = json!({"apiVersion": "v1", "kind": "Pod", "name": "p"});
    let token = fixture
        .token(json!({"boundObjectRef": reference, "expirationSeconds": 3607}))
        .await;
    let claims = claims(&token);
    assert_eq!(claims["kubernetes.io"]["pod"]["name"], "p");
    let lifetime = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert_eq!(lifetime, 365 * 24 * 3600, "it is made to last");
    let warning = claims["kubernetes.io"]["warnafter"].as_i64().unwrap();
    assert_eq!(warning - claims["iat"].as_i64().unwrap(), 3607);
    let authorization = format!("Bearer {token}");
    let (_, user) = fixture
        .whoami_with(&[("authorization", &authorization)])
        .await;
    assert_eq!(
        user["extra"]["authentication.kubernetes.io/pod-name"],
        json!(["p"])
    );
    let now = json!({"gracePeriodSeconds": 0});
    fixture
        .server
        .delete("/api/v1/namespaces/default/pods/p", &now)
        .await;
    fixture.server.server.registry().fresh().await.unwrap();
    let (code, _) = fixture
        .whoami_with(&[("authorization", &authorization)])
        .await;
    assert_eq!(code, 401);
}

#[tokio::test]
async fn token_requests_are_refused_as_upstream_does() {
    let fixture = Fixture::start().await;
    fixture.account().await;
    let path = "/api/v1/namespaces/default/serviceaccounts/robot/token";
    let refused = async |path: &str, spec: Value| {
        let body = json!({"spec": spec});
        let answer = fixture.server.post(path, &body).await;
        (answer.code.as_u16(), answer.message())
    };
    assert_eq!(
        refused(path, json!({"expirationSeconds": 60})).await,
        (422, "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 60: may not specify a duration less than 10 minutes".to_owned())
    );
    let pod = json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "none"}});
    assert_eq!(
        refused(path, pod).await,
        (404, "pods \"none\" not found".to_owned())
    );
    let other =
        json!({"boundObjectRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"}});
    assert_eq!(
        refused(path, other).await,
        (
            400,
            "cannot bind token to object of type apps/v1, Kind=Deployment".to_owned()
        )
    );
    let missing = path.replace("robot", "none");
    assert_eq!(
        refused(&missing, json!({})).await,
        (404, "serviceaccounts \"none\" not found".to_owned())
    );
}

#[tokio::test]
async fn reviews_say_whose_a_token_is_and_for_whom() {
    let fixture = Fixture::start().await;
    fixture.account().await;
    let token = fixture.token(json!({"audiences": ["vault"]})).await;
    let review = async |token: &str, audiences: Value| {
        let body = json!({"spec": {"token": token, "audiences": audiences}});
        let path = "/apis/authentication.k8s.io/v1/tokenreviews";
        fixture.post(path, body).await["status"].clone()
    };
    let status = review(&token, json!(["vault", "other"])).await;
    assert_eq!(status["authenticated"], true);
    assert_eq!(status["audiences"], json!(["vault"]));
    assert_eq!(
        status["user"]["username"],
        "system:serviceaccount:default:robot"
    );
    let status = review(&token, json!([])).await;
    assert_eq!(status["authenticated"], Value::Null);
    assert!(
        status["error"]
            .as_str()
            .unwrap()
            .contains("is invalid for the target audiences")
    );
    let status = review("secret", json!([])).await;
    assert_eq!(status["user"]["username"], "jane");
    let status = review("nonsense", json!([])).await;
    assert_eq!(status["error"], "invalid bearer token");
}

#[tokio::test]
async fn others_can_find_the_keys() {
    let fixture = Fixture::start().await;
    let document = fixture
        .server
        .get("/.well-known/openid-configuration")
        .await
        .json();
    assert_eq!(document["issuer"], ISSUER);
    assert_eq!(document["jwks_uri"], "https://10.0.0.1:6443/openid/v1/jwks");
    let keys = fixture.server.get("/openid/v1/jwks").await;
    assert_eq!(
        keys.headers[header::CONTENT_TYPE],
        "application/jwk-set+json"
    );
    let keys = keys.json();
    assert_eq!(keys["keys"][0]["crv"], "P-256");
    fixture.account().await;
    let token = fixture.token(json!({})).await;
    let head = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap());
    let head: Value = serde_json::from_slice(&head.unwrap()).unwrap();
    assert_eq!(head["kid"], keys["keys"][0]["kid"]);
}

#[tokio::test]
async fn a_token_in_a_secret_is_good_while_the_secret_has_it() {
    let fixture = Fixture::start().await;
    let key = SigningKey::from_pem(fixture.service_account_key.as_bytes()).unwrap();
    let create = async |path: &str, object: Value| {
        let answer = fixture.server.post(path, &object).await;
        assert_eq!(answer.code, 201, "{}", answer.message());
        answer.json()
    };
    let account = json!({"metadata": {"name": "robot"}});
    let account = create("/api/v1/namespaces/default/serviceaccounts", account).await;
    let uid = &account["metadata"]["uid"];
    let claims = |secret: &str, uid: &Value| {
        json!({
            "iss": "kubernetes/serviceaccount",
            "kubernetes.io/serviceaccount/namespace": "default",
            "kubernetes.io/serviceaccount/secret.name": secret,
            "kubernetes.io/serviceaccount/service-account.name": "robot",
            "kubernetes.io/serviceaccount/service-account.uid": uid,
            "sub": "system:serviceaccount:default:robot",
        })
    };
    let sign = |claims: Value| key.sign(claims.to_string().as_bytes()).unwrap();
    let token = sign(claims("s", uid));
    let old = sign(claims("s", &json!("before")));
    let secret = json!({
        "metadata": {"name": "s", "annotations": {"kubernetes.io/service-account.name": "robot"}},
        "type": "kubernetes.io/service-account-token",
        "stringData": {"token": token},
    });
    let path = "/api/v1/namespaces/default/secrets";
    create(path, secret).await;
    let ask = async |token: &str| {
        let bearer = format!("Bearer {token}");
        fixture.whoami_with(&[("authorization", &bearer)]).await
    };
    let (code, user) = ask(&token).await;
    assert_eq!(code, 201, "{user}");
    assert_eq!(user["username"], "system:serviceaccount:default:robot");
    assert_eq!(&user["uid"], uid);
    assert_eq!(user["extra"], Value::Null);
    // Made by hand, it is used without a warning; listed by its account, it was made unasked.
    let warned = async || {
        let bearer = format!("Bearer {token}");
        let answer = fixture
            .whoami(|request| {
                let headers = request.headers_mut();
                headers.append("authorization", bearer.parse().unwrap());
            })
            .await;
        answer.warnings()
    };
    assert_eq!(warned().await, [""; 0]);
    let mut listing = account.clone();
    listing["secrets"] = json!([{"name": "s"}]);
    let robot = "/api/v1/namespaces/default/serviceaccounts/robot";
    assert_eq!(fixture.server.put(robot, &listing).await.code, 200);
    fixture.server.server.registry().fresh().await.unwrap();
    let warning = "Use tokens from the TokenRequest API or manually created secret-based tokens instead of auto-generated secret-based tokens.";
    assert_eq!(warned().await, [format!("299 - {warning:?}")]);
    let path = format!("{path}/s");
    let mut stored = fixture.server.get(&path).await.json();
    let used = stored["metadata"]["labels"]["kubernetes.io/legacy-token-last-used"].clone();
    assert!(used.is_string(), "{stored}");
    for other in [
        &old,
        &sign(claims("none", uid)),
        &sign(json!({"iss": "kubernetes/serviceaccount"})),
    ] {
        assert_eq!(ask(other).await.0, 401);
    }
    stored["metadata"]["labels"]["kubernetes.io/legacy-token-invalid-since"] = json!("2026-01-01");
    let answer = fixture.server.put(&path, &stored).await;
    assert_eq!(answer.code, 200, "{}", answer.message());
    fixture.server.server.registry().fresh().await.unwrap();
    assert_eq!(ask(&token).await.0, 401);
}
