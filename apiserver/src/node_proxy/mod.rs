//! What is passed on to nodes, pods and services: `pods/log`, `exec`, `attach`, `portforward`,
//! and the `proxy` subresources.
//!
//! Enter at [`NodeProxy::handlers`]. Upgraded connections are piped byte for byte; what clients
//! and nodes speak over them is theirs.

mod html;
mod kubelet;
mod log;
mod log_socket;
mod options;
mod proxy;
mod stream;
mod target;
#[cfg(test)]
mod tests;

use std::sync::{Arc, atomic::AtomicUsize};

use coracle_transport::{ClientIdentity, Forwarder, TlsError, Trust, client_config};
use rustls::{ClientConfig, pki_types::CertificateDer};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::{
    Lookup,
    admission::Operation,
    error::ApiError,
    handler::{Handler, Place},
    registry::Resource,
    server::{ApiServer, Context},
};

/// With which certificates nodes and pods are spoken to.
pub struct NodeTls {
    /// Believes what the cluster's authority signed; presents the API server's certificate.
    kubelets: Arc<ClientConfig>,
    /// The same, for those who ask not to verify the node.
    unverified_kubelets: Arc<ClientConfig>,
    /// Pods have certificates of their own, which nobody can verify.
    anyone: Arc<ClientConfig>,
}

impl NodeTls {
    pub fn new(
        authorities: &[CertificateDer<'_>],
        identity: Arc<ClientIdentity>,
    ) -> Result<Self, TlsError> {
        let verified = Trust::Authorities(authorities);
        Ok(NodeTls {
            kubelets: Arc::new(client_config(verified, Some(identity.clone()))?),
            unverified_kubelets: Arc::new(client_config(Trust::Anyone, Some(identity))?),
            anyone: Arc::new(client_config(Trust::Anyone, None)?),
        })
    }
}

/// Passes requests on. Cheap to clone.
#[derive(Clone)]
pub struct NodeProxy(Arc<Inner>);

struct Inner {
    lookup: Lookup,
    tls: NodeTls,
    forwarder: Forwarder,
    /// Spreads requests over the endpoints of a Service.
    turn: AtomicUsize,
}

impl NodeProxy {
    /// Sessions end with `shutdown`.
    pub fn new(lookup: Lookup, tls: NodeTls, shutdown: CancellationToken) -> Self {
        NodeProxy(Arc::new(Inner {
            lookup,
            tls,
            forwarder: Forwarder::new(shutdown),
            turn: AtomicUsize::new(0),
        }))
    }

    /// The handlers of everything that is passed on.
    pub fn handlers(&self) -> Vec<(Place, Arc<dyn Handler>)> {
        let place = |resource, subresource| Place {
            group: "",
            resource,
            subresource,
        };
        let stream = |kind| Arc::new(stream::Stream::new(self.clone(), kind)) as Arc<dyn Handler>;
        let proxy = |kind| Arc::new(proxy::Proxy::new(self.clone(), kind)) as Arc<dyn Handler>;
        vec![
            (place("pods", "log"), Arc::new(log::Log::new(self.clone()))),
            (place("pods", "exec"), stream(stream::Kind::Exec)),
            (place("pods", "attach"), stream(stream::Kind::Attach)),
            (
                place("pods", "portforward"),
                stream(stream::Kind::PortForward),
            ),
            (place("pods", "proxy"), proxy(proxy::Kind::Pod)),
            (place("services", "proxy"), proxy(proxy::Kind::Service)),
            (place("nodes", "proxy"), proxy(proxy::Kind::Node)),
        ]
    }
}

/// Lets admission refuse a connection. `options` is the object that the query stands for.
async fn admit(
    server: &ApiServer,
    context: &Context,
    resource: &Resource,
    options: &Value,
) -> Result<(), ApiError> {
    let name = context.info.name.as_str();
    let mut attributes = context.attributes(resource, Operation::Connect, name, false);
    attributes.options = options;
    let admission = server.admission();
    admission.admit(&attributes, None, None).await?;
    admission.validate(&attributes, None, None).await
}
