//! Volumes that a CSI driver attaches, what their attachments are called, and which pods use them.

use k8s_openapi::{
    api::{
        core::v1::{CSIPersistentVolumeSource, PersistentVolume, PersistentVolumeClaim, Pod},
        storage::v1::{VolumeAttachment, VolumeAttachmentSource, VolumeAttachmentSpec},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use sha2::{Digest as _, Sha256};

use super::super::{claim_of, is_for, volumes};
use crate::pods;

const PLUGIN: &str = "kubernetes.io/csi/";
const SEPARATOR: char = '^';

/// What a driver knows a volume by, and so does the status of a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Volume {
    pub driver: String,
    pub handle: String,
}

impl std::fmt::Display for Volume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{PLUGIN}{}{SEPARATOR}{}", self.driver, self.handle)
    }
}

impl Volume {
    /// From the name in the status of a node; `None` for a volume of another plugin.
    pub fn named(unique: &str) -> Option<Volume> {
        let (driver, handle) = unique.strip_prefix(PLUGIN)?.split_once(SEPARATOR)?;
        Some(Volume {
            driver: driver.to_owned(),
            handle: handle.to_owned(),
        })
    }

    pub fn of(volume: &PersistentVolume) -> Option<Volume> {
        source(volume).map(|source| Volume {
            driver: source.driver.clone(),
            handle: source.volume_handle.clone(),
        })
    }

    pub fn is(&self, volume: &PersistentVolume) -> bool {
        source(volume).is_some_and(|source| {
            source.driver == self.driver && source.volume_handle == self.handle
        })
    }

    /// The name of its attachment to the node, by which nodes and drivers find it.
    pub fn attachment_name(&self, node: &str) -> String {
        let hash = Sha256::digest(format!("{}{}{node}", self.handle, self.driver));
        hash.iter()
            .fold("csi-".to_owned(), |name, byte| format!("{name}{byte:02x}"))
    }

    pub fn attachment(&self, volume: &str, node: &str) -> VolumeAttachment {
        VolumeAttachment {
            metadata: ObjectMeta {
                name: Some(self.attachment_name(node)),
                ..ObjectMeta::default()
            },
            spec: VolumeAttachmentSpec {
                attacher: self.driver.clone(),
                node_name: node.to_owned(),
                source: VolumeAttachmentSource {
                    persistent_volume_name: Some(volume.to_owned()),
                    ..VolumeAttachmentSource::default()
                },
            },
            status: None,
        }
    }

    /// Whether the attachment is this volume's, made by a controller like this one.
    pub fn has(&self, attachment: &VolumeAttachment) -> bool {
        let spec = &attachment.spec;
        let name = attachment.metadata.name.as_deref();
        spec.attacher == self.driver && name == Some(self.attachment_name(&spec.node_name).as_str())
    }
}

fn source(volume: &PersistentVolume) -> Option<&CSIPersistentVolumeSource> {
    volume.spec.as_ref()?.csi.as_ref()
}

/// Whether several nodes may have the volume at once. Without access modes the driver decides.
pub(super) fn is_shared(volume: &PersistentVolume) -> bool {
    let spec = volume.spec.as_ref();
    let modes = spec.and_then(|spec| spec.access_modes.as_deref());
    let modes = modes.unwrap_or_default();
    let shared = |mode: &String| mode == "ReadWriteMany" || mode == "ReadOnlyMany";
    modes.is_empty() || modes.iter().any(shared)
}

/// Whether claim and volume belong to each other.
pub(super) fn is_bound(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let bound_to = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_name.as_ref());
    let phase = claim
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    let reference = volume
        .spec
        .as_ref()
        .and_then(|spec| spec.claim_ref.as_ref());
    phase == Some("Bound")
        && bound_to.is_some()
        && bound_to == volume.metadata.name.as_ref()
        && reference.is_some_and(|reference| reference.uid == claim.metadata.uid)
}

/// Whether the pod, on a node, needs the volume of the claim there.
pub(super) fn needs(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let name = claim.metadata.name.as_deref();
    !pods::node_name(pod).is_empty()
        && !is_over(pod)
        && volumes(pod).iter().any(|volume| {
            claim_of(pod, volume).as_deref() == name
                && (volume.ephemeral.is_none() || is_for(claim, pod))
        })
}

/// Whether nothing of the pod runs any more, and nothing will.
fn is_over(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_ref());
    let mut states = containers
        .into_iter()
        .flatten()
        .map(|container| container.state.as_ref());
    let stopped = states.all(|state| {
        state.is_some_and(|state| state.terminated.is_some() || state.waiting.is_some())
    });
    pods::is_terminal(pod) || pod.metadata.deletion_timestamp.is_some() && stopped
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parsed<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).expect("an object")
    }

    fn volume() -> Volume {
        Volume {
            driver: "hostpath.csi.k8s.io".to_owned(),
            handle: "a^b".to_owned(),
        }
    }

    #[test]
    fn names_are_those_that_nodes_and_drivers_know() {
        let unique = volume().to_string();
        assert_eq!(unique, "kubernetes.io/csi/hostpath.csi.k8s.io^a^b");
        assert_eq!(Volume::named(&unique), Some(volume()));
        assert_eq!(Volume::named("kubernetes.io/nfs/x^y"), None);
        let hash = Sha256::digest("a^bhostpath.csi.k8s.ionode-1");
        let attachment = volume().attachment("pv", "node-1");
        let name = attachment.metadata.name.as_deref().unwrap_or_default();
        assert_eq!(name.len(), 68);
        assert!(name.starts_with(&format!("csi-{:02x}{:02x}", hash[0], hash[1])));
        assert!(volume().has(&attachment));
        let mut other = attachment;
        other.metadata.name = Some("mine".to_owned());
        assert!(!volume().has(&other), "somebody else's is left alone");
    }

    #[test]
    fn the_access_modes_say_whether_nodes_share_a_volume() {
        let cases = [
            (json!([]), true),
            (json!(["ReadWriteOnce"]), false),
            (json!(["ReadWriteOncePod"]), false),
            (json!(["ReadWriteOnce", "ReadOnlyMany"]), true),
            (json!(["ReadWriteMany"]), true),
        ];
        for (modes, shared) in cases {
            let volume = parsed(json!({"spec": {"accessModes": modes}}));
            assert_eq!(is_shared(&volume), shared, "{modes}");
        }
    }

    #[test]
    fn a_pod_needs_a_volume_until_nothing_of_it_runs() {
        let claim: PersistentVolumeClaim =
            parsed(json!({"metadata": {"name": "data", "namespace": "ns"}}));
        let states = |state: &str| {
            json!([{"name": "c", "image": "i", "imageID": "", "ready": false,
            "restartCount": 0, "state": {state: {"exitCode": 0}}}])
        };
        let pod = |node: &str, deleted: bool, status: Value| -> Pod {
            parsed(json!({
                "metadata": {"name": "p", "namespace": "ns",
                    "deletionTimestamp": deleted.then_some("2026-01-01T00:00:00Z")},
                "spec": {"nodeName": node, "containers": [],
                    "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]},
                "status": status,
            }))
        };
        let cases = [
            (pod("", false, json!({})), false),
            (pod("n", false, json!({})), true),
            (pod("n", false, json!({"phase": "Succeeded"})), false),
            (
                pod(
                    "n",
                    false,
                    json!({"containerStatuses": states("terminated")}),
                ),
                true,
            ),
            (
                pod("n", true, json!({"containerStatuses": states("running")})),
                true,
            ),
            (
                pod(
                    "n",
                    true,
                    json!({"containerStatuses": states("terminated")}),
                ),
                false,
            ),
            (pod("n", true, json!({})), false),
        ];
        for (pod, expected) in cases {
            assert_eq!(needs(&pod, &claim), expected, "{pod:?}");
        }
    }
}
