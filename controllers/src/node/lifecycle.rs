//! Watches over nodes: those that are not heard of any more are marked, tainted, and their pods
//! counted as not ready. Upstream: `pkg/controller/nodelifecycle`.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use coracle_client::{EventRecorder, EventType, Informer, Queue};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, Pod},
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{ResourceExt as _, api::Patch};
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{
    Ready,
    health::{self, Assessment, Health},
    reference,
    taints::{self, NO_EXECUTE, NOT_READY, UNREACHABLE},
    zones::{Disruption, Zones},
};
use crate::{
    Context, Error,
    changes::{self, Seen},
    conditions, metrics,
    objects::Objects,
    pods,
    work::{self, Done, Key},
};

const NAME: &str = "node-lifecycle-controller";
const WORKERS: usize = 4;
/// Between two looks at all nodes: silence is no event.
const PERIOD: Duration = Duration::from_secs(5);
const LEASES: &str = "kube-node-lease";
const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";
/// Nodes with this label do not count when a zone's state is worked out.
const EXCLUDED: &str = "node.kubernetes.io/exclude-disruption";
/// Labels that old clients read, and where their values come from.
const OLD_LABELS: [(&str, &str); 2] = [
    ("kubernetes.io/os", "beta.kubernetes.io/os"),
    ("kubernetes.io/arch", "beta.kubernetes.io/arch"),
];

/// Runs the controller.
pub(crate) async fn run(context: Context, shutdown: CancellationToken) -> Result<(), Error> {
    let controller = Controller {
        nodes: context.objects(),
        pods: context.objects(),
        leases: context
            .informers
            .matching(&format!("metadata.namespace={LEASES}")),
        recorder: context.recorder("node-controller"),
        queue: Queue::named("node_lifecycle_controller"),
    };
    controller.run(shutdown).await
}

struct Controller {
    nodes: Objects<Node>,
    pods: Objects<Pod>,
    leases: Informer<Lease>,
    recorder: EventRecorder,
    /// Nodes whose taints against scheduling and whose labels are to be looked at.
    queue: Queue<Key>,
}

/// What is known from one look to the next.
#[derive(Default)]
struct Watched {
    nodes: HashMap<String, (Arc<Node>, Health)>,
    zones: Zones,
}

impl Controller {
    async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let nodes = changes::each(&self.nodes.cache, |seen| {
            if let Seen::Applied { new: node, .. } = seen {
                self.queue.add(Key::of(&node.metadata));
            }
        });
        let workers = async {
            self.nodes.cache.synced().await;
            work::work(NAME, &self.queue, WORKERS, &shutdown, |key| {
                self.follow(key)
            })
            .await;
        };
        let monitor = async {
            self.nodes.cache.synced().await;
            self.pods.cache.synced().await;
            self.leases.synced().await;
            let mut watched = Watched::default();
            let mut ticks = tokio::time::interval(PERIOD);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                self.look(&mut watched).await;
            }
        };
        tokio::select! {
            () = nodes => {}
            () = workers => {}
            () = monitor => {}
            () = shutdown.cancelled() => {}
        }
        Ok(())
    }

    /// Brings the taints against scheduling in line with the conditions, and the old labels with
    /// the new ones.
    async fn follow(&self, key: Key) -> Result<Done, Error> {
        let Some(node) = self.nodes.get("", &key.name) else {
            return Ok(Done::Settled);
        };
        let now = Time(conditions::to_seconds(Timestamp::now()));
        if let Some(taints) = taints::following_conditions(&node, &now) {
            taints::write(&self.nodes, &node, &taints).await?;
        }
        let labels = old_labels(&node);
        if !labels.is_empty() {
            let patch = Patch::Merge(json!({ "metadata": { "labels": labels } }));
            self.nodes.patch("", &key.name, patch).await?;
        }
        Ok(Done::Settled)
    }

    /// One look at all nodes.
    async fn look(&self, watched: &mut Watched) {
        let nodes = self.nodes.cache.list();
        self.note_new_and_gone(&nodes, watched).await;
        let now = Instant::now();
        let mut states: BTreeMap<String, Vec<Option<Ready>>> = BTreeMap::new();
        for node in &nodes {
            let name = node.name_any();
            let known = watched.nodes.get(&name).map(|(_, health)| health);
            let lease = self.leases.get(LEASES, &name);
            let found = health::assess(node, lease.as_deref(), known, now, Timestamp::now());
            let health = found.health.clone();
            if let Err(error) = self.judge(node, &found, watched).await {
                tracing::info!(node = name, %error, "cannot look after the node, trying again");
            }
            watched.nodes.insert(name, (node.clone(), health));
            if !node.labels().contains_key(EXCLUDED) {
                states.entry(zone(node)).or_default().push(found.current);
            }
        }
        match watched.zones.update(&states, now) {
            Disruption::None => {}
            Disruption::Entered => {
                tracing::info!("no node is ready: their pods are left where they are");
                for node in &nodes {
                    watched.zones.release(&node.name_any());
                    if let Err(error) = self.clear(node).await {
                        tracing::info!(node = node.name_any(), %error, "cannot remove taints");
                    }
                }
            }
            Disruption::Left => {
                // Nobody could be heard meanwhile: everyone starts anew.
                watched.nodes.clear();
                for node in &nodes {
                    let lease = self.leases.get(LEASES, &node.name_any());
                    let wall = Timestamp::now();
                    let found = health::assess(node, lease.as_deref(), None, now, wall);
                    watched
                        .nodes
                        .insert(node.name_any(), (node.clone(), found.health));
                }
            }
        }
        for name in watched.zones.due(now) {
            if let Err(error) = self.taint(&name).await {
                tracing::info!(node = name, %error, "cannot taint the node, trying again");
            }
        }
    }

    async fn note_new_and_gone(&self, nodes: &[Arc<Node>], watched: &mut Watched) {
        for node in nodes {
            let name = node.name_any();
            if !watched.nodes.contains_key(&name) {
                let message = format!("Node {name} event: Registered Node {name} in Controller");
                self.tell(node, "RegisteredNode", message);
                if let Err(error) = self.clear(node).await {
                    tracing::info!(node = name, %error, "cannot remove taints");
                }
            }
        }
        let gone: Vec<String> = watched
            .nodes
            .keys()
            .filter(|name| !nodes.iter().any(|node| node.name_any() == **name))
            .cloned()
            .collect();
        for name in gone {
            watched.zones.release(&name);
            if let Some((node, _)) = watched.nodes.remove(&name) {
                let message = format!("Node {name} event: Removing Node {name} from Controller");
                self.tell(&node, "RemovingNode", message);
            }
        }
    }

    fn tell(&self, node: &Node, reason: &str, message: String) {
        self.recorder
            .event(reference(node), EventType::Normal, reason, message);
    }

    /// Acts on what a look at the node came to.
    async fn judge(
        &self,
        node: &Arc<Node>,
        found: &Assessment,
        watched: &mut Watched,
    ) -> Result<(), Error> {
        let name = node.name_any();
        if let Some(conditions) = &found.conditions {
            let mut object = (**node).clone();
            object.status.get_or_insert_default().conditions = Some(conditions.clone());
            self.nodes.replace_status(&object).await?;
            if found.observed == Ready::True {
                let message = format!("Node {name} status is now: NodeNotReady");
                self.tell(node, "NodeNotReady", message);
            }
        }
        let (wanted, other) = match found.current {
            None => return Ok(()),
            Some(Ready::True) => {
                watched.zones.release(&name);
                return self.clear(node).await;
            }
            Some(Ready::False) => (NOT_READY, UNREACHABLE),
            Some(Ready::Unknown) => (UNREACHABLE, NOT_READY),
        };
        if taints::has(node, other, NO_EXECUTE) {
            self.swap(&name, &[wanted], &[other]).await?;
        } else if !taints::has(node, wanted, NO_EXECUTE) {
            watched.zones.wait(&zone(node), &name, Instant::now());
        }
        if found.current == Some(Ready::Unknown) {
            self.mark_pods(&name).await?;
        }
        Ok(())
    }

    /// Takes away the taints that evict pods.
    async fn clear(&self, node: &Node) -> Result<(), Error> {
        let evicts = [NOT_READY, UNREACHABLE]
            .iter()
            .any(|key| taints::has(node, key, NO_EXECUTE));
        if evicts {
            self.swap(&node.name_any(), &[], &[NOT_READY, UNREACHABLE])
                .await?;
        }
        Ok(())
    }

    /// Gives the node the taint that evicts its pods, if it still needs one.
    async fn taint(&self, name: &str) -> Result<(), Error> {
        let Some(node) = self.nodes.get("", name) else {
            return Ok(());
        };
        match super::ready_condition(&node).map(super::readiness) {
            Some(Ready::False) => self.swap(name, &[NOT_READY], &[UNREACHABLE]).await,
            Some(Ready::Unknown) => self.swap(name, &[UNREACHABLE], &[NOT_READY]).await,
            Some(Ready::True) | None => Ok(()),
        }
    }

    async fn swap(&self, name: &str, add: &[&str], remove: &[&str]) -> Result<(), Error> {
        let Some(node) = self.nodes.get("", name) else {
            return Ok(());
        };
        let now = Time(conditions::to_seconds(Timestamp::now()));
        if let Some(taints) = taints::changed(&node, NO_EXECUTE, add, remove, &now) {
            taints::write(&self.nodes, &node, &taints).await?;
            metrics::evicted(&zone(&node));
        }
        Ok(())
    }

    /// The pods of a node that is not heard of are not ready.
    async fn mark_pods(&self, node: &str) -> Result<(), Error> {
        let mut outcome = Ok(());
        for pod in self.pods.cache.list() {
            if pods::node_name(&pod) != node || !pods::is_ready(&pod) {
                continue;
            }
            let mut object = (*pod).clone();
            let list = object
                .status
                .as_mut()
                .and_then(|status| status.conditions.as_mut());
            for condition in list.into_iter().flatten() {
                if condition.type_ == "Ready" {
                    condition.status = "False".to_owned();
                    condition.last_transition_time =
                        Some(Time(conditions::to_seconds(Timestamp::now())));
                }
            }
            match self.pods.replace_status(&object).await {
                Ok(_) => self.recorder.on(
                    &*pod,
                    EventType::Warning,
                    "NodeNotReady",
                    "Node is not ready",
                ),
                Err(error) => outcome = Err(error.into()),
            }
        }
        outcome
    }
}

/// `region:\0:zone`, as upstream keys zones.
fn zone(node: &Node) -> String {
    let label = |key: &str| node.labels().get(key).map_or("", String::as_str);
    let (region, zone) = (label(REGION), label(ZONE));
    if region.is_empty() && zone.is_empty() {
        String::new()
    } else {
        format!("{region}:\0:{zone}")
    }
}

fn old_labels(node: &Node) -> BTreeMap<&'static str, String> {
    let labels = node.labels();
    OLD_LABELS
        .iter()
        .filter_map(|(new, old)| {
            let value = labels.get(*new)?;
            (labels.get(*old) != Some(value)).then(|| (*old, value.clone()))
        })
        .collect()
}
