//! What is wrong with a PersistentVolume.

use k8s_openapi::api::core::v1::{
    NodeSelector, PersistentVolume, PersistentVolumeSpec, VolumeNodeAffinity,
};

use super::sources;
use crate::{
    check,
    core::persistent_volume_claim::{VOLUME_MODES, access_modes},
    field::{ErrorList, Path, value_of},
    internal,
    zero::{list, list_mut, text},
};

const MOUNT_OPTIONS: &str = "volume.beta.kubernetes.io/mount-options";

/// Where a spec stands: of its own, or in the VolumeAttachment of an inline volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// The volume's name.
    Volume(&'a str),
    Inline,
}

/// Checks a volume, new or changed.
pub fn create(volume: &PersistentVolume) -> ErrorList {
    let mut errors = ErrorList::new();
    let Some(spec) = &volume.spec else {
        return errors;
    };
    let place = Place::Volume(text(&volume.metadata.name));
    self::spec(spec, place, &Path::new("spec"), &mut errors);
    let annotations = volume.metadata.annotations.as_ref();
    let has_options = annotations.is_some_and(|a| a.contains_key(MOUNT_OPTIONS));
    if has_options && !sources::takes_mount_options(spec) {
        errors.push(
            Path::new("metadata.annotations")
                .child(MOUNT_OPTIONS)
                .forbidden("may not specify mount options for this volume type"),
        );
    }
    errors
}

/// Checks a spec.
pub fn spec(spec: &PersistentVolumeSpec, place: Place<'_>, path: &Path, errors: &mut ErrorList) {
    if place == Place::Inline {
        inline(spec, path, errors);
    }
    let modes = list(&spec.access_modes);
    let modes_path = path.child("accessModes");
    if modes.is_empty() {
        errors.push(modes_path.required(""));
    }
    access_modes(modes, &modes_path, errors);
    let affinity = spec.node_affinity.as_ref();
    if place != Place::Inline {
        capacity(spec, &path.child("capacity"), errors);
        let policy = text(&spec.persistent_volume_reclaim_policy);
        if !policy.is_empty() {
            let path = path.child("persistentVolumeReclaimPolicy");
            check::one_of(policy, &["Delete", "Recycle", "Retain"], &path, errors);
        }
        if let Some(affinity) = affinity {
            node_affinity(affinity, &path.child("nodeAffinity"), errors);
        }
    }
    let has_affinity = affinity.is_some() && place != Place::Inline;
    sources::check(spec, place, has_affinity, path, errors);
    let host_path = spec.host_path.as_ref();
    let is_root = host_path.is_some_and(|host| {
        host.path.starts_with('/') && host.path.split('/').all(|part| matches!(part, "" | "."))
    });
    if is_root && text(&spec.persistent_volume_reclaim_policy) == "Recycle" {
        errors.push(
            path.child("persistentVolumeReclaimPolicy")
                .forbidden("may not be 'recycle' for a hostPath mount of '/'"),
        );
    }
    if place != Place::Inline {
        let class = text(&spec.storage_class_name);
        if !class.is_empty() {
            check::subdomain(class, &path.child("storageClassName"), errors);
        }
        if let Some(mode) = &spec.volume_mode {
            check::one_of(mode, VOLUME_MODES, &path.child("volumeMode"), errors);
        }
    }
    if let Some(class) = &spec.volume_attributes_class_name {
        let class_path = path.child("volumeAttributesClassName");
        if class.is_empty() {
            errors.push(class_path.required("an empty string is disallowed"));
        } else {
            check::subdomain(class, &class_path, errors);
        }
        if spec.csi.is_none() {
            errors.push(
                path.child("csi")
                    .required("has to be specified when using volumeAttributesClassName"),
            );
        }
    }
}

/// An inline volume is the Pod's: nothing of it is for binding.
fn inline(spec: &PersistentVolumeSpec, path: &Path, errors: &mut ErrorList) {
    const CONTEXT: &str = "in the context of inline volumes";
    for (field, is_set) in [
        ("claimRef", spec.claim_ref.is_some()),
        ("capacity", spec.capacity.is_some()),
        ("nodeAffinity", spec.node_affinity.is_some()),
        ("storageClassName", spec.storage_class_name.is_some()),
    ] {
        if is_set {
            errors.push(
                path.child(field)
                    .forbidden(format!("may not be specified {CONTEXT}")),
            );
        }
    }
    if spec.csi.is_none() {
        errors.push(
            path.child("csi")
                .required(format!("has to be specified {CONTEXT}")),
        );
    }
    if !matches!(text(&spec.persistent_volume_reclaim_policy), "" | "Retain") {
        let path = path.child("persistentVolumeReclaimPolicy");
        errors.push(path.forbidden(format!("may only be Retain {CONTEXT}")));
    }
    if !matches!(spec.volume_mode.as_deref(), None | Some("Filesystem")) {
        errors.push(path.child("volumeMode").forbidden(format!(
            "may not specify volumeMode other than Filesystem {CONTEXT}"
        )));
    }
}

fn capacity(spec: &PersistentVolumeSpec, path: &Path, errors: &mut ErrorList) {
    let capacity = spec.capacity.as_ref();
    if capacity.is_none_or(|capacity| capacity.is_empty()) {
        errors.push(path.required(""));
    }
    let is_only_storage = capacity.is_some_and(|c| c.len() == 1 && c.contains_key("storage"));
    if !is_only_storage {
        errors.push(path.not_supported(value_of(&capacity), &["storage"]));
    }
    for (name, quantity) in capacity.into_iter().flatten() {
        let path = path.key(name);
        let amount = check::amount(quantity, &path, errors);
        if amount.value() < 0 {
            errors.push(path.invalid(amount.value(), "must be a valid resource quantity"));
        }
        check::positive_quantity(quantity, &path, errors);
    }
}

fn node_affinity(affinity: &VolumeNodeAffinity, path: &Path, errors: &mut ErrorList) {
    let path = path.child("required");
    match &affinity.required {
        Some(selector) => check::node_selector(selector, &path, errors),
        None => errors.push(path.required("must specify required node constraints")),
    }
}

/// Checks a change: the source stays, and the nodes that it can be reached from.
pub fn update(new: &PersistentVolume, old: &PersistentVolume) -> ErrorList {
    let mut errors = create(new);
    // Upstream tells twice what is wrong with the volume as such.
    errors.extend_from_within(..);
    let (Some(new), Some(old)) = (&new.spec, &old.spec) else {
        return errors;
    };
    let (mut new_sources, old_sources) = (sources::only(new), sources::only(old));
    // A secret for growing the volume may come later.
    if let (Some(new), Some(old)) = (&mut new_sources.csi, &old_sources.csi)
        && old.controller_expand_secret_ref.is_none()
    {
        new.controller_expand_secret_ref = None;
    }
    if new_sources != old_sources {
        let change = internal::difference("PersistentVolumeSource", &old_sources, &new_sources);
        errors.push(Path::new("spec.persistentvolumesource").forbidden(format!(
            "spec.persistentvolumesource is immutable after creation\n{change}"
        )));
    }
    let path = Path::new("volumeMode");
    check::immutable(&new.volume_mode, &old.volume_mode, &path, &mut errors);
    if old.node_affinity.is_some() {
        affinity_change(
            new.node_affinity.as_ref(),
            old.node_affinity.as_ref(),
            &mut errors,
        );
    }
    if old.volume_attributes_class_name.is_some() && new.volume_attributes_class_name.is_none() {
        errors.push(
            Path::new("spec.volumeAttributesClassName")
                .forbidden("update from non-nil value to nil is forbidden"),
        );
    }
    errors
}

/// Only labels of beta versions may be replaced by the lasting ones.
fn affinity_change(
    new: Option<&VolumeNodeAffinity>,
    old: Option<&VolumeNodeAffinity>,
    errors: &mut ErrorList,
) {
    let (Some(new), Some(old)) = (new, old) else {
        if new != old {
            let message = format!(
                "{}, except for updating from beta label to GA",
                check::IMMUTABLE
            );
            errors.push(
                Path::new("nodeAffinity")
                    .invalid(internal::shown("VolumeNodeAffinity", &new), message),
            );
        }
        return;
    };
    let mut renamed = old.clone();
    if let (Some(renamed), Some(new)) = (&mut renamed.required, &new.required) {
        rename_beta_labels(renamed, new);
    }
    if renamed != *new {
        let message = format!(
            "{}, except for updating from beta label to GA",
            check::IMMUTABLE
        );
        errors.push(
            Path::new("nodeAffinity").invalid(internal::shown("VolumeNodeAffinity", new), message),
        );
    }
}

fn rename_beta_labels(selector: &mut NodeSelector, new: &NodeSelector) {
    let terms = selector.node_selector_terms.iter_mut();
    for (term, new) in terms.zip(&new.node_selector_terms) {
        let requirements = list_mut(&mut term.match_expressions).iter_mut();
        for (requirement, new) in requirements.zip(list(&new.match_expressions)) {
            let lasting = match requirement.key.as_str() {
                "failure-domain.beta.kubernetes.io/zone" => "topology.kubernetes.io/zone",
                "failure-domain.beta.kubernetes.io/region" => "topology.kubernetes.io/region",
                "beta.kubernetes.io/os" => "kubernetes.io/os",
                "beta.kubernetes.io/arch" => "kubernetes.io/arch",
                "beta.kubernetes.io/instance-type" => "node.kubernetes.io/instance-type",
                _ => continue,
            };
            if new.key == lasting {
                requirement.key.clone_from(&new.key);
            }
        }
    }
}
