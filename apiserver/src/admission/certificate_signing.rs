//! `CertificateSigning`: who hands out a certificate, or says why not, may sign for its signer.

use std::sync::Arc;

use async_trait::async_trait;
use coracle_api::Object;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

use super::{
    Admission, Attributes, Operation,
    certificate_approval::{is_for, may},
    typed,
};
use crate::{authz::Authorizer, error::ApiError};

/// The plugin.
pub struct CertificateSigning(pub Arc<dyn Authorizer>);

#[async_trait]
impl Admission for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Update && is_for(attributes, "status")
    }

    async fn validate(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
        old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        let requests = typed::<CertificateSigningRequest>(object).zip(typed(old));
        let Some((new, old)): Option<(_, &CertificateSigningRequest)> = requests else {
            return Ok(());
        };
        if signed(new) == signed(old) {
            return Ok(());
        }
        let signer = &old.spec.signer_name;
        if may(&*self.0, attributes.user, "sign", signer).await {
            return Ok(());
        }
        let why = format!("user not permitted to sign requests with signerName {signer:?}");
        Err(attributes.forbidden(object, why))
    }
}

/// What only signers write.
fn signed(request: &CertificateSigningRequest) -> impl PartialEq + '_ {
    let status = request.status.as_ref();
    let certificate = status.and_then(|status| status.certificate.as_ref());
    let conditions = status.and_then(|status| status.conditions.as_deref());
    (
        certificate.map_or(&[] as &[u8], |certificate| &certificate.0),
        conditions.unwrap_or_default(),
    )
}
