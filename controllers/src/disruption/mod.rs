//! Disruption budgets: how many pods of each may be evicted now. The eviction itself, which the API
//! serves, takes from what stands in the status here.
//!
//! Enter at [`run`]. What is allowed is decided in [`decide`]. Upstream:
//! `pkg/controller/disruption`.

mod decide;

use std::{collections::BTreeMap, sync::Arc};

use coracle_client::{Cached, EventRecorder, EventType, Informer, Queue};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet, StatefulSet},
        core::v1::{Pod, ReplicationController},
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DynamicObject, GroupVersionKind},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Context, Error,
    changes::{self, Seen},
    error,
    objects::Objects,
    owner, pods,
    work::{self, Done, Key},
};

const NAME: &str = "controllermanager";
const WORKERS: usize = 1;

/// Runs the disruption controller.
pub(crate) async fn run(context: Context, shutdown: CancellationToken) -> Result<(), Error> {
    let controller = Controller {
        client: context.client.clone(),
        budgets: context.objects(),
        pods: context.objects(),
        scales: Scales {
            deployments: context.informers.get(),
            replica_sets: context.informers.get(),
            replication_controllers: context.informers.get(),
            stateful_sets: context.informers.get(),
        },
        recorder: context.recorder(NAME),
        queue: Queue::named("disruption"),
        stale: Queue::named("stale_pod_disruption"),
    };
    controller.run(shutdown).await
}

struct Controller {
    client: Client,
    budgets: Objects<PodDisruptionBudget>,
    pods: Objects<Pod>,
    scales: Scales,
    recorder: EventRecorder,
    queue: Queue<Key>,
    /// Pods that may wait in vain to be disrupted.
    stale: Queue<Key>,
}

/// What says how many pods there should be.
struct Scales {
    deployments: Informer<Deployment>,
    replica_sets: Informer<ReplicaSet>,
    replication_controllers: Informer<ReplicationController>,
    stateful_sets: Informer<StatefulSet>,
}

/// A controller of pods, by uid, and its size.
struct Scale {
    uid: String,
    replicas: i32,
}

/// The object that the reference names, if it is of this kind and still the same.
fn referred<K: Cached>(
    known: &Informer<K>,
    reference: &OwnerReference,
    namespace: &str,
) -> Option<Arc<K>> {
    let group = |version: &str| version.rsplit_once('/').map(|(group, _)| group.to_owned());
    let right = reference.kind == K::kind(&())
        && group(&reference.api_version) == group(&K::api_version(&()));
    let found = right.then(|| known.get(namespace, &reference.name))??;
    (found.meta().uid.as_ref() == Some(&reference.uid)).then_some(found)
}

impl Scales {
    fn find(&self, reference: &OwnerReference, namespace: &str) -> Option<Scale> {
        if let Some(set) = referred(&self.replica_sets, reference, namespace) {
            let replicas = set.spec.as_ref().and_then(|spec| spec.replicas);
            let Some(above) = owner::controller_of(&set.metadata) else {
                return scale(set.uid(), replicas);
            };
            if above.kind != "Deployment" {
                return scale(set.uid(), replicas);
            }
            let deployment = referred(&self.deployments, above, namespace)?;
            let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas);
            return scale(deployment.uid(), replicas);
        }
        if let Some(set) = referred(&self.stateful_sets, reference, namespace) {
            let replicas = set.spec.as_ref().and_then(|spec| spec.replicas);
            return scale(set.uid(), replicas);
        }
        let found = referred(&self.replication_controllers, reference, namespace)?;
        let replicas = found.spec.as_ref().and_then(|spec| spec.replicas);
        scale(found.uid(), replicas)
    }
}

fn scale(uid: Option<String>, replicas: Option<i32>) -> Option<Scale> {
    Some(Scale {
        uid: uid?,
        replicas: replicas.unwrap_or(1),
    })
}

/// What the pods' controllers add up to.
struct Sum {
    replicas: i32,
    /// Pods that have no controller.
    unmanaged: usize,
}

impl Controller {
    async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let budgets = changes::each(&self.budgets.cache, |seen| {
            if let Seen::Applied { new: budget, .. } = seen {
                self.queue.add(Key::of(&budget.metadata));
            }
        });
        let pods = async {
            self.budgets.cache.synced().await;
            changes::each(&self.pods.cache, |seen| self.pod_seen(&seen)).await;
        };
        let sizes = self.watch_scales();
        let workers = async {
            self.budgets.cache.synced().await;
            self.pods.cache.synced().await;
            self.scales.deployments.synced().await;
            self.scales.replica_sets.synced().await;
            self.scales.replication_controllers.synced().await;
            self.scales.stateful_sets.synced().await;
            work::work(NAME, &self.queue, WORKERS, &shutdown, |key| self.sync(key)).await;
        };
        let sparers = async {
            self.pods.cache.synced().await;
            work::work(NAME, &self.stale, WORKERS, &shutdown, |key| self.spare(key)).await;
        };
        tokio::select! {
            () = budgets => {}
            () = pods => {}
            () = sizes => {}
            () = workers => {}
            () = sparers => {}
            () = shutdown.cancelled() => {}
        }
        Ok(())
    }

    /// A controller that changes its size changes what its pods' budgets allow.
    async fn watch_scales(&self) {
        let scales = &self.scales;
        tokio::join!(
            changes::each(&scales.deployments, |seen| {
                self.scale_seen(&seen, |object| object.spec.as_ref()?.replicas);
            }),
            changes::each(&scales.replica_sets, |seen| {
                self.scale_seen(&seen, |object| object.spec.as_ref()?.replicas);
            }),
            changes::each(&scales.replication_controllers, |seen| {
                self.scale_seen(&seen, |object| object.spec.as_ref()?.replicas);
            }),
            changes::each(&scales.stateful_sets, |seen| {
                self.scale_seen(&seen, |object| object.spec.as_ref()?.replicas);
            }),
        );
    }

    fn scale_seen<K: Cached>(&self, seen: &Seen<K>, replicas: impl Fn(&K) -> Option<i32>) {
        let namespace = match seen {
            Seen::Applied {
                old: Some(old),
                new,
            } if replicas(old) != replicas(new) => new.namespace(),
            Seen::Deleted(object) => object.namespace(),
            _ => return,
        };
        let namespace = namespace.unwrap_or_default();
        for budget in self.budgets.cache.list_namespace(&namespace) {
            if decide::needs_scale(&budget) {
                self.queue.add(Key::of(&budget.metadata));
            }
        }
    }

    fn pod_seen(&self, seen: &Seen<Pod>) {
        match seen {
            Seen::Applied { old, new } => {
                // A pod that is relabelled leaves a budget.
                if let Some(old) = old {
                    self.queue_budgets(old);
                }
                self.tell_several(new, &self.queue_budgets(new));
                if decide::target_left(new, Timestamp::now()).is_some() {
                    self.stale.add(Key::of(&new.metadata));
                }
            }
            Seen::Deleted(pod) => {
                self.queue_budgets(pod);
            }
            Seen::Lagged => {
                for budget in self.budgets.cache.list() {
                    self.queue.add(Key::of(&budget.metadata));
                }
            }
        }
    }

    /// Returns the names of the pod's budgets.
    fn queue_budgets(&self, pod: &Pod) -> Vec<String> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let mut budgets = self.budgets.cache.list_namespace(namespace);
        budgets.retain(|budget| decide::selects(budget, pod));
        for budget in &budgets {
            self.queue.add(Key::of(&budget.metadata));
        }
        budgets.iter().map(|budget| budget.name_any()).collect()
    }

    /// A pod of several budgets cannot be evicted.
    fn tell_several(&self, pod: &Pod, budgets: &[String]) {
        if let [first, _, ..] = budgets {
            let message = format!(
                "Pod {:?}/{:?} matches multiple PodDisruptionBudgets.  Chose {first:?} arbitrarily.",
                pod.namespace().unwrap_or_default(),
                pod.name_any()
            );
            let reason = "MultiplePodDisruptionBudgets";
            self.recorder.on(pod, EventType::Warning, reason, message);
        }
    }

    async fn sync(&self, key: Key) -> Result<Done, Error> {
        let Some(budget) = self.budgets.get(&key.namespace, &key.name) else {
            return Ok(Done::Settled);
        };
        match self.measure(&budget).await {
            Ok(done) => Ok(done),
            Err(error) if error.is_conflict() => Err(error),
            Err(error) => {
                let failed = decide::failed(&budget, &error.to_string(), Timestamp::now());
                self.write(&budget, failed).await?;
                Ok(Done::Settled)
            }
        }
    }

    async fn measure(&self, budget: &PodDisruptionBudget) -> Result<Done, Error> {
        let namespace = budget.namespace().unwrap_or_default();
        let mut pods = self.pods.cache.list_namespace(&namespace);
        pods.retain(|pod| decide::selects(budget, pod));
        if pods.is_empty() {
            let message = "No matching pods found";
            self.recorder
                .on(budget, EventType::Normal, "NoPods", message);
        }
        let expected = self.expected(budget, &pods).await;
        let expected = expected.inspect_err(|error| {
            let message = format!("Failed to calculate the number of expected pods: {error}");
            let reason = "CalculateExpectedPodCountFailed";
            self.recorder
                .on(budget, EventType::Warning, reason, message);
        })?;
        let now = Timestamp::now();
        let disrupted = decide::disrupted(budget, &pods, now);
        for pod in &disrupted.overdue {
            let message = format!(
                "Pod was expected by PDB {namespace}/{namespace} to be deleted but it wasn't"
            );
            self.recorder
                .on(&**pod, EventType::Warning, "NotDeleted", message);
        }
        let again = disrupted.again;
        let status = decide::status(budget, &pods, expected, disrupted.pods, now);
        self.write(budget, status).await?;
        Ok(again.map_or(Done::Settled, Done::Again))
    }

    async fn write(
        &self,
        budget: &PodDisruptionBudget,
        status: Option<PodDisruptionBudgetStatus>,
    ) -> Result<(), Error> {
        if status.is_some() {
            let next = PodDisruptionBudget {
                status,
                ..budget.clone()
            };
            self.budgets.replace_status(&next).await?;
        }
        Ok(())
    }

    async fn expected(
        &self,
        budget: &PodDisruptionBudget,
        pods: &[Arc<Pod>],
    ) -> Result<decide::Expected, Error> {
        let mut replicas = 0;
        if decide::needs_scale(budget) {
            let sum = self.sum(pods).await?;
            replicas = sum.replicas;
            if sum.unmanaged > 0 {
                let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
                let message = format!(
                    "Pods selected by this PodDisruptionBudget (selector: {}) were found to be \
                     unmanaged. As a result, the status of the PDB cannot be calculated \
                     correctly, which may result in undefined behavior. To account for these \
                     pods please set \".spec.minAvailable\" field of the PDB to an integer value.",
                    coracle_api::selector::format_object(selector)
                );
                self.recorder
                    .on(budget, EventType::Warning, "UnmanagedPods", message);
            }
        }
        decide::expected(budget, replicas, pods.len()).map_err(Error::Refused)
    }

    async fn sum(&self, pods: &[Arc<Pod>]) -> Result<Sum, Error> {
        let mut scales: BTreeMap<String, i32> = BTreeMap::new();
        let mut seen: Vec<&str> = Vec::new();
        let mut unmanaged = 0;
        for pod in pods {
            let Some(reference) = owner::controller_of(&pod.metadata) else {
                unmanaged += 1;
                continue;
            };
            if seen.contains(&reference.uid.as_str()) {
                continue;
            }
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let found = match self.scales.find(reference, namespace) {
                Some(found) => Some(found),
                None => self.ask_scale(reference, namespace).await?,
            };
            let Some(found) = found else {
                let message = format!("found no controllers for pod {:?}", pod.name_any());
                return Err(Error::Refused(message));
            };
            seen.push(&reference.uid);
            scales.insert(found.uid, found.replicas);
        }
        Ok(Sum {
            replicas: scales.values().sum(),
            unmanaged,
        })
    }

    /// Any other kind may have a size of its own.
    async fn ask_scale(
        &self,
        reference: &OwnerReference,
        namespace: &str,
    ) -> Result<Option<Scale>, Error> {
        let (group, version) = reference
            .api_version
            .rsplit_once('/')
            .unwrap_or(("", &reference.api_version));
        let kind = GroupVersionKind::gvk(group, version, &reference.kind);
        let (resource, capabilities) = Box::pin(kube::discovery::pinned_kind(&self.client, &kind))
            .await
            .map_err(|_| {
                let kind = &reference.kind;
                Error::Refused(format!(
                    "no matches for kind {kind:?} in version {:?}",
                    reference.api_version
                ))
            })?;
        let mut subresources = capabilities.subresources.iter();
        if !subresources.any(|(one, _)| one.plural.ends_with("scale")) {
            let dot = if group.is_empty() { "" } else { "." };
            return Err(Error::Refused(format!(
                "{}{dot}{group} does not implement the scale subresource",
                resource.plural
            )));
        }
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), namespace, &resource);
        let asked = Box::pin(api.get_scale(&reference.name)).await;
        let Some(found) = error::optional(asked)? else {
            return Ok(None);
        };
        let same = found.metadata.uid.as_ref() == Some(&reference.uid);
        let replicas = found.spec.and_then(|spec| spec.replicas).unwrap_or(0);
        Ok(same.then(|| Scale {
            uid: reference.uid.clone(),
            replicas,
        }))
    }

    /// Calls off a disruption that has not come.
    async fn spare(&self, key: Key) -> Result<Done, Error> {
        let Some(pod) = self.pods.get(&key.namespace, &key.name) else {
            return Ok(Done::Settled);
        };
        let now = Timestamp::now();
        match decide::target_left(&pod, now) {
            None => Ok(Done::Settled),
            Some(left) if !left.is_zero() => Ok(Done::Again(left)),
            Some(_) => {
                let status = decide::spared(&pod, now);
                let patched = pods::patch_status(&self.pods, &pod, status).await;
                error::optional(patched)?;
                Ok(Done::Settled)
            }
        }
    }
}
