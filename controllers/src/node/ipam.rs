//! Gives each node a range of pod addresses out of the cluster's. Upstream:
//! `pkg/controller/nodeipam`, the range allocator.

use std::{collections::HashSet, net::IpAddr};

use coracle_client::{EventRecorder, EventType, Queue};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use k8s_openapi::api::core::v1::Node;
use kube::{ResourceExt as _, api::Patch};
use parking_lot::Mutex;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::reference;
use crate::{
    Config, Context, Error,
    changes::{self, Seen},
    objects::Objects,
    work::{self, Done, Key},
};

const NAME: &str = "node-ipam-controller";

/// Runs the controller.
pub(crate) async fn run(context: Context, shutdown: CancellationToken) -> Result<(), Error> {
    let controller = Controller {
        nodes: context.objects(),
        recorder: context.recorder("cidrAllocator"),
        queue: Queue::named("node"),
        ranges: Mutex::new(ranges(&context.config)),
    };
    controller.run(shutdown).await
}

struct Controller {
    nodes: Objects<Node>,
    recorder: EventRecorder,
    queue: Queue<Key>,
    ranges: Mutex<Vec<Range>>,
}

impl Controller {
    async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let nodes = changes::each(&self.nodes.cache, |seen| match seen {
            Seen::Applied { new: node, .. } => self.queue.add(Key::of(&node.metadata)),
            // A range is free again: those that wait for one may get it.
            Seen::Deleted(_) => {
                for node in self.nodes.cache.list() {
                    if cidrs(&node).is_empty() {
                        self.queue.add(Key::of(&node.metadata));
                    }
                }
            }
            Seen::Lagged => {}
        });
        // One at a time: each decision sees the ranges that were given out before.
        let workers = async {
            self.nodes.cache.synced().await;
            work::work(NAME, &self.queue, 1, &shutdown, |key| self.sync(key)).await;
        };
        tokio::select! {
            () = nodes => {}
            () = workers => {}
            () = shutdown.cancelled() => {}
        }
        Ok(())
    }

    async fn sync(&self, key: Key) -> Result<Done, Error> {
        let Some(node) = self.nodes.get("", &key.name) else {
            return Ok(Done::Settled);
        };
        if node.metadata.deletion_timestamp.is_some() || !cidrs(&node).is_empty() {
            return Ok(Done::Settled);
        }
        let used: HashSet<IpNet> = self
            .nodes
            .cache
            .list()
            .iter()
            .flat_map(|node| cidrs(node))
            .collect();
        let mut given = Vec::new();
        let mut numbers = Vec::new();
        for range in self.ranges.lock().iter() {
            match range.next(&used) {
                Some((number, cidr)) => {
                    given.push(cidr.to_string());
                    numbers.push(number);
                }
                None => {
                    self.tell(&node, "CIDRNotAvailable");
                    return Err(Error::Refused(format!(
                        "failed to allocate cidr from cluster cidr {}: CIDR allocation failed; \
                         there are no remaining CIDRs left to allocate in the accepted range",
                        range.whole
                    )));
                }
            }
        }
        let Some(first) = given.first() else {
            return Ok(Done::Settled);
        };
        let patch = json!({
            "metadata": { "resourceVersion": node.resource_version() },
            "spec": { "podCIDR": first, "podCIDRs": given },
        });
        let written = self.nodes.patch("", &key.name, Patch::Merge(patch)).await;
        if let Err(error) = written {
            let error = Error::from(error);
            if !error.is_conflict() {
                self.tell(&node, "CIDRAssignmentFailed");
            }
            return Err(error);
        }
        for (range, number) in self.ranges.lock().iter_mut().zip(numbers) {
            range.cursor = number + 1;
        }
        Ok(Done::Settled)
    }

    fn tell(&self, node: &Node, status: &str) {
        let message = format!("Node {} status is now: {status}", node.name_any());
        self.recorder
            .event(reference(node), EventType::Normal, status, message);
    }
}

fn cidrs(node: &Node) -> Vec<IpNet> {
    let Some(spec) = &node.spec else {
        return Vec::new();
    };
    let mut texts: Vec<&String> = spec.pod_cidrs.iter().flatten().collect();
    if texts.is_empty() {
        texts.extend(spec.pod_cidr.iter().filter(|text| !text.is_empty()));
    }
    texts
        .into_iter()
        .filter_map(|text| text.parse().ok())
        .collect()
}

/// One of the cluster's ranges, cut into pieces for the nodes.
struct Range {
    whole: IpNet,
    /// Of a piece.
    prefix: u8,
    /// The number of the piece to try first: a range that was given back is left alone for a while.
    cursor: u128,
    /// Not for pods.
    reserved: Vec<IpNet>,
}

fn ranges(config: &Config) -> Vec<Range> {
    let ranges = config.cluster_cidrs.iter();
    ranges
        .map(|whole| Range {
            whole: *whole,
            prefix: match whole {
                IpNet::V4(_) => config.node_cidr_mask_ipv4,
                IpNet::V6(_) => config.node_cidr_mask_ipv6,
            }
            .max(whole.prefix_len()),
            cursor: 0,
            reserved: config.service_cidrs.clone(),
        })
        .collect()
}

impl Range {
    /// The next free piece, and its number.
    fn next(&self, used: &HashSet<IpNet>) -> Option<(u128, IpNet)> {
        let count = 1u128 << (self.prefix - self.whole.prefix_len()).min(127);
        for offset in 0..count {
            let number = (self.cursor + offset) % count;
            let piece = self.piece(number)?;
            let taken = used
                .iter()
                .chain(&self.reserved)
                .any(|other| other.contains(&piece) || piece.contains(other));
            if !taken {
                return Some((number, piece));
            }
        }
        None
    }

    fn piece(&self, number: u128) -> Option<IpNet> {
        match self.whole.network() {
            IpAddr::V4(base) => {
                let shift = 32 - u32::from(self.prefix);
                let step = u32::try_from(number).ok()?.checked_shl(shift).unwrap_or(0);
                let network = (u32::from(base) | step).into();
                Ipv4Net::new(network, self.prefix).ok().map(IpNet::V4)
            }
            IpAddr::V6(base) => {
                let shift = 128 - u32::from(self.prefix);
                let step = number.checked_shl(shift).unwrap_or(0);
                let network = (u128::from(base) | step).into();
                Ipv6Net::new(network, self.prefix).ok().map(IpNet::V6)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().expect("a range")
    }

    fn of(cluster: &[&str], service: &[&str]) -> Vec<Range> {
        ranges(&Config {
            cluster_cidrs: cluster.iter().map(|text| net(text)).collect(),
            service_cidrs: service.iter().map(|text| net(text)).collect(),
            ..Config::default()
        })
    }

    #[test]
    fn pieces_are_given_out_in_turn_and_skip_what_is_taken() {
        let range = of(&["10.42.0.0/22"], &["10.42.2.0/24"]).remove(0);
        let mut used = HashSet::from([net("10.42.1.0/24")]);
        let (_, first) = range.next(&used).expect("a piece");
        assert_eq!(first, net("10.42.0.0/24"));
        used.insert(first);
        let (_, second) = range.next(&used).expect("a piece");
        assert_eq!(second, net("10.42.3.0/24"));
        used.insert(second);
        assert_eq!(range.next(&used), None);
        used.remove(&net("10.42.1.0/24"));
        assert_eq!(range.next(&used), Some((1, net("10.42.1.0/24"))));
    }

    #[test]
    fn each_family_has_its_own_size_of_pieces() {
        let used = HashSet::new();
        let pieces: Vec<IpNet> = of(&["10.42.0.0/16", "fd00:42::/56", "10.9.0.0/28"], &[])
            .iter()
            .filter_map(|range| range.next(&used))
            .map(|(_, piece)| piece)
            .collect();
        assert_eq!(
            pieces,
            [net("10.42.0.0/24"), net("fd00:42::/64"), net("10.9.0.0/28")]
        );
    }
}
