//! Claims without a volume: they find one, wait for a pod, or a provisioner is told.

use std::sync::Arc;

use coracle_api::claims::{self as matching, BOUND_BY_CONTROLLER, PROVISIONER, SELECTED_NODE};
use coracle_client::EventType;
use k8s_openapi::api::{core::v1::PersistentVolumeClaim, storage::v1::StorageClass};
use kube::ResourceExt as _;

use super::{
    Binder, Item,
    binding::{claim_ref, has, volume_name},
};
use crate::{
    Error, pods,
    volumes::{claim_of, volumes},
};

const OLD_PROVISIONER: &str = "volume.beta.kubernetes.io/storage-provisioner";
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
const OLD_DEFAULT_CLASS: &str = "storageclass.beta.kubernetes.io/is-default-class";

impl Binder {
    /// A claim that was never bound.
    pub(super) async fn unbound(&self, claim: &PersistentVolumeClaim) -> Result<(), Error> {
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
        let mut waiting = self.pods.cache.list_namespace(namespace);
        waiting.retain(|pod| {
            pods::node_name(pod).is_empty()
                && !pods::is_terminal(pod)
                && volumes(pod)
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
}
