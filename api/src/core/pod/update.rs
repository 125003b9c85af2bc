//! What may change in a Pod: little through the Pod itself, `ephemeralContainers` and resources
//! through their subresources.

use std::ops::ControlFlow;

use k8s_openapi::api::core::v1::{
    Affinity, Container, NodeAffinity, NodeSelectorTerm, Pod, PodSchedulingGate, PodSpec,
    Toleration,
};

use super::validation::{
    annotations::{APP_ARMOR_PREFIX, MIRROR_ANNOTATION},
    containers, metadata_and_spec, scheduling,
};
use crate::{
    field::{ErrorList, Path, value_of},
    formats, internal,
    zero::{list, list_mut},
};

const MUTABLE_FIELDS: &str = "pod updates may not change fields other than \
    `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
    `spec.tolerations` (only additions to existing tolerations),\
    `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n";

/// What is wrong with an update of a Pod.
pub fn pod(new: &Pod, old: &Pod) -> ErrorList {
    let mut errors = metadata_and_spec(new);
    annotations(new, old, &mut errors);
    let (Some(new), Some(old)) = (&new.spec, &old.spec) else {
        return errors;
    };
    let path = Path::new("spec");
    // An early end leaves out what could only repeat the error.
    let _ = pod_spec(new, old, &path, &mut errors);
    errors
}

fn pod_spec(new: &PodSpec, old: &PodSpec, path: &Path, errors: &mut ErrorList) -> ControlFlow<()> {
    containers::updated(
        &new.containers,
        &old.containers,
        &path.child("containers"),
        errors,
    )?;
    containers::updated(
        list(&new.init_containers),
        list(&old.init_containers),
        &path.child("initContainers"),
        errors,
    )?;
    active_deadline(new, old, &path.child("activeDeadlineSeconds"), errors)?;
    only_added_tolerations(
        list(&new.tolerations),
        list(&old.tolerations),
        &path.child("tolerations"),
        errors,
    );
    only_removed_gates(
        list(&new.scheduling_gates),
        list(&old.scheduling_gates),
        &path.child("schedulingGates"),
        errors,
    );
    if new != old {
        let rest = without_mutable_fields(new, old, path, errors);
        if rest != *old {
            let change = internal::difference("PodSpec", old, &rest);
            errors.push(path.forbidden(format!("{MUTABLE_FIELDS}{change}")));
        }
    }
    ControlFlow::Continue(())
}

/// The deadline may come, and come nearer, but not go or go further away.
fn active_deadline(
    new: &PodSpec,
    old: &PodSpec,
    path: &Path,
    errors: &mut ErrorList,
) -> ControlFlow<()> {
    match (new.active_deadline_seconds, old.active_deadline_seconds) {
        (Some(seconds), _) if !(0..=i64::from(i32::MAX)).contains(&seconds) => {
            let message = formats::inclusive_range(0, i32::MAX.into());
            errors.push(path.invalid(seconds, message));
            ControlFlow::Break(())
        }
        (Some(seconds), Some(before)) if before < seconds => {
            let message = "must be less than or equal to previous value";
            errors.push(path.invalid(seconds, message));
            ControlFlow::Break(())
        }
        (None, Some(_)) => {
            errors.push(path.invalid(
                serde_json::Value::Null,
                "must not update from a positive integer to nil value",
            ));
            ControlFlow::Continue(())
        }
        _ => ControlFlow::Continue(()),
    }
}

fn only_added_tolerations(
    new: &[Toleration],
    old: &[Toleration],
    path: &Path,
    errors: &mut ErrorList,
) {
    let is_kept = |old: &Toleration| {
        new.iter().any(|new| {
            Toleration {
                toleration_seconds: new.toleration_seconds,
                ..old.clone()
            } == *new
        })
    };
    if old.iter().all(is_kept) {
        scheduling::tolerations(new, path, errors);
    } else {
        errors.push(
            path.forbidden("existing toleration can not be modified except its tolerationSeconds"),
        );
    }
}

fn only_removed_gates(
    new: &[PodSchedulingGate],
    old: &[PodSchedulingGate],
    path: &Path,
    errors: &mut ErrorList,
) {
    for (index, gate) in new.iter().enumerate() {
        if !old.contains(gate) {
            errors.push(path.index(index).child("name").forbidden(format!(
                "only deletion is allowed, but found new scheduling gate '{}'",
                gate.name
            )));
        }
    }
}

/// The new spec with what may change taken from the old one.
fn without_mutable_fields(
    new: &PodSpec,
    old: &PodSpec,
    path: &Path,
    errors: &mut ErrorList,
) -> PodSpec {
    let mut rest = new.clone();
    keep_images(&mut rest.containers, &old.containers);
    keep_images(
        list_mut(&mut rest.init_containers),
        list(&old.init_containers),
    );
    rest.active_deadline_seconds = old.active_deadline_seconds;
    rest.scheduling_gates.clone_from(&old.scheduling_gates);
    rest.tolerations.clone_from(&old.tolerations);
    if old
        .termination_grace_period_seconds
        .is_some_and(|period| period < 0)
        && rest.termination_grace_period_seconds == Some(1)
    {
        rest.termination_grace_period_seconds = old.termination_grace_period_seconds;
    }
    if !list(&old.scheduling_gates).is_empty() {
        narrow_gated(&mut rest, old, path, errors);
    }
    rest
}

fn keep_images(new: &mut [Container], old: &[Container]) {
    for (new, old) in new.iter_mut().zip(old) {
        new.image.clone_from(&old.image);
    }
}

/// A gated Pod is not scheduled yet: it may be restricted to fewer nodes.
fn narrow_gated(new: &mut PodSpec, old: &PodSpec, path: &Path, errors: &mut ErrorList) {
    if new.node_selector != old.node_selector {
        let is_narrower = old.node_selector.iter().flatten().all(|(key, value)| {
            let selector = new.node_selector.as_ref();
            selector.and_then(|selector| selector.get(key)) == Some(value)
        });
        if !is_narrower {
            errors.push(path.child("nodeSelector").invalid(
                value_of(&new.node_selector),
                "only additions to spec.nodeSelector are allowed (no mutations or deletions)",
            ));
        }
        new.node_selector.clone_from(&old.node_selector);
    }
    let node_affinity = |spec: &PodSpec| {
        let affinity = spec.affinity.as_ref();
        affinity.and_then(|affinity| affinity.node_affinity.clone())
    };
    let (new_affinity, old_affinity) = (node_affinity(new), node_affinity(old));
    if new_affinity == old_affinity {
        return;
    }
    let terms_path = path
        .child("affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution")
        .child("nodeSelectorTerms");
    narrow_terms(
        required_terms(new_affinity.as_ref()),
        required_terms(old_affinity.as_ref()),
        &terms_path,
        errors,
    );
    let affinity = new.affinity.get_or_insert_default();
    affinity.node_affinity = old_affinity;
    if old.affinity.is_none() && *affinity == Affinity::default() {
        new.affinity = None;
    }
}

fn required_terms(affinity: Option<&NodeAffinity>) -> &[NodeSelectorTerm] {
    affinity
        .and_then(|a| {
            a.required_during_scheduling_ignored_during_execution
                .as_ref()
        })
        .map_or(&[], |selector| &selector.node_selector_terms)
}

fn narrow_terms(
    new: &[NodeSelectorTerm],
    old: &[NodeSelectorTerm],
    path: &Path,
    errors: &mut ErrorList,
) {
    if !old.is_empty() && new.len() != old.len() {
        errors.push(path.invalid(
            value_of(&new),
            "no additions/deletions to non-empty NodeSelectorTerms list are allowed",
        ));
        return;
    }
    for (index, (old, new)) in old.iter().zip(new).enumerate() {
        let parts = [
            (list(&new.match_expressions), list(&old.match_expressions)),
            (list(&new.match_fields), list(&old.match_fields)),
        ];
        // A term without requirements matches nothing; adding one would make it match.
        let was_empty = parts.iter().all(|(_, old)| old.is_empty());
        let is_empty = parts.iter().all(|(new, _)| new.is_empty());
        let only_added = parts.iter().all(|(new, old)| new.starts_with(old));
        if (was_empty && !is_empty) || !only_added {
            errors.push(path.index(index).invalid(
                value_of(new),
                "only additions are allowed (no mutations or deletions)",
            ));
        }
    }
}

/// Annotations that are fixed at creation.
pub fn annotations(new: &Pod, old: &Pod, errors: &mut ErrorList) {
    let path = Path::new("metadata.annotations");
    let (new, old) = (&new.metadata.annotations, &old.metadata.annotations);
    let get = |annotations: &Option<std::collections::BTreeMap<String, String>>, key: &str| {
        annotations.as_ref().and_then(|a| a.get(key).cloned())
    };
    for (key, value) in old.iter().flatten() {
        if get(new, key).as_ref() == Some(value) {
            continue;
        }
        if key.starts_with(APP_ARMOR_PREFIX) {
            let message = "may not remove or update AppArmor annotations";
            errors.push(path.key(key).forbidden(message));
        }
        if key == MIRROR_ANNOTATION {
            let message = "may not remove or update mirror pod annotation";
            errors.push(path.key(key).forbidden(message));
        }
    }
    for key in new.iter().flat_map(|annotations| annotations.keys()) {
        if get(old, key).is_some() {
            continue;
        }
        if key.starts_with(APP_ARMOR_PREFIX) {
            errors.push(path.key(key).forbidden("may not add AppArmor annotations"));
        }
        if key == MIRROR_ANNOTATION {
            errors.push(path.key(key).forbidden("may not add mirror pod annotation"));
        }
    }
}

fn is_mirror(pod: &Pod) -> bool {
    pod.metadata
        .annotations
        .as_ref()
        .is_some_and(|annotations| annotations.contains_key(MIRROR_ANNOTATION))
}

/// What is wrong with an update of `ephemeralcontainers`: they are only added.
pub fn ephemeral_containers(new: &Pod, old: &Pod) -> ErrorList {
    if is_mirror(old) {
        return vec![Path::default().forbidden("static pods do not support ephemeral containers")];
    }
    let mut errors = metadata_and_spec(new);
    annotations(new, old, &mut errors);
    let path = Path::new("spec.ephemeralContainers");
    let containers = |pod: &Pod| {
        let spec = pod.spec.as_ref();
        spec.and_then(|spec| spec.ephemeral_containers.clone())
            .unwrap_or_default()
    };
    let new = containers(new);
    for old in containers(old) {
        match new.iter().rev().find(|new| new.name == old.name) {
            None => errors.push(path.forbidden(format!(
                "existing ephemeral containers {:?} may not be removed\n",
                old.name
            ))),
            Some(new) if *new != old => errors.push(path.forbidden(format!(
                "existing ephemeral containers {:?} may not be changed\n{}",
                old.name,
                internal::difference("EphemeralContainer", &old, new)
            ))),
            Some(_) => {}
        }
    }
    errors
}

/// What is wrong with an update of `resize`.
pub fn resize(new: &Pod, old: &Pod) -> ErrorList {
    let refuse = |message: &str| vec![Path::default().forbidden(message)];
    let (Some(new_spec), Some(old_spec)) = (&new.spec, &old.spec) else {
        return ErrorList::new();
    };
    if is_mirror(old) {
        return refuse("static pods cannot be resized");
    }
    if old_spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        return refuse("windows pods cannot be resized");
    }
    let mut errors = metadata_and_spec(new);
    super::resize::validate(new, new_spec, old, old_spec, &mut errors);
    errors
}
