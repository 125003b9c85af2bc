//! Binds claims to volumes, and takes volumes back when their claims have gone.
//!
//! Enter at [`run`]. Which volume a claim gets is decided in [`coracle_api::claims`]. A volume says
//! first that it is the claim's, then the claim that it has the volume ([`binding`]); each step is
//! repeated until both stand. [`waiting`] is about claims that have none yet, [`release`] about
//! volumes, [`reclaim`] about what those are deleted or emptied with. Upstream: `pkg/controller/volume/persistentvolume`.

mod binding;
mod reclaim;
mod release;
mod waiting;

use std::{
    collections::HashMap,
    fmt,
    time::{Duration, Instant},
};

use coracle_api::claims::BIND_COMPLETED;
use coracle_client::{EventRecorder, EventType, Informer, Queue};
use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim, Pod},
    storage::v1::StorageClass,
};
use kube::ResourceExt as _;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use self::binding::{
    bound_claim, bound_volume, claim_phase, claim_ref, has, volume_name, volume_phase, with_phase,
};
use crate::{
    Context, Error,
    changes::{self, Seen},
    objects::Objects,
    work::{self, Done},
};

const NAME: &str = "persistentvolume-controller";
/// Between two looks at what waits: events tell of it for as long as it does.
const PERIOD: Duration = Duration::from_secs(15);

/// What there is to look at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Item {
    Claim { namespace: String, name: String },
    Volume { name: String },
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Item::Claim { namespace, name } => write!(f, "claim {namespace}/{name}"),
            Item::Volume { name } => write!(f, "volume {name}"),
        }
    }
}

impl Item {
    fn claim(claim: &PersistentVolumeClaim) -> Self {
        Item::Claim {
            namespace: claim.namespace().unwrap_or_default(),
            name: claim.name_any(),
        }
    }

    fn volume(name: impl Into<String>) -> Self {
        Item::Volume { name: name.into() }
    }
}

/// Runs the binder.
pub(crate) async fn run(context: Context, shutdown: CancellationToken) -> Result<(), Error> {
    let binder = Binder {
        claims: context.objects(),
        volumes: context.objects(),
        classes: context.informers.get(),
        pods: context.objects(),
        recorder: context.recorder(NAME),
        queue: Queue::named("claims"),
        failed: Mutex::default(),
    };
    binder.run(shutdown).await
}

struct Binder {
    claims: Objects<PersistentVolumeClaim>,
    volumes: Objects<PersistentVolume>,
    classes: Informer<StorageClass>,
    pods: Objects<Pod>,
    recorder: EventRecorder,
    queue: Queue<Item>,
    /// When volumes could not be emptied the last time.
    failed: Mutex<HashMap<String, Instant>>,
}

impl Binder {
    async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let claims = changes::each(&self.claims.cache, |seen| match seen {
            Seen::Applied { new: claim, .. } => self.queue.add(Item::claim(&claim)),
            Seen::Deleted(claim) => {
                let name = volume_name(&claim);
                if name.is_empty() {
                    self.queue_volumes();
                } else {
                    self.queue.add(Item::volume(name));
                }
            }
            Seen::Lagged => self.queue_volumes(),
        });
        let volumes = changes::each(&self.volumes.cache, |seen| match seen {
            Seen::Applied { new: volume, .. } => {
                self.queue.add(Item::volume(volume.name_any()));
                if volume_phase(&volume) == "Available" {
                    self.queue_waiting();
                }
            }
            Seen::Deleted(volume) => {
                self.queue_claim_of(&volume);
                self.queue.add(Item::volume(volume.name_any()));
            }
            Seen::Lagged => self.queue_waiting(),
        });
        let classes = changes::each(&self.classes, |_| self.queue_waiting());
        let pods = changes::each(&self.pods.cache, |seen| {
            if let Seen::Applied { new: pod, .. } | Seen::Deleted(pod) = seen
                && let Some(volume) = reclaim::recycled_by(&pod)
            {
                self.queue.add(Item::volume(volume));
            }
        });
        let workers = async {
            self.claims.cache.synced().await;
            self.volumes.cache.synced().await;
            self.classes.synced().await;
            self.pods.cache.synced().await;
            // One after the other: two claims must not get the same volume.
            work::work(NAME, &self.queue, 1, &shutdown, |item| self.sync(item)).await;
        };
        tokio::select! {
            () = claims => {}
            () = volumes => {}
            () = classes => {}
            () = pods => {}
            () = workers => {}
            () = shutdown.cancelled() => {}
        }
        Ok(())
    }

    fn queue_volumes(&self) {
        for volume in self.volumes.cache.list() {
            if claim_ref(&volume).is_some() {
                self.queue.add(Item::volume(volume.name_any()));
            }
        }
    }

    /// Claims that have no volume yet.
    fn queue_waiting(&self) {
        for claim in self.claims.cache.list() {
            if !has(&claim.metadata, BIND_COMPLETED) {
                self.queue.add(Item::claim(&claim));
            }
        }
    }

    fn queue_claim_of(&self, volume: &PersistentVolume) {
        if let Some(reference) = claim_ref(volume) {
            self.queue.add(Item::Claim {
                namespace: reference.namespace.clone().unwrap_or_default(),
                name: reference.name.clone().unwrap_or_default(),
            });
        }
    }

    async fn sync(&self, item: Item) -> Result<Done, Error> {
        match item {
            Item::Claim { namespace, name } => {
                if let Some(claim) = self.claims.get(&namespace, &name) {
                    if has(&claim.metadata, BIND_COMPLETED) {
                        self.bound(&claim).await?;
                    } else {
                        self.unbound(&claim).await?;
                        return Ok(self.again(&namespace, &name));
                    }
                }
                Ok(Done::Settled)
            }
            Item::Volume { name } => match self.volumes.get("", &name) {
                Some(volume) => self.volume(&volume).await,
                None => self.stop_recycler(&name).await,
            },
        }
    }

    /// A claim that has no volume still is looked at again.
    fn again(&self, namespace: &str, name: &str) -> Done {
        let claim = self.claims.get(namespace, name);
        match claim.filter(|claim| !has(&claim.metadata, BIND_COMPLETED)) {
            Some(_) => Done::Again(PERIOD),
            None => Done::Settled,
        }
    }

    fn tell(&self, claim: &PersistentVolumeClaim, type_: EventType, reason: &str, message: String) {
        self.recorder.on(claim, type_, reason, message);
    }

    /// A claim that was bound once: the volume may have been lost since.
    async fn bound(&self, claim: &PersistentVolumeClaim) -> Result<(), Error> {
        let name = volume_name(claim);
        let lost = if name.is_empty() {
            "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!"
        } else if let Some(volume) = self.volumes.get("", name) {
            let reference = claim_ref(&volume);
            if reference.is_none_or(|reference| reference.uid == claim.metadata.uid) {
                return self.bind(&volume, claim).await;
            }
            let message = "Two claims are bound to the same volume, this one is bound incorrectly";
            return self.lose(claim, "ClaimMisbound", message).await;
        } else {
            "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
        };
        self.lose(claim, "ClaimLost", lost).await
    }

    async fn lose(
        &self,
        claim: &PersistentVolumeClaim,
        reason: &str,
        message: &str,
    ) -> Result<(), Error> {
        if claim_phase(claim) == "Lost" {
            return Ok(());
        }
        self.write_phase(claim, "Lost", None).await?;
        self.tell(claim, EventType::Warning, reason, message.to_owned());
        Ok(())
    }

    async fn write_phase(
        &self,
        claim: &PersistentVolumeClaim,
        phase: &str,
        volume: Option<&PersistentVolume>,
    ) -> Result<(), Error> {
        if let Some(next) = with_phase(claim, phase, volume) {
            self.claims.replace_status(&next).await?;
        }
        Ok(())
    }

    /// Binds both to each other. Steps that have been done before are left out.
    async fn bind(
        &self,
        volume: &PersistentVolume,
        claim: &PersistentVolumeClaim,
    ) -> Result<(), Error> {
        let volume = match bound_volume(volume, claim) {
            Some(next) => self.volumes.replace(&next).await?,
            None => volume.clone(),
        };
        self.write_volume_phase(&volume, "Bound", None).await?;
        let claim = match bound_claim(claim, &volume) {
            Some(next) => self.claims.replace(&next).await?,
            None => claim.clone(),
        };
        self.write_phase(&claim, "Bound", Some(&volume)).await
    }

    /// The event, if any, has a reason and the status's message.
    async fn write_volume_phase(
        &self,
        volume: &PersistentVolume,
        phase: &str,
        event: Option<(&str, &str)>,
    ) -> Result<(), Error> {
        if volume_phase(volume) == phase {
            return Ok(());
        }
        let mut next = volume.clone();
        let status = next.status.get_or_insert_default();
        status.phase = Some(phase.to_owned());
        status.message = event.map(|(_, message)| message.to_owned());
        self.volumes.replace_status(&next).await?;
        if let Some((reason, message)) = event {
            self.recorder
                .on(volume, EventType::Warning, reason, message);
        }
        Ok(())
    }
}
