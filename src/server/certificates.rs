//! The certificates in use: presented by listeners, written into kubeconfigs, and renewed while
//! the server runs.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use coracle_apiserver::authn::service_accounts::SigningKey;
use coracle_apiserver::pki::{self, Authority, Kubeconfig, Leaves, Pair, Pki};
use coracle_controllers::{SigningAuthorities, TokenSigner};
use coracle_transport::{ClientCertificates, ClientIdentity, ServerCertificate, certified_key};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::presence::Trust;

/// Certificates are looked at this often; renewal is due months before they expire. Often enough
/// for a clock that jumped.
const LOOK: Duration = Duration::from_secs(3600);

/// The cluster's certificates and what they were handed to.
pub struct Certificates {
    pki: Mutex<Pki>,
    /// What the API's listener presents.
    pub api_server: Arc<ServerCertificate>,
    /// What the kubelet's listener presents.
    pub kubelet: Arc<ServerCertificate>,
    /// What the API server presents to kubelets.
    pub kubelet_client: Arc<ClientIdentity>,
    /// Who signs clients.
    pub clients: ClientCertificates,
    /// Who signs front proxies.
    pub front_proxies: ClientCertificates,
    /// Signs servers, as PEM: what pods and clients trust.
    pub server_ca: String,
    pub service_account_key: String,
    kubeconfigs: Vec<PathBuf>,
    server_url: String,
}

impl Certificates {
    /// Hands the certificates out. The administrator's kubeconfig goes to `kubeconfigs`, naming
    /// `address`.
    pub fn new(pki: Pki, address: SocketAddr, kubeconfigs: Vec<PathBuf>) -> anyhow::Result<Self> {
        let certificates = Certificates {
            api_server: Arc::new(ServerCertificate::new(key(&pki.leaves.api_server)?)),
            kubelet: Arc::new(ServerCertificate::new(key(&pki.leaves.kubelet_server)?)),
            kubelet_client: Arc::new(ClientIdentity::new(key(&pki
                .leaves
                .api_server_kubelet_client)?)),
            clients: authorities(&pki.client_ca)?,
            front_proxies: authorities(&pki.request_header_ca)?,
            server_ca: pki.server_ca.certificate_pem().to_owned(),
            service_account_key: pki.service_account_key_pem.clone(),
            server_url: format!("https://{address}"),
            kubeconfigs,
            pki: Mutex::new(pki),
        };
        Ok(certificates)
    }

    /// Whom the API server believes, and front proxies of these names.
    pub fn trust(&self, front_proxies: [&str; 1]) -> Trust {
        let pki = self.pki.lock();
        Trust {
            client_ca: pki.client_ca.certificate_pem().to_owned(),
            front_proxy_ca: pki.request_header_ca.certificate_pem().to_owned(),
            front_proxies: front_proxies.map(str::to_owned).to_vec(),
        }
    }

    /// The certificates as they are now.
    pub fn leaves(&self) -> Leaves {
        self.pki.lock().leaves.clone()
    }

    /// Who signs the certificates that are asked for through the API: clients' by the clients'
    /// authority, all others by the servers'.
    pub fn signing_authorities(&self) -> anyhow::Result<SigningAuthorities> {
        let pki = self.pki.lock();
        let own = |authority: &Authority| {
            coracle_controllers::Authority::from_pem(
                authority.certificate_pem(),
                &authority.key_pem(),
            )
        };
        Ok(SigningAuthorities {
            clients: Some(own(&pki.client_ca)?),
            servers: Some(own(&pki.server_ca)?),
        })
    }

    /// Signs the tokens that stand in Secrets.
    pub fn token_signer(&self) -> anyhow::Result<TokenSigner> {
        let key = SigningKey::from_pem(self.service_account_key.as_bytes())?;
        Ok(TokenSigner(Arc::new(move |claims| {
            key.sign(claims).map_err(|error| error.to_string())
        })))
    }

    /// Writes the administrator's kubeconfig.
    pub fn write_kubeconfigs(&self) -> anyhow::Result<()> {
        let leaves = self.leaves();
        let kubeconfig = Kubeconfig {
            server: &self.server_url,
            server_ca_pem: &self.server_ca,
            client: &leaves.admin,
        };
        for path in &self.kubeconfigs {
            pki::write_kubeconfig(path, &kubeconfig)?;
        }
        Ok(())
    }

    /// Renews what is due, until `shutdown`.
    pub async fn keep(self: Arc<Self>, shutdown: CancellationToken) -> Result<(), anyhow::Error> {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(LOOK) => {}
            }
            if let Err(error) = self.renew() {
                warn!(
                    error = format!("{error:#}"),
                    "cannot renew the certificates, trying again later"
                );
            }
        }
    }

    fn renew(&self) -> anyhow::Result<()> {
        if !self.pki.lock().renew()? {
            return Ok(());
        }
        let leaves = self.leaves();
        self.api_server.replace(key(&leaves.api_server)?);
        self.kubelet.replace(key(&leaves.kubelet_server)?);
        self.kubelet_client
            .replace(key(&leaves.api_server_kubelet_client)?);
        self.write_kubeconfigs()?;
        info!("certificates are renewed");
        Ok(())
    }
}

fn key(pair: &Pair) -> anyhow::Result<rustls::sign::CertifiedKey> {
    certified_key(pair.certificate_pem.as_bytes(), pair.key_pem.as_bytes())
        .context("a certificate of ours cannot be used")
}

fn authorities(authority: &Authority) -> anyhow::Result<ClientCertificates> {
    let pem = authority.certificate_pem();
    let certificates = coracle_transport::parse_certificates(pem.as_bytes())?;
    Ok(ClientCertificates::new(&certificates)?)
}
