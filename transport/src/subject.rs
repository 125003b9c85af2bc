//! Whom a certificate names.

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The subject of a certificate, as far as it is of use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// Empty if there is none.
    pub common_name: String,
    pub organizations: Vec<String>,
    /// Seconds since the epoch after which the certificate is not valid any more.
    pub not_after: i64,
}

/// Reads the subject; `None` if the certificate cannot be parsed.
pub fn subject(certificate: &CertificateDer<'_>) -> Option<Subject> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let subject = certificate.subject();
    let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| {
        attribute.as_str().map(str::to_owned).ok()
    };
    Some(Subject {
        common_name: subject
            .iter_common_name()
            .last()
            .and_then(text)
            .unwrap_or_default(),
        organizations: subject.iter_organization().filter_map(text).collect(),
        not_after: certificate.validity().not_after.timestamp(),
    })
}
