//! TLS: certificates that swap while they are in use, and client certificates that servers ask
//! for but never demand.
//!
//! A client certificate that nobody we trust has signed does not fail the handshake, because
//! upstream answers it with a 401 that the client can show: the handshake only proves that the
//! peer holds the key, and [`ClientCertificates::verify`] judges the chain afterwards.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme,
    client::{
        ResolvesClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    server::{
        ClientHello, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};

/// Why TLS cannot be set up, or a certificate is not believed.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read PEM: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    #[error("no certificate found")]
    NoCertificate,
    #[error("no certificate authority to verify clients with: {0}")]
    Authority(#[from] rustls::server::VerifierBuilderError),
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// The certificates of a PEM file, in order; at least one.
pub fn parse_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>()?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    Ok(certificates)
}

/// The first private key of a PEM file: PKCS#8, SEC1 or PKCS#1.
pub fn parse_private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    Ok(PrivateKeyDer::from_pem_slice(pem)?)
}

/// A chain and its key, checked to belong together.
pub fn certified_key(chain_pem: &[u8], key_pem: &[u8]) -> Result<CertifiedKey, TlsError> {
    let chain = parse_certificates(chain_pem)?;
    let key = parse_private_key(key_pem)?;
    let certified = CertifiedKey::from_der(chain, key, &ring::default_provider())?;
    Ok(certified)
}

/// What a server presents; [`ServerCertificate::replace`] takes effect from the next handshake.
pub struct ServerCertificate(ArcSwap<CertifiedKey>);

impl ServerCertificate {
    pub fn new(certificate: CertifiedKey) -> Self {
        ServerCertificate(ArcSwap::from_pointee(certificate))
    }

    pub fn replace(&self, certificate: CertifiedKey) {
        self.0.store(Arc::new(certificate));
    }
}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerCertificate")
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// What a client presents; [`ClientIdentity::replace`] takes effect from the next handshake.
pub struct ClientIdentity(ArcSwap<CertifiedKey>);

impl ClientIdentity {
    pub fn new(certificate: CertifiedKey) -> Self {
        ClientIdentity(ArcSwap::from_pointee(certificate))
    }

    pub fn replace(&self, certificate: CertifiedKey) {
        self.0.store(Arc::new(certificate));
    }
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientIdentity")
    }
}

impl ResolvesClientCert for ClientIdentity {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Whose certificates a client believes.
#[derive(Clone, Copy, Debug)]
pub enum Trust<'a> {
    /// Those that one of these signed, for the name that was asked for.
    Authorities(&'a [CertificateDer<'a>]),
    /// Everybody's.
    Anyone,
}

/// A client's configuration, for HTTP/1.1.
pub fn client_config(
    trust: Trust<'_>,
    identity: Option<Arc<ClientIdentity>>,
) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(rustls::ALL_VERSIONS)?;
    let builder = match trust {
        Trust::Authorities(authorities) => {
            let mut roots = RootCertStore::empty();
            for authority in authorities {
                roots.add(authority.clone().into_owned())?;
            }
            builder.with_root_certificates(roots)
        }
        Trust::Anyone => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(BelieveServer(provider))),
    };
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(identity),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Believes every server that holds the key of its certificate.
#[derive(Debug)]
struct BelieveServer(Arc<CryptoProvider>);

impl ServerCertVerifier for BelieveServer {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// The authorities whose signature makes a client certificate valid.
#[derive(Clone, Debug)]
pub struct ClientCertificates(Arc<dyn ClientCertVerifier>);

impl ClientCertificates {
    pub fn new(authorities: &[CertificateDer<'_>]) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority.clone().into_owned())?;
        }
        let provider = Arc::new(ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
        Ok(ClientCertificates(verifier))
    }

    /// Whether one of the authorities signed the chain for client authentication and it is
    /// valid now.
    ///
    /// # Errors
    /// [`TlsError::Tls`] with what is wrong with it; [`TlsError::NoCertificate`] if it is empty.
    pub fn verify(&self, chain: &[CertificateDer<'_>]) -> Result<(), TlsError> {
        let (certificate, intermediates) = chain.split_first().ok_or(TlsError::NoCertificate)?;
        self.0
            .verify_client_cert(certificate, intermediates, UnixTime::now())?;
        Ok(())
    }
}

/// A server's configuration: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1 by ALPN, and client
/// certificates asked for when `clients` is given.
pub fn server_config(
    certificate: Arc<ServerCertificate>,
    clients: Option<&ClientCertificates>,
) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(rustls::ALL_VERSIONS)?;
    let builder = match clients {
        Some(clients) => builder.with_client_cert_verifier(Arc::new(AskForCertificate {
            hints: clients.0.root_hint_subjects().to_vec(),
            provider,
        })),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Believes every certificate whose key the peer holds.
#[derive(Debug)]
struct AskForCertificate {
    hints: Vec<DistinguishedName>,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for AskForCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
