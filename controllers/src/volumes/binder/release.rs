//! Volumes: whose they are, and what becomes of those whose claims have gone.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use coracle_api::claims::{self as matching, PROVISIONED_BY};
use coracle_client::EventType;
use k8s_openapi::api::core::v1::{
    Event, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod,
};
use kube::{Api, ResourceExt as _, api::DeleteParams};

use super::{
    Binder, Item, PERIOD,
    binding::{claim_ref, has, unbound_volume, volume_name, volume_phase},
    reclaim::{self, Recycling},
};
use crate::{Error, work::Done};

/// For what others say of a recycler.
const PATIENCE: Duration = Duration::from_secs(5);

impl Binder {
    pub(super) async fn volume(&self, volume: &PersistentVolume) -> Result<Done, Error> {
        let Some(reference) = claim_ref(volume) else {
            self.write_volume_phase(volume, "Available", None).await?;
            return Ok(Done::Settled);
        };
        if reference.uid.as_deref().unwrap_or_default().is_empty() {
            self.queue_claim_of(volume);
            self.write_volume_phase(volume, "Available", None).await?;
            return Ok(Done::Settled);
        }
        let Some(claim) = self.claim_behind(reference).await? else {
            return self.release(volume).await;
        };
        if has(&volume.metadata, PROVISIONED_BY)
            && policy(volume) == "Delete"
            && !["", &volume.name_any()].contains(&volume_name(&claim))
        {
            return self.release(volume).await;
        }
        self.keep(volume, &claim).await?;
        Ok(Done::Settled)
    }

    /// The claim has gone, or has another volume.
    async fn release(&self, volume: &PersistentVolume) -> Result<Done, Error> {
        if matches!(volume_phase(volume), "Released" | "Failed") {
            return self.reclaim(volume).await;
        }
        self.write_volume_phase(volume, "Released", None).await?;
        let name = volume.name_any();
        let released = self.volumes.get("", &name);
        match released.filter(|released| released.metadata.uid == volume.metadata.uid) {
            Some(released) => self.reclaim(&released).await,
            None => Ok(Done::Settled),
        }
    }

    async fn keep(
        &self,
        volume: &PersistentVolume,
        claim: &PersistentVolumeClaim,
    ) -> Result<(), Error> {
        let name = volume_name(claim);
        if name == volume.name_any() {
            return self.write_volume_phase(volume, "Bound", None).await;
        }
        if name.is_empty() {
            if matching::modes_differ(volume, claim) {
                let type_ = EventType::Warning;
                let why = "due to incompatible volumeMode.";
                let message = format!(
                    "Cannot bind PersistentVolume to requested PersistentVolumeClaim {:?} {why}",
                    claim.name_any()
                );
                self.recorder.on(volume, type_, "VolumeMismatch", message);
                let message = format!(
                    "Cannot bind PersistentVolume {:?} to requested PersistentVolumeClaim {why}",
                    volume.name_any()
                );
                self.tell(claim, type_, "VolumeMismatch", message);
            } else {
                self.queue.add(Item::claim(claim));
            }
            return Ok(());
        }
        // The claim has another volume.
        self.offer(volume).await
    }

    /// Takes the volume back from its claim.
    async fn offer(&self, volume: &PersistentVolume) -> Result<(), Error> {
        let next = self.volumes.replace(&unbound_volume(volume)).await?;
        self.write_volume_phase(&next, "Available", None).await
    }

    /// The claim that the volume is bound to, unless it is gone. The cache is believed only when
    /// it has the claim.
    async fn claim_behind(
        &self,
        reference: &ObjectReference,
    ) -> Result<Option<Arc<PersistentVolumeClaim>>, Error> {
        let namespace = reference.namespace.as_deref().unwrap_or_default();
        let name = reference.name.as_deref().unwrap_or_default();
        let same = |claim: &PersistentVolumeClaim| claim.metadata.uid == reference.uid;
        if let Some(claim) = self.claims.get(namespace, name)
            && same(&claim)
        {
            return Ok(Some(claim));
        }
        let read = self.claims.read(namespace, name).await?;
        Ok(read.filter(same).map(Arc::new))
    }

    /// Does with a volume whose claim has gone what its policy says.
    async fn reclaim(&self, volume: &PersistentVolume) -> Result<Done, Error> {
        match policy(volume) {
            "Retain" => Ok(Done::Settled),
            "Delete" if is_deleted_elsewhere(volume) => Ok(Done::Settled),
            "Delete" => self.delete(volume).await,
            "Recycle" => self.recycle(volume).await,
            _ => {
                let message = "Volume has unrecognized PersistentVolumeReclaimPolicy";
                self.fail(volume, "VolumeUnknownReclaimPolicy", message)
                    .await
            }
        }
    }

    async fn fail(
        &self,
        volume: &PersistentVolume,
        reason: &str,
        message: &str,
    ) -> Result<Done, Error> {
        self.write_volume_phase(volume, "Failed", Some((reason, message)))
            .await?;
        Ok(Done::Settled)
    }

    async fn delete(&self, volume: &PersistentVolume) -> Result<Done, Error> {
        let reason = "VolumeFailedDelete";
        let path = match reclaim::deletable(volume) {
            Some(Ok(path)) => path.to_owned(),
            Some(Err(why)) => return self.fail(volume, reason, &why).await,
            None => {
                let name = volume.name_any();
                let why = format!(
                    "error getting deleter volume plugin for volume {name:?}: no deletable volume \
                     plugin matched"
                );
                return self.fail(volume, reason, &why).await;
            }
        };
        let deleted = tokio::task::spawn_blocking(move || reclaim::delete(&path)).await;
        let why = match deleted {
            Ok(Ok(())) => {
                self.volumes.delete(volume, DeleteParams::default()).await?;
                return Ok(Done::Settled);
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        self.fail(volume, reason, &why).await?;
        Ok(Done::Again(PERIOD))
    }

    /// A pod empties the volume, then it is offered again.
    async fn recycle(&self, volume: &PersistentVolume) -> Result<Done, Error> {
        let reason = "VolumeFailedRecycle";
        let Some(recycler) = reclaim::recycler(volume) else {
            let message = "No recycler plugin found for the volume!";
            return self.fail(volume, reason, message).await;
        };
        let pod = self.pods.get(reclaim::NAMESPACE, &recycler.name_any());
        match reclaim::look(pod, self.users(volume)) {
            Recycling::Due => {
                let failed = self.failed.lock().get(&volume.name_any()).copied();
                let wait = failed.map_or(Duration::ZERO, |failed| {
                    PERIOD.saturating_sub(failed.elapsed())
                });
                if !wait.is_zero() {
                    return Ok(Done::Again(wait));
                }
                self.pods.create(&recycler).await?;
                Ok(Done::Settled)
            }
            Recycling::Running => Ok(Done::Settled),
            Recycling::Used(pods) => {
                let message = format!("Volume is used by pods: {}", pods.join(","));
                self.recorder.on(volume, EventType::Normal, reason, message);
                Ok(Done::Again(PERIOD))
            }
            Recycling::Done(pod) => {
                self.tell_of(volume, &pod).await;
                // Were the volume offered first, this pod could be taken for the next one's.
                self.pods.delete(&pod, DeleteParams::default()).await?;
                self.failed.lock().remove(&volume.name_any());
                let message = "Volume recycled";
                self.recorder
                    .on(volume, EventType::Normal, "VolumeRecycled", message);
                self.offer(volume).await?;
                Ok(Done::Settled)
            }
            Recycling::Failed(pod, why) => {
                self.tell_of(volume, &pod).await;
                let message = format!("Recycle failed: failed to recycle volume: {why}");
                self.fail(volume, reason, &message).await?;
                self.failed.lock().insert(volume.name_any(), Instant::now());
                self.pods.delete(&pod, DeleteParams::default()).await?;
                Ok(Done::Again(PERIOD))
            }
        }
    }

    /// What happened to the recycler is told of the volume.
    async fn tell_of(&self, volume: &PersistentVolume, recycler: &Pod) {
        let client = self.pods.api(reclaim::NAMESPACE).into_client();
        let events: Api<Event> = Api::namespaced(client, reclaim::NAMESPACE);
        let uid = recycler.uid().unwrap_or_default();
        let known = tokio::time::timeout(PATIENCE, reclaim::events_about(&events, &uid)).await;
        let mut found = match known {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return tracing::info!(%error, "the recycler's events are not known"),
            Err(_) => return tracing::info!("the recycler's events do not come"),
        };
        found.sort_by(|left, right| left.first_timestamp.cmp(&right.first_timestamp));
        for (type_, message) in found.iter().map(reclaim::forwarded) {
            self.recorder.on(volume, type_, "RecyclerPod", message);
        }
    }

    /// The pods that keep the volume from being recycled. Those of a new claim of the name do not:
    /// it has another volume.
    fn users(&self, volume: &PersistentVolume) -> Vec<String> {
        let reference = claim_ref(volume);
        let namespace = reference.and_then(|reference| reference.namespace.as_deref());
        let name = reference.and_then(|reference| reference.name.as_deref());
        let (namespace, name) = (namespace.unwrap_or_default(), name.unwrap_or_default());
        if self.claims.get(namespace, name).is_some() {
            return Vec::new();
        }
        reclaim::users(volume, &self.pods.cache.list_namespace(namespace))
    }

    /// The volume is gone while it was being emptied.
    pub(super) async fn stop_recycler(&self, volume: &str) -> Result<Done, Error> {
        self.failed.lock().remove(volume);
        let name = reclaim::recycler_name(volume);
        if let Some(pod) = self.pods.get(reclaim::NAMESPACE, &name)
            && pod.metadata.deletion_timestamp.is_none()
        {
            self.pods.delete(&pod, DeleteParams::default()).await?;
        }
        Ok(Done::Settled)
    }
}

fn policy(volume: &PersistentVolume) -> &str {
    let spec = volume.spec.as_ref();
    spec.and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref())
        .unwrap_or("Retain")
}

/// Whether a provisioner of its own made the volume, and deletes it.
fn is_deleted_elsewhere(volume: &PersistentVolume) -> bool {
    let provisioner = volume.annotations().get(PROVISIONED_BY);
    provisioner.is_some_and(|name| !name.starts_with("kubernetes.io/"))
        || volume.spec.as_ref().is_some_and(|spec| spec.csi.is_some())
}
