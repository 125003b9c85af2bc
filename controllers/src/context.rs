//! What every controller is given.

use std::{sync::Arc, time::Duration};

use coracle_client::{EventRecorder, Informers};
use ipnet::IpNet;
use kube::Client;
use tokio::sync::broadcast;

use crate::certificates::SigningAuthorities;
use crate::objects::{Kept, Objects};

/// How autoscalers decide.
#[derive(Clone, Copy, Debug)]
pub struct Autoscaling {
    /// Between two looks at an autoscaler.
    pub sync_period: Duration,
    /// How long a higher recommendation holds against a lower one, without rules of its own.
    pub downscale_stabilization: Duration,
    /// How far from the target is near enough, as a part of it, where the autoscaler does not say.
    pub tolerance: f64,
    /// After its start, a pod's CPU is looked at with doubt for so long, as it may be busy
    /// starting.
    pub cpu_initialization_period: Duration,
    /// A pod that has not been ready since so long after its start, never was.
    pub initial_readiness_delay: Duration,
    /// Autoscalers that are looked at at the same time.
    pub concurrent_syncs: usize,
}

impl Default for Autoscaling {
    /// Upstream's.
    fn default() -> Self {
        Autoscaling {
            sync_period: Duration::from_secs(15),
            downscale_stabilization: Duration::from_mins(5),
            tolerance: 0.1,
            cpu_initialization_period: Duration::from_mins(5),
            initial_readiness_delay: Duration::from_secs(30),
            concurrent_syncs: 5,
        }
    }
}

/// Makes a token of claims (JSON), or says why not.
type Sign = dyn Fn(&[u8]) -> Result<String, String> + Send + Sync;

/// Signs claims as tokens of the API server's.
#[derive(Clone)]
pub struct TokenSigner(pub Arc<Sign>);

impl std::fmt::Debug for TokenSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenSigner")
    }
}

/// What the controllers need to know of the cluster.
#[derive(Debug)]
pub struct Config {
    /// The certificate authority of the API server, as PEM: what pods trust it by.
    pub root_ca: String,
    /// The addresses of pods, one range for each family. Without any, nodes get no `podCIDR`.
    pub cluster_cidrs: Vec<IpNet>,
    /// The addresses of Services, which pods never get.
    pub service_cidrs: Vec<IpNet>,
    /// The prefix length of a node's part of an IPv4 range.
    pub node_cidr_mask_ipv4: u8,
    /// The same for IPv6.
    pub node_cidr_mask_ipv6: u8,
    pub autoscaling: Autoscaling,
    /// Who signs the certificates that are asked for through the API.
    pub authorities: SigningAuthorities,
    /// Makes the tokens in Secrets; without it they stay without.
    pub token_signer: Option<TokenSigner>,
}

impl Default for Config {
    /// Upstream's mask sizes, and nothing known of the cluster.
    fn default() -> Self {
        Config {
            root_ca: String::new(),
            cluster_cidrs: Vec::new(),
            service_cidrs: Vec::new(),
            node_cidr_mask_ipv4: 24,
            node_cidr_mask_ipv6: 64,
            autoscaling: Autoscaling::default(),
            authorities: SigningAuthorities::default(),
            token_signer: None,
        }
    }
}

/// Removals that may wait for a controller; one that falls further behind looks at everything.
const REMOVALS: usize = 1024;

/// An object of any kind has gone from the cluster.
#[derive(Clone, Debug)]
pub(crate) struct Removed {
    /// Empty for objects of the cluster.
    pub namespace: String,
}

/// A controller's way to the API. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// Speaks as the controller's own identity.
    pub client: Client,
    /// Shared by the whole process.
    pub informers: Informers,
    pub config: Arc<Config>,
    removals: broadcast::Sender<Removed>,
}

impl Context {
    pub fn new(client: Client, informers: Informers, config: Config) -> Self {
        Context {
            client,
            informers,
            config: Arc::new(config),
            removals: broadcast::channel(REMOVALS).0,
        }
    }

    /// The same for another controller, which has an identity of its own.
    pub fn with_client(&self, client: Client) -> Self {
        Context {
            client,
            ..self.clone()
        }
    }

    /// Records events whose source is `component`.
    pub(crate) fn recorder(&self, component: &str) -> EventRecorder {
        EventRecorder::new(self.client.clone(), component, "")
    }

    /// What goes from the cluster from now on, as the garbage collector sees it.
    pub(crate) fn removals(&self) -> broadcast::Receiver<Removed> {
        self.removals.subscribe()
    }

    pub(crate) fn tell_removal(&self, removed: Removed) {
        // Nobody needs to listen.
        let _ = self.removals.send(removed);
    }

    /// The objects of a kind: the process's cache of them, and writes as this controller.
    pub(crate) fn objects<K: Kept>(&self) -> Objects<K> {
        Objects::new(self.client.clone(), self.informers.get())
    }
}
