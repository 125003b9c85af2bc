//! Stateful sets: pods with names and storage of their own, started, stopped and updated in order.
//!
//! Enter at [`run`]. What to do is decided in [`decide`]; here it is read and written. Upstream:
//! `pkg/controller/statefulset`.

mod decide;
mod pod;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use coracle_client::{EventRecorder, EventType, Queue};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, StatefulSet},
        core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec},
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::{Resource as _, ResourceExt as _, api::DeleteParams};
use tokio_util::sync::CancellationToken;

use self::{
    decide::{Plan, Revision, Step, World},
    pod::Claims,
};
use crate::{
    Context, Error, batch,
    changes::{self, Seen},
    error,
    history::{self, History, Revised},
    labels::{self, Labels},
    objects::Objects,
    owner, pods,
    work::{self, Done, Key},
};

const NAME: &str = "statefulset-controller";
const WORKERS: usize = 5;

/// Runs the StatefulSet controller.
pub(crate) async fn run(context: Context, shutdown: CancellationToken) -> Result<(), Error> {
    let controller = Controller {
        sets: context.objects(),
        pods: context.objects(),
        claims: context.objects(),
        history: History::new(&context),
        recorder: context.recorder(NAME),
        queue: Queue::named("statefulset"),
    };
    controller.run(shutdown).await
}

struct Controller {
    sets: Objects<StatefulSet>,
    pods: Objects<Pod>,
    claims: Objects<PersistentVolumeClaim>,
    history: History<StatefulSet>,
    recorder: EventRecorder,
    queue: Queue<Key>,
}

impl Revised for StatefulSet {
    const HASH_LABEL: &str = "controller.kubernetes.io/hash";

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
        let count = self.status.as_ref()?.collision_count;
        count.filter(|count| *count != 0)
    }

    fn with_collision_count(&self, count: i32) -> Self {
        let mut next = self.clone();
        next.status.get_or_insert_default().collision_count = Some(count);
        next
    }
}

fn selects(set: &StatefulSet, labels: Option<&Labels>) -> bool {
    let selector = set.selector();
    selector.is_some_and(|selector| labels::selects(selector, labels))
}

impl Controller {
    async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
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
        let claims = changes::each(&self.claims.cache, |seen| self.claim_seen(&seen));
        let workers = async {
            self.sets.cache.synced().await;
            self.pods.cache.synced().await;
            self.claims.cache.synced().await;
            self.history.revisions.cache.synced().await;
            work::work(NAME, &self.queue, WORKERS, &shutdown, |key| self.sync(key)).await;
        };
        tokio::select! {
            () = sets => {}
            () = pods => {}
            () = claims => {}
            () = workers => {}
            () = shutdown.cancelled() => {}
        }
        Ok(())
    }

    /// A set may wait until the claim of an earlier pod has gone.
    fn claim_seen(&self, seen: &Seen<PersistentVolumeClaim>) {
        let Seen::Deleted(claim) = seen else {
            return;
        };
        let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        let Some((_, ordinal)) = pod::parse_name(name) else {
            return;
        };
        for set in self.sets.cache.list_namespace(namespace) {
            if pod::claim_names(&set, ordinal).any(|claimed| claimed == name) {
                self.queue.add(Key::of(&set.metadata));
            }
        }
    }

    async fn sync(&self, key: Key) -> Result<Done, Error> {
        let Some(set) = self.sets.get(&key.namespace, &key.name) else {
            return Ok(Done::Settled);
        };
        let deleted = set.metadata.deletion_timestamp.is_some();
        let revisions = self.history.claim(&*set).await?;
        let Some(update) = self.update_revision(&set, &revisions, deleted).await? else {
            return Ok(Done::Settled);
        };
        let status = set.status.as_ref();
        let current_name = status.and_then(|status| status.current_revision.as_deref());
        let current = revisions
            .iter()
            .find(|revision| revision.metadata.name.as_deref() == current_name)
            .unwrap_or(&update);
        let (Some(current), Some(update)) = (Revision::of(current), Revision::of(&update)) else {
            return Err(Error::Refused("a revision keeps no template".to_owned()));
        };
        let owned = self.claim(&set).await?;
        let claims = self.claims_of(&set, &owned);
        let world = World {
            set: &set,
            current: &current,
            update: &update,
            pods: &owned,
            claims: &claims,
            now: Timestamp::now(),
        };
        let plan = if deleted { Plan::new() } else { world.plan() };
        let applied = self.apply(&set, plan).await;

        // The writes above show in the cache by now.
        let owned = self.owned(&set);
        let now = Timestamp::now();
        let world = World {
            pods: &owned,
            now,
            ..world
        };
        if let Some(status) = world.status() {
            let next = StatefulSet {
                status: Some(status),
                ..(*set).clone()
            };
            self.sets.replace_status(&next).await?;
        }
        applied?;
        self.history
            .truncate(&*set, &revisions, |revision| {
                let name = revision.metadata.name.as_deref().unwrap_or_default();
                name == current.name
                    || name == update.name
                    || owned.iter().any(|pod| pod::revision(pod) == name)
            })
            .await?;
        let spec = set.spec.as_ref();
        let min_ready_seconds = spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
        let again = pods::next_available(&owned, min_ready_seconds, now);
        Ok(again.map_or(Done::Settled, Done::Again))
    }

    /// The revision of the set's template. A set that is being deleted gets none made.
    async fn update_revision(
        &self,
        set: &Arc<StatefulSet>,
        all: &[Arc<ControllerRevision>],
        deleted: bool,
    ) -> Result<Option<Arc<ControllerRevision>>, Error> {
        let template = set.template();
        let same = |one: &&Arc<ControllerRevision>| {
            template.is_some_and(|template| history::is_of(one, template))
        };
        let number = history::next_number(all.iter().map(|revision| &**revision));
        Ok(match (all.last(), all.iter().rev().find(same)) {
            (Some(last), Some(found)) if last.metadata.name == found.metadata.name => {
                Some(found.clone())
            }
            (_, found) if deleted => found.cloned(),
            // The template is what it was before.
            (_, Some(found)) => Some(self.history.renumber(found, number).await?),
            (_, None) => Some(self.history.create(&**set, number).await?),
        })
    }

    async fn claim(&self, set: &Arc<StatefulSet>) -> Result<Vec<Arc<Pod>>, Error> {
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let mut candidates = self.pods.cache.controlled_by(uid);
        candidates.extend(self.pods.orphans(set.metadata.namespace.as_deref()));
        let claim = owner::claim(set.meta(), candidates, |pod| is_member(set, pod));
        owner::take(&self.sets, &self.pods, &**set, claim, &[]).await
    }

    fn owned(&self, set: &StatefulSet) -> Vec<Arc<Pod>> {
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let mut owned = self.pods.cache.controlled_by(uid);
        owned.retain(|pod| is_member(set, pod));
        owned
    }

    /// The claims that the set's pods have, those that are to be created too.
    fn claims_of(&self, set: &StatefulSet, owned: &[Arc<Pod>]) -> Claims {
        let start = pod::start(set);
        let wanted = start..start.saturating_add(pod::replicas(set));
        let there = owned.iter().filter_map(|pod| pod::ordinal(set, pod));
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let names = wanted
            .chain(there)
            .flat_map(|ordinal| pod::claim_names(set, ordinal));
        names
            .filter_map(|name| {
                let claim = self.claims.get(namespace, &name)?;
                Some((name, claim))
            })
            .collect()
    }

    async fn apply(&self, set: &StatefulSet, plan: Plan) -> Result<(), Error> {
        let spec = set.spec.as_ref();
        let policy = spec.and_then(|spec| spec.pod_management_policy.as_deref());
        for steps in plan {
            if policy == Some("Parallel") {
                let apply = |index: usize| self.step(set, &steps[index]);
                if let (_, Some(failure)) = batch::slow_start(steps.len(), apply).await {
                    return Err(failure);
                }
            } else {
                for step in &steps {
                    self.step(set, step).await?;
                }
            }
        }
        Ok(())
    }

    async fn step(&self, set: &StatefulSet, step: &Step) -> Result<(), Error> {
        match step {
            Step::Create(pod) => self.create(set, pod).await,
            Step::Delete(pod) => self.delete(set, pod).await,
            Step::Claims(pod) => {
                self.create_claims(set, pod).await?;
                let owned = self.own_claims(set, pod).await;
                self.tell_failure(set, pod, "Update", owned)
            }
            Step::Identify(pod) => self.identify(set, pod).await,
        }
    }

    async fn create(&self, set: &StatefulSet, pod: &Pod) -> Result<(), Error> {
        let claimed = self.create_claims(set, pod).await;
        self.tell_failure(set, pod, "Create", claimed)?;
        let created = match self.pods.create(pod).await {
            Ok(created) => created,
            // Not the set's, and not to be seen in its events again and again.
            Err(error) if error::is_already_exists(&error) => return Err(error.into()),
            Err(error) if error::is_namespace_terminating(&error) => return Err(error.into()),
            Err(error) => return self.tell_failure(set, pod, "Create", Err(error.into())),
        };
        let owned = self.own_claims(set, &created).await;
        self.tell_failure(set, pod, "Update", owned)?;
        self.tell(set, pod, "Create");
        Ok(())
    }

    async fn delete(&self, set: &StatefulSet, pod: &Pod) -> Result<(), Error> {
        match self.pods.delete(pod, DeleteParams::default()).await {
            Ok(_) => {
                self.tell(set, pod, "Delete");
                Ok(())
            }
            Err(error) => self.tell_failure(set, pod, "Delete", Err(error.into())),
        }
    }

    async fn identify(&self, set: &StatefulSet, pod: &Pod) -> Result<(), Error> {
        let Some(ordinal) = pod::ordinal(set, pod) else {
            return Ok(());
        };
        let claimed = self.create_claims(set, pod).await;
        self.tell_failure(set, pod, "Update", claimed)?;
        let mut next = pod.clone();
        pod::identify(set, &mut next, ordinal);
        match self.pods.replace(&next).await {
            Ok(_) => {
                self.tell(set, pod, "Update");
                Ok(())
            }
            Err(error) => self.tell_failure(set, pod, "Update", Err(error.into())),
        }
    }

    /// Creates the claims of the pod that are missing.
    async fn create_claims(&self, set: &StatefulSet, pod: &Pod) -> Result<(), Error> {
        let Some(ordinal) = pod::ordinal(set, pod) else {
            return Ok(());
        };
        let mut outcome = Ok(());
        for claim in pod::claims(set, ordinal) {
            let namespace = claim.namespace().unwrap_or_default();
            let name = claim.name_any();
            if let Some(known) = self.claims.get(&namespace, &name) {
                if known.metadata.deletion_timestamp.is_some() {
                    let message = format!("pvc {name} is being deleted");
                    outcome = outcome.and(Err(Error::Refused(message)));
                }
                continue;
            }
            let created = self.claims.create(&claim).await;
            let (set_name, pod_name) = (set.name_any(), pod.name_any());
            match created {
                Ok(_) => {
                    let message = format!(
                        "Create Claim {name} Pod {pod_name} in StatefulSet {set_name} success"
                    );
                    self.recorder
                        .on(set, EventType::Normal, "SuccessfulCreate", message);
                }
                Err(error) => {
                    if !error::is_already_exists(&error) {
                        let message = format!(
                            "Create Claim {name} for Pod {pod_name} in StatefulSet {set_name} \
                             failed error: {}",
                            error::message(&error)
                        );
                        self.recorder
                            .on(set, EventType::Warning, "FailedCreate", message);
                    }
                    let failed = Error::doing(format!("failed to create PVC {name}"))(error);
                    outcome = outcome.and(Err(failed));
                }
            }
        }
        outcome
    }

    /// Gives the pod's claims the owners that the retention policy asks for.
    async fn own_claims(&self, set: &StatefulSet, pod: &Pod) -> Result<(), Error> {
        let Some(ordinal) = pod::ordinal(set, pod) else {
            return Ok(());
        };
        let namespace = set.namespace().unwrap_or_default();
        for name in pod::claim_names(set, ordinal) {
            let Some(claim) = self.claims.get(&namespace, &name) else {
                continue;
            };
            if pod::has_other_controller(&claim, set, pod) {
                let message = format!(
                    "PersistentVolumeClaim {name} has a conflicting OwnerReference that acts as a \
                     manging controller, the retention policy is ignored for this claim"
                );
                self.recorder
                    .on(set, EventType::Warning, "ConflictingController", message);
            }
            if let Some(owners) = pod::owners(&claim, set, pod, ordinal) {
                let mut next = (*claim).clone();
                next.metadata.owner_references = Some(owners);
                let action = format!("could not update claim {name} for delete policy ownerRefs");
                let written = self.claims.replace(&next).await;
                written.map_err(Error::doing(action))?;
            }
        }
        Ok(())
    }

    /// `verb` is `Create`, `Update` or `Delete`.
    fn tell(&self, set: &StatefulSet, pod: &Pod, verb: &str) {
        let (pod, name) = (pod.name_any(), set.name_any());
        let message = format!("{verb} Pod {pod} in StatefulSet {name} successful");
        let reason = format!("Successful{verb}");
        self.recorder.on(set, EventType::Normal, &reason, message);
    }

    fn tell_failure(
        &self,
        set: &StatefulSet,
        pod: &Pod,
        verb: &str,
        outcome: Result<(), Error>,
    ) -> Result<(), Error> {
        if let Err(error) = &outcome {
            let (pod, name) = (pod.name_any(), set.name_any());
            let message = format!("{verb} Pod {pod} in StatefulSet {name} failed error: {error}");
            let reason = format!("Failed{verb}");
            self.recorder.on(set, EventType::Warning, &reason, message);
        }
        outcome
    }
}

/// Whether the set selects the pod, and its name is one that the set gives.
fn is_member(set: &StatefulSet, pod: &Pod) -> bool {
    selects(set, pod.metadata.labels.as_ref()) && pod::ordinal(set, pod).is_some()
}
