//! `coracle status`: how a cluster fares, told by its API.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, bail};
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client, Config, ResourceExt as _,
    config::{KubeConfigOptions, Kubeconfig},
    runtime::watcher,
};
use tokio::time::Instant;

use crate::data_dir::Layout;

/// How long an API that answers nothing is tried for, without `--wait`.
const ONE_LOOK: Duration = Duration::from_secs(5);
/// Between two tries to reach an API that is not there yet.
const RETRY: Duration = Duration::from_millis(100);

/// Prints a line per node. With `wait`, only once all nodes are Ready.
///
/// # Errors
/// When the API cannot be reached, or a node is not Ready (in time).
pub async fn run(layout: &Layout, wait: Option<Duration>) -> anyhow::Result<()> {
    let deadline = Instant::now() + wait.unwrap_or(ONE_LOOK);
    let nodes = reach(layout, deadline).await?;
    let found = match wait {
        Some(_) => tokio::time::timeout_at(deadline, all_ready(&nodes))
            .await
            .context("the node did not become Ready in time")??,
        None => {
            let listed = nodes.list(&kube::api::ListParams::default()).await?;
            let nodes = listed.iter();
            nodes
                .map(|node| (node.name_any(), is_ready(node)))
                .collect()
        }
    };
    let mut unready = 0;
    for (name, ready) in found {
        unready += usize::from(!ready);
        println!("node {name} {}", if ready { "Ready" } else { "NotReady" });
    }
    if unready > 0 {
        bail!("{unready} of the nodes are not Ready");
    }
    Ok(())
}

async fn reach(layout: &Layout, deadline: Instant) -> anyhow::Result<Api<Node>> {
    loop {
        let error = match try_reach(layout).await {
            Ok(nodes) => return Ok(nodes),
            Err(error) => error,
        };
        if Instant::now() + RETRY > deadline {
            return Err(error.context(format!("no cluster answers for {}", layout.root.display())));
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn try_reach(layout: &Layout) -> anyhow::Result<Api<Node>> {
    let kubeconfig = Kubeconfig::read_from(layout.admin_kubeconfig())?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let client = Client::try_from(config)?;
    client.apiserver_version().await?;
    Ok(Api::all(client))
}

/// Whether each node is Ready, once all are and there is one.
async fn all_ready(nodes: &Api<Node>) -> anyhow::Result<BTreeMap<String, bool>> {
    let mut events = std::pin::pin!(watcher(nodes.clone(), watcher::Config::default()));
    let mut ready = BTreeMap::new();
    let mut listed = false;
    while let Some(event) = events.try_next().await? {
        match event {
            watcher::Event::Init => ready.clear(),
            watcher::Event::InitDone => listed = true,
            watcher::Event::Apply(node) | watcher::Event::InitApply(node) => {
                ready.insert(node.name_any(), is_ready(&node));
            }
            watcher::Event::Delete(node) => {
                ready.remove(&node.name_any());
            }
        }
        if listed && !ready.is_empty() && ready.values().all(|ready| *ready) {
            return Ok(ready);
        }
    }
    bail!("the API ended the watch of nodes")
}

fn is_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
