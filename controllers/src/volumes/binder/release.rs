//! Volumes: whose they are, and what becomes of those whose claims have gone.

use std::sync::Arc;

use coracle_api::claims::{self as matching, PROVISIONED_BY};
use coracle_client::EventType;
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use kube::ResourceExt as _;

use super::{
    Binder, Item,
    binding::{claim_ref, has, unbound_volume, volume_name, volume_phase},
};
use crate::Error;

impl Binder {
    pub(super) async fn volume(&self, volume: &PersistentVolume) -> Result<(), Error> {
        let Some(reference) = claim_ref(volume) else {
            return self.write_volume_phase(volume, "Available", None).await;
        };
        if reference.uid.as_deref().unwrap_or_default().is_empty() {
            self.queue_claim_of(volume);
            return self.write_volume_phase(volume, "Available", None).await;
        }
        let Some(claim) = self.claim_behind(reference).await? else {
            if !matches!(volume_phase(volume), "Released" | "Failed") {
                self.write_volume_phase(volume, "Released", None).await?;
            }
            return self.reclaim(volume).await;
        };
        let name = volume_name(&claim);
        if name == volume.name_any() {
            return self.write_volume_phase(volume, "Bound", None).await;
        }
        if name.is_empty() {
            if matching::modes_differ(volume, &claim) {
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
                self.tell(&claim, type_, "VolumeMismatch", message);
            } else {
                self.queue.add(Item::claim(&claim));
            }
            return Ok(());
        }
        // The claim has another volume.
        if has(&volume.metadata, PROVISIONED_BY) && policy(volume) == "Delete" {
            if !matches!(volume_phase(volume), "Released" | "Failed") {
                self.write_volume_phase(volume, "Released", None).await?;
            }
            return self.reclaim(volume).await;
        }
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
    async fn reclaim(&self, volume: &PersistentVolume) -> Result<(), Error> {
        let failed = match policy(volume) {
            "Retain" => return Ok(()),
            "Delete" if is_deleted_elsewhere(volume) => return Ok(()),
            "Delete" => (
                "VolumeFailedDelete",
                format!(
                    "error getting deleter volume plugin for volume {:?}: no deletable volume \
                     plugin matched",
                    volume.name_any()
                ),
            ),
            "Recycle" => (
                "VolumeFailedRecycle",
                "No recycler plugin found for the volume!".to_owned(),
            ),
            _ => (
                "VolumeUnknownReclaimPolicy",
                "Volume has unrecognized PersistentVolumeReclaimPolicy".to_owned(),
            ),
        };
        let event = Some((failed.0, failed.1.as_str()));
        self.write_volume_phase(volume, "Failed", event).await
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
