//! Daemon sets: one pod of a template on every node that it fits.
//!
//! Enter at [`run`]. What to do is decided in [`decide`]; here it is read and written. Upstream:
//! `pkg/controller/daemon`.

mod backoff;
mod decide;
mod pod;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use coracle_client::{EventType, Informer, Queue};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, DaemonSet},
        core::v1::{Node, Pod, PodTemplateSpec},
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::{Resource as _, ResourceExt as _, api::Patch};
use parking_lot::Mutex;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use self::{
    backoff::{Backoff, Place},
    decide::{Plan, World},
};
use crate::{
    Context, Error, batch,
    changes::{self, Seen},
    history::{self, History, Revised},
    labels,
    objects::Objects,
    owner,
    pods::PodControl,
    work::{self, Done, Key},
};

const NAME: &str = "daemonset-controller";
const WORKERS: usize = 2;
/// Pods created or deleted in one go.
const BURST: usize = 250;

/// Runs the DaemonSet controller.
pub(crate) async fn run(context: Context, shutdown: CancellationToken) -> Result<(), Error> {
    let pods: Objects<Pod> = context.objects();
    let controller = Controller {
        sets: context.objects(),
        control: PodControl {
            recorder: context.recorder(NAME),
            pods: pods.clone(),
        },
        pods,
        nodes: context.informers.get(),
        history: History::new(&context),
        backoff: Mutex::default(),
        queue: Queue::named("daemonset"),
    };
    controller.run(shutdown).await
}

struct Controller {
    sets: Objects<DaemonSet>,
    pods: Objects<Pod>,
    nodes: Informer<Node>,
    history: History<DaemonSet>,
    control: PodControl,
    backoff: Mutex<Backoff>,
    queue: Queue<Key>,
}

impl Revised for DaemonSet {
    const HASH_LABEL: &str = history::POD_LABEL;

    fn selector(&self) -> Option<&LabelSelector> {
        self.spec.as_ref().map(|spec| &spec.selector)
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref().map(|spec| &spec.template)
    }

    fn history_limit(&self) -> Option<i32> {
        self.spec.as_ref()?.revision_history_limit
    }

    fn collision_count(&self) -> Option<i32> {
        self.status.as_ref()?.collision_count
    }

    fn with_collision_count(&self, count: i32) -> Self {
        let mut next = self.clone();
        next.status.get_or_insert_default().collision_count = Some(count);
        next
    }
}

fn selects(set: &DaemonSet, labels: Option<&labels::Labels>) -> bool {
    let selector = set.selector();
    selector
        .is_some_and(|selector| !labels::is_empty(selector) && labels::selects(selector, labels))
}

impl Controller {
    async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let synced = async || {
            self.sets.cache.synced().await;
            self.pods.cache.synced().await;
            self.nodes.synced().await;
            self.history.revisions.cache.synced().await;
        };
        let sets = changes::each(&self.sets.cache, |seen| match seen {
            Seen::Applied { new: set, .. } | Seen::Deleted(set) => {
                self.queue.add(Key::of(&set.metadata));
            }
            Seen::Lagged => {}
        });
        let pods = async {
            self.sets.cache.synced().await;
            changes::each(&self.pods.cache, |seen| {
                changes::queue_owners(&self.queue, &self.sets.cache, seen, selects);
            })
            .await;
        };
        let revisions = async {
            self.sets.cache.synced().await;
            changes::each(&self.history.revisions.cache, |seen| {
                // One that a set owns from the start is either its own work, or is looked at when
                // something happens to it.
                if let Seen::Applied { old: None, new } = &seen
                    && owner::controller_of(&new.metadata).is_some()
                {
                    return;
                }
                changes::queue_owners(&self.queue, &self.sets.cache, seen, selects);
            })
            .await;
        };
        let nodes = changes::each(&self.nodes, |seen| self.node_seen(&seen));
        let workers = async {
            synced().await;
            work::work(NAME, &self.queue, WORKERS, &shutdown, |key| self.sync(key)).await;
        };
        tokio::select! {
            () = sets => {}
            () = pods => {}
            () = revisions => {}
            () = nodes => {}
            () = workers => {}
            () = shutdown.cancelled() => {}
        }
        Ok(())
    }

    /// Nodes tell of themselves all the time; only what makes a pod fit or not matters.
    fn node_seen(&self, seen: &Seen<Node>) {
        if let Seen::Applied {
            old: Some(old),
            new,
        } = seen
        {
            let taints = |node: &Node| node.spec.as_ref().and_then(|spec| spec.taints.clone());
            if old.metadata.labels == new.metadata.labels && taints(old) == taints(new) {
                return;
            }
        }
        for set in self.sets.cache.list() {
            self.queue.add(Key::of(&set.metadata));
        }
    }

    async fn sync(&self, key: Key) -> Result<Done, Error> {
        let Some(set) = self.sets.get(&key.namespace, &key.name) else {
            return Ok(Done::Settled);
        };
        if set.selector().is_none_or(labels::is_empty) {
            self.control.recorder.on(
                &*set,
                EventType::Warning,
                "SelectingAll",
                "This daemon set is selecting all pods. A non-empty selector is required.",
            );
            return Ok(Done::Settled);
        }
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(Done::Settled);
        }
        let (current, old) = self.revisions(&set).await?;
        let hash = history::hash_in::<DaemonSet>(&current).to_owned();
        let managed = self.manage(&set, &hash, &old).await;

        // The writes above show in the cache by now.
        let owned = self.owned(&set);
        let nodes = self.nodes.list();
        let world = World::new(&set, &nodes, &owned, &hash, Timestamp::now());
        if let Some(status) = world.status() {
            let next = DaemonSet {
                status: Some(status),
                ..(*set).clone()
            };
            self.sets.replace_status(&next).await?;
        }
        let again = managed?.into_iter().chain(world.next_available(&owned));
        Ok(again.min().map_or(Done::Settled, Done::Again))
    }

    fn owned(&self, set: &DaemonSet) -> Vec<Arc<Pod>> {
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let mut owned = self.pods.cache.controlled_by(uid);
        owned.retain(|pod| selects(set, pod.metadata.labels.as_ref()));
        owned
    }

    /// The revision of the set's template, and those of the templates before it.
    async fn revisions(
        &self,
        set: &Arc<DaemonSet>,
    ) -> Result<(Arc<ControllerRevision>, Vec<Arc<ControllerRevision>>), Error> {
        let all = self.history.claim(&**set).await?;
        let template = set.template();
        let (mut current, old): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|one| template.is_some_and(|template| history::is_of(one, template)));
        let number = history::next_number(old.iter().map(|revision| &**revision));
        let Some(newest) = current.pop() else {
            return Ok((self.history.create(&**set, number).await?, old));
        };
        self.unite(set, &newest, &current).await?;
        let newest = if newest.revision < number {
            self.history.renumber(&newest, number).await?
        } else {
            newest
        };
        Ok((newest, old))
    }

    /// Several revisions of one template become one: the pods of the others are relabelled.
    async fn unite(
        &self,
        set: &DaemonSet,
        kept: &ControllerRevision,
        others: &[Arc<ControllerRevision>],
    ) -> Result<(), Error> {
        if others.is_empty() {
            return Ok(());
        }
        let hash = history::hash_in::<DaemonSet>(kept);
        for pod in self.owned(set) {
            if pod.labels().get(history::POD_LABEL).map(String::as_str) != Some(hash) {
                let patch = json!({ "metadata": { "labels": { history::POD_LABEL: hash } } });
                let namespace = pod.namespace().unwrap_or_default();
                self.pods
                    .patch(&namespace, &pod.name_any(), Patch::Merge(patch))
                    .await?;
            }
        }
        for other in others {
            self.history.delete(other).await?;
        }
        Ok(())
    }

    /// Creates and deletes pods. Returns when to look again at pods that failed.
    async fn manage(
        &self,
        set: &Arc<DaemonSet>,
        hash: &str,
        old: &[Arc<ControllerRevision>],
    ) -> Result<Option<std::time::Duration>, Error> {
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let mut candidates = self.pods.cache.controlled_by(uid);
        candidates.extend(self.pods.orphans(set.metadata.namespace.as_deref()));
        let claim = owner::claim(set.meta(), candidates, |pod| {
            selects(set, pod.metadata.labels.as_ref())
        });
        let owned = owner::take(&self.sets, &self.pods, &**set, claim, &[]).await?;

        let nodes = self.nodes.list();
        let now = Timestamp::now();
        let plan = {
            let world = World::new(set, &nodes, &owned, hash, now);
            let managed = world.manage(|node| self.backoff.lock().wait(&place(set, node), now));
            if managed.is_empty() {
                Plan {
                    again: managed.again,
                    ..world.roll()
                }
            } else {
                managed
            }
        };
        let again = plan.again;
        self.apply(set, hash, plan, now).await?;
        self.history
            .truncate(&**set, old, |revision| {
                let hash = history::hash_in::<DaemonSet>(revision);
                owned.iter().any(|pod| {
                    pod.labels().get(history::POD_LABEL).map(String::as_str) == Some(hash)
                })
            })
            .await?;
        Ok(again)
    }

    async fn apply(
        &self,
        set: &Arc<DaemonSet>,
        hash: &str,
        mut plan: Plan,
        now: Timestamp,
    ) -> Result<(), Error> {
        let recorder = &self.control.recorder;
        let tell = |pod: &Pod, type_, reason: &str, found: &str, will: &str| {
            let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
            let node = pod::target(pod).unwrap_or_default();
            let message = format!(
                "Found {found} daemon pod {namespace}/{name} on node {node}, will try to {will} it"
            );
            recorder.on(&**set, type_, reason, message);
        };
        for pod in &plan.failed {
            let node = pod::target(pod).unwrap_or_default();
            self.backoff.lock().note(place(set, node), now);
            tell(pod, EventType::Warning, "FailedDaemonPod", "failed", "kill");
        }
        for pod in &plan.succeeded {
            let reason = "SucceededDaemonPod";
            tell(pod, EventType::Normal, reason, "succeeded", "delete");
        }
        plan.create.truncate(BURST);
        plan.delete.append(&mut plan.failed);
        plan.delete.append(&mut plan.succeeded);
        plan.delete.truncate(BURST);
        let created = self.create(set, hash, &plan.create).await;
        let deletions = plan.delete.iter();
        let deleted = batch::all(deletions.map(|pod| self.control.delete(&**set, pod))).await;
        created.and(deleted)
    }

    async fn create(
        &self,
        set: &Arc<DaemonSet>,
        hash: &str,
        nodes: &[String],
    ) -> Result<(), Error> {
        let Some(template) = set.template() else {
            return Ok(());
        };
        let pattern = pod::new(set, template, hash);
        let create = |index: usize| {
            let mut pod = pattern.clone();
            pod::pin(&mut pod, &nodes[index]);
            async move { self.control.create(&**set, &pod).await }
        };
        batch::created(batch::slow_start(nodes.len(), create).await)
    }
}

fn place(set: &DaemonSet, node: &str) -> Place {
    let status = set.status.as_ref();
    Place {
        uid: set.uid().unwrap_or_default(),
        generation: status
            .and_then(|status| status.observed_generation)
            .unwrap_or(0),
        node: node.to_owned(),
    }
}
