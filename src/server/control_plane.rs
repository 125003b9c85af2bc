//! The control plane: store, certificates, API server, and the components that only need it.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use anyhow::Context as _;
use coracle_api::{Identity, kinds, metrics};
use coracle_apiserver::{
    ApiServer, Registry,
    audit::Auditor,
    node_proxy::NodeTls,
    pki::{self, Pki},
    standard::{self, Security},
};
use coracle_client::Informers;
use coracle_transport::ServeOptions;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Settings, audit, authentication::Authentication, certificates::Certificates,
    datastore::Datastore,
};
use crate::{
    bootstrap,
    cli::Disable,
    host,
    presence::{Lease, Presence},
    rbac,
    supervise::Components,
};

/// Whose caches the components of this process share: upstream's role of that name lets its shared
/// informers list and watch everything, and write nothing of a controller's.
const INFORMERS: &str = "system:kube-controller-manager";

/// The common names that a front proxy may have.
const FRONT_PROXIES: [&str; 1] = ["front-proxy-client"];

/// A running control plane.
pub struct ControlPlane {
    /// Where the API is served.
    pub address: SocketAddr,
    pub kubeconfig: PathBuf,
    pub certificates: Arc<Certificates>,
    /// Every component's caches.
    pub informers: Informers,
    pub(super) server: ApiServer,
    pub(super) datastore: Datastore,
    pub(super) authentication: Authentication,
    auditor: Option<Arc<Auditor>>,
    pub(super) presence: Presence,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
    caches: JoinHandle<()>,
}

impl ControlPlane {
    /// Returns once the API answers. Nobody sees a cluster without its namespaces and roles: they
    /// are put in place before the first connection is taken.
    pub async fn start(settings: &Settings) -> anyhow::Result<Self> {
        let args = &settings.args;
        let listener = listen(settings).await?;
        let address = listener
            .local_addr()
            .context("cannot read the listener's address")?;
        let authentication = Authentication::new(&settings.args.authentication, &issuer(settings))?;
        let auditor = audit::open(&settings.args.audit)?.map(Arc::new);
        let datastore = Datastore::open(settings).await?;
        datastore.agree(settings).await?;
        let service_address = host::first_address(&args.service_cidr)?;
        let kubeconfig = settings.public_kubeconfig();
        let certificates = Arc::new(Certificates::new(
            open_pki(settings, service_address)?,
            reachable(address),
            vec![settings.layout.admin_kubeconfig(), kubeconfig.clone()],
        )?);
        info!(folder = %settings.layout.tls().display(), "certificates are in place");

        let mut served = kinds::builtin().to_vec();
        if settings.enabled(Disable::MetricsServer) {
            served.extend(metrics::kinds());
        }
        let registry = Registry::new(datastore.store.clone(), &served);
        let external = SocketAddr::new(settings.advertise_address, address.port());
        let config = coracle_apiserver::Config {
            public_address: external.to_string(),
            service_cidr: args.service_cidr,
            node_ports: args.service_node_port_range.first..=args.service_node_port_range.last,
            ..coracle_apiserver::Config::default()
        };
        let shutdown = CancellationToken::new();
        let security = security(
            settings,
            &certificates,
            address,
            &datastore,
            &authentication,
            auditor.as_ref(),
            &shutdown,
        )?;
        let plugins = standard::plugins(&registry, security)?;
        let server = ApiServer::new(config, registry, plugins);
        // Every component of the control plane is in this process, so its page shows them all.
        server.metrics().add(|page| {
            page.add(coracle_client::metrics());
            page.add(coracle_controllers::metrics());
            page.add(coracle_scheduler::metrics());
        });
        let caches = tokio::spawn({
            let (server, shutdown) = (server.clone(), shutdown.clone());
            async move { server.run(shutdown).await }
        });
        server.registry().ready().await;
        info!("the watch caches are filled");
        let own = own_client(&server);
        bootstrap::run(&own, |component| settings.enabled(component)).await?;
        rbac::reconcile(&own).await?;
        let presence = Presence {
            client: own,
            service: service_address,
            lease: Lease::new(&settings.node_name, external),
            trust: certificates.trust(FRONT_PROXIES),
            served,
        };
        presence.ensure().await?;
        let serving = serve(&server, &certificates, listener, shutdown.clone())?;
        certificates.write_kubeconfigs()?;
        let informers = Informers::new(client(&server, INFORMERS, &[]));
        Ok(ControlPlane {
            address,
            kubeconfig,
            certificates,
            informers,
            server,
            datastore,
            authentication,
            auditor,
            presence,
            shutdown,
            serving,
            caches,
        })
    }

    /// A client in this process that speaks as `user`.
    pub fn client(&self, user: &str, groups: &[&str]) -> kube::Client {
        client(&self.server, user, groups)
    }

    /// Lets /readyz and /metrics tell how components fare.
    pub fn report_health_of(&self, components: &Components) {
        let components = components.clone();
        self.server.health().add(move || {
            let conditions = components.conditions().into_iter();
            conditions
                .map(|(name, condition)| coracle_apiserver::Probe {
                    name,
                    failure: condition.failure,
                })
                .collect()
        });
    }

    /// Ends requests, then the caches, then closes the store.
    pub async fn stop(self) {
        self.informers.stop();
        self.shutdown.cancel();
        for task in [self.serving, self.caches] {
            if let Err(error) = task.await {
                warn!(%error, "a part of the API server did not end well");
            }
        }
        if let Some(auditor) = &self.auditor {
            auditor.close().await;
        }
        self.datastore.store.close().await;
    }
}

/// The API server's client of itself, which upstream's too lets do everything.
pub(super) fn own_client(server: &ApiServer) -> kube::Client {
    client(server, "system:apiserver", &["system:masters"])
}

fn client(server: &ApiServer, user: &str, groups: &[&str]) -> kube::Client {
    let identity = Identity {
        user: user.to_owned(),
        groups: groups.iter().map(|&group| group.to_owned()).collect(),
        ..Identity::default()
    };
    coracle_client::in_process(server.clone(), identity)
}

async fn listen(settings: &Settings) -> anyhow::Result<TcpListener> {
    let address = SocketAddr::new(settings.args.bind_address, settings.args.https_listen_port);
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}: stop what uses it (ss -ltnp shows it), or choose another with --https-listen-port")
    })
}

fn open_pki(settings: &Settings, service_address: IpAddr) -> anyhow::Result<Pki> {
    let mut api_names = settings.args.tls_san.clone();
    api_names.push(settings.advertise_address.to_string());
    if !settings.args.bind_address.is_unspecified() {
        api_names.push(settings.args.bind_address.to_string());
    }
    let names = pki::Names {
        node_name: settings.node_name.clone(),
        api_names,
        node_addresses: vec![settings.node_ip.to_string()],
        service_address: service_address.to_string(),
        cluster_domain: settings.args.cluster_domain.clone(),
    };
    Ok(Pki::open(&settings.layout.tls(), names)?)
}

/// Who issues the tokens of ServiceAccounts.
pub fn issuer(settings: &Settings) -> String {
    format!(
        "https://kubernetes.default.svc.{}",
        settings.args.cluster_domain
    )
}

/// Whom the API server believes.
fn security(
    settings: &Settings,
    certificates: &Certificates,
    address: SocketAddr,
    datastore: &Datastore,
    authentication: &Authentication,
    auditor: Option<&Arc<Auditor>>,
    shutdown: &CancellationToken,
) -> anyhow::Result<Security> {
    let external = SocketAddr::new(settings.advertise_address, address.port());
    let server_ca = coracle_transport::parse_certificates(certificates.server_ca.as_bytes())?;
    Ok(Security {
        client_authorities: certificates.clients.clone(),
        front_proxy: Some((
            certificates.front_proxies.clone(),
            FRONT_PROXIES.map(str::to_owned).to_vec(),
        )),
        service_account_key: certificates.service_account_key.clone(),
        issuer: issuer(settings),
        external_address: external.to_string(),
        static_tokens: authentication.static_tokens()?,
        encryption: datastore.encryption.clone(),
        audit: auditor.cloned(),
        issuers: authentication.issuers.clone(),
        anonymous: authentication.anonymous.clone(),
        nodes: NodeTls::new(&server_ca, certificates.kubelet_client.clone())?,
        shutdown: shutdown.clone(),
    })
}

fn serve(
    server: &ApiServer,
    certificates: &Certificates,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> anyhow::Result<JoinHandle<()>> {
    let certificate = certificates.api_server.clone();
    let tls = coracle_transport::server_config(certificate, Some(&certificates.clients))?;
    Ok(tokio::spawn(coracle_transport::serve(
        listener,
        Arc::new(tls),
        server.clone(),
        ServeOptions::default(),
        shutdown,
    )))
}

/// The address by which this machine reaches the API.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        SocketAddr::from(([127, 0, 0, 1], address.port()))
    } else {
        address
    }
}
