//! PersistentVolume.

mod sources;
pub(crate) mod validation;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{PersistentVolume, PersistentVolumeSpec},
    apimachinery::pkg::apis::meta::v1::Time,
};
use serde_json::Value;

use crate::{
    core::pod::{resources, warnings},
    field::{ErrorList, Path},
    shape,
    strategy::{Behaviour, Column, Shape, Subresource},
    table::{AGE, NAME, access_modes, age, column, name, storage_class, storage_of, wide},
    zero::{default_text, list, text},
};

impl Behaviour for PersistentVolume {
    const SHAPE: Shape<Self> = shape!(status);

    fn default_fields(&mut self) {
        let status = self.status.get_or_insert_default();
        default_text(&mut status.phase, "Pending");
        let spec = self.spec.get_or_insert_default();
        default_text(&mut spec.persistent_volume_reclaim_policy, "Retain");
        spec.volume_mode
            .get_or_insert_with(|| "Filesystem".to_owned());
        resources::round_list(&mut spec.capacity);
        default_source(spec);
    }

    fn prepare_for_create(&mut self) {
        let status = self.status.get_or_insert_default();
        status.phase = Some("Pending".to_owned());
        status.last_phase_transition_time = Some(Time(Timestamp::now()));
    }

    fn prepare_for_subresource(&mut self, old: &Self, subresource: Subresource) {
        if subresource == Subresource::Status {
            note_transition(self, old);
        }
    }

    fn validate(&self) -> ErrorList {
        validation::create(self)
    }

    fn validate_update(&self, old: &Self) -> ErrorList {
        validation::update(self, old)
    }

    fn warnings(&self, _old: Option<&Self>) -> Vec<String> {
        volume_warnings(self)
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "Capacity",
                "string",
                "capacity is the description of the persistent volume's resources and capacity. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#capacity",
            ),
            column(
                "Access Modes",
                "string",
                "accessModes contains all ways the volume can be mounted. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#access-modes",
            ),
            column(
                "Reclaim Policy",
                "string",
                "persistentVolumeReclaimPolicy defines what happens to a persistent volume when released from its claim. Valid options are Retain (default for manually created PersistentVolumes), Delete (default for dynamically provisioned PersistentVolumes), and Recycle (deprecated). Recycle must be supported by the volume plugin underlying this PersistentVolume. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#reclaiming",
            ),
            column(
                "Status",
                "string",
                "phase indicates if a volume is available, bound to a claim, or released by a claim. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#phase",
            ),
            column(
                "Claim",
                "string",
                "claimRef is part of a bi-directional binding between PersistentVolume and PersistentVolumeClaim. Expected to be non-nil when bound. claim.VolumeName is the authoritative bind between PV and PVC. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#binding",
            ),
            column("StorageClass", "string", "StorageClass of the pv"),
            column(
                "VolumeAttributesClass",
                "string",
                "VolumeAttributesClass of the pv",
            ),
            column(
                "Reason",
                "string",
                "reason is a brief CamelCase string that describes any failure and is meant for machine parsing and tidy display in the CLI.",
            ),
            AGE,
            wide(
                "VolumeMode",
                "volumeMode defines if a volume is intended to be used with a formatted filesystem or to remain in raw block state. Value of Filesystem is implied when not included in spec.",
            ),
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let spec = self.spec.clone().unwrap_or_default();
        let status = self.status.as_ref();
        let claim = spec.claim_ref.as_ref().map_or_else(String::new, |claim| {
            format!("{}/{}", text(&claim.namespace), text(&claim.name))
        });
        let phase = match self.metadata.deletion_timestamp {
            Some(_) => "Terminating",
            None => status.map_or("", |status| text(&status.phase)),
        };
        let unset = || "<unset>".to_owned();
        vec![
            name(&self.metadata),
            Value::from(storage_of(spec.capacity.as_ref())),
            Value::from(access_modes(list(&spec.access_modes))),
            Value::from(text(&spec.persistent_volume_reclaim_policy)),
            Value::from(phase),
            Value::from(claim),
            Value::from(storage_class(
                &self.metadata,
                spec.storage_class_name.as_deref(),
            )),
            Value::from(spec.volume_attributes_class_name.unwrap_or_else(unset)),
            Value::from(status.map_or("", |status| text(&status.reason))),
            age(&self.metadata, now),
            Value::from(spec.volume_mode.unwrap_or_else(unset)),
        ]
    }
}

fn default_source(spec: &mut PersistentVolumeSpec) {
    if let Some(path) = &mut spec.host_path {
        path.type_.get_or_insert_default();
    }
    if let Some(rbd) = &mut spec.rbd {
        default_text(&mut rbd.pool, "rbd");
        default_text(&mut rbd.user, "admin");
        default_text(&mut rbd.keyring, "/etc/ceph/keyring");
    }
    if let Some(iscsi) = &mut spec.iscsi {
        default_text(&mut iscsi.iscsi_interface, "default");
    }
    if let Some(disk) = &mut spec.azure_disk {
        disk.caching_mode
            .get_or_insert_with(|| "ReadWrite".to_owned());
        disk.fs_type.get_or_insert_with(|| "ext4".to_owned());
        disk.read_only.get_or_insert(false);
        disk.kind.get_or_insert_with(|| "Shared".to_owned());
    }
    if let Some(scale_io) = &mut spec.scale_io {
        default_text(&mut scale_io.storage_mode, "ThinProvisioned");
        default_text(&mut scale_io.fs_type, "xfs");
    }
}

/// The time of a change of phase, which clients need not write themselves.
fn note_transition(new: &mut PersistentVolume, old: &PersistentVolume) {
    let old = old.status.clone().unwrap_or_default();
    let status = new.status.get_or_insert_default();
    let is_noted = status.last_phase_transition_time.is_some();
    let is_old_note = status.last_phase_transition_time == old.last_phase_transition_time;
    if status.phase == old.phase {
        if !is_noted {
            status.last_phase_transition_time = old.last_phase_transition_time;
        }
    } else if !is_noted || is_old_note {
        status.last_phase_transition_time = Some(Time(Timestamp::now()));
    }
}

fn volume_warnings(volume: &PersistentVolume) -> Vec<String> {
    let mut found = Vec::new();
    for (annotation, message) in [
        (
            "volume.beta.kubernetes.io/storage-class",
            r#"deprecated since v1.8; use "storageClassName" attribute instead"#,
        ),
        (
            "volume.beta.kubernetes.io/mount-options",
            r#"deprecated since v1.31; use "mountOptions" attribute instead"#,
        ),
    ] {
        let annotations = volume.metadata.annotations.as_ref();
        if annotations.is_some_and(|annotations| annotations.contains_key(annotation)) {
            found.push(format!("metadata.annotations[{annotation}]: {message}"));
        }
    }
    let Some(spec) = &volume.spec else {
        return found;
    };
    if text(&spec.persistent_volume_reclaim_policy) == "Recycle" {
        found.push(
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. \
             Instead, the recommended approach is to use dynamic provisioning."
                .to_owned(),
        );
    }
    let affinity = spec.node_affinity.as_ref();
    if let Some(selector) = affinity.and_then(|affinity| affinity.required.as_ref()) {
        for (index, term) in selector.node_selector_terms.iter().enumerate() {
            let path = Path::new("spec.nodeAffinity.required.nodeSelectorTerms").index(index);
            warnings::node_selector_term(term, false, &path, &mut found);
        }
    }
    for (field, is_set, message) in [
        (
            "cephfs",
            spec.cephfs.is_some(),
            "deprecated in v1.28, non-functional in v1.31+",
        ),
        (
            "photonPersistentDisk",
            spec.photon_persistent_disk.is_some(),
            "deprecated in v1.11, non-functional in v1.16+",
        ),
        (
            "scaleIO",
            spec.scale_io.is_some(),
            "deprecated in v1.16, non-functional in v1.22+",
        ),
        (
            "storageOS",
            spec.storageos.is_some(),
            "deprecated in v1.22, non-functional in v1.25+",
        ),
        (
            "glusterfs",
            spec.glusterfs.is_some(),
            "deprecated in v1.25, non-functional in v1.26+",
        ),
        (
            "rbd",
            spec.rbd.is_some(),
            "deprecated in v1.28, non-functional in v1.31+",
        ),
    ] {
        if is_set {
            found.push(format!("spec.{field}: {message}"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn persistent_volumes() {
        crate::testing::run::<PersistentVolume>(include_str!(
            "../../testdata/persistent_volume.yaml"
        ));
    }
}
