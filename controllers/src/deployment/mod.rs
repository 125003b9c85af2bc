//! Deployments: replica sets for each template the deployment has had, and the way from one to the
//! next.
//!
//! Enter at [`run`]. What to do is decided in [`decide`]; here it is read and written. Upstream:
//! `pkg/controller/deployment`.

mod decide;
mod scale;
mod sets;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use coracle_client::{EventRecorder, EventType, Informer, Queue};
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{Deployment, DeploymentStatus, ReplicaSet},
    core::v1::Pod,
};
use kube::{
    ResourceExt as _,
    api::{DeleteParams, Preconditions},
};
use tokio_util::sync::CancellationToken;

use self::{
    decide::{Action, RollBack, World},
    sets::Set,
};
use crate::{
    Context, Error,
    changes::{self, Seen},
    error,
    labels::{self, Labels},
    objects::Objects,
    owner, pods,
    work::{self, Done, Key},
};

const NAME: &str = "deployment-controller";
const WORKERS: usize = 5;

/// Runs the Deployment controller.
pub(crate) async fn run(context: Context, shutdown: CancellationToken) -> Result<(), Error> {
    let controller = Controller {
        deployments: context.objects(),
        sets: context.objects(),
        pods: context.informers.get(),
        recorder: context.recorder(NAME),
        queue: Queue::named("deployment"),
    };
    controller.run(shutdown).await
}

struct Controller {
    deployments: Objects<Deployment>,
    sets: Objects<ReplicaSet>,
    pods: Informer<Pod>,
    recorder: EventRecorder,
    queue: Queue<Key>,
}

impl Controller {
    async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let deployments = changes::each(&self.deployments.cache, |seen| match seen {
            Seen::Applied {
                new: deployment, ..
            }
            | Seen::Deleted(deployment) => self.queue.add(Key::of(&deployment.metadata)),
            Seen::Lagged => {}
        });
        let sets = async {
            self.deployments.cache.synced().await;
            changes::each(&self.sets.cache, |seen| {
                changes::queue_owners(&self.queue, &self.deployments.cache, seen, selects);
            })
            .await;
        };
        let pods = async {
            self.deployments.cache.synced().await;
            self.sets.cache.synced().await;
            changes::each(&self.pods, |seen| self.pod_seen(seen)).await;
        };
        let workers = async {
            self.deployments.cache.synced().await;
            self.sets.cache.synced().await;
            self.pods.synced().await;
            work::work(NAME, &self.queue, WORKERS, &shutdown, |key| self.sync(key)).await;
        };
        tokio::select! {
            () = deployments => {}
            () = sets => {}
            () = pods => {}
            () = workers => {}
            () = shutdown.cancelled() => {}
        }
        Ok(())
    }

    /// A deployment that recreates waits for the last of its old pods to end.
    fn pod_seen(&self, seen: Seen<Pod>) {
        let pod = match seen {
            Seen::Deleted(pod) => pod,
            Seen::Applied { new, .. } if pods::is_terminal(&new) => new,
            Seen::Applied { .. } => return,
            Seen::Lagged => return self.queue_all(),
        };
        if let Some(set) = owner::resolve(&self.sets.cache, &pod.metadata)
            && let Some(deployment) = owner::resolve(&self.deployments.cache, &set.metadata)
            && is_recreate(&deployment)
        {
            self.queue.add(Key::of(&deployment.metadata));
        }
    }

    fn queue_all(&self) {
        for deployment in self.deployments.cache.list() {
            self.queue.add(Key::of(&deployment.metadata));
        }
    }

    async fn sync(&self, key: Key) -> Result<Done, Error> {
        let Some(deployment) = self.deployments.get(&key.namespace, &key.name) else {
            return Ok(Done::Settled);
        };
        let selector = deployment.spec.as_ref().map(|spec| &spec.selector);
        if selector.is_none_or(labels::is_empty) {
            return self.selects_all(&deployment).await;
        }
        let uid = deployment.metadata.uid.as_deref().unwrap_or_default();
        let mut candidates = self.sets.cache.controlled_by(uid);
        candidates.extend(self.sets.orphans(Some(&key.namespace)));
        let claim = owner::claim(&deployment.metadata, candidates, |set| {
            selects(&deployment, set.metadata.labels.as_ref())
        });
        let sets = owner::take(&self.deployments, &self.sets, &*deployment, claim, &[]).await?;

        let now = Timestamp::now();
        let running = |uid: &str| {
            let pods = self.pods.controlled_by(uid);
            pods.iter().any(|pod| !pods::is_terminal(pod))
        };
        let actions = decide::decide(&World {
            deployment: &deployment,
            sets,
            running: &running,
            now,
        });
        if actions.is_empty() {
            let check = status::next_check(&deployment, now);
            return Ok(check.map_or(Done::Settled, Done::Again));
        }
        for action in actions {
            match self.apply(&deployment, action).await {
                Ok(()) => {}
                Err(Error::Action { source, .. } | Error::Api(source))
                    if error::is_namespace_terminating(&source) =>
                {
                    return Ok(Done::Settled);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Done::Settled)
    }

    async fn selects_all(&self, deployment: &Arc<Deployment>) -> Result<Done, Error> {
        let message = "This deployment is selecting all pods. A non-empty selector is required.";
        self.recorder
            .on(&**deployment, EventType::Warning, "SelectingAll", message);
        let mut status = deployment.status.clone().unwrap_or_default();
        if status.observed_generation < deployment.metadata.generation {
            status.observed_generation = deployment.metadata.generation;
            self.write_status(deployment, status, None).await?;
        }
        Ok(Done::Settled)
    }

    async fn apply(&self, deployment: &Arc<Deployment>, action: Action) -> Result<(), Error> {
        match action {
            Action::Create(set) => self.create(deployment, &set).await,
            Action::Update(set) => self.update(deployment, &set).await,
            Action::Delete(set) => self.delete(&set).await,
            Action::Status(status, revision) => {
                self.write_status(deployment, status, revision).await
            }
            Action::RollBack(object, outcome) => self.roll_back(&object, &outcome).await,
        }
    }

    async fn create(&self, deployment: &Arc<Deployment>, set: &Set) -> Result<(), Error> {
        match self.sets.create(&set.to_object()).await {
            Ok(_) => {}
            Err(error) if error::is_already_exists(&error) => {
                return self.collided(deployment, set.name(), error).await;
            }
            Err(error) if error::is_namespace_terminating(&error) => return Err(error.into()),
            Err(error) => {
                let message = format!(
                    "Failed to create new replica set \"{}\": {}",
                    set.name(),
                    error::message(&error)
                );
                self.recorder.on(
                    &**deployment,
                    EventType::Warning,
                    status::CREATE_FAILED,
                    message.clone(),
                );
                if let Some(status) = status::create_failed(deployment, &message, Timestamp::now())
                {
                    self.write_status(deployment, status, None).await?;
                }
                return Err(error.into());
            }
        }
        if set.replicas > 0 {
            self.tell_scaled(deployment, set.name(), 0, set.replicas);
        }
        Ok(())
    }

    /// A set of that name exists: either it is the wanted one and was not seen yet, or another
    /// template has the same hash, and the next attempt takes another name.
    async fn collided(
        &self,
        deployment: &Arc<Deployment>,
        name: &str,
        error: kube::Error,
    ) -> Result<(), Error> {
        let namespace = deployment.namespace().unwrap_or_default();
        if let Some(existing) = self.sets.read(&namespace, name).await? {
            let template = existing
                .spec
                .as_ref()
                .and_then(|spec| spec.template.as_ref());
            let same = deployment
                .spec
                .as_ref()
                .is_some_and(|spec| sets::same_template(template, &spec.template));
            if same && owner::is_controlled_by(&existing.metadata, &deployment.metadata) {
                let version = existing.resource_version().unwrap_or_default();
                self.sets.cache.reached(&version).await;
                return Err(error.into());
            }
            let mut status = deployment.status.clone().unwrap_or_default();
            status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
            self.write_status(deployment, status, None).await?;
        }
        Err(error.into())
    }

    async fn update(&self, deployment: &Deployment, set: &Set) -> Result<(), Error> {
        self.sets.replace(&set.to_object()).await?;
        if set.replicas != set.known_replicas() {
            self.tell_scaled(deployment, set.name(), set.known_replicas(), set.replicas);
        }
        Ok(())
    }

    fn tell_scaled(&self, deployment: &Deployment, set: &str, from: i32, to: i32) {
        let direction = if from < to { "up" } else { "down" };
        let message = format!("Scaled {direction} replica set {set} from {from} to {to}");
        self.recorder
            .on(deployment, EventType::Normal, "ScalingReplicaSet", message);
    }

    /// Unless the set has changed since: it may have pods again.
    async fn delete(&self, set: &ReplicaSet) -> Result<(), Error> {
        let params = DeleteParams::background().preconditions(Preconditions {
            uid: set.uid(),
            resource_version: set.resource_version(),
        });
        self.sets.delete(set, params).await?;
        Ok(())
    }

    /// Writes the status, and with it the annotation that says which revision is out.
    async fn write_status(
        &self,
        deployment: &Deployment,
        status: DeploymentStatus,
        revision: Option<String>,
    ) -> Result<(), Error> {
        let mut object = deployment.clone();
        object.status = Some(status);
        if let Some(revision) = revision {
            object
                .annotations_mut()
                .insert(sets::REVISION.to_owned(), revision);
        }
        self.deployments.replace_status(&object).await?;
        Ok(())
    }

    async fn roll_back(&self, object: &Deployment, outcome: &RollBack) -> Result<(), Error> {
        let name = object.name_any();
        self.deployments.replace(object).await?;
        let (type_, reason, message) = match outcome {
            RollBack::Done { revision } => (
                EventType::Normal,
                "DeploymentRollback",
                format!("Rolled back deployment \"{name}\" to revision {revision}"),
            ),
            RollBack::NoLastRevision => (
                EventType::Warning,
                "DeploymentRollbackRevisionNotFound",
                "Unable to find last revision.".to_owned(),
            ),
            RollBack::NoSuchRevision => (
                EventType::Warning,
                "DeploymentRollbackRevisionNotFound",
                "Unable to find the revision to rollback to.".to_owned(),
            ),
            RollBack::SameTemplate => (
                EventType::Warning,
                "DeploymentRollbackTemplateUnchanged",
                format!(
                    "The rollback revision contains the same template as current deployment \"{name}\""
                ),
            ),
        };
        self.recorder.on(object, type_, reason, message);
        Ok(())
    }
}

fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
}

fn selects(deployment: &Deployment, labels: Option<&Labels>) -> bool {
    let selector = deployment.spec.as_ref().map(|spec| &spec.selector);
    selector
        .is_some_and(|selector| !labels::is_empty(selector) && labels::selects(selector, labels))
}
