//! The service proxy of one node: Services and EndpointSlices become nftables rules.
//!
//! Enter at [`Proxy`]. The way of a change: `state` hears of it from the informers, `desired` says
//! what the kernel is to hold for that Service, `world` finds what is new in it, `script` writes
//! that as one transaction, and `run` has it done. `model` explains the table, `endpoints` holds upstream's rules of who
//! takes which traffic.
//!
//! What it promises: a packet costs the same whatever the number of Services; a change costs what
//! it changes; each step from one state to the next is one transaction, so there is no moment
//! without rules; connections made before go on; only the table named in [`Config`] is touched.
//! When the kernel refuses a transaction, or this starts anew, the whole table is written.

#[cfg(test)]
mod cases;
mod desired;
mod endpoints;
mod health;
mod metrics;
mod model;
mod run;
mod script;
mod state;
mod world;

use std::net::IpAddr;

use coracle_client::{EventRecorder, Informers};
use coracle_netfilter::{Family, Nft, table_comment};
use ipnet::IpNet;

pub use metrics::metrics;

/// What the proxy is told.
#[derive(Clone, Debug)]
pub struct Config {
    pub node_name: String,
    pub node_addresses: Vec<IpAddr>,
    /// Where pods are: sources from elsewhere are masqueraded on their way to a cluster IP.
    pub cluster_cidrs: Vec<IpNet>,
    /// Where cluster IPs are: packets to those of no Service are dropped.
    pub service_cidrs: Vec<IpNet>,
    /// The addresses at which node ports are open; all of the node but loopback when empty.
    pub node_port_addresses: Vec<IpNet>,
    /// Masquerade all that goes to a cluster IP.
    pub masquerade_all: bool,
    /// The name of the table, of family `inet`.
    pub table: String,
}

impl Config {
    /// The table `coracle-proxy`, and upstream's defaults.
    pub fn new(node_name: &str, cluster_cidrs: Vec<IpNet>, service_cidrs: Vec<IpNet>) -> Self {
        Config {
            node_name: node_name.to_owned(),
            node_addresses: Vec::new(),
            cluster_cidrs,
            service_cidrs,
            node_port_addresses: Vec::new(),
            masquerade_all: false,
            table: "coracle-proxy".to_owned(),
        }
    }
}

/// Why the proxy ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot write the rules of all Services: {0}")]
    Rules(#[from] coracle_netfilter::Error),
    #[error("cannot look at the table {table}: {source}")]
    Look {
        table: String,
        source: std::io::Error,
    },
    #[error("a task of the proxy ended: {0}")]
    Task(#[from] tokio::task::JoinError),
    #[error("the informers have ended")]
    Informers,
}

/// The proxy of one node.
pub struct Proxy {
    config: Config,
    informers: Informers,
    recorder: EventRecorder,
}

impl Proxy {
    pub fn new(config: Config, informers: Informers, recorder: EventRecorder) -> Self {
        Proxy {
            config,
            informers,
            recorder,
        }
    }
}

/// Removes the proxy's table, and with it every rule that it ever made.
pub fn cleanup(config: &Config) -> Result<(), coracle_netfilter::Error> {
    if matches!(table_comment(Family::Inet, &config.table), Ok(None)) {
        return Ok(());
    }
    Nft::default().remove_table(Family::Inet, &config.table)
}
