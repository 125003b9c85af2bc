//! What happens between the choice of a node and the pod's being there: its volumes are bound or
//! made, its devices are allocated, then the pod is bound.
//!
//! Enter at [`Binding::new`], which promises the volumes and devices to the pod until the binding is done
//! with, and [`Binding::run`].

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use coracle_api::claims::{BOUND_BY_CONTROLLER, SELECTED_NODE};
use coracle_client::Informer;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    actions::Actions,
    devices::binding::Reserved,
    plugins::{
        dynamic_resources,
        volume_binding::{NAME, Plan},
    },
    pod::PodInfo,
    storage::{Informed, Storage as _, annotation, claim_key, is_fully_bound},
};

/// How long volumes may take to be made and bound, as upstream.
const PATIENCE: Duration = Duration::from_secs(600);

/// Why the pod is not on its node.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("running PreBind plugin {NAME:?}: binding volumes: {0}")]
    Volumes(String),
    #[error("running PreBind plugin {plugin:?}: {0}", plugin = dynamic_resources::NAME)]
    Devices(String),
    #[error("preempted by DefaultPreemption")]
    Preempted,
    #[error("running Bind plugin \"DefaultBinder\": {0}")]
    Pod(kube::Error),
}

/// Lets a binding be given up as long as the pod itself is not being bound.
#[derive(Clone, Default)]
pub(crate) struct Interrupt(Arc<Interruptible>);

#[derive(Default)]
struct Interruptible {
    stage: Mutex<Stage>,
    token: CancellationToken,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Waiting,
    GivenUp,
    /// The pod is being bound.
    Settled,
}

impl Interrupt {
    /// Gives the binding up; `false` when it is too late for that.
    pub fn give_up(&self) -> bool {
        let mut stage = self.stage();
        if *stage == Stage::Waiting {
            *stage = Stage::GivenUp;
            self.0.token.cancel();
        }
        *stage == Stage::GivenUp
    }

    /// From now on it is too late; `false` when it was given up before.
    fn settle(&self) -> bool {
        let mut stage = self.stage();
        if *stage == Stage::Waiting {
            *stage = Stage::Settled;
        }
        *stage == Stage::Settled
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.0.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A pod on its way to a node.
pub(crate) struct Binding {
    pod: Arc<PodInfo>,
    node: Arc<str>,
    plan: Plan,
    storage: Arc<Informed>,
    /// The volumes and claims that are promised.
    volumes: Vec<String>,
    claims: Vec<String>,
    devices: Reserved,
    interrupt: Interrupt,
}

impl Drop for Binding {
    fn drop(&mut self) {
        let assumed = self.storage.assumed();
        assumed.forget(&self.volumes, &self.claims);
    }
}

impl Binding {
    pub fn new(
        pod: Arc<PodInfo>,
        node: Arc<str>,
        plan: Plan,
        storage: Arc<Informed>,
        devices: Reserved,
    ) -> Self {
        let volumes = plan.bind.iter().map(|(volume, _)| volume.name_any());
        let (volumes, claims): (Vec<_>, Vec<_>) = (
            volumes.collect(),
            plan.provision
                .iter()
                .map(|claim| claim_key(claim))
                .collect(),
        );
        storage.assumed().promise(&volumes, &claims, &node);
        Binding {
            pod,
            node,
            plan,
            storage,
            volumes,
            claims,
            devices,
            interrupt: Interrupt::default(),
        }
    }

    /// Whether there is anything to wait for before the pod can be bound.
    pub fn waits(&self) -> bool {
        !self.plan.is_empty() || !self.devices.is_empty()
    }

    pub async fn run(self, actions: &Actions, pods: &Informer<Pod>) -> Result<(), Error> {
        if !self.waits() {
            return self.bind_pod(actions).await;
        }
        let prepared = tokio::select! {
            biased;
            () = self.interrupt.0.token.cancelled() => Err(Error::Preempted),
            prepared = self.prepare(actions, pods) => prepared,
        };
        let outcome = match prepared {
            Ok(()) if self.interrupt.settle() => self.bind_pod(actions).await,
            Ok(()) => Err(Error::Preempted),
            Err(error) => Err(error),
        };
        if outcome.is_err() {
            self.devices.release(&self.pod, actions).await;
        }
        outcome
    }

    /// What can be given up for a more important pod.
    async fn prepare(&self, actions: &Actions, pods: &Informer<Pod>) -> Result<(), Error> {
        let (pod, node) = (&*self.pod, &*self.node);
        // Others, as an autoscaler, are told where the pod is going to be.
        actions.announce(pod, node).await;
        if !self.plan.is_empty() {
            self.bind_volumes(actions, pods)
                .await
                .map_err(Error::Volumes)?;
        }
        self.devices
            .bind(pod, node, actions)
            .await
            .map_err(Error::Devices)
    }

    pub fn interrupt(&self) -> Interrupt {
        self.interrupt.clone()
    }

    async fn bind_pod(&self, actions: &Actions) -> Result<(), Error> {
        actions
            .bind(&self.pod, &self.node)
            .await
            .map_err(Error::Pod)
    }

    async fn bind_volumes(&self, actions: &Actions, pods: &Informer<Pod>) -> Result<(), String> {
        let told = |error: kube::Error| error.to_string();
        for (volume, claim) in &self.plan.bind {
            let api: Api<PersistentVolume> = Api::all(actions.client.clone());
            let next = bound(volume, claim);
            let name = volume.name_any();
            Box::pin(api.replace(&name, &PostParams::default(), &next))
                .await
                .map_err(told)?;
        }
        for claim in &self.plan.provision {
            if annotation(claim, SELECTED_NODE) == Some(&*self.node) {
                continue;
            }
            let api: Api<PersistentVolumeClaim> =
                Api::namespaced(actions.client.clone(), self.pod.namespace());
            let patch = Patch::Merge(json!({ "metadata": {
                "resourceVersion": claim.metadata.resource_version,
                "annotations": { SELECTED_NODE: &*self.node },
            } }));
            let params = PatchParams::default();
            let patched = Box::pin(api.patch(&claim.name_any(), &params, &patch)).await;
            let version = patched.map_err(told)?.metadata.resource_version;
            self.storage
                .claims
                .reached(&version.unwrap_or_default())
                .await;
        }
        self.wait(pods).await
    }

    /// Until every claim has its volume.
    async fn wait(&self, pods: &Informer<Pod>) -> Result<(), String> {
        let mut outcome = Ok(false);
        let bound = self.storage.claims.wait_for(|_| {
            outcome = self.look();
            !matches!(outcome, Ok(false))
        });
        let (namespace, name) = (self.pod.namespace(), self.pod.name());
        let gone = pods.wait_for(|pods| {
            pods.get(namespace, name).is_none_or(|pod| {
                pod.metadata.uid.as_deref() != Some(self.pod.uid())
                    || pod.metadata.deletion_timestamp.is_some()
            })
        });
        tokio::select! {
            () = bound => {}
            () = gone => return Err(format!("pod does not exist any more: pod {name:?} not found")),
            () = tokio::time::sleep(PATIENCE) => {
                return Err("context deadline exceeded".to_owned());
            }
        }
        outcome.map(|_| ())
    }

    /// Whether all is done, or why it never will be.
    fn look(&self) -> Result<bool, String> {
        let current = |claim: &PersistentVolumeClaim| {
            let name = claim.name_any();
            let found = self.storage.claim(self.pod.namespace(), &name);
            found.ok_or_else(|| {
                format!("failed to check binding: persistentvolumeclaim {name:?} not found")
            })
        };
        let mut all = true;
        for (_, claim) in &self.plan.bind {
            all &= is_fully_bound(&*current(claim)?);
        }
        for claim in &self.plan.provision {
            let claim = current(claim)?;
            // A provisioner takes the note away that cannot make the volume there.
            if annotation(&claim, SELECTED_NODE) != Some(&*self.node) {
                let name = claim.name_any();
                return Err(format!("provisioning failed for PVC {name:?}"));
            }
            all &= is_fully_bound(&claim);
        }
        Ok(all)
    }
}

/// The volume as the claim's.
fn bound(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> PersistentVolume {
    let mut next = volume.clone();
    next.annotations_mut()
        .insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
    let mut reference = claim.object_ref(&());
    reference.resource_version = claim.resource_version();
    next.spec.get_or_insert_default().claim_ref = Some(reference);
    next
}
