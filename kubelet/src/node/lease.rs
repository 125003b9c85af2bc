//! The Lease that shows the node to be alive.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::Node,
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, Resource as _, api::PostParams};

use crate::Config;

/// Where upstream's kubelets keep their Leases.
const NAMESPACE: &str = "kube-node-lease";
/// After a failure; doubled up to [`MAX_RETRY`], as upstream.
const FIRST_RETRY: Duration = Duration::from_millis(200);
const MAX_RETRY: Duration = Duration::from_secs(7);

/// Renews the Lease four times within its duration; never returns.
pub async fn renew(config: Arc<Config>, client: Client) {
    let leases: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    let nodes: Api<Node> = Api::all(client);
    let mut current = None;
    let mut retry = FIRST_RETRY;
    loop {
        match try_renew(&config, &leases, &nodes, current.take()).await {
            Ok(lease) => {
                current = Some(lease);
                retry = FIRST_RETRY;
                tokio::time::sleep(config.node_lease_duration / 4).await;
            }
            Err(error) => {
                tracing::debug!(%error, "cannot renew the node's lease, trying again");
                tokio::time::sleep(retry).await;
                retry = (retry * 2).min(MAX_RETRY);
            }
        }
    }
}

/// Renews the Lease as it was last seen, or looks for it first.
async fn try_renew(
    config: &Config,
    leases: &Api<Lease>,
    nodes: &Api<Node>,
    current: Option<Lease>,
) -> Result<Lease, kube::Error> {
    let known = match current {
        Some(lease) => Some(lease),
        None => leases.get_opt(&config.node_name).await?,
    };
    match known {
        Some(mut lease) => {
            lease.spec = Some(spec(config));
            leases
                .replace(&config.node_name, &PostParams::default(), &lease)
                .await
        }
        None => {
            let node = nodes.get(&config.node_name).await?;
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(config.node_name.clone()),
                    // The Lease goes with the Node.
                    owner_references: node.owner_ref(&()).map(|owner| vec![owner]),
                    ..ObjectMeta::default()
                },
                spec: Some(spec(config)),
            };
            leases.create(&PostParams::default(), &lease).await
        }
    }
}

fn spec(config: &Config) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(config.node_name.clone()),
        lease_duration_seconds: i32::try_from(config.node_lease_duration.as_secs()).ok(),
        renew_time: Some(MicroTime(Timestamp::now())),
        ..LeaseSpec::default()
    }
}
