//! What happens in the cluster, as far as it may let a pod be scheduled that could not be before.

use k8s_openapi::api::{
    core::v1::{Node, PersistentVolume, PersistentVolumeClaim, PodResourceClaimStatus},
    resource::v1::{DeviceClass, ResourceClaim},
    storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass},
};

use crate::{node, pod::PodInfo};

/// A change of a node, of a pod, or of what pods store on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event<'a> {
    NodeAdded(&'a Node),
    NodeUpdated {
        old: &'a Node,
        new: &'a Node,
        changes: NodeChanges,
    },
    NodeDeleted(&'a Node),
    /// A pod is on a node now.
    PodAdded(&'a PodInfo),
    /// A pod on a node changed, or the waiting pod itself.
    PodUpdated {
        old: &'a PodInfo,
        new: &'a PodInfo,
        changes: PodChanges,
    },
    /// A pod has left its node, or the node that it was nominated for.
    PodDeleted(&'a PodInfo),
    Claim(Applied<'a, PersistentVolumeClaim>),
    Volume(Applied<'a, PersistentVolume>),
    StorageClass(Applied<'a, StorageClass>),
    /// The drivers of a node.
    CsiNode(Applied<'a, CSINode>),
    CsiDriver(Applied<'a, CSIDriver>),
    /// What can be stored somewhere.
    StorageCapacity(Applied<'a, CSIStorageCapacity>),
    /// A volume is not attached to a node any more.
    VolumeDetached,
    /// A claim of devices.
    ResourceClaim(Applied<'a, ResourceClaim>),
    /// A class of devices.
    DeviceClass(Applied<'a, DeviceClass>),
    /// Devices are new or were changed.
    ResourceSlice,
    /// Devices that were given to a pod were not taken after all.
    DevicesReleased,
}

impl Event<'_> {
    /// What upstream calls it in its metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Event::NodeAdded(_) => "NodeAdd",
            Event::NodeUpdated { changes, .. } if changes.allocatable => {
                "NodeUpdateNodeAllocatable"
            }
            Event::NodeUpdated { changes, .. } if changes.labels => "NodeUpdateNodeLabel",
            Event::NodeUpdated { changes, .. } if changes.taints => "NodeUpdateNodeTaint",
            Event::NodeUpdated { .. } => "NodeUpdateNodeDeclaredFeature",
            Event::NodeDeleted(_) => "NodeDelete",
            Event::PodAdded(_) => "AssignedPodAdd",
            Event::PodUpdated { .. } => "AssignedPodUpdate",
            Event::PodDeleted(_) => "AssignedPodDelete",
            Event::Claim(change) => {
                change.label("PersistentVolumeClaimAdd", "PersistentVolumeClaimUpdate")
            }
            Event::Volume(change) => change.label("PersistentVolumeAdd", "PersistentVolumeUpdate"),
            Event::StorageClass(change) => change.label(
                "storage.k8s.io/StorageClassAdd",
                "storage.k8s.io/StorageClassUpdate",
            ),
            Event::CsiNode(change) => {
                change.label("storage.k8s.io/CSINodeAdd", "storage.k8s.io/CSINodeUpdate")
            }
            Event::CsiDriver(change) => change.label(
                "storage.k8s.io/CSIDriverAdd",
                "storage.k8s.io/CSIDriverUpdate",
            ),
            Event::StorageCapacity(change) => change.label(
                "storage.k8s.io/CSIStorageCapacityAdd",
                "storage.k8s.io/CSIStorageCapacityUpdate",
            ),
            Event::VolumeDetached => "storage.k8s.io/VolumeAttachmentDelete",
            Event::ResourceClaim(change) => change.label(
                "resource.k8s.io/ResourceClaimAdd",
                "resource.k8s.io/ResourceClaimUpdate",
            ),
            Event::DeviceClass(change) => change.label(
                "resource.k8s.io/DeviceClassAdd",
                "resource.k8s.io/DeviceClassUpdate",
            ),
            Event::ResourceSlice => "resource.k8s.io/ResourceSliceAdd",
            Event::DevicesReleased => "resource.k8s.io/ResourceClaimDelete",
        }
    }
}

/// An object that is new or was changed.
#[derive(Debug)]
pub(crate) struct Applied<'a, K> {
    /// `None`: it is new, or it is not known how it was.
    pub old: Option<&'a K>,
    pub new: &'a K,
}

impl<K> Applied<'_, K> {
    fn label(&self, added: &'static str, updated: &'static str) -> &'static str {
        if self.old.is_none() { added } else { updated }
    }
}

impl<K> Clone for Applied<'_, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for Applied<'_, K> {}

/// Which properties of a node changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeChanges {
    pub allocatable: bool,
    pub labels: bool,
    pub taints: bool,
    pub features: bool,
}

impl NodeChanges {
    /// `None` when nothing changed that matters.
    pub fn between(old: &Node, new: &Node) -> Option<Self> {
        let allocatable = |node: &Node| {
            let status = node.status.as_ref();
            status.and_then(|status| status.allocatable.clone())
        };
        let changes = NodeChanges {
            allocatable: allocatable(old) != allocatable(new),
            labels: old.metadata.labels != new.metadata.labels,
            taints: node::taints(old) != node::taints(new)
                || node::is_unschedulable(old) && !node::is_unschedulable(new),
            features: node::declared_features(old) != node::declared_features(new),
        };
        (changes != NodeChanges::default()).then_some(changes)
    }
}

/// Which properties of a pod changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PodChanges {
    pub labels: bool,
    /// It asks for less of some resource.
    pub scaled_down: bool,
    pub tolerations: bool,
    /// The last scheduling gate was removed.
    pub ungated: bool,
    /// Claims were made from its templates.
    pub claims: bool,
}

impl PodChanges {
    /// `None` when nothing changed that matters.
    pub fn between(old: &PodInfo, new: &PodInfo) -> Option<Self> {
        let changes = PodChanges {
            labels: old.labels() != new.labels(),
            scaled_down: scaled_down(old, new),
            // Tolerations can be added only.
            tolerations: old.tolerations().len() != new.tolerations().len(),
            ungated: old.is_gated() && !new.is_gated(),
            claims: generated_claims(old) != generated_claims(new),
        };
        (changes != PodChanges::default()).then_some(changes)
    }
}

fn generated_claims(pod: &PodInfo) -> &[PodResourceClaimStatus] {
    let status = pod.pod.status.as_ref();
    let claims = status.and_then(|status| status.resource_claim_statuses.as_deref());
    claims.unwrap_or_default()
}

fn scaled_down(old: &PodInfo, new: &PodInfo) -> bool {
    let (old, new) = (&old.requests.resources, &new.requests.resources);
    old.milli_cpu > new.milli_cpu
        || old.memory > new.memory
        || old.ephemeral_storage > new.ephemeral_storage
        || old
            .scalars
            .iter()
            .any(|(name, amount)| *amount > new.scalar(name))
}
