//! ReplicaSets and ReplicationControllers: as many pods of one template as are asked for.
//!
//! Enter at [`run`]. What to do is decided in [`decide`]; the pods to delete are picked in
//! [`rank`], the status is computed in [`status`]. Upstream: `pkg/controller/replicaset`.

mod kind;
mod rank;
mod status;

use std::sync::Arc;

use coracle_client::Queue;
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::ReplicaSet,
    core::v1::{Pod, ReplicationController},
};
use kube::ResourceExt as _;
use tokio_util::sync::CancellationToken;

use self::kind::Replicated;
use crate::{
    Context, Error, batch,
    changes::{self, Seen},
    objects::Objects,
    owner,
    pods::{self, PodControl},
    work::{self, Done, Key},
};

/// Objects worked on at once.
const WORKERS: usize = 5;
/// Pods created or deleted in one go.
const BURST: usize = 500;

/// Runs the ReplicaSet controller.
pub(crate) async fn run(context: Context, shutdown: CancellationToken) -> Result<(), Error> {
    Controller::<ReplicaSet>::new(&context, "replicaset-controller")
        .run(shutdown)
        .await
}

/// Runs the ReplicationController controller.
pub(crate) async fn run_replication(
    context: Context,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    Controller::<ReplicationController>::new(&context, "replication-controller")
        .run(shutdown)
        .await
}

struct Controller<K> {
    name: &'static str,
    sets: Objects<K>,
    pods: Objects<Pod>,
    control: PodControl,
    queue: Queue<Key>,
}

/// What is wrong with the number of pods, and the cure.
#[derive(Debug)]
enum Scale {
    Keep,
    Create(usize),
    Delete(Vec<Arc<Pod>>),
}

/// Compares the pods there are with the number that is wanted. `related` is asked for only when
/// there are too many.
fn decide(
    wanted: i32,
    active: &[Arc<Pod>],
    related: impl FnOnce() -> Vec<Arc<Pod>>,
    now: Timestamp,
) -> Scale {
    let wanted = usize::try_from(wanted).unwrap_or(0);
    if active.len() < wanted {
        Scale::Create((wanted - active.len()).min(BURST))
    } else if active.len() > wanted {
        let surplus = (active.len() - wanted).min(BURST);
        let mut ranked = active.to_vec();
        if surplus < ranked.len() {
            rank::by_deletion(&mut ranked, &related(), now);
        }
        ranked.truncate(surplus);
        Scale::Delete(ranked)
    } else {
        Scale::Keep
    }
}

impl<K: Replicated> Controller<K> {
    fn new(context: &Context, name: &'static str) -> Self {
        let pods: Objects<Pod> = context.objects();
        Controller {
            name,
            sets: context.objects(),
            control: PodControl {
                recorder: context.recorder(name),
                pods: pods.clone(),
            },
            pods,
            queue: Queue::named(K::QUEUE),
        }
    }

    async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let sets = changes::each(&self.sets.cache, |seen| match seen {
            Seen::Applied { new: set, .. } | Seen::Deleted(set) => {
                self.queue.add(Key::of(set.meta()));
            }
            Seen::Lagged => {}
        });
        let pods = async {
            self.sets.cache.synced().await;
            changes::each(&self.pods.cache, |seen| {
                changes::queue_owners(&self.queue, &self.sets.cache, seen, K::selects);
            })
            .await;
        };
        let workers = async {
            self.sets.cache.synced().await;
            self.pods.cache.synced().await;
            work::work(self.name, &self.queue, WORKERS, &shutdown, |key| {
                self.sync(key)
            })
            .await;
        };
        tokio::select! {
            () = sets => {}
            () = pods => {}
            () = workers => {}
            () = shutdown.cancelled() => {}
        }
        Ok(())
    }

    async fn sync(&self, key: Key) -> Result<Done, Error> {
        let Some(set) = self.sets.get(&key.namespace, &key.name) else {
            return Ok(Done::Settled);
        };
        let mut all = self
            .pods
            .cache
            .controlled_by(set.meta().uid.as_deref().unwrap_or_default());
        let terminating = all
            .iter()
            .filter(|pod| pods::is_terminating(pod) && set.selects(pod.metadata.labels.as_ref()))
            .count();
        all.extend(self.pods.orphans(Some(&key.namespace)));
        all.retain(|pod| pods::is_active(pod));
        let claim = owner::claim(set.meta(), all, |pod| {
            set.selects(pod.metadata.labels.as_ref())
        });
        let active = owner::take(&self.sets, &self.pods, &*set, claim, &[]).await?;

        let now = Timestamp::now();
        let mut outcome = Ok(());
        if set.meta().deletion_timestamp.is_none() {
            let related = || self.related(&*set);
            outcome = match decide(set.replicas(), &active, related, now) {
                Scale::Keep => Ok(()),
                Scale::Create(count) => self.create(&*set, count).await,
                Scale::Delete(pods) => self.delete(&*set, &pods).await,
            };
        }
        let counted = status::count(&*set, &active, terminating, now);
        let status = status::next(&*set, counted, &outcome, now);
        if let Some(status) = status {
            self.sets.replace_status(&set.with_status(status)).await?;
        }
        outcome?;

        let waiting = counted.ready != counted.available;
        match pods::next_available(&active, set.min_ready_seconds(), now) {
            Some(delay) if waiting => Ok(Done::Again(delay)),
            _ => Ok(Done::Settled),
        }
    }

    /// The pods of every set that has the same owner as this one.
    fn related(&self, set: &K) -> Vec<Arc<Pod>> {
        let Some(reference) = owner::controller_of(set.meta()) else {
            return Vec::new();
        };
        let sets = self.sets.cache.controlled_by(&reference.uid);
        let namespace = set.namespace().unwrap_or_default();
        let mut pods = self.pods.cache.list_namespace(&namespace);
        pods.retain(|pod| {
            sets.iter()
                .any(|set| set.selects(pod.metadata.labels.as_ref()))
        });
        pods
    }

    async fn create(&self, set: &K, count: usize) -> Result<(), Error> {
        let reference = owner::controller_reference(set);
        let Some(template) = set.template() else {
            return Ok(());
        };
        let pod = pods::from_template(template, set.meta(), reference);
        batch::created(batch::slow_start(count, |_| self.control.create(set, &pod)).await)
    }

    async fn delete(&self, set: &K, pods: &[Arc<Pod>]) -> Result<(), Error> {
        batch::all(pods.iter().map(|pod| self.control.delete(set, pod))).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods(count: usize) -> Vec<Arc<Pod>> {
        (0..count).map(|_| Arc::default()).collect()
    }

    #[test]
    fn the_number_of_pods_is_brought_to_what_is_wanted() {
        let decided =
            |wanted, there| match decide(wanted, &pods(there), Vec::new, Timestamp::UNIX_EPOCH) {
                Scale::Keep => 0,
                Scale::Create(count) => i64::try_from(count).expect("a small number"),
                Scale::Delete(pods) => -i64::try_from(pods.len()).expect("a small number"),
            };
        for (wanted, there, change) in [
            (3, 3, 0),
            (3, 1, 2),
            (0, 2, -2),
            (1, 4, -3),
            (2000, 0, 500),
            (0, 2000, -500),
        ] {
            assert_eq!(decided(wanted, there), change, "{there} of {wanted}");
        }
    }
}
