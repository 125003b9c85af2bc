//! Which volume a claim gets: what the controller that binds them and the scheduler agree on.
//!
//! Enter at [`find`], and at [`find_free`] where more is asked of the volume. Upstream:
//! `k8s.io/component-helpers/storage/volume`.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use crate::{quantity::Amount, selector::LabelSelector};

/// On a claim: it and its volume name each other.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On a claim or volume: it was not its user who chose the other.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On a volume: the provisioner that made it.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// On a claim: the provisioner that is to make its volume.
pub const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
/// On a claim: the node that the scheduler chose for the first pod with it.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

const CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// The class that the claim names; empty for none.
pub fn claim_class(claim: &PersistentVolumeClaim) -> &str {
    let old = claim
        .metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get(CLASS));
    let spec = claim.spec.as_ref();
    old.or(spec.and_then(|spec| spec.storage_class_name.as_ref()))
        .map_or("", String::as_str)
}

/// Whether the claim says anything about its class, be it that it wants none.
pub fn has_class(claim: &PersistentVolumeClaim) -> bool {
    let annotations = claim.metadata.annotations.as_ref();
    annotations.is_some_and(|all| all.contains_key(CLASS))
        || claim
            .spec
            .as_ref()
            .is_some_and(|spec| spec.storage_class_name.is_some())
}

fn volume_class(volume: &PersistentVolume) -> &str {
    let old = volume
        .metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get(CLASS));
    let spec = volume.spec.as_ref();
    old.or(spec.and_then(|spec| spec.storage_class_name.as_ref()))
        .map_or("", String::as_str)
}

/// Whether the volume is the claim's, or kept for it.
pub fn is_bound_to(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let reference = volume
        .spec
        .as_ref()
        .and_then(|spec| spec.claim_ref.as_ref());
    reference.is_some_and(|reference| {
        let uid = reference.uid.as_deref().unwrap_or_default();
        reference.name == claim.metadata.name
            && reference.namespace == claim.metadata.namespace
            && (uid.is_empty() || Some(uid) == claim.metadata.uid.as_deref())
    })
}

/// What the volume holds.
pub fn capacity(volume: &PersistentVolume) -> Amount {
    let capacity = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref());
    let storage = capacity.and_then(|capacity| capacity.get("storage"));
    storage.map(Amount::from).unwrap_or_default()
}

/// What the claim asks for.
pub fn requested(claim: &PersistentVolumeClaim) -> Amount {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let requests = resources.and_then(|resources| resources.requests.as_ref());
    let storage = requests.and_then(|requests| requests.get("storage"));
    storage.map(Amount::from).unwrap_or_default()
}

/// Whether one is a block device and the other a file system.
pub fn modes_differ(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    fn mode(mode: Option<&String>) -> &str {
        mode.map_or("Filesystem", String::as_str)
    }
    let claim = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_mode.as_ref());
    let volume = volume
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_mode.as_ref());
    mode(claim) != mode(volume)
}

fn attributes_differ(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let wanted = claim.spec.as_ref();
    let wanted = wanted.and_then(|spec| spec.volume_attributes_class_name.as_deref());
    let given = volume.spec.as_ref();
    let given = given.and_then(|spec| spec.volume_attributes_class_name.as_deref());
    wanted.unwrap_or_default() != given.unwrap_or_default()
}

fn access_modes(modes: Option<&Vec<String>>) -> &[String] {
    modes.map_or(&[], Vec::as_slice)
}

fn allows_access(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let given = volume
        .spec
        .as_ref()
        .and_then(|spec| spec.access_modes.as_ref());
    let wanted = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.access_modes.as_ref());
    access_modes(wanted)
        .iter()
        .all(|mode| access_modes(given).contains(mode))
}

/// Why a volume that the claim names is not one for it.
pub fn mismatch(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<&'static str> {
    if capacity(volume) < requested(claim) {
        Some("requested PV is too small")
    } else if volume_class(volume) != claim_class(claim) {
        Some("storageClassName does not match")
    } else if attributes_differ(volume, claim) {
        Some("volumeAttributesClassName does not match")
    } else if modes_differ(volume, claim) {
        Some("incompatible volumeMode")
    } else if !allows_access(volume, claim) {
        Some("incompatible accessMode")
    } else {
        None
    }
}

/// The volume for the claim: one that is kept for it, or else the smallest with the fewest access
/// modes that will do. When the scheduler chooses (`delayed`), only one that is kept for it.
pub fn find(
    claim: &PersistentVolumeClaim,
    volumes: &[Arc<PersistentVolume>],
    delayed: bool,
) -> Option<Arc<PersistentVolume>> {
    let kept = volumes
        .iter()
        .find(|volume| is_bound_to(volume, claim) && fits(volume, claim));
    match kept {
        Some(kept) => Some(kept.clone()),
        None if delayed => None,
        None => find_free(claim, volumes, |_| true),
    }
}

/// The smallest volume with the fewest access modes that will do and that is nobody's, of those
/// that `accepts` lets through.
pub fn find_free(
    claim: &PersistentVolumeClaim,
    volumes: &[Arc<PersistentVolume>],
    accepts: impl Fn(&PersistentVolume) -> bool,
) -> Option<Arc<PersistentVolume>> {
    let selector = claim.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    // What is no selector selects nothing.
    let selector = selector.map(|selector| LabelSelector::from_object(Some(selector)).ok());
    let selected = |volume: &PersistentVolume| match &selector {
        None => true,
        Some(selector) => selector
            .as_ref()
            .is_some_and(|selector| selector.matches_labels(volume.metadata.labels.as_ref())),
    };
    let free = volumes.iter().filter(|volume| {
        let status = volume.status.as_ref();
        let phase = status.and_then(|status| status.phase.as_deref());
        let spec = volume.spec.as_ref();
        phase == Some("Available")
            && spec.is_none_or(|spec| spec.claim_ref.is_none())
            && volume_class(volume) == claim_class(claim)
            && fits(volume, claim)
            && selected(volume)
            && accepts(volume)
    });
    let modes = |volume: &PersistentVolume| {
        let modes = volume
            .spec
            .as_ref()
            .and_then(|spec| spec.access_modes.as_ref());
        access_modes(modes).len()
    };
    free.min_by_key(|volume| (modes(volume), capacity(volume)))
        .cloned()
}

fn fits(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    volume.metadata.deletion_timestamp.is_none()
        && capacity(volume) >= requested(claim)
        && !modes_differ(volume, claim)
        && !attributes_differ(volume, claim)
        && allows_access(volume, claim)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn volume(name: &str, size: &str, extra: &Value) -> Arc<PersistentVolume> {
        let mut spec = json!({ "capacity": { "storage": size },
            "accessModes": ["ReadWriteOnce"] });
        for (key, value) in extra.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        Arc::new(
            serde_json::from_value(json!({
                "metadata": { "name": name, "labels": { "name": name } }, "spec": spec,
                "status": { "phase": "Available" },
            }))
            .expect("a volume"),
        )
    }

    fn name(volume: &PersistentVolume) -> String {
        volume.metadata.name.clone().unwrap_or_default()
    }

    fn claim(size: &str, extra: &Value) -> PersistentVolumeClaim {
        let mut spec = json!({ "resources": { "requests": { "storage": size } },
            "accessModes": ["ReadWriteOnce"] });
        for (key, value) in extra.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        serde_json::from_value(json!({
            "metadata": { "name": "c", "namespace": "ns", "uid": "c" }, "spec": spec,
        }))
        .expect("a claim")
    }

    #[test]
    fn the_smallest_volume_that_will_do_is_taken() {
        let volumes = [
            volume("big", "10Gi", &json!({})),
            volume("small", "1Gi", &json!({})),
            volume("middle", "5Gi", &json!({})),
            volume(
                "many",
                "2Gi",
                &json!({ "accessModes": ["ReadWriteOnce", "ReadWriteMany"] }),
            ),
            volume("gold", "3Gi", &json!({ "storageClassName": "gold" })),
            volume("raw", "4Gi", &json!({ "volumeMode": "Block" })),
            volume(
                "taken",
                "2Gi",
                &json!({ "claimRef": { "name": "x", "namespace": "ns" } }),
            ),
        ];
        let found = |size: &str, extra: Value| {
            find(&claim(size, &extra), &volumes, false).map(|volume| name(&volume))
        };
        let some = |name: &str| Some(name.to_owned());
        assert_eq!(found("500Mi", json!({})), some("small"));
        assert_eq!(found("2Gi", json!({})), some("middle"));
        assert_eq!(found("20Gi", json!({})), None);
        let many = json!({ "accessModes": ["ReadWriteMany"] });
        assert_eq!(found("1Gi", many), some("many"));
        assert_eq!(
            found("1Gi", json!({ "storageClassName": "gold" })),
            some("gold")
        );
        assert_eq!(found("1Gi", json!({ "volumeMode": "Block" })), some("raw"));
        let chosen = json!({ "selector": { "matchLabels": { "name": "big" } } });
        assert_eq!(found("1Gi", chosen), some("big"));
    }

    #[test]
    fn a_volume_that_is_kept_for_the_claim_comes_first() {
        let kept = json!({ "claimRef": { "name": "c", "namespace": "ns" } });
        let volumes = [volume("a", "1Gi", &json!({})), volume("kept", "9Gi", &kept)];
        let claim = claim("1Gi", &json!({}));
        for delayed in [false, true] {
            let found = find(&claim, &volumes, delayed).expect("a volume");
            assert_eq!(name(&found), "kept");
        }
        assert_eq!(find(&claim, &volumes[..1], true), None);
        let other = json!({ "claimRef": { "name": "c", "namespace": "ns", "uid": "before" } });
        assert_eq!(find(&claim, &[volume("v", "1Gi", &other)], false), None);
    }

    #[test]
    fn a_named_volume_must_fit_too() {
        let of = |volume: Value, claimed: Value| {
            mismatch(
                &super::tests::volume("v", "1Gi", &volume),
                &claim("1Gi", &claimed),
            )
        };
        assert_eq!(of(json!({}), json!({})), None);
        let small = mismatch(&volume("v", "1Gi", &json!({})), &claim("2Gi", &json!({})));
        assert_eq!(small, Some("requested PV is too small"));
        let class = of(json!({}), json!({ "storageClassName": "gold" }));
        assert_eq!(class, Some("storageClassName does not match"));
        let mode = of(json!({ "volumeMode": "Block" }), json!({}));
        assert_eq!(mode, Some("incompatible volumeMode"));
        let access = of(json!({}), json!({ "accessModes": ["ReadWriteMany"] }));
        assert_eq!(access, Some("incompatible accessMode"));
    }
}
