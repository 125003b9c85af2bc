//! Kubelets get the certificates by which the API knows them without a person's approval, if roles
//! say so.
//!
//! Enter at [`run`]. Upstream: `pkg/controller/certificates/approver`.

use coracle_api::certificates::CertificateRequest;
use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition},
};
use kube::{Api, Client, api::PostParams};
use tokio_util::sync::CancellationToken;

use super::{has, is_issued};
use crate::{
    Context, Error,
    changes::{self, Pace},
    error,
    objects::Objects,
    work::{Done, Key},
};

const NAME: &str = "certificatesigningrequest-approving-controller";
const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";

/// Runs the approver.
pub(crate) async fn run(context: Context, shutdown: CancellationToken) -> Result<(), Error> {
    let requests: Objects<CertificateSigningRequest> = context.objects();
    let pace = Pace {
        name: NAME,
        queue: "certificate",
        workers: 5,
    };
    let sync = |key| sync(&context.client, &requests, key);
    changes::follow(pace, &requests.cache, &shutdown, changes::applied, sync).await;
    Ok(())
}

async fn sync(
    client: &Client,
    requests: &Objects<CertificateSigningRequest>,
    key: Key,
) -> Result<Done, Error> {
    let Some(request) = requests.get("", &key.name) else {
        return Ok(Done::Settled);
    };
    if is_issued(&request) || has(&request, "Approved") || has(&request, "Denied") {
        return Ok(Done::Settled);
    }
    let grounds = grounds(&request)?;
    for ground in &grounds {
        if is_allowed(client, &request, ground.subresource).await? {
            let approved = approved(&request, ground.message);
            let written = requests.replace_subresource("approval", &approved).await;
            error::optional(written)?;
            return Ok(Done::Settled);
        }
    }
    // A role may still come.
    Ok(if grounds.is_empty() {
        Done::Settled
    } else {
        Done::Retry
    })
}

/// Why a request may be approved, if the requester may create this subresource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ground {
    subresource: &'static str,
    message: &'static str,
}

fn grounds(request: &CertificateSigningRequest) -> Result<Vec<Ground>, Error> {
    let spec = &request.spec;
    if spec.signer_name != KUBELET_CLIENT {
        return Ok(Vec::new());
    }
    let asked = CertificateRequest::from_pem(&spec.request.0)
        .map_err(|error| Error::Refused(format!("unable to parse csr: {error}")))?;
    let usages = spec.usages.as_deref().unwrap_or_default();
    if asked.check_kubelet_client(usages).is_err() {
        return Ok(Vec::new());
    }
    let own = spec.username.as_deref() == Some(asked.common_name.as_str());
    let renewal = own.then_some(Ground {
        subresource: "selfnodeclient",
        message: "Auto approving self kubelet client certificate after SubjectAccessReview.",
    });
    let first = Ground {
        subresource: "nodeclient",
        message: "Auto approving kubelet client certificate after SubjectAccessReview.",
    };
    Ok(renewal.into_iter().chain([first]).collect())
}

async fn is_allowed(
    client: &Client,
    request: &CertificateSigningRequest,
    subresource: &str,
) -> Result<bool, Error> {
    let spec = &request.spec;
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: spec.username.clone(),
            uid: spec.uid.clone(),
            groups: spec.groups.clone(),
            extra: spec.extra.clone(),
            resource_attributes: Some(ResourceAttributes {
                group: Some("certificates.k8s.io".to_owned()),
                resource: Some("certificatesigningrequests".to_owned()),
                subresource: Some(subresource.to_owned()),
                verb: Some("create".to_owned()),
                version: Some("*".to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let api: Api<SubjectAccessReview> = Api::all(client.clone());
    let answer = Box::pin(api.create(&PostParams::default(), &review)).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

fn approved(request: &CertificateSigningRequest, message: &str) -> CertificateSigningRequest {
    let mut request = request.clone();
    let status = request.status.get_or_insert_default();
    let conditions = status.conditions.get_or_insert_default();
    conditions.push(CertificateSigningRequestCondition {
        type_: "Approved".to_owned(),
        status: "True".to_owned(),
        reason: Some("AutoApproved".to_owned()),
        message: Some(message.to_owned()),
        ..CertificateSigningRequestCondition::default()
    });
    request
}
