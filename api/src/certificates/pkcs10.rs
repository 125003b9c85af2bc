//! A request for a certificate (PKCS#10), as far as the API looks into it.
//!
//! Enter at [`CertificateRequest::from_pem`]. Upstream: `pkg/apis/certificates/helpers.go`.

use std::net::IpAddr;

use x509_parser::{
    certification_request::X509CertificationRequest,
    extensions::{GeneralName, ParsedExtension},
    pem::Pem,
    prelude::FromDer as _,
};

/// What `spec.request` of a CertificateSigningRequest says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateRequest {
    /// Empty if there is none.
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    pub emails: Vec<String>,
    pub uris: Vec<String>,
    /// The subject, in DER.
    pub subject: Vec<u8>,
    /// The `SubjectPublicKeyInfo`, in DER.
    pub public_key: Vec<u8>,
}

/// Why the request cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("PEM block type must be CERTIFICATE REQUEST")]
    NotPem,
    #[error("{0}")]
    Malformed(String),
    #[error("x509: signature does not match the public key: {0}")]
    Signature(String),
}

impl CertificateRequest {
    /// Reads the first PEM block.
    ///
    /// # Errors
    /// When it is no request, or not signed by the key that it is about.
    pub fn from_pem(pem: &[u8]) -> Result<Self, RequestError> {
        let block = Pem::iter_from_buffer(pem)
            .next()
            .and_then(Result::ok)
            .filter(|block| block.label == "CERTIFICATE REQUEST")
            .ok_or(RequestError::NotPem)?;
        let malformed = |error: &dyn std::fmt::Display| RequestError::Malformed(error.to_string());
        let (rest, request) = X509CertificationRequest::from_der(&block.contents)
            .map_err(|error| malformed(&error))?;
        if !rest.is_empty() {
            return Err(RequestError::Malformed(
                "asn1: syntax error: trailing data".to_owned(),
            ));
        }
        request
            .verify_signature()
            .map_err(|error| RequestError::Signature(error.to_string()))?;
        let info = &request.certification_request_info;
        let mut read = CertificateRequest {
            subject: info.subject.as_raw().to_vec(),
            public_key: info.subject_pki.raw.to_vec(),
            ..CertificateRequest::default()
        };
        // The last one counts, as in Go.
        for name in info.subject.iter_common_name() {
            let name = name.as_str().map_err(|error| malformed(&error))?;
            name.clone_into(&mut read.common_name);
        }
        for name in info.subject.iter_organization() {
            let name = name.as_str().map_err(|error| malformed(&error))?;
            read.organizations.push(name.to_owned());
        }
        for extension in request.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension {
                names.general_names.iter().for_each(|name| read.add(name));
            }
        }
        Ok(read)
    }

    fn add(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(name) => self.dns_names.push((*name).to_owned()),
            GeneralName::RFC822Name(name) => self.emails.push((*name).to_owned()),
            GeneralName::URI(uri) => self.uris.push((*uri).to_owned()),
            GeneralName::IPAddress(bytes) => {
                let four = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                let sixteen = <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
                self.addresses.extend(four.or(sixteen));
            }
            // Nobody asks for others, and they are not granted.
            _ => {}
        }
    }

    /// What speaks against this being the certificate by which a kubelet serves.
    ///
    /// # Errors
    /// Upstream's sentence, for the condition of the request.
    pub fn check_kubelet_serving(&self, usages: &[String]) -> Result<(), String> {
        self.check_nodes_group()?;
        if self.dns_names.is_empty() && self.addresses.is_empty() {
            return Err("DNS or IP subjectAltName is required".to_owned());
        }
        none(&self.emails, "Email subjectAltNames are not allowed")?;
        none(&self.uris, "URI subjectAltNames are not allowed")?;
        check_usages(usages, "server auth")?;
        self.check_node_name()
    }

    /// What speaks against this being the certificate by which a kubelet is known to the API.
    ///
    /// # Errors
    /// Upstream's sentence, for the condition of the request.
    pub fn check_kubelet_client(&self, usages: &[String]) -> Result<(), String> {
        self.check_nodes_group()?;
        none(&self.dns_names, "DNS subjectAltNames are not allowed")?;
        none(&self.emails, "Email subjectAltNames are not allowed")?;
        none(&self.addresses, "IP subjectAltNames are not allowed")?;
        none(&self.uris, "URI subjectAltNames are not allowed")?;
        self.check_node_name()?;
        check_usages(usages, "client auth")
    }

    fn check_nodes_group(&self) -> Result<(), String> {
        if self.organizations == ["system:nodes"] {
            Ok(())
        } else {
            Err("subject organization is not system:nodes".to_owned())
        }
    }

    fn check_node_name(&self) -> Result<(), String> {
        if self.common_name.starts_with("system:node:") {
            Ok(())
        } else {
            Err("subject common name does not begin with system:node:".to_owned())
        }
    }
}

fn none<T>(names: &[T], why: &str) -> Result<(), String> {
    if names.is_empty() {
        Ok(())
    } else {
        Err(why.to_owned())
    }
}

/// Exactly these usages; keys that cannot encipher are not asked to.
fn check_usages(usages: &[String], purpose: &str) -> Result<(), String> {
    const ENCIPHER: &str = "key encipherment";
    let mut given: Vec<&str> = usages.iter().map(String::as_str).collect();
    given.sort_unstable();
    given.dedup();
    let mut wanted = ["digital signature", ENCIPHER, purpose];
    wanted.sort_unstable();
    let short = wanted.into_iter().filter(|&usage| usage != ENCIPHER);
    if given == wanted || given.iter().copied().eq(short) {
        Ok(())
    } else {
        Err(format!("usages did not match [{}]", wanted.join(" ")))
    }
}
