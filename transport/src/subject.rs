//! Whom a certificate names.

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The subject of a certificate, as far as it is of use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// Empty if there is none.
    pub common_name: String,
    pub organizations: Vec<String>,
    /// The attribute that Kubernetes has for it, 1.3.6.1.4.1.57683.2; mostly empty.
    pub uid: String,
    /// Seconds since the epoch after which the certificate is not valid any more.
    pub not_after: i64,
}

const UID: &str = "1.3.6.1.4.1.57683.2";

/// Reads the subject; `None` if the certificate cannot be read.
pub fn subject(certificate: &CertificateDer<'_>) -> Option<Subject> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let subject = certificate.subject();
    let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| {
        attribute.as_str().map(str::to_owned).ok()
    };
    let mut uids = subject
        .iter_attributes()
        .filter(|attribute| attribute.attr_type().to_id_string() == UID);
    let uid = match (uids.next(), uids.next()) {
        (None, _) => String::new(),
        (Some(uid), None) => text(uid).filter(|uid| !uid.is_empty())?,
        (Some(_), Some(_)) => return None,
    };
    Some(Subject {
        uid,
        common_name: subject
            .iter_common_name()
            .last()
            .and_then(text)
            .unwrap_or_default(),
        organizations: subject.iter_organization().filter_map(text).collect(),
        not_after: certificate.validity().not_after.timestamp(),
    })
}
