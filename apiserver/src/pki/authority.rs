//! A certificate authority: a key, its own certificate, and what it signs.

use std::path::Path;

use jiff::{Timestamp, ToSpan as _, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use x509_parser::{parse_x509_certificate, pem::parse_x509_pem};

use super::{LeafSpec, Pair, PkiError, Usage, files};

/// Authorities outlive the machines that they are made on: nobody may be there to renew them.
const AUTHORITY_YEARS: i16 = 30;
/// Certificates are renewed long before this, see [`super::Pki::renew`].
const LEAF_DAYS: i64 = 365;

/// A certificate authority of the cluster.
pub struct Authority {
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Loads `NAME.key` and `NAME.crt`, or makes what is missing.
    ///
    /// # Errors
    /// When a file cannot be read or written, or holds something else.
    pub fn open(dir: &Path, name: &str) -> Result<Self, PkiError> {
        let (key_path, path) = (
            dir.join(format!("{name}.key")),
            dir.join(format!("{name}.crt")),
        );
        let file_error = |path: &Path| {
            let path = path.to_owned();
            move |source| PkiError::File { path, source }
        };
        let key = match files::read(&key_path).map_err(file_error(&key_path))? {
            Some(pem) => {
                KeyPair::from_pem(&pem).map_err(|error| PkiError::invalid(&key_path, &error))?
            }
            None if path.exists() => return Err(PkiError::KeyMissing { path: key_path }),
            None => {
                let key = new_key()?;
                files::write(&key_path, key.serialize_pem().as_bytes())
                    .map_err(file_error(&key_path))?;
                key
            }
        };
        let certificate_pem = match files::read(&path).map_err(file_error(&path))? {
            Some(pem) => pem,
            None => {
                let pem = authority_params(name).self_signed(&key)?.pem();
                files::write(&path, pem.as_bytes()).map_err(file_error(&path))?;
                pem
            }
        };
        check_pair(&certificate_pem, &key).map_err(|error| PkiError::invalid(&path, &error))?;
        let issuer = Issuer::from_ca_cert_pem(&certificate_pem, key)
            .map_err(|error| PkiError::invalid(&path, &error))?;
        Ok(Authority {
            certificate_pem,
            issuer,
        })
    }

    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The authority's private key, as PEM.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A new key and a certificate for it.
    pub fn issue(&self, spec: &LeafSpec) -> Result<Pair, PkiError> {
        let key = new_key()?;
        let certificate = leaf_params(spec)?.signed_by(&key, &self.issuer)?;
        Ok(Pair {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        })
    }

    /// Whether the pair is what [`Authority::issue`] would make, with this much of its life left.
    pub fn vouches_for(&self, pair: &Pair, spec: &LeafSpec, days_left: i64) -> bool {
        let Ok(key) = KeyPair::from_pem(&pair.key_pem) else {
            return false;
        };
        check_pair(&pair.certificate_pem, &key).is_ok()
            && self
                .matches(&pair.certificate_pem, spec, days_left)
                .unwrap_or(false)
    }

    fn matches(
        &self,
        certificate_pem: &str,
        spec: &LeafSpec,
        days_left: i64,
    ) -> Result<bool, Box<dyn std::error::Error>> {
        let (_, pem) = parse_x509_pem(certificate_pem.as_bytes())?;
        let (_, certificate) = parse_x509_certificate(&pem.contents)?;
        let (_, own_pem) = parse_x509_pem(self.certificate_pem.as_bytes())?;
        let (_, own) = parse_x509_certificate(&own_pem.contents)?;
        let subject = |of: &x509_parser::x509::X509Name<'_>| {
            let common_name = of
                .iter_common_name()
                .next()
                .and_then(|name| name.as_str().ok());
            let organization = of
                .iter_organization()
                .next()
                .and_then(|name| name.as_str().ok());
            (
                common_name.map(str::to_owned),
                organization.map(str::to_owned),
            )
        };
        let wanted = (
            Some(spec.common_name.clone()),
            (!spec.organization.is_empty()).then(|| spec.organization.clone()),
        );
        let mut names: Vec<String> = Vec::new();
        if let Some(extension) = certificate.subject_alternative_name()? {
            for name in &extension.value.general_names {
                names.push(match name {
                    x509_parser::extensions::GeneralName::DNSName(name) => (*name).to_owned(),
                    x509_parser::extensions::GeneralName::IPAddress(bytes) => address(bytes),
                    other => other.to_string(),
                });
            }
        }
        let mut wanted_names = spec.names.clone();
        names.sort();
        wanted_names.sort();
        let needed_until = Timestamp::now().as_second() + days_left * 24 * 3600;
        Ok(certificate.verify_signature(Some(own.public_key())).is_ok()
            && subject(certificate.subject()) == wanted
            && names == wanted_names
            && certificate.validity().not_after.timestamp() > needed_until)
    }
}

fn address(bytes: &[u8]) -> String {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        std::net::Ipv4Addr::from(four).to_string()
    } else if let Ok(sixteen) = <[u8; 16]>::try_from(bytes) {
        std::net::Ipv6Addr::from(sixteen).to_string()
    } else {
        String::new()
    }
}

fn new_key() -> Result<KeyPair, PkiError> {
    Ok(KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?)
}

fn check_pair(certificate_pem: &str, key: &KeyPair) -> Result<(), String> {
    let (_, pem) = parse_x509_pem(certificate_pem.as_bytes()).map_err(|error| error.to_string())?;
    let (_, certificate) =
        parse_x509_certificate(&pem.contents).map_err(|error| error.to_string())?;
    if certificate.public_key().subject_public_key.data.as_ref() == key.public_key_raw() {
        Ok(())
    } else {
        Err("the certificate does not belong to the key".to_owned())
    }
}

/// Validity begins in the past: a machine without a clock of its own may believe that it is 1970
/// when it makes its certificates, and know better a minute later.
fn validity(params: &mut CertificateParams, end: Timestamp) {
    let end = end.to_zoned(TimeZone::UTC).date();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(
        end.year().into(),
        end.month().unsigned_abs(),
        end.day().unsigned_abs(),
    );
}

fn now_or_later() -> Timestamp {
    let known_past: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a valid timestamp");
    Timestamp::now().max(known_past)
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    let end = now_or_later()
        .to_zoned(TimeZone::UTC)
        .saturating_add(AUTHORITY_YEARS.years());
    validity(&mut params, end.timestamp());
    params.distinguished_name = DistinguishedName::new();
    let made = Timestamp::now().as_second();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("coracle-{name}@{made}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::KeyCertSign,
    ];
    params
}

fn leaf_params(spec: &LeafSpec) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    validity(&mut params, now_or_later() + (LEAF_DAYS * 24).hours());
    params.distinguished_name = DistinguishedName::new();
    if !spec.organization.is_empty() {
        params
            .distinguished_name
            .push(DnType::OrganizationName, spec.organization.as_str());
    }
    params
        .distinguished_name
        .push(DnType::CommonName, spec.common_name.as_str());
    for name in &spec.names {
        params.subject_alt_names.push(match name.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into()?),
        });
    }
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    params.extended_key_usages = vec![match spec.usage {
        Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
        Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
    }];
    Ok(params)
}
