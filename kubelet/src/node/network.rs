//! The CNI configuration, which follows the pod network that the cluster gives the node.

use std::{io, path::Path, sync::Arc};

use coracle_client::Informer;
use k8s_openapi::api::core::v1::Node;
use tokio::sync::Notify;

use crate::{Config, runtime::Paths};

const FILE: &str = "10-coracle.conflist";

/// Writes the configuration when the node has its pod network, and again when it changes; never
/// returns. `poke` is told each time.
pub async fn follow(config: Arc<Config>, nodes: Informer<Node>, poke: Arc<Notify>) {
    let Some(conflist) = &config.cni_conflist else {
        return std::future::pending().await;
    };
    let folder = Paths::new(&config.data_dir).cni_conf();
    let mut changes = nodes.subscribe();
    let mut written = String::new();
    loop {
        let node = nodes.get("", &config.node_name);
        let network = node
            .as_ref()
            .and_then(|node| node.spec.as_ref()?.pod_cidr.as_deref());
        if let Some(network) = network.filter(|network| *network != written) {
            match write(&folder, &conflist(network)) {
                Ok(()) => {
                    tracing::info!(network, "the pod network is configured");
                    written = network.to_owned();
                    poke.notify_one();
                }
                Err(error) => {
                    tracing::error!(%error, folder = %folder.display(), "cannot write the CNI configuration");
                }
            }
        }
        if changes.next().await.is_none() {
            return std::future::pending().await;
        }
    }
}

/// Replaces the file whole: the runtime reads it at any moment. Nothing is written when it says
/// the same already.
fn write(folder: &Path, content: &str) -> io::Result<()> {
    let path = folder.join(FILE);
    if std::fs::read_to_string(&path).is_ok_and(|known| known == content) {
        return Ok(());
    }
    std::fs::create_dir_all(folder)?;
    let temporary = folder.join("coracle.new");
    std::fs::write(&temporary, content)?;
    std::fs::rename(temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("net.d");
        write(&folder, "one").unwrap();
        write(&folder, "two").unwrap();
        assert_eq!(std::fs::read_to_string(folder.join(FILE)).unwrap(), "two");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    }
}
