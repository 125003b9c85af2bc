//! Tokens of a small issuer, over HTTPS.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::body::Body;
use coracle_transport::{ServeOptions, ServerCertificate, certified_key};
use http::{Request, Response};
use parking_lot::Mutex;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    rsa::PublicKeyComponents,
    signature::{self, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair as _, RsaEncoding, RsaKeyPair},
};

use super::*;
use crate::authn::service_accounts::SigningKey;

/// An issuer on a port of its own.
struct Idp {
    url: String,
    authority: String,
    key: Mutex<Arc<SigningKey>>,
    documents: Arc<Documents>,
    _shutdown: DropGuard,
}

#[derive(Default)]
struct Documents {
    keys: Mutex<Value>,
    url: Mutex<String>,
    fetched: AtomicUsize,
}

impl Documents {
    fn answer(&self, path: &str) -> Value {
        match path {
            "/keys" => {
                self.fetched.fetch_add(1, Ordering::Relaxed);
                self.keys.lock().clone()
            }
            _ => {
                let url = self.url.lock();
                json!({"issuer": *url, "jwks_uri": format!("{url}/keys")})
            }
        }
    }
}

fn new_key() -> SigningKey {
    SigningKey::from_pem(KeyPair::generate().unwrap().serialize_pem().as_bytes()).unwrap()
}

impl Idp {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!(
            "https://localhost:{}",
            listener.local_addr().unwrap().port()
        );
        let pair = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let authority = params.self_signed(&pair).unwrap().pem();
        let certificate = certified_key(authority.as_bytes(), pair.serialize_pem().as_bytes());
        let certificate = Arc::new(ServerCertificate::new(certificate.unwrap()));
        let tls = coracle_transport::server_config(certificate, None).unwrap();
        let documents = Arc::new(Documents::default());
        documents.url.lock().clone_from(&url);
        let shutdown = CancellationToken::new();
        let service = tower::service_fn({
            let documents = documents.clone();
            move |request: Request<Body>| {
                let answer = documents.answer(request.uri().path()).to_string();
                async { Ok::<_, std::convert::Infallible>(Response::new(Body::from(answer))) }
            }
        });
        let serving = coracle_transport::serve(
            listener,
            Arc::new(tls),
            service,
            ServeOptions::default(),
            shutdown.clone(),
        );
        tokio::spawn(serving);
        let idp = Idp {
            url,
            authority,
            key: Mutex::new(Arc::new(new_key())),
            documents,
            _shutdown: shutdown.drop_guard(),
        };
        idp.publish();
        idp
    }

    fn publish(&self) {
        let jwk = self.key.lock().verifying_key().jwk;
        *self.documents.keys.lock() = json!({"keys": [jwk]});
    }

    fn token(&self, changes: &Value) -> String {
        let now = jiff::Timestamp::now().as_second();
        let mut claims = json!({
            "iss": self.url, "aud": "kubernetes", "exp": now + 60, "sub": "jane", "jti": "7",
        });
        let changes = changes.as_object().unwrap().clone();
        claims.as_object_mut().unwrap().extend(changes);
        let key = self.key.lock().clone();
        key.sign(claims.to_string().as_bytes()).unwrap()
    }

    /// A configuration of this issuer; `rest` is YAML of the authenticator.
    fn issuers(&self, rest: &str) -> Result<JwtIssuers, ConfigurationError> {
        let authority = self.authority.replace('\n', "\n        ");
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n- issuer:\n    url: {}\n    audiences: [kubernetes, other]\n    audienceMatchPolicy: MatchAny\n    certificateAuthority: |\n        {authority}\n{rest}\n",
            self.url
        );
        let configuration = AuthenticationConfiguration::parse(&text)?;
        JwtIssuers::new(&configuration, &algorithms(), "https://own")
    }
}

fn algorithms() -> Vec<String> {
    SIGNING_ALGORITHMS.map(str::to_owned).to_vec()
}

async fn user(issuers: &JwtIssuers, token: &str) -> Result<Option<coracle_api::Identity>, String> {
    let audiences = ["api".to_owned()];
    let user = issuers.authenticate_token(token, &audiences).await;
    user.map(|user| user.map(|user| user.identity))
        .map_err(|error| error.to_string())
}

const PLAIN: &str = "  claimMappings:
    username: {claim: sub, prefix: 'idp:'}
    groups: {claim: groups, prefix: 'g:'}
  claimValidationRules:
  - {claim: tenant, requiredValue: one}";

#[tokio::test]
async fn claims_become_users() {
    let idp = Idp::start().await;
    let issuers = idp.issuers(PLAIN).unwrap();
    let good = json!({"tenant": "one", "groups": ["a", "b"]});
    let known = user(&issuers, &idp.token(&good)).await.unwrap().unwrap();
    assert_eq!(known.user, "idp:jane");
    assert_eq!(known.groups, ["g:a", "g:b"]);
    assert_eq!(known.extra[crate::authn::CREDENTIAL_ID], ["JTI=7"]);
    let one = json!({"tenant": "one", "groups": "a", "aud": ["x", "other"]});
    let known = user(&issuers, &idp.token(&one)).await.unwrap().unwrap();
    assert_eq!(known.groups, ["g:a"]);
    for (claims, why) in [
        (
            json!({"tenant": "two"}),
            "required claim tenant value does not match",
        ),
        (json!({}), "required claim tenant not present"),
        (json!({"tenant": "one", "exp": 1}), "token is expired"),
        (json!({"tenant": "one", "aud": "x"}), "expected audience"),
        (json!({"tenant": "one", "nbf": 9e12}), "not before"),
        (json!({"tenant": "one", "sub": 3}), "parse username claims"),
        (
            json!({"tenant": "one", "groups": [3]}),
            "parse groups claim",
        ),
    ] {
        let error = user(&issuers, &idp.token(&claims)).await.unwrap_err();
        assert!(
            error.starts_with("oidc: ") && error.contains(why),
            "{error}"
        );
    }
    assert_eq!(user(&issuers, "no token").await, Ok(None));
    let other = idp.token(&json!({"iss": "https://elsewhere"}));
    assert_eq!(user(&issuers, &other).await, Ok(None), "another's token");
    assert_eq!(idp.documents.fetched.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn expressions_map_and_check() {
    let idp = Idp::start().await;
    let issuers = idp
        .issuers(
            "  claimMappings:
    username: {expression: '\"idp:\" + claims.email'}
    groups: {expression: 'claims.roles.split(\",\")'}
    uid: {expression: 'claims.sub'}
    extra: [{key: 'example.com/level', valueExpression: 'string(claims.level)'}]
  claimValidationRules:
  - {expression: 'claims.email_verified == true', message: 'not verified'}
  - {expression: 'claims.exp - claims.level < 9000000000', message: 'too long'}
  userValidationRules:
  - {expression: \"!user.username.startsWith('system:')\", message: 'reserved'}
  - {expression: \"user.groups.all(group, group != 'evil')\", message: 'evil'}",
        )
        .unwrap();
    let claims = json!({"email": "j@x", "email_verified": true, "roles": "a,b", "level": 3});
    let known = user(&issuers, &idp.token(&claims)).await.unwrap().unwrap();
    assert_eq!(
        (known.user.as_str(), known.uid.as_str()),
        ("idp:j@x", "jane")
    );
    assert_eq!(known.groups, ["a", "b"]);
    assert_eq!(known.extra["example.com/level"], ["3"]);
    for (name, value, why) in [
        ("email_verified", json!(false), "not verified"),
        ("roles", json!("evil"), "evil"),
        ("email", Value::Null, "username"),
    ] {
        let mut claims = claims.clone();
        claims[name] = value;
        let error = user(&issuers, &idp.token(&claims)).await.unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}

#[tokio::test]
async fn rotated_keys_are_fetched_and_strangers_refused() {
    let idp = Idp::start().await;
    let issuers = idp.issuers(PLAIN).unwrap();
    let claims = json!({"tenant": "one"});
    assert!(user(&issuers, &idp.token(&claims)).await.unwrap().is_some());
    *idp.key.lock() = Arc::new(new_key());
    let token = idp.token(&claims);
    let refused = user(&issuers, &token).await.unwrap_err();
    assert!(refused.contains("failed to verify signature"), "{refused}");
    let before = idp.documents.fetched.load(Ordering::Relaxed);
    for _ in 0..20 {
        assert!(user(&issuers, &token).await.is_err());
    }
    let after = idp.documents.fetched.load(Ordering::Relaxed);
    assert!(
        after <= before + 2,
        "the issuer is not asked for every bad token"
    );
    idp.publish();
    let accepted = tokio::time::timeout(std::time::Duration::from_secs(10), async {
        while user(&issuers, &token).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    });
    accepted.await.expect("the new key is found in time");
    // Reloaded without the issuer, its tokens are nobody's.
    let none = AuthenticationConfiguration::default();
    issuers
        .replace(&none, &algorithms(), "https://own")
        .unwrap();
    assert_eq!(user(&issuers, &token).await, Ok(None));
}

#[test]
fn configurations_are_refused_in_upstreams_words() {
    let refused = |text: &str| {
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n{text}"
        );
        let read = AuthenticationConfiguration::parse(&text).unwrap();
        read.validate("https://own").unwrap_err().to_string()
    };
    let jwt = |url: &str, mappings: &str| {
        format!("jwt: [{{issuer: {{url: '{url}', audiences: [a]}}, claimMappings: {mappings}}}]")
    };
    let claim = "{username: {claim: sub, prefix: ''}}";
    for (text, message) in [
        (
            jwt("http://x", claim),
            "jwt[0].issuer.url: Invalid value: \"http://x\": URL scheme must be https",
        ),
        (
            jwt("https://own", claim),
            "jwt[0].issuer.url: Invalid value: \"https://own\": URL must not overlap with disallowed issuers: [https://own]",
        ),
        (
            jwt("https://x", "{username: {claim: sub}}"),
            "jwt[0].claimMappings.username.prefix: Required value: prefix is required when claim is set. It can be set to an empty string to disable prefixing",
        ),
        (
            jwt("https://x", "{username: {expression: claims.email}}"),
            "jwt[0].claimMappings.username.expression: Invalid value: \"claims.email\": claims.email_verified must be used in claimMappings.username.expression or claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression",
        ),
    ] {
        assert_eq!(refused(&text), message);
    }
    let nonsense = jwt("https://x", "{username: {expression: 'claims.('}}");
    assert!(refused(&nonsense).contains("compilation failed"));
    let foreign = jwt("https://x", "{username: {expression: user.username}}");
    assert!(refused(&foreign).contains("undeclared reference to 'user'"));
}

/// Of this test alone: nothing trusts it.
const RSA: &[u8] = include_bytes!("test-rsa.pk8");

type Sign = dyn Fn(&[u8]) -> Vec<u8>;

/// A key that signs by one algorithm.
struct Signer {
    algorithm: &'static str,
    jwk: Value,
    sign: Box<Sign>,
}

impl Signer {
    fn rsa(algorithm: &'static str, encoding: &'static dyn RsaEncoding) -> Self {
        let pair = RsaKeyPair::from_pkcs8(RSA).unwrap();
        let public: PublicKeyComponents<Vec<u8>> = pair.public().into();
        let base64 = |number: &[u8]| URL_SAFE_NO_PAD.encode(number);
        let (n, e) = (base64(&public.n), base64(&public.e));
        Signer {
            algorithm,
            jwk: json!({"kty": "RSA", "kid": algorithm, "n": n, "e": e}),
            sign: Box::new(move |message| {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(encoding, &SystemRandom::new(), message, &mut signature)
                    .unwrap();
                signature
            }),
        }
    }

    fn ecdsa(
        algorithm: &'static str,
        curve: &'static str,
        with: &'static EcdsaSigningAlgorithm,
    ) -> Self {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(with, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(with, key.as_ref(), &random).unwrap();
        // An uncompressed point: 4, x, y.
        let point = &pair.public_key().as_ref()[1..];
        let (x, y) = point.split_at(point.len() / 2);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        Signer {
            algorithm,
            jwk: json!({"kty": "EC", "kid": algorithm, "crv": curve, "x": x, "y": y}),
            sign: Box::new(move |message| {
                let signature = pair.sign(&SystemRandom::new(), message).unwrap();
                signature.as_ref().to_vec()
            }),
        }
    }

    fn token(&self, said: &str, claims: &Value) -> String {
        let header = json!({"alg": said, "kid": self.algorithm}).to_string();
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let signed = format!("{}.{}", encode(&header), encode(&claims.to_string()));
        let signature = URL_SAFE_NO_PAD.encode((self.sign)(signed.as_bytes()));
        format!("{signed}.{signature}")
    }
}

#[tokio::test]
async fn a_token_is_good_by_the_algorithm_it_names_and_no_other() {
    let signers = [
        Signer::rsa("RS256", &signature::RSA_PKCS1_SHA256),
        Signer::rsa("RS384", &signature::RSA_PKCS1_SHA384),
        Signer::rsa("RS512", &signature::RSA_PKCS1_SHA512),
        Signer::rsa("PS256", &signature::RSA_PSS_SHA256),
        Signer::rsa("PS384", &signature::RSA_PSS_SHA384),
        Signer::rsa("PS512", &signature::RSA_PSS_SHA512),
        Signer::ecdsa(
            "ES256",
            "P-256",
            &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
        ),
        Signer::ecdsa(
            "ES384",
            "P-384",
            &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
        ),
    ];
    let idp = Idp::start().await;
    let keys: Vec<&Value> = signers.iter().map(|signer| &signer.jwk).collect();
    *idp.documents.keys.lock() = json!({"keys": keys});
    let issuers = idp.issuers(PLAIN).unwrap();
    let expiry = jiff::Timestamp::now().as_second() + 60;
    let claims = json!({
        "iss": idp.url, "aud": "kubernetes", "exp": expiry, "sub": "jane", "tenant": "one",
    });
    for signer in &signers {
        for said in SIGNING_ALGORITHMS {
            let known = user(&issuers, &signer.token(said, &claims)).await;
            if said == signer.algorithm {
                assert_eq!(known.unwrap().unwrap().user, "idp:jane", "{said}");
            } else {
                let error = known.unwrap_err();
                assert!(error.contains("failed to verify signature"), "{error}");
            }
        }
        for said in ["none", "HS256", ""] {
            let error = user(&issuers, &signer.token(said, &claims)).await;
            let error = error.unwrap_err();
            assert!(error.contains("unsupported algorithm"), "{error}");
        }
    }
    let mut others: Vec<String> = signers[0]
        .token("RS256", &claims)
        .split('.')
        .map(str::to_owned)
        .collect();
    others[1] = URL_SAFE_NO_PAD.encode(claims.to_string().replace("jane", "root"));
    assert!(user(&issuers, &others.join(".")).await.is_err());
}
