//! A certificate authority, and what it makes of a request.
//!
//! Enter at [`Authority::sign`]. Subject and key are taken from the request byte by byte. Upstream:
//! `pkg/controller/certificates/authority`.

use std::{fmt, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use coracle_api::certificates::CertificateRequest;
use jiff::Timestamp;
use rcgen::{KeyPair, SigningKey as _};
use ring::rand::{SecureRandom as _, SystemRandom};
use x509_parser::{extensions::ParsedExtension, parse_x509_certificate, pem::parse_x509_pem};

use super::der;

/// Certificates are good from a little earlier on, for clocks that are slow.
const BACKDATE: Duration = Duration::from_secs(5 * 60);
/// Those that are good for less than this are not shortened for it.
const SHORT: Duration = Duration::from_secs(8 * 3600);
const EMPTY_NAME: [u8; 2] = [der::SEQUENCE, 0];

/// Who signs for the signers of the cluster; a signer without one does not answer.
#[derive(Debug, Default)]
pub struct SigningAuthorities {
    /// Signs clients: `kubernetes.io/kube-apiserver-client` and `…-kubelet`.
    pub clients: Option<Authority>,
    /// Signs servers: `kubernetes.io/kubelet-serving`, and `kubernetes.io/legacy-unknown`.
    pub servers: Option<Authority>,
}

impl SigningAuthorities {
    pub(super) fn of(&self, signer: &str) -> Option<&Authority> {
        match signer {
            "kubernetes.io/kube-apiserver-client"
            | "kubernetes.io/kube-apiserver-client-kubelet" => self.clients.as_ref(),
            "kubernetes.io/kubelet-serving" | "kubernetes.io/legacy-unknown" => {
                self.servers.as_ref()
            }
            _ => None,
        }
    }
}

/// Why there is no authority, or it does not sign.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("cannot read the authority's certificate: {0}")]
    Certificate(String),
    #[error("cannot use the authority's key: {0}")]
    Key(#[from] rcgen::Error),
    #[error("the authority's key is of a kind that cannot sign certificates")]
    Algorithm,
    #[error("unrecognized usage values: {0:?}")]
    Usages(Vec<String>),
    #[error("the signer has expired: NotAfter={0}")]
    Expired(Timestamp),
    #[error("no randomness for a serial number")]
    Randomness,
}

/// A certificate authority.
pub struct Authority {
    key: KeyPair,
    /// The `AlgorithmIdentifier` of its signatures.
    algorithm: &'static [u8],
    /// Its name, in DER.
    name: Vec<u8>,
    /// Its `SubjectKeyIdentifier`, if it has one.
    key_id: Option<Vec<u8>>,
    not_after: Timestamp,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// What a certificate is given beside what the request says.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    pub usages: &'a [String],
    pub lifetime: Duration,
    pub now: Timestamp,
}

impl Authority {
    /// # Errors
    /// When one of the two is not what it should be.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, AuthorityError> {
        let wrong = |error: &dyn fmt::Display| AuthorityError::Certificate(error.to_string());
        let (_, pem) = parse_x509_pem(certificate.as_bytes()).map_err(|error| wrong(&error))?;
        let (_, certificate) =
            parse_x509_certificate(&pem.contents).map_err(|error| wrong(&error))?;
        let key_id = certificate.extensions().iter().find_map(|extension| {
            match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                _ => None,
            }
        });
        let seconds = certificate.validity().not_after.timestamp();
        let key = KeyPair::from_pem(key)?;
        Ok(Authority {
            algorithm: algorithm(&key).ok_or(AuthorityError::Algorithm)?,
            name: certificate.subject().as_raw().to_vec(),
            key_id,
            not_after: Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX),
            key,
        })
    }

    /// The certificate, as PEM.
    ///
    /// # Errors
    /// When a usage is unknown, or the authority has expired.
    pub fn sign(
        &self,
        request: &CertificateRequest,
        terms: &Terms<'_>,
    ) -> Result<String, AuthorityError> {
        let (not_before, not_after) = self.validity(terms)?;
        let mut serial = [0; 16];
        let random = SystemRandom::new();
        random
            .fill(&mut serial)
            .map_err(|_| AuthorityError::Randomness)?;
        let validity = der::value(
            der::SEQUENCE,
            &[&der::time(not_before), &der::time(not_after)],
        );
        let extensions = self.extensions(request, terms.usages)?;
        let to_be_signed = der::value(
            der::SEQUENCE,
            &[
                &der::explicit(0, &der::integer(&[2])),
                &der::integer(&serial),
                self.algorithm,
                &self.name,
                &validity,
                &request.subject,
                &request.public_key,
                &der::explicit(3, &der::value(der::SEQUENCE, &[&extensions])),
            ],
        );
        let signature = self.key.sign(&to_be_signed)?;
        let certificate = der::value(
            der::SEQUENCE,
            &[&to_be_signed, self.algorithm, &der::bit_string(&signature)],
        );
        Ok(pem("CERTIFICATE", &certificate))
    }

    fn validity(&self, terms: &Terms<'_>) -> Result<(Timestamp, Timestamp), AuthorityError> {
        if terms.now >= self.not_after {
            return Err(AuthorityError::Expired(self.not_after));
        }
        let lifetime = match terms.lifetime {
            short if short < SHORT => short,
            long => long.saturating_sub(BACKDATE),
        };
        let later = terms.now.checked_add(lifetime).unwrap_or(Timestamp::MAX);
        let earlier = terms.now.checked_sub(BACKDATE).unwrap_or(terms.now);
        Ok((earlier, later.min(self.not_after)))
    }

    fn extensions(
        &self,
        request: &CertificateRequest,
        usages: &[String],
    ) -> Result<Vec<u8>, AuthorityError> {
        let (bits, purposes) = key_usages(usages)?;
        let mut extensions = Vec::new();
        if bits != 0 {
            extensions.extend(extension(KEY_USAGE, true, &der::named_bits(bits)));
        }
        if !purposes.is_empty() {
            let oids: Vec<u8> = purposes
                .iter()
                .flat_map(|oid| der::value(der::OID, &[oid]))
                .collect();
            let purposes = der::value(der::SEQUENCE, &[&oids]);
            extensions.extend(extension(EXTENDED_KEY_USAGE, false, &purposes));
        }
        extensions.extend(extension(BASIC_CONSTRAINTS, true, &[der::SEQUENCE, 0]));
        if let Some(id) = &self.key_id {
            let id = der::value(der::SEQUENCE, &[&der::implicit(0, id)]);
            extensions.extend(extension(AUTHORITY_KEY_IDENTIFIER, false, &id));
        }
        let names = alternative_names(request);
        if !names.is_empty() {
            // Only they say whom the certificate is about, if the subject does not.
            let critical = request.subject == EMPTY_NAME;
            let names = der::value(der::SEQUENCE, &[&names]);
            extensions.extend(extension(SUBJECT_ALTERNATIVE_NAME, critical, &names));
        }
        Ok(extensions)
    }
}

fn algorithm(key: &KeyPair) -> Option<&'static [u8]> {
    const ECDSA_SHA256: &[u8] = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
    const ECDSA_SHA384: &[u8] = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03";
    const RSA_SHA256: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00";
    const RSA_SHA384: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c\x05\x00";
    const RSA_SHA512: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d\x05\x00";
    const ED25519: &[u8] = b"\x30\x05\x06\x03\x2b\x65\x70";
    [
        (&rcgen::PKCS_ECDSA_P256_SHA256, ECDSA_SHA256),
        (&rcgen::PKCS_ECDSA_P384_SHA384, ECDSA_SHA384),
        (&rcgen::PKCS_RSA_SHA256, RSA_SHA256),
        (&rcgen::PKCS_RSA_SHA384, RSA_SHA384),
        (&rcgen::PKCS_RSA_SHA512, RSA_SHA512),
        (&rcgen::PKCS_ED25519, ED25519),
    ]
    .into_iter()
    .find(|(algorithm, _)| *algorithm == key.algorithm())
    .map(|(_, identifier)| identifier)
}

const KEY_USAGE: &[u8] = b"\x55\x1d\x0f";
const SUBJECT_ALTERNATIVE_NAME: &[u8] = b"\x55\x1d\x11";
const BASIC_CONSTRAINTS: &[u8] = b"\x55\x1d\x13";
const AUTHORITY_KEY_IDENTIFIER: &[u8] = b"\x55\x1d\x23";
const EXTENDED_KEY_USAGE: &[u8] = b"\x55\x1d\x25";

fn extension(oid: &[u8], critical: bool, contents: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical {
        &[der::BOOLEAN, 1, 0xff]
    } else {
        &[]
    };
    der::value(
        der::SEQUENCE,
        &[
            &der::value(der::OID, &[oid]),
            critical,
            &der::value(der::OCTET_STRING, &[contents]),
        ],
    )
}

/// The names of usages, and their bits in a certificate.
const USAGES: [(&str, u16); 10] = [
    ("signing", 1),
    ("digital signature", 1),
    ("content commitment", 1 << 1),
    ("key encipherment", 1 << 2),
    ("data encipherment", 1 << 3),
    ("key agreement", 1 << 4),
    ("cert sign", 1 << 5),
    ("crl sign", 1 << 6),
    ("encipher only", 1 << 7),
    ("decipher only", 1 << 8),
];
/// The names of purposes, and their object identifiers, in the order of certificates.
const PURPOSES: [(&str, &[u8]); 13] = [
    ("any", b"\x55\x1d\x25\x00"),
    ("server auth", b"\x2b\x06\x01\x05\x05\x07\x03\x01"),
    ("client auth", b"\x2b\x06\x01\x05\x05\x07\x03\x02"),
    ("code signing", b"\x2b\x06\x01\x05\x05\x07\x03\x03"),
    ("email protection", b"\x2b\x06\x01\x05\x05\x07\x03\x04"),
    ("s/mime", b"\x2b\x06\x01\x05\x05\x07\x03\x04"),
    ("ipsec end system", b"\x2b\x06\x01\x05\x05\x07\x03\x05"),
    ("ipsec tunnel", b"\x2b\x06\x01\x05\x05\x07\x03\x06"),
    ("ipsec user", b"\x2b\x06\x01\x05\x05\x07\x03\x07"),
    ("timestamping", b"\x2b\x06\x01\x05\x05\x07\x03\x08"),
    ("ocsp signing", b"\x2b\x06\x01\x05\x05\x07\x03\x09"),
    ("microsoft sgc", b"\x2b\x06\x01\x04\x01\x82\x37\x0a\x03\x03"),
    ("netscape sgc", b"\x60\x86\x48\x01\x86\xf8\x42\x04\x01"),
];

type KeyUsages = (u16, Vec<&'static [u8]>);

fn key_usages(usages: &[String]) -> Result<KeyUsages, AuthorityError> {
    let has = |name: &str| usages.iter().any(|usage| usage == name);
    let known = |name: &str| {
        USAGES.iter().any(|(known, _)| *known == name)
            || PURPOSES.iter().any(|(known, _)| *known == name)
    };
    let unknown: Vec<String> = usages.iter().filter(|name| !known(name)).cloned().collect();
    if !unknown.is_empty() {
        return Err(AuthorityError::Usages(unknown));
    }
    let bits = USAGES.iter().filter(|(name, _)| has(name));
    let bits = bits.fold(0, |all, (_, bit)| all | bit);
    let purposes = PURPOSES.iter().filter(|(name, _)| has(name));
    let mut purposes: Vec<&[u8]> = purposes.map(|(_, oid)| *oid).collect();
    purposes.dedup();
    Ok((bits, purposes))
}

/// The `GeneralName`s, one after the other.
fn alternative_names(request: &CertificateRequest) -> Vec<u8> {
    let text = |number: u8, names: &[String]| -> Vec<u8> {
        let names = names.iter();
        names
            .flat_map(|name| der::implicit(number, name.as_bytes()))
            .collect()
    };
    let addresses = request.addresses.iter();
    let addresses = addresses.flat_map(|address| der::implicit(7, &der::address(address)));
    let mut names = text(2, &request.dns_names);
    names.extend(text(1, &request.emails));
    names.extend(addresses);
    names.extend(text(6, &request.uris));
    names
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}
