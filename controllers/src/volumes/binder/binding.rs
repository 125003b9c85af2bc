//! What binding makes of a claim and a volume.

use coracle_api::claims::{self as matching, BIND_COMPLETED, BOUND_BY_CONTROLLER};
use k8s_openapi::{
    api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Resource as _, ResourceExt as _};

pub(super) fn has(meta: &ObjectMeta, key: &str) -> bool {
    let annotations = meta.annotations.as_ref();
    annotations.is_some_and(|annotations| annotations.contains_key(key))
}

pub(super) fn volume_name(claim: &PersistentVolumeClaim) -> &str {
    let spec = claim.spec.as_ref();
    spec.and_then(|spec| spec.volume_name.as_deref())
        .unwrap_or_default()
}

pub(super) fn claim_phase(claim: &PersistentVolumeClaim) -> &str {
    let status = claim.status.as_ref();
    status
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

pub(super) fn volume_phase(volume: &PersistentVolume) -> &str {
    let status = volume.status.as_ref();
    status
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

pub(super) fn claim_ref(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

/// The volume as the claim's; `None` when it is that already.
pub(super) fn bound_volume(
    volume: &PersistentVolume,
    claim: &PersistentVolumeClaim,
) -> Option<PersistentVolume> {
    let ours = matching::is_bound_to(volume, claim);
    let known = claim_ref(volume).is_some_and(|known| known.uid == claim.metadata.uid);
    let noted = ours || has(&volume.metadata, BOUND_BY_CONTROLLER);
    if ours && known && noted {
        return None;
    }
    let mut next = volume.clone();
    if !(ours && known) {
        let reference = ObjectReference {
            resource_version: claim.resource_version(),
            ..claim.object_ref(&())
        };
        next.spec.get_or_insert_default().claim_ref = Some(reference);
    }
    if !noted {
        next.annotations_mut()
            .insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
    }
    Some(next)
}

/// The claim as the volume's; `None` when it is that already.
pub(super) fn bound_claim(
    claim: &PersistentVolumeClaim,
    volume: &PersistentVolume,
) -> Option<PersistentVolumeClaim> {
    let name = volume.name_any();
    let named = volume_name(claim) == name;
    if named && has(&claim.metadata, BIND_COMPLETED) {
        return None;
    }
    let mut next = claim.clone();
    if !named {
        next.spec.get_or_insert_default().volume_name = Some(name);
        next.annotations_mut()
            .insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
    }
    next.annotations_mut()
        .insert(BIND_COMPLETED.to_owned(), "yes".to_owned());
    Some(next)
}

/// The volume as nobody's; one that was kept for a claim stays kept for the claim's name.
pub(super) fn unbound_volume(volume: &PersistentVolume) -> PersistentVolume {
    let mut next = volume.clone();
    let controlled = next.annotations_mut().remove(BOUND_BY_CONTROLLER).is_some();
    let spec = next.spec.get_or_insert_default();
    if controlled {
        spec.claim_ref = None;
    } else if let Some(reference) = &mut spec.claim_ref {
        reference.uid = None;
    }
    next
}

/// The claim with the status of this phase; `None` when it has it. A bound claim has what its
/// volume has.
pub(super) fn with_phase(
    claim: &PersistentVolumeClaim,
    phase: &str,
    volume: Option<&PersistentVolume>,
) -> Option<PersistentVolumeClaim> {
    let mut next = claim.clone();
    let turned = claim_phase(claim) != phase;
    let status = next.status.get_or_insert_default();
    status.phase = Some(phase.to_owned());
    if let Some(spec) = volume.and_then(|volume| volume.spec.as_ref()) {
        status.access_modes.clone_from(&spec.access_modes);
        if turned {
            status.capacity.clone_from(&spec.capacity);
            status
                .current_volume_attributes_class_name
                .clone_from(&spec.volume_attributes_class_name);
        }
    } else {
        status.access_modes = None;
        status.capacity = None;
        status.current_volume_attributes_class_name = None;
    }
    (claim.status != next.status).then_some(next)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claim() -> PersistentVolumeClaim {
        serde_json::from_value(json!({
            "metadata": { "name": "c", "namespace": "ns", "uid": "c", "resourceVersion": "7" },
            "spec": {},
        }))
        .expect("a claim")
    }

    fn volume() -> PersistentVolume {
        serde_json::from_value(json!({
            "metadata": { "name": "v" },
            "spec": { "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"] },
        }))
        .expect("a volume")
    }

    #[test]
    fn both_sides_come_to_name_each_other() {
        let volume = bound_volume(&volume(), &claim()).expect("a change");
        let reference = claim_ref(&volume).expect("a reference");
        assert_eq!(reference.uid.as_deref(), Some("c"));
        assert_eq!(reference.kind.as_deref(), Some("PersistentVolumeClaim"));
        assert!(has(&volume.metadata, BOUND_BY_CONTROLLER));
        assert_eq!(bound_volume(&volume, &claim()), None);

        let claim = bound_claim(&claim(), &volume).expect("a change");
        assert_eq!(volume_name(&claim), "v");
        assert!(has(&claim.metadata, BOUND_BY_CONTROLLER) && has(&claim.metadata, BIND_COMPLETED));
        assert_eq!(bound_claim(&claim, &volume), None);

        let done = with_phase(&claim, "Bound", Some(&volume)).expect("a change");
        let status = done.status.as_ref().expect("a status");
        assert_eq!(
            status.capacity.as_ref().expect("capacity")["storage"].0,
            "1Gi"
        );
        assert_eq!(with_phase(&done, "Bound", Some(&volume)), None);
        let lost = with_phase(&done, "Lost", None).expect("a change");
        assert_eq!(lost.status.expect("a status").capacity, None);
    }

    #[test]
    fn a_volume_kept_for_a_name_is_not_the_controllers() {
        let mut kept = volume();
        kept.spec.get_or_insert_default().claim_ref = Some(ObjectReference {
            name: Some("c".to_owned()),
            namespace: Some("ns".to_owned()),
            ..ObjectReference::default()
        });
        let bound = bound_volume(&kept, &claim()).expect("a change");
        assert!(!has(&bound.metadata, BOUND_BY_CONTROLLER));
        let free = unbound_volume(&bound);
        let reference = claim_ref(&free).expect("still kept");
        assert_eq!(
            (reference.name.as_deref(), &reference.uid),
            (Some("c"), &None)
        );

        let chosen = bound_volume(&volume(), &claim()).expect("a change");
        assert_eq!(claim_ref(&unbound_volume(&chosen)), None);
    }
}
