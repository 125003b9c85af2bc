//! `CertificateApproval`: who approves or denies a certificate may do so for its signer.

use std::sync::Arc;

use async_trait::async_trait;
use coracle_api::{Identity, Object};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

use super::{Admission, Attributes, Operation, typed};
use crate::{authz, authz::Authorizer, error::ApiError};

const GROUP: &str = "certificates.k8s.io";

/// The plugin.
pub struct CertificateApproval(pub Arc<dyn Authorizer>);

/// Whether the request is for this subresource of a CertificateSigningRequest.
pub(super) fn is_for(attributes: &Attributes<'_>, subresource: &str) -> bool {
    attributes.kind.group == GROUP
        && attributes.kind.resource == "certificatesigningrequests"
        && attributes.subresource == subresource
}

/// Whether the user may do this for the signer, or for all signers of its domain.
pub(super) async fn may(
    authorizer: &dyn Authorizer,
    user: &Identity,
    verb: &str,
    signer: &str,
) -> bool {
    let domain = signer.split('/').next().unwrap_or_default();
    for name in [signer, &format!("{domain}/*")] {
        let asked = authz::Attributes {
            version: "*",
            name,
            ..authz::Attributes::of_resource(user, verb, GROUP, "signers")
        };
        if authorizer.authorize(&asked).await.is_allowed() {
            return true;
        }
    }
    false
}

#[async_trait]
impl Admission for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Update && is_for(attributes, "approval")
    }

    async fn validate(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
        old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        // The signer that is stored counts: a new one in the body is not taken.
        let Some(old) = typed::<CertificateSigningRequest>(old) else {
            return Ok(());
        };
        let signer = &old.spec.signer_name;
        if may(&*self.0, attributes.user, "approve", signer).await {
            return Ok(());
        }
        let why = format!("user not permitted to approve requests with signerName {signer:?}");
        Err(attributes.forbidden(object, why))
    }
}
