//! What changes beside nodes and pods, as far as it may let a pod be scheduled: what pods store on
//! and the devices that they use.

use std::sync::Arc;

use coracle_client::{Change, Changes};
use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim},
    resource::v1::{DeviceClass, ResourceClaim, ResourceSlice},
    storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment},
};

use crate::{devices, event::Applied, storage};

/// [`Applied`], owned.
pub(crate) struct Shared<K> {
    old: Option<Arc<K>>,
    new: Arc<K>,
}

impl<K> Shared<K> {
    pub fn borrow(&self) -> Applied<'_, K> {
        Applied {
            old: self.old.as_deref(),
            new: &self.new,
        }
    }
}

pub(crate) enum SurroundingChange {
    Claim(Shared<PersistentVolumeClaim>),
    Volume(Shared<PersistentVolume>),
    Class(Shared<StorageClass>),
    CsiNode(Shared<CSINode>),
    Driver(Shared<CSIDriver>),
    Capacity(Shared<CSIStorageCapacity>),
    Detached,
    ResourceClaim(Shared<ResourceClaim>),
    DeviceClass(Shared<DeviceClass>),
    ResourceSlice,
    /// Anything may have changed.
    Lost,
}

/// The changes as they come.
pub(crate) struct Surroundings {
    claims: Changes<PersistentVolumeClaim>,
    volumes: Changes<PersistentVolume>,
    classes: Changes<StorageClass>,
    csi_nodes: Changes<CSINode>,
    drivers: Changes<CSIDriver>,
    capacities: Changes<CSIStorageCapacity>,
    attachments: Changes<VolumeAttachment>,
    resource_claims: Changes<ResourceClaim>,
    device_classes: Changes<DeviceClass>,
    resource_slices: Changes<ResourceSlice>,
}

/// What a change is, if it is not a deletion.
fn applied<K>(
    change: Change<K>,
    of: impl FnOnce(Shared<K>) -> SurroundingChange,
) -> Option<SurroundingChange> {
    match change {
        Change::Applied { old, new } => Some(of(Shared { old, new })),
        Change::Deleted(_) => None,
        Change::Lagged => Some(SurroundingChange::Lost),
    }
}

impl Surroundings {
    pub fn subscribe(storage: &storage::Informed, devices: &devices::Informed) -> Self {
        Surroundings {
            claims: storage.claims.subscribe(),
            volumes: storage.volumes.subscribe(),
            classes: storage.classes.subscribe(),
            csi_nodes: storage.csi_nodes.subscribe(),
            drivers: storage.drivers.subscribe(),
            capacities: storage.capacities.subscribe(),
            attachments: storage.attachments.subscribe(),
            resource_claims: devices.claims.subscribe(),
            device_classes: devices.classes.subscribe(),
            resource_slices: devices.slices.subscribe(),
        }
    }

    /// The next change by which something may be used that could not be before.
    pub async fn next(&mut self) -> SurroundingChange {
        use SurroundingChange as To;
        loop {
            let change = tokio::select! {
                Some(change) = self.claims.next() => applied(change, To::Claim),
                Some(change) = self.volumes.next() => applied(change, To::Volume),
                Some(change) = self.classes.next() => applied(change, To::Class),
                Some(change) = self.csi_nodes.next() => applied(change, To::CsiNode),
                Some(change) = self.drivers.next() => applied(change, To::Driver),
                Some(change) = self.capacities.next() => applied(change, To::Capacity),
                Some(change) = self.attachments.next() => match change {
                    Change::Applied { .. } => None,
                    Change::Deleted(_) => Some(To::Detached),
                    Change::Lagged => Some(To::Lost),
                },
                Some(change) = self.resource_claims.next() => applied(change, To::ResourceClaim),
                Some(change) = self.device_classes.next() => applied(change, To::DeviceClass),
                Some(change) = self.resource_slices.next() => {
                    applied(change, |_| To::ResourceSlice)
                }
                else => std::future::pending().await,
            };
            if let Some(change) = change {
                return change;
            }
        }
    }
}
