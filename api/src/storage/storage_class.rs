//! StorageClass.

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::Value;

use crate::strategy::Behaviour;
use crate::{
    strategy::Column,
    table::{AGE, NAME, age, column},
    zero::text,
};

impl Behaviour for StorageClass {
    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "Provisioner",
                "string",
                "provisioner indicates the type of the provisioner.",
            ),
            column(
                "ReclaimPolicy",
                "string",
                "reclaimPolicy controls the reclaimPolicy for dynamically provisioned PersistentVolumes of this storage class. Defaults to Delete.",
            ),
            column(
                "VolumeBindingMode",
                "string",
                "volumeBindingMode indicates how PersistentVolumeClaims should be provisioned and bound.  When unset, VolumeBindingImmediate is used. This field is only honored by servers that enable the VolumeScheduling feature.",
            ),
            column(
                "AllowVolumeExpansion",
                "string",
                "allowVolumeExpansion shows whether the storage class allow volume expand.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let annotations = self.metadata.annotations.as_ref();
        let is_default = [
            "storageclass.kubernetes.io/is-default-class",
            "storageclass.beta.kubernetes.io/is-default-class",
        ]
        .into_iter()
        .filter_map(|name| annotations?.get(name))
        .any(|value| value == "true");
        let suffix = if is_default { " (default)" } else { "" };
        vec![
            Value::from(format!("{}{suffix}", text(&self.metadata.name))),
            Value::from(self.provisioner.clone()),
            Value::from(self.reclaim_policy.as_deref().unwrap_or("Delete")),
            Value::from(self.volume_binding_mode.as_deref().unwrap_or("Immediate")),
            Value::from(self.allow_volume_expansion.unwrap_or_default()),
            age(&self.metadata, now),
        ]
    }
}
