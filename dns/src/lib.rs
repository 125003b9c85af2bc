//! Cluster DNS: the names of Services and pods, by the Kubernetes DNS specification v1.1, and
//! everything else from the node's own name servers.
//!
//! Enter at [`Dns`]. Each node answers its own pods, on the gateway address of their bridge;
//! pods reach it by the address of the `kube-dns` Service, behind which every node puts itself.
//! Answers come from an index that follows the informers; no query waits for the API.

mod answer;
mod forward;
mod handler;
mod index;
mod publish;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use coracle_client::Informers;
use hickory_proto::rr::Name;
use hickory_server::Server;
use k8s_openapi::api::core::v1::Node;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;

use crate::{forward::Forwarder, handler::Handler, index::Index};

/// A TCP client that asks nothing for this long is let go.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Answers that wait for a slow TCP client.
const TCP_BUFFER: usize = 32;

/// What cluster DNS is told.
#[derive(Clone, Debug)]
pub struct Config {
    pub node_name: String,
    /// For example `cluster.local`.
    pub cluster_domain: String,
    /// The address of the `kube-dns` Service.
    pub cluster_dns: IpAddr,
    /// Where the name servers for everything else are named.
    pub resolv_conf: PathBuf,
    /// 53, unless a test wants another.
    pub port: u16,
}

/// Why cluster DNS ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the cluster domain {0:?} is no domain name")]
    Domain(String),
    #[error("cannot listen on {address}: {source}")]
    Listen {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error("cannot put this node behind the kube-dns Service: {0}")]
    Publish(#[from] kube::Error),
    #[error("the pod network {0:?} of the node is no network")]
    PodNetwork(String),
    #[error("the listener failed: {0}")]
    Server(String),
}

/// The name server of one node.
pub struct Dns {
    config: Config,
    client: kube::Client,
    informers: Informers,
}

impl Dns {
    pub fn new(config: Config, client: kube::Client, informers: Informers) -> Self {
        Dns {
            config,
            client,
            informers,
        }
    }

    /// Answers until `shutdown`. Waits for the node to get its pod network first.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            outcome = self.serve() => outcome,
        }
    }

    async fn serve(self) -> Result<(), Error> {
        let domain = Name::from_ascii(&self.config.cluster_domain)
            .map_err(|_| Error::Domain(self.config.cluster_domain.clone()))?
            .to_lowercase();
        let address = SocketAddr::new(self.gateway().await?, self.config.port);
        let index = Arc::new(Index::default());
        let follow = index::follow(&index, &self.informers).await;
        let forwarder = Forwarder::new(self.config.resolv_conf.clone(), address.ip());
        let mut server = Server::new(Handler::new(domain, index, forwarder));
        let listen_error = |source| Error::Listen { address, source };
        server.register_socket(udp(address).map_err(listen_error)?);
        server.register_listener(tcp(address).map_err(listen_error)?, TCP_IDLE, TCP_BUFFER);
        tracing::info!(%address, domain = self.config.cluster_domain, "cluster DNS is listening");
        publish::publish(&self.client, &self.config, address.ip()).await?;
        tokio::select! {
            () = follow => Err(Error::Server("the informers ended".to_owned())),
            outcome = server.block_until_done() => {
                outcome.map_err(|error| Error::Server(error.to_string()))
            }
        }
    }

    /// The first address of the node's pod network, which its bridge holds.
    async fn gateway(&self) -> Result<IpAddr, Error> {
        let nodes = self.informers.get::<Node>();
        let mut changes = nodes.subscribe();
        nodes.synced().await;
        loop {
            let node = nodes.get("", &self.config.node_name);
            let network = node
                .as_ref()
                .and_then(|node| node.spec.as_ref()?.pod_cidr.as_deref());
            if let Some(network) = network {
                return first_address(network).ok_or_else(|| Error::PodNetwork(network.to_owned()));
            }
            if changes.next().await.is_none() {
                // The informer ended, so the process is ending.
                std::future::pending::<()>().await;
            }
        }
    }
}

fn first_address(network: &str) -> Option<IpAddr> {
    let (address, _) = network.split_once('/')?;
    match address.parse().ok()? {
        IpAddr::V4(address) => Some(IpAddr::from((u32::from(address) + 1).to_be_bytes())),
        IpAddr::V6(address) => Some(IpAddr::from((u128::from(address) + 1).to_be_bytes())),
    }
}

/// A socket for an address that the machine need not have yet: the bridge comes with the first
/// pod.
fn socket(address: SocketAddr, kind: Type, protocol: Protocol) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn udp(address: SocketAddr) -> std::io::Result<UdpSocket> {
    UdpSocket::from_std(socket(address, Type::DGRAM, Protocol::UDP)?.into())
}

fn tcp(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = socket(address, Type::STREAM, Protocol::TCP)?;
    socket.listen(128)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_is_the_first_address_of_the_pod_network() {
        assert_eq!(first_address("10.42.3.0/24"), "10.42.3.1".parse().ok());
        assert_eq!(first_address("fd00:1::/64"), "fd00:1::1".parse().ok());
        assert_eq!(first_address("nonsense"), None);
    }
}
