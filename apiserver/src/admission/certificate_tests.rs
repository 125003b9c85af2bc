//! Requests for certificates on a server: what is stored of them, who may answer them, and what is
//! wrong with them.

use std::sync::Arc;

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::{Value, json};

use super::{
    CertificateApproval, CertificateRequester, CertificateSigning, CertificateSubjectRestriction,
    Chain,
};
use crate::{
    Config, Plugins,
    authz::{Attributes, Authorizer, Decision},
    testing::TestServer,
};

const PATH: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";

/// Allows everything but what is about other signers.
struct OneDomain(&'static str);

#[async_trait]
impl Authorizer for OneDomain {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        if attributes.resource == "signers" && attributes.name != self.0 {
            Decision::NoOpinion(String::new())
        } else {
            Decision::Allow(String::new())
        }
    }
}

async fn server(signers: &'static str) -> TestServer {
    let authorizer: Arc<dyn Authorizer> = Arc::new(OneDomain(signers));
    TestServer::with(Config::default(), |_| Plugins {
        admission: Chain::new(vec![
            Arc::new(CertificateRequester),
            Arc::new(CertificateApproval(authorizer.clone())),
            Arc::new(CertificateSigning(authorizer.clone())),
            Arc::new(CertificateSubjectRestriction),
        ]),
        ..Plugins::default()
    })
    .await
}

fn pem(group: &str) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, group);
    let key = KeyPair::generate().unwrap();
    params.serialize_request(&key).unwrap().pem().unwrap()
}

fn request(pem: &str, signer: &str, usages: &[&str]) -> Value {
    json!({
        "metadata": {"name": "r"},
        "spec": {"request": STANDARD.encode(pem), "signerName": signer, "usages": usages},
    })
}

fn certificate() -> String {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::default().self_signed(&key).unwrap();
    STANDARD.encode(certificate.pem())
}

#[tokio::test]
async fn who_asks_is_filled_in_and_stays() {
    let server = server("kubernetes.io/*").await;
    let mut asked = request(&pem("devs"), CLIENT, &["client auth"]);
    asked["spec"]["username"] = json!("root");
    asked["spec"]["groups"] = json!(["system:masters"]);
    asked["status"] = json!({"conditions": [{"type": "Approved", "status": "True"}]});
    let answer = server.post(PATH, &asked).await;
    assert_eq!(answer.code, 201, "{}", answer.message());
    let mut stored = answer.json();
    assert_ne!(stored["spec"]["username"], "root");
    assert_ne!(stored["spec"]["groups"], json!(["system:masters"]));
    assert_eq!(stored["status"], json!({}));
    let spec = stored["spec"].clone();
    stored["spec"]["username"] = json!("root");
    stored["metadata"]["labels"] = json!({"a": "b"});
    let stored = server.put(&format!("{PATH}/r"), &stored).await.json();
    assert_eq!(
        (&stored["spec"], &stored["metadata"]["labels"]),
        (&spec, &json!({"a": "b"}))
    );
}

#[tokio::test]
async fn a_request_is_approved_and_then_signed() {
    let server = server("kubernetes.io/*").await;
    let asked = request(&pem("devs"), CLIENT, &["client auth"]);
    let mut stored = server.post(PATH, &asked).await.json();
    stored["status"] = json!({
        "conditions": [{"type": "Approved", "status": "True", "reason": "r"}],
        "certificate": certificate(),
    });
    let answer = server.put(&format!("{PATH}/r/approval"), &stored).await;
    assert_eq!(answer.code, 200, "{}", answer.message());
    let mut stored = answer.json();
    let condition = stored["status"]["conditions"][0].clone();
    assert_eq!(stored["status"].get("certificate"), None);
    assert!(condition["lastUpdateTime"].is_string() && condition["lastTransitionTime"].is_string());
    stored["status"]["conditions"][0]["reason"] = json!("other");
    stored["status"]["certificate"] = json!(certificate());
    let answer = server.put(&format!("{PATH}/r/status"), &stored).await;
    assert_eq!(answer.code, 200, "{}", answer.message());
    let mut stored = answer.json();
    assert_eq!(stored["status"]["conditions"], json!([condition]));
    stored["status"] = json!({"certificate": certificate()});
    let answer = server.put(&format!("{PATH}/r/status"), &stored).await;
    assert_eq!(
        answer.message(),
        "CertificateSigningRequest.certificates.k8s.io \"r\" is invalid: [status.conditions: Forbidden: updates may not remove a condition of type \"Approved\", status.certificate: Forbidden: updates may not modify existing certificate content]"
    );
}

#[tokio::test]
async fn only_who_may_approves_and_signs() {
    let server = server("example.com/*").await;
    let asked = request(&pem("devs"), CLIENT, &["client auth"]);
    let mut stored = server.post(PATH, &asked).await.json();
    stored["status"] = json!({"conditions": [{"type": "Approved", "status": "True"}]});
    let answer = server.put(&format!("{PATH}/r/approval"), &stored).await;
    assert_eq!(
        (answer.code.as_u16(), answer.message()),
        (
            403,
            format!(
                "certificatesigningrequests.certificates.k8s.io \"r\" is forbidden: user not permitted to approve requests with signerName \"{CLIENT}\""
            )
        )
    );
    stored["status"] = json!({"certificate": certificate()});
    let answer = server.put(&format!("{PATH}/r/status"), &stored).await;
    assert_eq!(
        (answer.code.as_u16(), answer.message()),
        (
            403,
            format!(
                "certificatesigningrequests.certificates.k8s.io \"r\" is forbidden: user not permitted to sign requests with signerName \"{CLIENT}\""
            )
        )
    );
    stored["status"] = json!({});
    let answer = server.put(&format!("{PATH}/r/status"), &stored).await;
    assert_eq!(answer.code, 200, "{}", answer.message());
}

#[tokio::test]
async fn what_is_wrong_with_requests() {
    let server = server("kubernetes.io/*").await;
    let good = pem("devs");
    let mut short = request(
        &good,
        "kubernetes.io/legacy-unknown",
        &["client auth", "client auth"],
    );
    short["spec"]["expirationSeconds"] = json!(5);
    let cases = [
        (
            request("junk\n", "foo", &[]),
            "[spec.request: Invalid value: \"anVuawo=\": PEM block type must be CERTIFICATE REQUEST, spec.usages: Required value, spec.signerName: Invalid value: \"foo\": must be a fully qualified domain and path of the form 'example.com/signer-name']",
        ),
        (
            short,
            "[spec.usages[1]: Duplicate value: \"client auth\", spec.signerName: Invalid value: \"kubernetes.io/legacy-unknown\": the legacy signerName is not allowed via this API version, spec.expirationSeconds: Invalid value: 5: may not specify a duration less than 600 seconds (10 minutes)]",
        ),
        (
            request(&good, "a/x", &["client auth"]),
            "spec.signerName: Invalid value: \"a\": should be a domain with at least two segments separated by dots",
        ),
        (
            request(&good, "a.b/X", &["client auth"]),
            "spec.signerName: Invalid value: \"X\": validating label \"X\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        ),
        (
            request(&good, CLIENT, &["x"]),
            "spec.usages[0]: Unsupported value: \"x\": supported values: \"any\", \"cert sign\", \"client auth\", \"code signing\", \"content commitment\", \"crl sign\", \"data encipherment\", \"decipher only\", \"digital signature\", \"email protection\", \"encipher only\", \"ipsec end system\", \"ipsec tunnel\", \"ipsec user\", \"key agreement\", \"key encipherment\", \"microsoft sgc\", \"netscape sgc\", \"ocsp signing\", \"s/mime\", \"server auth\", \"signing\", \"timestamping\"",
        ),
    ];
    for (object, wanted) in cases {
        let answer = server.post(PATH, &object).await;
        let wanted =
            format!("CertificateSigningRequest.certificates.k8s.io \"r\" is invalid: {wanted}");
        assert_eq!((answer.code.as_u16(), answer.message()), (422, wanted));
    }
    let answer = server
        .post(
            PATH,
            &request(&pem("system:masters"), CLIENT, &["client auth"]),
        )
        .await;
    assert_eq!(
        (answer.code.as_u16(), answer.message()),
        (
            403,
            format!(
                "certificatesigningrequests.certificates.k8s.io \"r\" is forbidden: use of {CLIENT} signer with system:masters group is not allowed"
            )
        )
    );
}

#[tokio::test]
async fn what_is_wrong_with_answers() {
    let server = server("kubernetes.io/*").await;
    let asked = request(&pem("devs"), CLIENT, &["client auth"]);
    let mut stored = server.post(PATH, &asked).await.json();
    let cases = [
        (
            "approval",
            json!({"conditions": [
                {"type": "Approved", "status": "False"}, {"type": "Denied", "status": "True"},
                {"type": "", "status": ""}, {"type": "x", "status": "y"}, {"type": "x", "status": "True"},
            ]}),
            "[status.conditions[0].status: Unsupported value: \"False\": supported values: \"True\", status.conditions: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive, status.conditions[2].type: Required value, status.conditions[2].status: Required value, status.conditions[3].status: Unsupported value: \"y\": supported values: \"False\", \"True\", \"Unknown\", status.conditions[4].type: Duplicate value: \"x\"]",
        ),
        (
            "status",
            json!({
                "conditions": [{"type": "Approved", "status": "True"}],
                "certificate": STANDARD.encode(pem("devs")),
            }),
            "[status.certificate: Invalid value: \"<certificate data>\": only CERTIFICATE PEM blocks are allowed, found \"CERTIFICATE REQUEST\", status.conditions: Forbidden: updates may not add a condition of type \"Approved\"]",
        ),
        (
            "status",
            json!({"certificate": "aGk="}),
            "status.certificate: Invalid value: \"<certificate data>\": must contain at least one CERTIFICATE PEM block",
        ),
    ];
    for (part, status, wanted) in cases {
        stored["status"] = status;
        let answer = server.put(&format!("{PATH}/r/{part}"), &stored).await;
        let wanted =
            format!("CertificateSigningRequest.certificates.k8s.io \"r\" is invalid: {wanted}");
        assert_eq!((answer.code.as_u16(), answer.message()), (422, wanted));
    }
}
