//! `storage.k8s.io`: one file per kind, one line per kind in [`kinds`].

mod csi_driver;
mod csi_node;
mod csi_storage_capacity;
mod storage_class;
mod volume_attachment;
mod volume_attributes_class;

use k8s_openapi::api::storage::v1::{
    CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment, VolumeAttributesClass,
};

use crate::kinds::Kind;

/// What the group serves.
pub(crate) fn kinds() -> Vec<Kind> {
    vec![
        Kind::cluster::<CSIDriver>("csidriver").no_unconditional_update(),
        Kind::cluster::<CSINode>("csinode").no_unconditional_update(),
        Kind::namespaced::<CSIStorageCapacity>("csistoragecapacity").no_unconditional_update(),
        Kind::cluster::<StorageClass>("storageclass").short_names(&["sc"]),
        Kind::cluster::<VolumeAttachment>("volumeattachment")
            .no_unconditional_update()
            .status(),
        Kind::cluster::<VolumeAttributesClass>("volumeattributesclass").short_names(&["vac"]),
    ]
}
