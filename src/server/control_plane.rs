//! The control plane: store, certificates, API server, and the components that only need it.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use coracle_api::{Identity, kinds};
use coracle_apiserver::{
    ApiServer, Registry,
    authn::StaticTokens,
    pki::{self, Authority, Kubeconfig, Pki},
    standard::{self, Security},
};
use coracle_client::Informers;
use coracle_store::{
    EtcdConfig, EtcdStore, HistoryLimits, MemoryStore, SqliteConfig, SqliteStore, Store,
};
use coracle_transport::{ClientCertificates, ServeOptions, ServerCertificate, certified_key};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Settings, network};
use crate::{cli::Disable, data_dir, supervise::Components};

/// Keys that live in memory only, so that an idle cluster writes nothing to its disk.
const VOLATILE: [&str; 2] = ["/registry/leases/", "/registry/events/"];
/// Certificates are looked at this often; renewal is due months before they expire.
const RENEWAL_CHECK: Duration = Duration::from_secs(6 * 3600);

/// A running control plane.
pub struct ControlPlane {
    /// Where the API is served.
    pub address: SocketAddr,
    pub kubeconfig: PathBuf,
    /// The address of the `kubernetes` Service.
    pub service_address: IpAddr,
    pub pki: Arc<Pki>,
    /// Every component's caches.
    pub informers: Informers,
    server: ApiServer,
    store: Arc<dyn Store>,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
    caches: JoinHandle<()>,
}

impl ControlPlane {
    /// Returns once the API answers.
    pub async fn start(settings: &Settings) -> anyhow::Result<Self> {
        let args = &settings.args;
        let listener = listen(settings).await?;
        let address = listener
            .local_addr()
            .context("cannot read the listener's address")?;
        let store = open_store(settings).await?;
        let service_address = network::first_address(&args.service_cidr)?;
        let pki = Arc::new(open_pki(settings, service_address)?);
        info!(folder = %settings.layout.tls().display(), "certificates are in place");

        let registry = Registry::new(store.clone(), kinds::builtin());
        let config = coracle_apiserver::Config {
            service_cidr: args.service_cidr,
            node_ports: args.service_node_port_range.first..=args.service_node_port_range.last,
            ..coracle_apiserver::Config::default()
        };
        let plugins = standard::plugins(&registry, security(settings, &pki, address)?)?;
        let server = ApiServer::new(config, registry, plugins);
        let shutdown = CancellationToken::new();
        let caches = tokio::spawn({
            let (server, shutdown) = (server.clone(), shutdown.clone());
            async move { server.run(shutdown).await }
        });
        server.registry().ready().await;
        info!("the watch caches are filled");
        let serving = serve(&server, &pki, listener, shutdown.clone())?;
        let informers = Informers::new(client(&server, "system:coracle", &["system:masters"]));
        Ok(ControlPlane {
            address,
            kubeconfig: write_kubeconfigs(settings, &pki, address)?,
            service_address,
            pki,
            informers,
            server,
            store,
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

    /// Starts the scheduler and the controllers.
    pub fn spawn_components(&self, settings: &Settings, components: &Components) {
        if settings.enabled(Disable::Scheduler) {
            self.spawn_scheduler(components);
        }
        if settings.enabled(Disable::Controllers) {
            let context = coracle_controllers::Context::new(
                self.client("system:kube-controller-manager", &[]),
                self.informers.clone(),
                coracle_controllers::Config {
                    root_ca: self.pki.server_ca.certificate_pem().to_owned(),
                },
            );
            for controller in coracle_controllers::TABLE {
                let user = format!("system:serviceaccount:kube-system:{}", controller.account);
                let groups = [
                    "system:serviceaccounts",
                    "system:serviceaccounts:kube-system",
                ];
                let context = context.with_client(self.client(&user, &groups));
                components.spawn(controller.name, move |run| {
                    (controller.run)(context.clone(), run)
                });
            }
        }
    }

    fn spawn_scheduler(&self, components: &Components) {
        let client = self.client("system:kube-scheduler", &[]);
        let informers = self.informers.clone();
        components.spawn("scheduler", move |run| {
            let config = coracle_scheduler::Config::default();
            coracle_scheduler::Scheduler::new(config, client.clone(), informers.clone()).run(run)
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
        self.store.close().await;
    }
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

async fn open_store(settings: &Settings) -> anyhow::Result<Arc<dyn Store>> {
    match settings.args.datastore_endpoint.as_deref() {
        Some("memory://") => {
            info!("objects are kept in memory only");
            Ok(Arc::new(MemoryStore::new(HistoryLimits::default())))
        }
        Some(endpoints) if endpoints.starts_with("http") => {
            let endpoints = endpoints.split(',').map(str::to_owned).collect();
            let config = EtcdConfig::new(endpoints);
            info!(
                endpoints = config.endpoints.join(","),
                "objects are kept in etcd"
            );
            Ok(Arc::new(EtcdStore::connect(&config).await?))
        }
        Some(other) => anyhow::bail!(
            "--datastore-endpoint {other} is not supported: give http:// or https:// for etcd, memory://, or leave it out"
        ),
        None => {
            let path = settings.layout.database();
            if let Some(folder) = path.parent() {
                data_dir::create_private(folder)?;
            }
            let config = SqliteConfig {
                volatile: VOLATILE.map(str::to_owned).to_vec(),
                ..SqliteConfig::default()
            };
            let opened = path.clone();
            let store = tokio::task::spawn_blocking(move || SqliteStore::open(&opened, config))
                .await
                .context("opening the store failed")??;
            info!(file = %path.display(), "the store is open");
            Ok(Arc::new(store))
        }
    }
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

/// Whom the API server believes.
fn security(settings: &Settings, pki: &Pki, address: SocketAddr) -> anyhow::Result<Security> {
    let external = SocketAddr::new(settings.advertise_address, address.port());
    let domain = &settings.args.cluster_domain;
    let proxies = client_certificates(&pki.request_header_ca)?;
    Ok(Security {
        client_authorities: client_certificates(&pki.client_ca)?,
        front_proxy: Some((proxies, vec!["front-proxy-client".to_owned()])),
        service_account_key: pki.service_account_key_pem.clone(),
        issuer: format!("https://kubernetes.default.svc.{domain}"),
        external_address: external.to_string(),
        static_tokens: StaticTokens::default(),
        anonymous: true,
    })
}

fn client_certificates(authority: &Authority) -> anyhow::Result<ClientCertificates> {
    let pem = authority.certificate_pem();
    let certificates = coracle_transport::parse_certificates(pem.as_bytes())?;
    Ok(ClientCertificates::new(&certificates)?)
}

fn serve(
    server: &ApiServer,
    pki: &Pki,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> anyhow::Result<JoinHandle<()>> {
    let pair = &pki.leaves.api_server;
    let certificate = Arc::new(ServerCertificate::new(certified_key(
        pair.certificate_pem.as_bytes(),
        pair.key_pem.as_bytes(),
    )?));
    let clients = client_certificates(&pki.client_ca)?;
    let tls = Arc::new(coracle_transport::server_config(
        certificate,
        Some(&clients),
    )?);
    let server = server.clone();
    Ok(tokio::spawn(coracle_transport::serve(
        listener,
        tls,
        server,
        ServeOptions::default(),
        shutdown,
    )))
}

/// Writes the administrator's kubeconfig where users and our own subcommands find it.
fn write_kubeconfigs(
    settings: &Settings,
    pki: &Pki,
    address: SocketAddr,
) -> anyhow::Result<PathBuf> {
    let host = if address.ip().is_unspecified() {
        IpAddr::from([127, 0, 0, 1])
    } else {
        address.ip()
    };
    let server = format!("https://{}", SocketAddr::new(host, address.port()));
    let kubeconfig = Kubeconfig {
        server: &server,
        server_ca_pem: pki.server_ca.certificate_pem(),
        client: &pki.leaves.admin,
    };
    let layout = &settings.layout;
    let public = settings
        .args
        .write_kubeconfig
        .clone()
        .unwrap_or_else(|| layout.kubeconfig());
    for path in [&layout.admin_kubeconfig(), &public] {
        pki::write_kubeconfig(path, &kubeconfig)?;
    }
    Ok(public)
}
