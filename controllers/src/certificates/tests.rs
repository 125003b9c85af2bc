//! Requests, and the certificates that are made of them.

use std::time::Duration;

use coracle_api::certificates::CertificateRequest;
use jiff::Timestamp;
use k8s_openapi::{ByteString, api::certificates::v1::CertificateSigningRequest};
use rcgen::{BasicConstraints, CertificateParams, DnType, DnValue, IsCa, KeyPair, SanType};
use serde_json::json;
use x509_parser::prelude::*;

use super::{
    authority::{Authority, Terms},
    signer,
};

const NOW: &str = "2026-01-01T00:00:00Z";

struct Ca {
    authority: Authority,
    pem: String,
}

fn ca() -> Ca {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, "test-ca");
    params.not_after = rcgen::date_time_ymd(2030, 1, 1);
    let pem = params.self_signed(&key).expect("a certificate").pem();
    let authority = Authority::from_pem(&pem, &key.serialize_pem()).expect("an authority");
    Ca { authority, pem }
}

fn request(common_name: &str, group: &str, names: &[SanType]) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let subject = &mut params.distinguished_name;
    if !group.is_empty() {
        subject.push(
            DnType::OrganizationName,
            DnValue::Utf8String(group.to_owned()),
        );
    }
    subject.push(DnType::CommonName, common_name);
    params.subject_alt_names = names.to_vec();
    let key = KeyPair::generate().expect("a key");
    let request = params.serialize_request(&key).expect("a request");
    request.pem().expect("PEM")
}

fn signing_request(
    pem: &str,
    signer: &str,
    usages: &[&str],
    seconds: Option<i32>,
) -> CertificateSigningRequest {
    let mut request: CertificateSigningRequest = serde_json::from_value(json!({
        "metadata": {"name": "r"},
        "spec": {"request": "", "signerName": signer, "usages": usages, "expirationSeconds": seconds},
        "status": {"conditions": [{"type": "Approved", "status": "True"}]},
    }))
    .expect("a request");
    request.spec.request = ByteString(pem.as_bytes().to_vec());
    request
}

fn answer(ca: &Ca, request: &CertificateSigningRequest) -> Result<String, String> {
    let now: Timestamp = NOW.parse().expect("a time");
    let answer = signer::answer(&ca.authority, request, now).map_err(|error| error.to_string())?;
    let status = answer.status.expect("a status");
    match status.certificate {
        Some(certificate) => Ok(String::from_utf8(certificate.0).expect("text")),
        None => {
            let condition = status
                .conditions
                .and_then(|mut all| all.pop())
                .expect("a condition");
            assert_eq!(condition.type_, "Failed");
            assert_eq!(condition.reason.as_deref(), Some("SignerValidationFailure"));
            Err(condition.message.unwrap_or_default())
        }
    }
}

#[test]
fn a_certificate_says_what_was_asked_for_and_granted() {
    let ca = ca();
    let names = [
        SanType::DnsName("n1".try_into().expect("a name")),
        SanType::IpAddress("10.0.0.1".parse().expect("an address")),
    ];
    let pem = request("system:node:n1", "system:nodes", &names);
    let usages = ["digital signature", "key encipherment", "server auth"];
    let request = signing_request(&pem, "kubernetes.io/kubelet-serving", &usages, None);
    let signed = answer(&ca, &request).expect("a certificate");
    let (_, block) = parse_x509_pem(signed.as_bytes()).expect("PEM");
    let certificate = block.parse_x509().expect("a certificate");
    let (_, ca_block) = parse_x509_pem(ca.pem.as_bytes()).expect("PEM");
    let issuer = ca_block.parse_x509().expect("a certificate");
    assert!(
        certificate
            .verify_signature(Some(issuer.public_key()))
            .is_ok()
    );
    assert_eq!(certificate.issuer(), issuer.subject());
    let asked = CertificateRequest::from_pem(pem.as_bytes()).expect("a request");
    assert_eq!(certificate.subject().as_raw(), asked.subject);
    assert_eq!(certificate.public_key().raw, asked.public_key);
    let validity = certificate.validity();
    let now: Timestamp = NOW.parse().expect("a time");
    assert_eq!(validity.not_before.timestamp(), now.as_second() - 300);
    assert_eq!(
        validity.not_after.timestamp(),
        now.as_second() + 365 * 24 * 3600 - 300
    );
    let usage = certificate.key_usage().expect("usages").expect("a usage");
    assert!(usage.value.digital_signature() && usage.value.key_encipherment());
    assert!(!usage.value.key_cert_sign() && usage.critical);
    let purposes = certificate
        .extended_key_usage()
        .expect("purposes")
        .expect("a purpose");
    assert!(purposes.value.server_auth && !purposes.value.client_auth);
    assert!(!certificate.is_ca());
    let names = certificate
        .subject_alternative_name()
        .expect("names")
        .expect("a name");
    assert_eq!(
        names.value.general_names,
        [
            GeneralName::DNSName("n1"),
            GeneralName::IPAddress(&[10, 0, 0, 1])
        ]
    );
}

#[test]
fn a_certificate_lives_as_long_as_asked_within_limits() {
    let ca = ca();
    let pem = request("jane", "", &[]);
    let now: Timestamp = NOW.parse().expect("a time");
    for (seconds, wanted) in [
        (Some(3600), 3600),
        (Some(1), 600),
        (Some(10 * 3600), 10 * 3600 - 300),
        (Some(i32::MAX), 365 * 24 * 3600 - 300),
    ] {
        let request = signing_request(
            &pem,
            "kubernetes.io/kube-apiserver-client",
            &["client auth"],
            seconds,
        );
        let signed = answer(&ca, &request).expect("a certificate");
        let (_, block) = parse_x509_pem(signed.as_bytes()).expect("PEM");
        let certificate = block.parse_x509().expect("a certificate");
        let end = certificate.validity().not_after.timestamp();
        assert_eq!(end - now.as_second(), wanted, "{seconds:?}");
    }
    let asked = CertificateRequest::from_pem(pem.as_bytes()).expect("a request");
    let late: Timestamp = "2030-06-01T00:00:00Z".parse().expect("a time");
    let terms = Terms {
        usages: &[],
        lifetime: Duration::from_secs(600),
        now: late,
    };
    let refused = ca
        .authority
        .sign(&asked, &terms)
        .expect_err("it has expired");
    assert_eq!(
        refused.to_string(),
        "the signer has expired: NotAfter=2030-01-01T00:00:00Z"
    );
}

#[test]
fn signers_refuse_what_is_not_theirs_to_sign() {
    const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
    const KUBELET: &str = "kubernetes.io/kube-apiserver-client-kubelet";
    const SERVING: &str = "kubernetes.io/kubelet-serving";
    let ca = ca();
    let dns = [SanType::DnsName("n1".try_into().expect("a name"))];
    let uri = [
        dns[0].clone(),
        SanType::URI("http://a".try_into().expect("a URI")),
    ];
    let node = request("system:node:n1", "system:nodes", &[]);
    let server = request("system:node:n1", "system:nodes", &dns);
    let client_usages = ["digital signature", "client auth"];
    let server_usages = ["digital signature", "server auth", "key encipherment"];
    let cases = [
        (CLIENT, &node, &["client auth"][..], None),
        (
            CLIENT,
            &node,
            &["server auth"],
            Some("invalid usage for client certificate: server auth"),
        ),
        (
            CLIENT,
            &node,
            &["digital signature"],
            Some("missing required usage for client certificate: client auth"),
        ),
        (KUBELET, &node, &client_usages, None),
        (
            KUBELET,
            &server,
            &client_usages,
            Some("DNS subjectAltNames are not allowed"),
        ),
        (
            KUBELET,
            &node,
            &["client auth"],
            Some("usages did not match [client auth digital signature key encipherment]"),
        ),
        (
            KUBELET,
            &request("system:node:n1", "devs", &[]),
            &client_usages,
            Some("subject organization is not system:nodes"),
        ),
        (
            KUBELET,
            &request("n1", "system:nodes", &[]),
            &client_usages,
            Some("subject common name does not begin with system:node:"),
        ),
        (SERVING, &server, &server_usages, None),
        (
            SERVING,
            &node,
            &server_usages,
            Some("DNS or IP subjectAltName is required"),
        ),
        (
            SERVING,
            &request("system:node:n1", "system:nodes", &uri),
            &server_usages,
            Some("URI subjectAltNames are not allowed"),
        ),
        (
            SERVING,
            &server,
            &client_usages,
            Some("usages did not match [digital signature key encipherment server auth]"),
        ),
        ("kubernetes.io/legacy-unknown", &node, &["any"], None),
    ];
    for (signer, pem, usages, wanted) in cases {
        let answer = answer(&ca, &signing_request(pem, signer, usages, None));
        assert_eq!(answer.err().as_deref(), wanted, "{signer} {usages:?}");
    }
}
