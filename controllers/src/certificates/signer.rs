//! The cluster's signers: an approved request gets its certificate, or the reason why not.
//!
//! Enter at [`run`]. A signer without an authority leaves its requests to somebody else. Upstream:
//! `pkg/controller/certificates/signer`.

use std::time::Duration;

use coracle_api::certificates::CertificateRequest;
use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition},
    apimachinery::pkg::apis::meta::v1::Time,
};
use tokio_util::sync::CancellationToken;

use super::{
    authority::{Authority, SigningAuthorities, Terms},
    has, is_issued,
};
use crate::{
    Context, Error,
    changes::{self, Pace},
    objects::Objects,
    work::{Done, Key},
};

const NAME: &str = "certificatesigningrequest-signing-controller";
/// As upstream's `--cluster-signing-duration`: nobody gets more.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
const SHORTEST: Duration = Duration::from_secs(10 * 60);

/// Runs the signers.
pub(crate) async fn run(context: Context, shutdown: CancellationToken) -> Result<(), Error> {
    let requests: Objects<CertificateSigningRequest> = context.objects();
    let authorities = &context.config.authorities;
    let pace = Pace {
        name: NAME,
        queue: "certificate",
        workers: 5,
    };
    let sync = |key| sync(authorities, &requests, key);
    changes::follow(pace, &requests.cache, &shutdown, changes::applied, sync).await;
    Ok(())
}

async fn sync(
    authorities: &SigningAuthorities,
    requests: &Objects<CertificateSigningRequest>,
    key: Key,
) -> Result<Done, Error> {
    let Some(request) = requests.get("", &key.name) else {
        return Ok(Done::Settled);
    };
    let answered = is_issued(&request) || has(&request, "Failed") || has(&request, "Denied");
    if answered || !has(&request, "Approved") {
        return Ok(Done::Settled);
    }
    let Some(authority) = authorities.of(&request.spec.signer_name) else {
        return Ok(Done::Settled);
    };
    let answer = answer(authority, &request, Timestamp::now())?;
    requests.replace_status(&answer).await?;
    Ok(Done::Settled)
}

/// The request with its certificate, or with the condition that says what is wrong with it.
pub(super) fn answer(
    authority: &Authority,
    request: &CertificateSigningRequest,
    now: Timestamp,
) -> Result<CertificateSigningRequest, Error> {
    let spec = &request.spec;
    let asked = CertificateRequest::from_pem(&spec.request.0)
        .map_err(|error| Error::Refused(format!("unable to parse csr: {error}")))?;
    let usages = spec.usages.as_deref().unwrap_or_default();
    let mut answered = request.clone();
    let status = answered.status.get_or_insert_default();
    if let Err(why) = check(&spec.signer_name, &asked, usages) {
        let conditions = status.conditions.get_or_insert_default();
        conditions.push(CertificateSigningRequestCondition {
            type_: "Failed".to_owned(),
            status: "True".to_owned(),
            reason: Some("SignerValidationFailure".to_owned()),
            message: Some(why),
            last_update_time: Some(Time(now)),
            ..CertificateSigningRequestCondition::default()
        });
        return Ok(answered);
    }
    let terms = Terms {
        usages,
        lifetime: lifetime(spec.expiration_seconds),
        now,
    };
    let certificate = authority
        .sign(&asked, &terms)
        .map_err(|error| Error::Refused(format!("error auto signing csr: {error}")))?;
    status.certificate = Some(ByteString(certificate.into_bytes()));
    Ok(answered)
}

fn lifetime(asked_seconds: Option<i32>) -> Duration {
    let asked = asked_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    asked.map_or(LONGEST, |seconds| {
        Duration::from_secs(seconds).clamp(SHORTEST, LONGEST)
    })
}

fn check(signer: &str, asked: &CertificateRequest, usages: &[String]) -> Result<(), String> {
    match signer {
        "kubernetes.io/kubelet-serving" => asked.check_kubelet_serving(usages),
        "kubernetes.io/kube-apiserver-client-kubelet" => asked.check_kubelet_client(usages),
        "kubernetes.io/kube-apiserver-client" => check_client_usages(usages),
        _ => Ok(()),
    }
}

fn check_client_usages(usages: &[String]) -> Result<(), String> {
    const PURPOSE: &str = "client auth";
    let known = ["digital signature", "key encipherment", PURPOSE];
    if let Some(usage) = usages.iter().find(|usage| !known.contains(&usage.as_str())) {
        return Err(format!("invalid usage for client certificate: {usage}"));
    }
    if usages.iter().any(|usage| usage == PURPOSE) {
        Ok(())
    } else {
        Err(format!(
            "missing required usage for client certificate: {PURPOSE}"
        ))
    }
}
