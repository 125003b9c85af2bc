//! What is wrong with a CertificateSigningRequest.
//!
//! Enter at [`of_new`] and [`of_change`]. What was wrong before may stay so. Upstream:
//! `pkg/apis/certificates/validation`.

use std::collections::BTreeSet;

use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition as Condition,
};
use x509_parser::{parse_x509_certificate, pem::Pem};

use super::{CertificateRequest, certificate_signing_request::conditions};
use crate::{
    field::{ErrorList, Path, value_of},
    internal, names,
};

const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
const MIN_SECONDS: i32 = 600;
const MAX_SUBDOMAIN: usize = 253;

/// Every usage, in alphabetical order.
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// What an update may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    Metadata,
    /// `approval`
    Decision,
    /// `status`
    Certificate,
}

pub fn of_new(request: &CertificateSigningRequest) -> ErrorList {
    of_object(request, None)
}

pub fn of_change(
    new: &CertificateSigningRequest,
    old: &CertificateSigningRequest,
    writes: Writes,
) -> ErrorList {
    let mut errors = of_object(new, Some(old));
    let path = Path::new("status").child("conditions");
    let of_kind = |request, kind| -> Vec<&Condition> {
        let all: &[Condition] = conditions(request);
        all.iter().filter(|found| found.type_ == kind).collect()
    };
    for kind in ["Approved", "Denied", "Failed"] {
        if of_kind(new, kind).len() < of_kind(old, kind).len() {
            let why = format!("updates may not remove a condition of type {kind:?}");
            errors.push(path.forbidden(why));
        }
    }
    if writes != Writes::Decision {
        for kind in ["Approved", "Denied"] {
            let (before, now) = (of_kind(old, kind), of_kind(new, kind));
            if now.len() > before.len() {
                let why = format!("updates may not add a condition of type {kind:?}");
                errors.push(path.forbidden(why));
            } else if now.len() == before.len() && now != before {
                let change =
                    internal::difference("[]CertificateSigningRequestCondition", &before, &now);
                let why = format!("updates may not modify a condition of type {kind:?}\n{change}");
                errors.push(path.forbidden(why));
            }
        }
    }
    if certificate(new) != certificate(old) {
        let path = Path::new("status").child("certificate");
        if writes != Writes::Certificate {
            errors.push(path.forbidden("updates may not set certificate content"));
        } else if !certificate(old).is_empty() {
            errors.push(path.forbidden("updates may not modify existing certificate content"));
        }
    }
    errors
}

fn of_object(
    new: &CertificateSigningRequest,
    old: Option<&CertificateSigningRequest>,
) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("spec");
    let spec = &new.spec;
    if let Err(error) = CertificateRequest::from_pem(&spec.request.0) {
        let given = value_of(&spec.request);
        errors.push(path.child("request").invalid(given, error.to_string()));
    }
    usages(new, old, &path.child("usages"), &mut errors);
    let signer = path.child("signerName");
    let was_legacy = old.is_some_and(|old| old.spec.signer_name == LEGACY_SIGNER);
    if spec.signer_name == LEGACY_SIGNER && !was_legacy {
        let why = "the legacy signerName is not allowed via this API version";
        errors.push(signer.invalid(LEGACY_SIGNER, why));
    } else {
        signer_name(&spec.signer_name, &signer, &mut errors);
    }
    if let Some(seconds) = spec.expiration_seconds.filter(|&given| given < MIN_SECONDS) {
        let why = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.push(path.child("expirationSeconds").invalid(seconds, why));
    }
    check_conditions(new, old, &mut errors);
    let same = old.is_some_and(|old| certificate(old) == certificate(new));
    let was_wrong = old.is_some_and(|old| check_certificate(certificate(old)).is_err());
    if !same
        && !was_wrong
        && let Err(why) = check_certificate(certificate(new))
    {
        let path = Path::new("status").child("certificate");
        errors.push(path.invalid("<certificate data>", why));
    }
    errors
}

fn certificate(request: &CertificateSigningRequest) -> &[u8] {
    let status = request.status.as_ref();
    let certificate = status.and_then(|status| status.certificate.as_ref());
    certificate.map_or(&[], |certificate| certificate.0.as_slice())
}

fn usages(
    new: &CertificateSigningRequest,
    old: Option<&CertificateSigningRequest>,
    path: &Path,
    errors: &mut ErrorList,
) {
    fn of(request: &CertificateSigningRequest) -> &[String] {
        request.spec.usages.as_deref().unwrap_or_default()
    }
    let is_known = |usage: &str| USAGES.contains(&usage);
    let had_unknown = old.is_some_and(|old| of(old).iter().any(|usage| !is_known(usage)));
    let had_duplicates =
        old.is_some_and(|old| of(old).iter().collect::<BTreeSet<_>>().len() != of(old).len());
    let usages = of(new);
    if usages.is_empty() {
        errors.push(path.required(""));
    }
    for (index, usage) in usages.iter().enumerate() {
        if !had_unknown && !is_known(usage) {
            errors.push(path.index(index).not_supported(usage.as_str(), &USAGES));
        }
    }
    for (index, usage) in usages.iter().enumerate() {
        if !had_duplicates && usages[..index].contains(usage) {
            errors.push(path.index(index).duplicate(usage.as_str()));
        }
    }
}

/// `domain/path`, each of which is made of labels.
fn signer_name(name: &str, path: &Path, errors: &mut ErrorList) {
    if name.is_empty() {
        errors.push(path.required(""));
        return;
    }
    let Some((domain, rest)) = name.split_once('/').filter(|(_, rest)| !rest.contains('/')) else {
        let why = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        errors.push(path.invalid(name, why));
        return;
    };
    if domain.len() > MAX_SUBDOMAIN {
        errors.push(path.too_long(MAX_SUBDOMAIN));
    }
    labels_of(domain, names::dns1123_label, path, errors);
    if !domain.contains('.') {
        let why = "should be a domain with at least two segments separated by dots";
        errors.push(path.invalid(domain, why));
    }
    labels_of(rest, names::dns1123_subdomain, path, errors);
    // A namespace, a name and the dots between them.
    let longest = MAX_SUBDOMAIN + MAX_SUBDOMAIN + 2 + 63;
    if name.len() > longest {
        errors.push(path.too_long(longest));
    }
}

/// What is wrong with the first wrong label of `part`.
fn labels_of(part: &str, check: fn(&str) -> Vec<String>, path: &Path, errors: &mut ErrorList) {
    let wrong = part.split('.').find(|label| !check(label).is_empty());
    for (label, why) in wrong.iter().flat_map(|&label| {
        let reasons = check(label).into_iter();
        reasons.map(move |why| (label, why))
    }) {
        errors.push(path.invalid(part, format!("validating label {label:?}: {why}")));
    }
}

fn check_conditions(
    new: &CertificateSigningRequest,
    old: Option<&CertificateSigningRequest>,
    errors: &mut ErrorList,
) {
    let path = Path::new("status").child("conditions");
    let before = old.map(conditions).unwrap_or_default();
    let has = |all: &[Condition], kind: &str| all.iter().any(|found| found.type_ == kind);
    let was_both = has(before, "Approved") && has(before, "Denied");
    let had_empty = has(before, "");
    let types: BTreeSet<&str> = before.iter().map(|found| found.type_.as_str()).collect();
    let had_duplicates = types.len() != before.len();
    let given = conditions(new);
    for (index, condition) in given.iter().enumerate() {
        let (path, earlier) = (path.index(index), &given[..index]);
        let kind = condition.type_.as_str();
        if kind.is_empty() && !had_empty {
            errors.push(path.child("type").required(""));
        }
        let allowed: &[&str] = match kind {
            "Approved" | "Denied" | "Failed" => &["True"],
            _ => &["False", "True", "Unknown"],
        };
        let status = condition.status.as_str();
        if status.is_empty() {
            errors.push(path.child("status").required(""));
        } else if !allowed.contains(&status) {
            errors.push(path.child("status").not_supported(status, allowed));
        }
        let opposite = match kind {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "",
        };
        if !was_both && !opposite.is_empty() && has(earlier, opposite) {
            let why = "Approved and Denied conditions are mutually exclusive";
            let path = Path::new("status").child("conditions");
            errors.push(path.invalid(kind, why));
        }
        if !had_duplicates && has(earlier, kind) {
            errors.push(path.child("type").duplicate(kind));
        }
    }
}

/// Nothing, or PEM blocks of certificates.
fn check_certificate(pem: &[u8]) -> Result<(), String> {
    if pem.is_empty() {
        return Ok(());
    }
    let mut blocks = 0;
    for block in Pem::iter_from_buffer(pem).map_while(Result::ok) {
        if block.label != "CERTIFICATE" {
            return Err(format!(
                "only CERTIFICATE PEM blocks are allowed, found {:?}",
                block.label
            ));
        }
        if block.contents.is_empty() {
            return Err("found CERTIFICATE PEM block containing 0 certificates".to_owned());
        }
        parse_x509_certificate(&block.contents).map_err(|error| error.to_string())?;
        blocks += 1;
    }
    if blocks == 0 {
        return Err("must contain at least one CERTIFICATE PEM block".to_owned());
    }
    Ok(())
}
