//! Binds claims to volumes, and takes volumes back when their claims have gone.
//!
//! Enter at [`run`]. Which volume a claim gets is decided in [`coracle_api::claims`]. A volume says
//! first that it is the claim's, then the claim that it has the volume; each step is repeated until
//! both stand. Upstream: `pkg/controller/volume/persistentvolume`.

use std::{fmt, sync::Arc};

use coracle_api::claims::{
    self as matching, BIND_COMPLETED, BOUND_BY_CONTROLLER, PROVISIONED_BY, PROVISIONER,
    SELECTED_NODE,
};
use coracle_client::{EventRecorder, EventType, Informer, Queue};
use k8s_openapi::api::{
    core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod},
    storage::v1::StorageClass,
};
use kube::{Resource as _, ResourceExt as _};
use tokio_util::sync::CancellationToken;

use super::claim_of;
use crate::{
    Context, Error,
    changes::{self, Seen},
    objects::Objects,
    pods,
    work::{self, Done},
};

const NAME: &str = "persistentvolume-controller";

const OLD_PROVISIONER: &str = "volume.beta.kubernetes.io/storage-provisioner";
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
const OLD_DEFAULT_CLASS: &str = "storageclass.beta.kubernetes.io/is-default-class";

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
        pods: context.informers.get(),
        recorder: context.recorder(NAME),
        queue: Queue::named("claims"),
    };
    binder.run(shutdown).await
}

struct Binder {
    claims: Objects<PersistentVolumeClaim>,
    volumes: Objects<PersistentVolume>,
    classes: Informer<StorageClass>,
    pods: Informer<Pod>,
    recorder: EventRecorder,
    queue: Queue<Item>,
}

fn has(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta, key: &str) -> bool {
    let annotations = meta.annotations.as_ref();
    annotations.is_some_and(|annotations| annotations.contains_key(key))
}

fn volume_name(claim: &PersistentVolumeClaim) -> &str {
    let spec = claim.spec.as_ref();
    spec.and_then(|spec| spec.volume_name.as_deref())
        .unwrap_or_default()
}

fn claim_phase(claim: &PersistentVolumeClaim) -> &str {
    let status = claim.status.as_ref();
    status
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

fn volume_phase(volume: &PersistentVolume) -> &str {
    let status = volume.status.as_ref();
    status
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

fn claim_ref(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

/// The volume as the claim's; `None` when it is that already.
fn bound_volume(
    volume: &PersistentVolume,
    claim: &PersistentVolumeClaim,
) -> Option<PersistentVolume> {
    let ours = matching::is_bound_to(volume, claim);
    let known = claim_ref(volume).is_some_and(|known| known.uid == claim.metadata.uid);
    let noted = ours || has(&volume.metadata, BOUND_BY_CONTROLLER);
    if ours && known && noted {
        return None;
    }
    let mut next = volume.clone();
    if !(ours && known) {
        let reference = ObjectReference {
            resource_version: claim.resource_version(),
            ..claim.object_ref(&())
        };
        next.spec.get_or_insert_default().claim_ref = Some(reference);
    }
    if !noted {
        next.annotations_mut()
            .insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
    }
    Some(next)
}

/// The claim as the volume's; `None` when it is that already.
fn bound_claim(
    claim: &PersistentVolumeClaim,
    volume: &PersistentVolume,
) -> Option<PersistentVolumeClaim> {
    let name = volume.name_any();
    let named = volume_name(claim) == name;
    if named && has(&claim.metadata, BIND_COMPLETED) {
        return None;
    }
    let mut next = claim.clone();
    if !named {
        next.spec.get_or_insert_default().volume_name = Some(name);
        next.annotations_mut()
            .insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
    }
    next.annotations_mut()
        .insert(BIND_COMPLETED.to_owned(), "yes".to_owned());
    Some(next)
}

/// The volume as nobody's; one that was kept for a claim stays kept for the claim's name.
fn unbound_volume(volume: &PersistentVolume) -> PersistentVolume {
    let mut next = volume.clone();
    let controlled = next.annotations_mut().remove(BOUND_BY_CONTROLLER).is_some();
    let spec = next.spec.get_or_insert_default();
    if controlled {
        spec.claim_ref = None;
    } else if let Some(reference) = &mut spec.claim_ref {
        reference.uid = None;
    }
    next
}

/// The claim with the status of this phase; `None` when it has it. A bound claim has what its
/// volume has.
fn with_phase(
    claim: &PersistentVolumeClaim,
    phase: &str,
    volume: Option<&PersistentVolume>,
) -> Option<PersistentVolumeClaim> {
    let mut next = claim.clone();
    let turned = claim_phase(claim) != phase;
    let status = next.status.get_or_insert_default();
    status.phase = Some(phase.to_owned());
    if let Some(spec) = volume.and_then(|volume| volume.spec.as_ref()) {
        status.access_modes.clone_from(&spec.access_modes);
        if turned {
            status.capacity.clone_from(&spec.capacity);
            status
                .current_volume_attributes_class_name
                .clone_from(&spec.volume_attributes_class_name);
        }
    } else {
        status.access_modes = None;
        status.capacity = None;
        status.current_volume_attributes_class_name = None;
    }
    (claim.status != next.status).then_some(next)
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
            Seen::Deleted(volume) => self.queue_claim_of(&volume),
            Seen::Lagged => self.queue_waiting(),
        });
        let classes = changes::each(&self.classes, |_| self.queue_waiting());
        let workers = async {
            self.claims.cache.synced().await;
            self.volumes.cache.synced().await;
            self.classes.synced().await;
            self.pods.synced().await;
            // One after the other: two claims must not get the same volume.
            work::work(NAME, &self.queue, 1, &shutdown, |item| self.sync(item)).await;
        };
        tokio::select! {
            () = claims => {}
            () = volumes => {}
            () = classes => {}
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
                    }
                }
            }
            Item::Volume { name } => {
                if let Some(volume) = self.volumes.get("", &name) {
                    self.volume(&volume).await?;
                }
            }
        }
        Ok(Done::Settled)
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

    async fn unbound(&self, claim: &PersistentVolumeClaim) -> Result<(), Error> {
        let name = volume_name(claim);
        if !name.is_empty() {
            return self.unbound_by_name(claim, name).await;
        }
        let delayed = self.is_delayed(claim);
        let volumes = self.volumes.cache.list();
        if let Some(volume) = matching::find(claim, &volumes, delayed) {
            return self.bind(&volume, claim).await;
        }
        if !matching::has_class(claim)
            && let Some(class) = self.default_class()
        {
            let mut next = claim.clone();
            next.spec.get_or_insert_default().storage_class_name = Some(class);
            self.claims.replace(&next).await?;
            return Ok(());
        }
        if delayed && !has(&claim.metadata, SELECTED_NODE) {
            self.tell_delay(claim);
        } else if matching::claim_class(claim).is_empty() {
            let message =
                "no persistent volumes available for this claim and no storage class is set";
            let type_ = EventType::Normal;
            self.tell(claim, type_, "FailedBinding", message.to_owned());
        } else {
            return self.provision(claim).await;
        }
        self.write_phase(claim, "Pending", None).await
    }

    /// The claim names its volume.
    async fn unbound_by_name(
        &self,
        claim: &PersistentVolumeClaim,
        name: &str,
    ) -> Result<(), Error> {
        let Some(volume) = self.volumes.get("", name) else {
            return self.write_phase(claim, "Pending", None).await;
        };
        if matching::is_bound_to(&volume, claim) {
            return self.bind(&volume, claim).await;
        }
        let type_ = EventType::Warning;
        if claim_ref(&volume).is_none() {
            let Some(mismatch) = matching::mismatch(&volume, claim) else {
                return self.bind(&volume, claim).await;
            };
            let message = format!("Cannot bind to requested volume {name:?}: {mismatch}");
            self.tell(claim, type_, "VolumeMismatch", message);
        } else {
            let message = format!("volume {name:?} already bound to a different claim.");
            self.tell(claim, type_, "FailedBinding", message);
            if has(&claim.metadata, BOUND_BY_CONTROLLER) {
                return Err(Error::Refused(format!(
                    "invalid binding of claim {} to volume {name:?}: volume already claimed",
                    Item::claim(claim)
                )));
            }
        }
        self.write_phase(claim, "Pending", None).await
    }

    fn class(&self, claim: &PersistentVolumeClaim) -> Option<Arc<StorageClass>> {
        self.classes.get("", matching::claim_class(claim))
    }

    fn is_delayed(&self, claim: &PersistentVolumeClaim) -> bool {
        let class = self.class(claim);
        let mode = class
            .as_ref()
            .and_then(|class| class.volume_binding_mode.as_deref());
        mode == Some("WaitForFirstConsumer")
    }

    /// The newest of the classes that are for claims without any.
    fn default_class(&self) -> Option<String> {
        let classes = self.classes.list();
        let is_default = |class: &&Arc<StorageClass>| {
            [DEFAULT_CLASS, OLD_DEFAULT_CLASS].iter().any(|key| {
                let value = class.annotations().get(*key);
                value.is_some_and(|value| value == "true")
            })
        };
        let newest = classes.iter().filter(is_default).max_by_key(|class| {
            let created = class.creation_timestamp().map(|time| time.0);
            (created, std::cmp::Reverse(class.name_any()))
        });
        newest.map(|class| class.name_any())
    }

    fn tell_delay(&self, claim: &PersistentVolumeClaim) {
        let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
        let name = claim.metadata.name.as_deref();
        let mut waiting = self.pods.list_namespace(namespace);
        waiting.retain(|pod| {
            pods::node_name(pod).is_empty()
                && !pods::is_terminal(pod)
                && super::volumes(pod)
                    .iter()
                    .any(|volume| claim_of(pod, volume).as_deref() == name)
        });
        let names: Vec<_> = waiting.iter().map(|pod| pod.name_any()).collect();
        let (reason, message) = match names.as_slice() {
            [] => (
                "WaitForFirstConsumer",
                "waiting for first consumer to be created before binding".to_owned(),
            ),
            [one] => (
                "WaitForPodScheduled",
                format!("waiting for pod {one} to be scheduled"),
            ),
            many => (
                "WaitForPodScheduled",
                format!("waiting for pods {} to be scheduled", many.join(",")),
            ),
        };
        self.tell(claim, EventType::Normal, reason, message);
    }

    /// Tells the class's provisioner that a volume is wanted.
    async fn provision(&self, claim: &PersistentVolumeClaim) -> Result<(), Error> {
        let name = matching::claim_class(claim);
        let Some(class) = self.class(claim) else {
            let message = format!("storageclass.storage.k8s.io {name:?} not found");
            self.tell(claim, EventType::Warning, "ProvisioningFailed", message);
            return self.write_phase(claim, "Pending", None).await;
        };
        let provisioner = &class.provisioner;
        if provisioner.starts_with("kubernetes.io/") {
            let message = format!("no volume plugin matched name: {provisioner}");
            self.tell(claim, EventType::Warning, "ProvisioningFailed", message);
            return self.write_phase(claim, "Pending", None).await;
        }
        let noted = [PROVISIONER, OLD_PROVISIONER]
            .iter()
            .all(|key| claim.annotations().get(*key) == Some(provisioner));
        if noted {
            let message = format!(
                "Waiting for a volume to be created either by the external provisioner \
                 '{provisioner}' or manually by the system administrator. If volume creation is \
                 delayed, please verify that the provisioner is running and correctly registered."
            );
            self.tell(claim, EventType::Normal, "ExternalProvisioning", message);
            return self.write_phase(claim, "Pending", None).await;
        }
        let mut next = claim.clone();
        for key in [PROVISIONER, OLD_PROVISIONER] {
            next.annotations_mut()
                .insert(key.to_owned(), provisioner.clone());
        }
        self.claims.replace(&next).await?;
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

    async fn volume(&self, volume: &PersistentVolume) -> Result<(), Error> {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claim() -> PersistentVolumeClaim {
        serde_json::from_value(json!({
            "metadata": { "name": "c", "namespace": "ns", "uid": "c", "resourceVersion": "7" },
            "spec": {},
        }))
        .expect("a claim")
    }

    fn volume() -> PersistentVolume {
        serde_json::from_value(json!({
            "metadata": { "name": "v" },
            "spec": { "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"] },
        }))
        .expect("a volume")
    }

    #[test]
    fn both_sides_come_to_name_each_other() {
        let volume = bound_volume(&volume(), &claim()).expect("a change");
        let reference = claim_ref(&volume).expect("a reference");
        assert_eq!(reference.uid.as_deref(), Some("c"));
        assert_eq!(reference.kind.as_deref(), Some("PersistentVolumeClaim"));
        assert!(has(&volume.metadata, BOUND_BY_CONTROLLER));
        assert_eq!(bound_volume(&volume, &claim()), None);

        let claim = bound_claim(&claim(), &volume).expect("a change");
        assert_eq!(volume_name(&claim), "v");
        assert!(has(&claim.metadata, BOUND_BY_CONTROLLER) && has(&claim.metadata, BIND_COMPLETED));
        assert_eq!(bound_claim(&claim, &volume), None);

        let done = with_phase(&claim, "Bound", Some(&volume)).expect("a change");
        let status = done.status.as_ref().expect("a status");
        assert_eq!(
            status.capacity.as_ref().expect("capacity")["storage"].0,
            "1Gi"
        );
        assert_eq!(with_phase(&done, "Bound", Some(&volume)), None);
        let lost = with_phase(&done, "Lost", None).expect("a change");
        assert_eq!(lost.status.expect("a status").capacity, None);
    }

    #[test]
    fn a_volume_kept_for_a_name_is_not_the_controllers() {
        let mut kept = volume();
        kept.spec.get_or_insert_default().claim_ref = Some(ObjectReference {
            name: Some("c".to_owned()),
            namespace: Some("ns".to_owned()),
            ..ObjectReference::default()
        });
        let bound = bound_volume(&kept, &claim()).expect("a change");
        assert!(!has(&bound.metadata, BOUND_BY_CONTROLLER));
        let free = unbound_volume(&bound);
        let reference = claim_ref(&free).expect("still kept");
        assert_eq!(
            (reference.name.as_deref(), &reference.uid),
            (Some("c"), &None)
        );

        let chosen = bound_volume(&volume(), &claim()).expect("a change");
        assert_eq!(claim_ref(&unbound_volume(&chosen)), None);
    }
}
