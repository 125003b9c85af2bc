//! PersistentVolume.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolume;
use serde_json::Value;

use crate::{
    shape,
    strategy::{Behaviour, Shape},
};
use crate::{
    strategy::Column,
    table::{AGE, NAME, access_modes, age, column, name, storage_class, storage_of, wide},
    zero::{list, text},
};

impl Behaviour for PersistentVolume {
    const SHAPE: Shape<Self> = shape!(status);

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
