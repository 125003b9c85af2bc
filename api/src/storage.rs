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

use std::collections::BTreeMap;

use crate::{
    check,
    field::{ErrorList, Path},
    kinds::Kind,
};

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

/// The name of what makes volumes, in any case.
fn provisioner(name: &str, path: &Path, errors: &mut ErrorList) {
    if name.is_empty() {
        errors.push(path.required(""));
    } else {
        check::qualified_name(&name.to_lowercase(), path, errors);
    }
}

/// What is told to the maker of volumes.
fn parameters(
    parameters: Option<&BTreeMap<String, String>>,
    may_be_empty: bool,
    path: &Path,
    errors: &mut ErrorList,
) {
    const MAX_COUNT: usize = 512;
    const MAX_BYTES: usize = 256 * 1024;
    let entries = parameters.into_iter().flatten();
    let (count, bytes) = entries
        .clone()
        .fold((0, 0), |(count, bytes), (name, value)| {
            (count + 1, bytes + name.len() + value.len())
        });
    if count > MAX_COUNT {
        errors.push(path.too_long(MAX_COUNT));
        return;
    }
    for (name, _) in entries.filter(|(name, _)| name.is_empty()) {
        errors.push(path.invalid(name.as_str(), "field can not be empty."));
    }
    if bytes > MAX_BYTES {
        errors.push(path.too_long(MAX_BYTES));
    }
    if !may_be_empty && count == 0 {
        errors.push(path.required("must contain at least one key/value pair"));
    }
}
