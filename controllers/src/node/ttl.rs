//! The annotation that tells kubelets for how long they may use Secrets and ConfigMaps without
//! asking: the longer, the more nodes there are. Upstream: `pkg/controller/ttl`.

use k8s_openapi::api::core::v1::Node;
use kube::{ResourceExt as _, api::Patch};
use parking_lot::Mutex;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    Context, Error,
    changes::{self, Pace},
    error,
    objects::Objects,
    work::{Done, Key},
};

const NAME: &str = "ttl-controller";
const WORKERS: usize = 2;
const TTL: &str = "node.alpha.kubernetes.io/ttl";

/// The smallest and largest number of nodes of each step, and its seconds. Steps overlap, so that
/// a node that comes and goes changes nothing.
const STEPS: [(usize, usize, u32); 5] = [
    (0, 100, 0),
    (90, 500, 15),
    (450, 1000, 30),
    (900, 2000, 60),
    (1800, usize::MAX, 300),
];

/// Runs the controller.
pub(crate) async fn run(context: Context, shutdown: CancellationToken) -> Result<(), Error> {
    let nodes: Objects<Node> = context.objects();
    let step = Mutex::new(0);
    let seconds = || {
        let mut step = step.lock();
        *step = next_step(*step, nodes.cache.len());
        STEPS[*step].2.to_string()
    };
    let pace = Pace {
        name: NAME,
        queue: "ttlcontroller",
        workers: WORKERS,
    };
    let sync = |key: Key| {
        let (nodes, seconds) = (&nodes, seconds());
        async move {
            let node = nodes.get("", &key.name);
            if node.is_none_or(|node| node.annotations().get(TTL) == Some(&seconds)) {
                return Ok(Done::Settled);
            }
            let patch = json!({ "metadata": { "annotations": { TTL: seconds } } });
            error::optional(nodes.patch("", &key.name, Patch::Merge(patch)).await)?;
            Ok(Done::Settled)
        }
    };
    changes::follow(pace, &nodes.cache, &shutdown, changes::applied, sync).await;
    Ok(())
}

fn next_step(mut step: usize, nodes: usize) -> usize {
    while nodes > STEPS[step].1 {
        step += 1;
    }
    while nodes < STEPS[step].0 {
        step -= 1;
    }
    step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_overlap() {
        for (from, nodes, to) in [
            (0, 100, 0),
            (0, 101, 1),
            (1, 95, 1),
            (1, 89, 0),
            (0, 5000, 4),
            (4, 10, 0),
        ] {
            assert_eq!(next_step(from, nodes), to, "{nodes} nodes from step {from}");
        }
    }
}
