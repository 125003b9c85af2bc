//! What a volume of this kind looks like.

use std::{collections::BTreeMap, path::Path};

use coracle_api::claims::{self, PROVISIONED_BY};
use k8s_openapi::api::{
    core::v1::{
        HostPathVolumeSource, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm,
        ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec,
        VolumeNodeAffinity,
    },
    storage::v1::StorageClass,
};
use kube::{Resource as _, ResourceExt as _};

use super::{NAME, quota::Held};

/// On a volume: the node that has its folder.
const NODE: &str = "local.path.provisioner/selected-node";
/// On a volume: whether the file system holds it to its size.
const QUOTA: &str = "local.path.provisioner/quota";
/// On a volume that is held: the project that its folder is of.
const PROJECT: &str = "local.path.provisioner/project-id";

/// Where a volume is.
pub struct Place<'a> {
    pub node_name: &'a str,
    /// The node's label `kubernetes.io/hostname`.
    pub hostname: &'a str,
    pub path: &'a Path,
    pub held: &'a Held,
}

/// The name of the claim's volume.
pub fn name(claim: &PersistentVolumeClaim) -> String {
    format!("pvc-{}", claim.uid().unwrap_or_default())
}

/// The name of its folder, by which people find it.
pub fn folder_name(claim: &PersistentVolumeClaim) -> String {
    let namespace = claim.namespace().unwrap_or_default();
    format!("{}_{namespace}_{}", name(claim), claim.name_any())
}

/// Why a folder is not what the claim asks for.
pub fn check(claim: &PersistentVolumeClaim) -> Result<(), String> {
    let Some(spec) = &claim.spec else {
        return Ok(());
    };
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err(format!("{NAME} does not support block volume provisioning"));
    }
    if spec.selector.is_some() {
        return Err("claim.Spec.Selector is not supported".to_owned());
    }
    let modes = spec.access_modes.iter().flatten();
    let one = |mode: &String| matches!(mode.as_str(), "ReadWriteOnce" | "ReadWriteOncePod");
    if !modes.into_iter().all(one) {
        return Err(
            "NodePath only supports ReadWriteOnce and ReadWriteOncePod (1.22+) access modes"
                .to_owned(),
        );
    }
    Ok(())
}

/// The claim's volume.
pub fn of(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    place: &Place<'_>,
) -> PersistentVolume {
    let wanted = claim.spec.clone().unwrap_or_default();
    let mut volume = PersistentVolume::default();
    volume.metadata.name = Some(name(claim));
    let (quota, project) = match place.held {
        Held::By { project } => ("enforced", Some(project.to_string())),
        Held::Not(_) => ("not-enforced", None),
    };
    let mut annotations: BTreeMap<_, _> = [
        (PROVISIONED_BY, NAME),
        (NODE, place.node_name),
        (QUOTA, quota),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    annotations.extend(project.map(|project| (PROJECT.to_owned(), project)));
    volume.metadata.annotations = Some(annotations);
    let size = claims::requested(claim).to_quantity();
    let hostname = NodeSelectorRequirement {
        key: "kubernetes.io/hostname".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![place.hostname.to_owned()]),
    };
    volume.spec = Some(PersistentVolumeSpec {
        capacity: Some([("storage".to_owned(), size)].into()),
        access_modes: wanted.access_modes,
        volume_mode: Some("Filesystem".to_owned()),
        persistent_volume_reclaim_policy: class.reclaim_policy.clone(),
        storage_class_name: Some(class.name_any()),
        mount_options: class.mount_options.clone(),
        claim_ref: Some(ObjectReference {
            resource_version: claim.resource_version(),
            ..claim.object_ref(&())
        }),
        host_path: Some(HostPathVolumeSource {
            path: place.path.to_string_lossy().into_owned(),
            type_: Some("DirectoryOrCreate".to_owned()),
        }),
        node_affinity: Some(VolumeNodeAffinity {
            required: Some(NodeSelector {
                node_selector_terms: vec![NodeSelectorTerm {
                    match_expressions: Some(vec![hostname]),
                    match_fields: None,
                }],
            }),
        }),
        ..PersistentVolumeSpec::default()
    });
    volume
}

/// Whether the volume was made here, for this node.
pub fn is_ours(volume: &PersistentVolume, node_name: &str) -> bool {
    let is = |key: &str, value: &str| volume.annotations().get(key).is_some_and(|it| it == value);
    is(PROVISIONED_BY, NAME) && is(NODE, node_name)
}

/// Whether nobody needs the volume any more.
pub fn is_to_be_removed(volume: &PersistentVolume, node_name: &str) -> bool {
    let status = volume.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    let spec = volume.spec.as_ref();
    let policy = spec.and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    is_ours(volume, node_name)
        && matches!(phase, Some("Released" | "Failed"))
        && policy == Some("Delete")
}

/// The project that the volume is held by, as it says itself.
pub fn project(volume: &PersistentVolume) -> Option<u32> {
    volume.annotations().get(PROJECT)?.parse().ok()
}

pub fn path(volume: &PersistentVolume) -> Option<&str> {
    let source = volume.spec.as_ref()?.host_path.as_ref()?;
    Some(&source.path)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn claim(spec: &Value) -> PersistentVolumeClaim {
        serde_json::from_value(json!({
            "metadata": { "name": "data", "namespace": "ns", "uid": "1", "resourceVersion": "7" },
            "spec": spec,
        }))
        .unwrap()
    }

    fn simple() -> PersistentVolumeClaim {
        claim(&json!({ "accessModes": ["ReadWriteOnce"],
            "resources": { "requests": { "storage": "10Gi" } } }))
    }

    #[test]
    fn a_volume_is_held_to_its_node_and_claim() {
        let class: StorageClass = serde_json::from_value(json!({
            "metadata": { "name": "local-path" }, "provisioner": NAME, "reclaimPolicy": "Delete",
        }))
        .unwrap();
        let place = Place {
            node_name: "n",
            hostname: "host",
            path: Path::new("/storage/x"),
            held: &Held::By { project: 9 },
        };
        let mut volume = of(&simple(), &class, &place);
        assert_eq!(project(&volume), Some(9));
        assert_eq!(volume.annotations()[QUOTA], "enforced");
        let held = &Held::Not("it cannot".to_owned());
        let free = of(&simple(), &class, &Place { held, ..place });
        assert_eq!(project(&free), None);
        assert_eq!(free.annotations()[QUOTA], "not-enforced");
        assert_eq!(volume.name_any(), "pvc-1");
        assert_eq!(folder_name(&simple()), "pvc-1_ns_data");
        assert!(claims::is_bound_to(&volume, &simple()));
        assert_eq!(claims::capacity(&volume), claims::requested(&simple()));
        let spec = serde_json::to_value(volume.spec.as_ref().unwrap()).unwrap();
        assert_eq!(
            spec["nodeAffinity"]["required"]["nodeSelectorTerms"],
            json!([{ "matchExpressions": [
                { "key": "kubernetes.io/hostname", "operator": "In", "values": ["host"] }] }])
        );
        assert_eq!(path(&volume), Some("/storage/x"));
        assert!(is_ours(&volume, "n") && !is_ours(&volume, "m"));
        assert!(!is_to_be_removed(&volume, "n"));
        volume.status.get_or_insert_default().phase = Some("Released".to_owned());
        assert!(is_to_be_removed(&volume, "n") && !is_to_be_removed(&volume, "m"));
    }

    #[test]
    fn what_a_folder_cannot_be_is_refused() {
        assert_eq!(check(&simple()), Ok(()));
        for (spec, why) in [
            (json!({ "volumeMode": "Block" }), "block volume"),
            (json!({ "selector": {} }), "Selector"),
            (json!({ "accessModes": ["ReadWriteMany"] }), "access modes"),
        ] {
            let refused = check(&claim(&spec)).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }
}
