//! Prefers nodes that already have the pod's images.

use std::sync::Arc;

use crate::{
    cluster::Cluster,
    framework::{MAX_SCORE, Plugin},
    node::NodeInfo,
    pod::PodInfo,
};

const MIB: i64 = 1024 * 1024;
/// Less than this is not worth a preference.
const LEAST: i64 = 23 * MIB;
/// More than this for each container counts no more.
const MOST: i64 = 1000 * MIB;

pub(crate) struct ImageLocality;

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn weight(&self) -> i64 {
        1
    }

    fn score(
        &self,
        pod: &Arc<PodInfo>,
        cluster: &Cluster<'_>,
        feasible: &[&NodeInfo],
    ) -> Option<Vec<i64>> {
        let spec = pod.pod.spec.as_ref()?;
        let containers = spec
            .containers
            .iter()
            .chain(spec.init_containers.iter().flatten());
        let volumes = spec
            .volumes
            .iter()
            .flatten()
            .filter_map(|volume| volume.image.as_ref()?.reference.as_deref());
        let total = cluster.cache.nodes().len() as f64;
        let images: Vec<(String, f64)> = containers
            .clone()
            .filter_map(|container| container.image.as_deref())
            .chain(volumes)
            .map(normalized)
            .map(|name| {
                let nodes = cluster.cache.nodes_with_image(&name) as f64;
                (name, nodes / total)
            })
            .filter(|(_, spread)| *spread > 0.0)
            .collect();
        if images.is_empty() {
            return None;
        }
        let count = containers.count() as i64;
        let score = |node: &&NodeInfo| {
            let present = images.iter().filter_map(|(name, spread)| {
                let size = *node.images.get(name)?;
                // An image on few nodes counts less, or they would draw all pods of it.
                Some((size as f64 * spread) as i64)
            });
            priority(present.sum(), count)
        };
        Some(feasible.iter().map(score).collect())
    }
}

fn priority(bytes: i64, containers: i64) -> i64 {
    let most = MOST * containers;
    MAX_SCORE * (bytes.clamp(LEAST, most) - LEAST) / (most - LEAST)
}

/// With the tag that an image name without one means.
fn normalized(name: &str) -> String {
    match (name.rfind(':'), name.rfind('/')) {
        (Some(colon), Some(slash)) if colon > slash => name.to_owned(),
        (Some(_), None) => name.to_owned(),
        _ => format!("{name}:latest"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_scores() {
        for (name, expected) in [
            ("a", "a:latest"),
            ("a:1", "a:1"),
            ("r:5000/a", "r:5000/a:latest"),
            ("r:5000/a:1", "r:5000/a:1"),
        ] {
            assert_eq!(normalized(name), expected);
        }
        assert_eq!(priority(0, 1), 0);
        assert_eq!(priority(1000 * MIB, 1), 100);
        assert_eq!(priority(9000 * MIB, 2), 100);
        assert_eq!(priority(511 * MIB, 1), 49);
    }
}
