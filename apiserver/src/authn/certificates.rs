//! Users known by client certificates: the common name is the user, the organizations are the
//! groups.

use std::sync::Arc;

use async_trait::async_trait;
use coracle_api::Identity;
use coracle_transport::{ClientCertificates, Peer, subject};
use http::request::Parts;
use jiff::Timestamp;
use ring::digest;

use crate::metrics::access;

use super::{AuthenticationError, Authenticator, CREDENTIAL_ID};

/// Believes certificates that the cluster's client authority signed.
pub struct CertificateUsers(ClientCertificates);

impl CertificateUsers {
    pub fn new(authorities: ClientCertificates) -> Self {
        CertificateUsers(authorities)
    }

    fn verify(&self, peer: &Peer) -> Result<Option<Verified>, AuthenticationError> {
        self.0.verify(&peer.certificates).map_err(|error| {
            let serial = "verifying certificate failed";
            AuthenticationError(format!("{serial}: {error}"))
        })?;
        let certificate = &peer.certificates[0];
        let subject = subject(certificate)
            .ok_or_else(|| AuthenticationError("cannot read the certificate".to_owned()))?;
        if subject.common_name.is_empty() {
            return Ok(None);
        }
        let fingerprint = digest::digest(&digest::SHA256, certificate);
        let credential = format!("X509SHA256={}", hex(fingerprint.as_ref()));
        Ok(Some(Verified {
            not_after: subject.not_after,
            identity: Identity {
                user: subject.common_name,
                uid: subject.uid,
                groups: subject.organizations,
                extra: [(CREDENTIAL_ID.to_owned(), vec![credential])].into(),
            },
        }))
    }
}

/// What the connection's certificate was found to say; good until it expires.
struct Verified {
    not_after: i64,
    identity: Identity,
}

#[async_trait]
impl Authenticator for CertificateUsers {
    async fn authenticate(&self, request: &Parts) -> Result<Option<Identity>, AuthenticationError> {
        let Some(peer) = request.extensions.get::<Peer>() else {
            return Ok(None);
        };
        if peer.certificates.is_empty() {
            return Ok(None);
        }
        if let Some(verified) = peer.recall::<Verified>()
            && Timestamp::now().as_second() <= verified.not_after
        {
            access::certificate(verified.not_after);
            return Ok(Some(verified.identity.clone()));
        }
        let Some(verified) = self.verify(peer)? else {
            return Ok(None);
        };
        access::certificate(verified.not_after);
        let verified = Arc::new(verified);
        peer.remember(verified.clone());
        Ok(Some(verified.identity.clone()))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
