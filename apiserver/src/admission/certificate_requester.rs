//! Fills in who asks for a certificate. Upstream has this in its storage and cannot switch it off.

use async_trait::async_trait;
use coracle_api::Object;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

use super::{Admission, Attributes, Operation, certificate_approval::is_for, typed_mut};
use crate::error::ApiError;

/// Sets `spec.username` and what goes with it to the user of the request.
pub struct CertificateRequester;

#[async_trait]
impl Admission for CertificateRequester {
    fn name(&self) -> &'static str {
        "CertificateRequester"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create && is_for(attributes, "")
    }

    async fn admit(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&mut dyn Object>,
        _old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        if let Some(request) = typed_mut::<CertificateSigningRequest>(object) {
            let (user, spec) = (attributes.user, &mut request.spec);
            let given = |text: &String| (!text.is_empty()).then(|| text.clone());
            spec.username = given(&user.user);
            spec.uid = given(&user.uid);
            spec.groups = (!user.groups.is_empty()).then(|| user.groups.clone());
            spec.extra = (!user.extra.is_empty()).then(|| user.extra.clone());
        }
        Ok(())
    }
}
