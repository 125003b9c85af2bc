//! Certificates on request: who may have one without asking a person, who signs it, and when the
//! request goes.
//!
//! Enter at [`approver::run`], [`signer::run`] and [`cleaner::run`]. Upstream:
//! `pkg/controller/certificates`.

pub(crate) mod approver;
mod authority;
pub(crate) mod cleaner;
mod der;
pub(crate) mod signer;
#[cfg(test)]
mod tests;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

pub use authority::{Authority, AuthorityError, SigningAuthorities};

/// Whether the request has this condition; of those that count, there are only true ones.
fn has(request: &CertificateSigningRequest, kind: &str) -> bool {
    let status = request.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref());
    let mut conditions = conditions.unwrap_or_default().iter();
    conditions.any(|condition| condition.type_ == kind)
}

fn is_issued(request: &CertificateSigningRequest) -> bool {
    let status = request.status.as_ref();
    let certificate = status.and_then(|status| status.certificate.as_ref());
    certificate.is_some_and(|certificate| !certificate.0.is_empty())
}
