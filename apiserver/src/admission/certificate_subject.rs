//! `CertificateSubjectRestriction`: no certificate makes its owner one of `system:masters`, whom no
//! role can restrain.

use async_trait::async_trait;
use coracle_api::{Object, certificates::CertificateRequest};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

use super::{Admission, Attributes, Operation, certificate_approval::is_for, typed};
use crate::{authn::MASTERS, error::ApiError};

const SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// The plugin.
pub struct CertificateSubjectRestriction;

#[async_trait]
impl Admission for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create && is_for(attributes, "")
    }

    async fn validate(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
        _old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        let Some(request) = typed::<CertificateSigningRequest>(object) else {
            return Ok(());
        };
        if request.spec.signer_name != SIGNER {
            return Ok(());
        }
        let asked = CertificateRequest::from_pem(&request.spec.request.0);
        let asked = asked.map_err(|error| {
            attributes.forbidden(object, format!("failed to parse CSR: {error}"))
        })?;
        if asked.organizations.iter().any(|group| group == MASTERS) {
            let why = format!("use of {SIGNER} signer with {MASTERS} group is not allowed");
            return Err(attributes.forbidden(object, why));
        }
        Ok(())
    }
}
