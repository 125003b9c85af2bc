//! What may change in a PersistentVolumeClaim, and in its status.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus,
    },
    apimachinery::pkg::api::resource::Quantity,
};

use super::CLASS_ANNOTATION;
use crate::{
    check,
    core::pod::{resources::is_native, validation::resources::quantity_value},
    field::{ErrorList, Path, value_of},
    internal, names,
    quantity::{Amount, ResourceList},
    zero::{list, text},
};

const RESIZE_STATES: &[&str] = &[
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];

/// Checks a change of a claim: a bound one may only grow and change its attributes.
pub fn claim(new: &PersistentVolumeClaim, old: &PersistentVolumeClaim, errors: &mut ErrorList) {
    let (Some(new_spec), Some(old_spec)) = (&new.spec, &old.spec) else {
        return;
    };
    let no_status = PersistentVolumeClaimStatus::default();
    let status = new.status.as_ref().unwrap_or(&no_status);
    let path = Path::new("spec");
    let rest = without_mutable(new, new_spec, old, old_spec, errors);
    if rest.new != rest.old {
        let change = internal::difference("PersistentVolumeClaimSpec", &rest.old, &rest.new);
        errors.push(path.forbidden(format!(
            "spec is immutable after creation except resources.requests and \
             volumeAttributesClassName for bound claims\n{change}"
        )));
    }
    let (new_size, old_size) = (storage(new_spec), storage(old_spec));
    let actual = status
        .capacity
        .as_ref()
        .and_then(|capacity| capacity.get("storage"))
        .map(Amount::from)
        .unwrap_or_default();
    if new_size < old_size && new_size <= actual {
        errors.push(
            path.child("resources.requests.storage")
                .forbidden("field can not be less than status.capacity"),
        );
    }
    let mode_path = Path::new("volumeMode");
    check::immutable(
        &new_spec.volume_mode,
        &old_spec.volume_mode,
        &mode_path,
        errors,
    );
    let class = &new_spec.volume_attributes_class_name;
    if *class != old_spec.volume_attributes_class_name
        && status.current_volume_attributes_class_name.is_some()
        && text(class).is_empty()
    {
        let what = if class.is_none() {
            "nil"
        } else {
            "empty string"
        };
        errors.push(path.child("volumeAttributesClassName").forbidden(format!(
            "update to {what} is forbidden when status.currentVolumeAttributesClassName is not nil"
        )));
    }
}

/// Both specs with what may change made equal.
struct Rest {
    new: PersistentVolumeClaimSpec,
    old: PersistentVolumeClaimSpec,
}

fn without_mutable(
    new: &PersistentVolumeClaim,
    new_spec: &PersistentVolumeClaimSpec,
    old: &PersistentVolumeClaim,
    old_spec: &PersistentVolumeClaimSpec,
    errors: &mut ErrorList,
) -> Rest {
    let mut rest = Rest {
        new: new_spec.clone(),
        old: old_spec.clone(),
    };
    // Binding sets the volume.
    if text(&old_spec.volume_name).is_empty() {
        rest.old.volume_name.clone_from(&new_spec.volume_name);
    }
    let annotation = |claim: &PersistentVolumeClaim| {
        let annotations = claim.metadata.annotations.as_ref();
        annotations.and_then(|a| a.get(CLASS_ANNOTATION).cloned())
    };
    let (new_annotation, old_annotation) = (annotation(new), annotation(old));
    let (new_class, old_class) = (&new_spec.storage_class_name, &old_spec.storage_class_name);
    let moves_from_annotation = old_annotation.is_some()
        && old_class.is_none()
        && *new_class == old_annotation
        && (new_annotation.is_none() || new_annotation == old_annotation);
    if moves_from_annotation {
        rest.new.storage_class_name = None;
    } else {
        if new_annotation.as_deref().unwrap_or("") != old_annotation.as_deref().unwrap_or("") {
            let path = Path::new("metadata.annotations").child(CLASS_ANNOTATION);
            errors.push(path.invalid(new_annotation.unwrap_or_default(), check::IMMUTABLE));
        }
        // A default class may be filled in later.
        let fills_in = new_class.is_some()
            && old_class.is_none()
            && (old_annotation.is_none() || *new_class == old_annotation);
        if fills_in {
            rest.new.storage_class_name.clone_from(old_class);
        }
    }
    let phase = new.status.as_ref().map_or("", |status| text(&status.phase));
    if phase == "Bound" {
        if let Some(requests) = rest
            .new
            .resources
            .as_mut()
            .and_then(|r| r.requests.as_mut())
        {
            let old = old_spec
                .resources
                .as_ref()
                .and_then(|r| r.requests.as_ref());
            match old.and_then(|old| old.get("storage")) {
                Some(size) => requests.insert("storage".to_owned(), size.clone()),
                None => requests.remove("storage"),
            };
        }
        let class = &old_spec.volume_attributes_class_name;
        rest.new.volume_attributes_class_name.clone_from(class);
    }
    rest
}

fn storage(spec: &PersistentVolumeClaimSpec) -> Amount {
    let requests = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
    requests
        .and_then(|requests| requests.get("storage"))
        .map(Amount::from)
        .unwrap_or_default()
}

/// Checks the status of a claim.
pub fn status(new: &PersistentVolumeClaim) -> ErrorList {
    let mut errors = ErrorList::new();
    let modes = new
        .spec
        .as_ref()
        .map_or(&[][..], |spec| list(&spec.access_modes));
    if modes.is_empty() {
        errors.push(Path::new("Spec.accessModes").required(""));
    }
    let Some(status) = &new.status else {
        return errors;
    };
    let path = Path::new("status");
    let no_resources = ResourceList::new();
    for (name, quantity) in status.capacity.as_ref().unwrap_or(&no_resources) {
        basic(quantity, &path.child("capacity").key(name), &mut errors);
    }
    let states_path = path.child("allocatedResourceStatuses");
    let no_states = BTreeMap::new();
    for (name, state) in status
        .allocated_resource_statuses
        .as_ref()
        .unwrap_or(&no_states)
    {
        resource_key(name, &states_path, &mut errors);
        if !RESIZE_STATES.contains(&state.as_str()) {
            errors.push(states_path.not_supported(name.as_str(), RESIZE_STATES));
        }
    }
    let allocated_path = path.child("allocatedResources");
    for (name, quantity) in status.allocated_resources.as_ref().unwrap_or(&no_resources) {
        let before = errors.len();
        resource_key(name, &allocated_path, &mut errors);
        if errors.len() > before {
            continue;
        }
        let path = allocated_path.key(name);
        basic(quantity, &path, &mut errors);
        if errors.len() == before {
            quantity_value("storage", quantity, &path, &mut errors);
        }
    }
    errors
}

fn basic(quantity: &Quantity, path: &Path, errors: &mut ErrorList) {
    let amount = check::amount(quantity, path, errors);
    if amount.value() < 0 {
        errors.push(path.invalid(amount.value(), "must be a valid resource quantity"));
    }
}

fn resource_key(name: &str, path: &Path, errors: &mut ErrorList) {
    let messages = names::qualified_name(name);
    if messages.is_empty() && is_native(name) && name != "storage" {
        errors.push(path.not_supported(value_of(&name), &["storage"]));
    }
    check::each(path, name, messages, errors);
}
