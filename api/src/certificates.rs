//! `certificates.k8s.io`: one file per kind, one line per kind in [`kinds`].

mod certificate_signing_request;
mod pkcs10;
mod validation;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

pub use pkcs10::{CertificateRequest, RequestError};

use crate::kinds::{Kind, NameRule, READ_WRITE};

/// What the group serves.
pub(crate) fn kinds() -> Vec<Kind> {
    vec![
        Kind::cluster::<CertificateSigningRequest>("certificatesigningrequest")
            .short_names(&["csr"])
            .name(NameRule::PathSegment)
            .part("approval", READ_WRITE)
            .status(),
    ]
}
