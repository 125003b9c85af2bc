//! What the server itself writes into a Pod, and what it keeps clients from writing.

use k8s_openapi::{
    api::core::v1::{
        AppArmorProfile, Container, Pod, PodAffinityTerm, PodCondition, PodSpec, PodStatus,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement},
};

use super::resources::QosClass;
use crate::{
    strategy::keep_meta_for_status,
    zero::{list, list_mut, text},
};

type Labels = std::collections::BTreeMap<String, String>;

/// A new Pod is pending, has a QoS class for good, and has its label keys resolved.
pub fn for_create(pod: &mut Pod) {
    pod.metadata.generation = Some(1);
    let spec = pod.spec.get_or_insert_default();
    let status = PodStatus {
        phase: Some("Pending".to_owned()),
        qos_class: Some(QosClass::of(spec).name().to_owned()),
        conditions: gated_condition(spec).map(|condition| vec![condition]),
        ..PodStatus::default()
    };
    pod.status = Some(status);
    if let Some(labels) = pod.metadata.labels.as_ref() {
        resolve_label_keys(spec, labels);
    }
    app_armor_from_annotations(pod);
}

fn gated_condition(spec: &PodSpec) -> Option<PodCondition> {
    if list(&spec.scheduling_gates).is_empty() {
        return None;
    }
    Some(PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some("SchedulingGated".to_owned()),
        message: Some("Scheduling is blocked due to non-empty scheduling gates".to_owned()),
        ..PodCondition::default()
    })
}

/// `matchLabelKeys` and `mismatchLabelKeys` become requirements with the Pod's own labels, so
/// that the scheduler only knows selectors.
fn resolve_label_keys(spec: &mut PodSpec, labels: &Labels) {
    if let Some(affinity) = &mut spec.affinity {
        if let Some(pods) = &mut affinity.pod_affinity {
            let preferred = &mut pods.preferred_during_scheduling_ignored_during_execution;
            for term in list_mut(preferred) {
                resolve_term(&mut term.pod_affinity_term, labels);
            }
            for term in list_mut(&mut pods.required_during_scheduling_ignored_during_execution) {
                resolve_term(term, labels);
            }
        }
        if let Some(pods) = &mut affinity.pod_anti_affinity {
            let preferred = &mut pods.preferred_during_scheduling_ignored_during_execution;
            for term in list_mut(preferred) {
                resolve_term(&mut term.pod_affinity_term, labels);
            }
            for term in list_mut(&mut pods.required_during_scheduling_ignored_during_execution) {
                resolve_term(term, labels);
            }
        }
    }
    for constraint in list_mut(&mut spec.topology_spread_constraints) {
        if let Some(selector) = &mut constraint.label_selector {
            require(selector, list(&constraint.match_label_keys), "In", labels);
        }
    }
}

fn resolve_term(term: &mut PodAffinityTerm, labels: &Labels) {
    if let Some(selector) = &mut term.label_selector {
        require(selector, list(&term.match_label_keys), "In", labels);
        require(selector, list(&term.mismatch_label_keys), "NotIn", labels);
    }
}

fn require(selector: &mut LabelSelector, keys: &[String], operator: &str, labels: &Labels) {
    for key in keys {
        if let Some(value) = labels.get(key) {
            selector
                .match_expressions
                .get_or_insert_default()
                .push(LabelSelectorRequirement {
                    key: key.clone(),
                    operator: operator.to_owned(),
                    values: Some(vec![value.clone()]),
                });
        }
    }
}

/// The annotation of a container's AppArmor profile is older than the field; it fills the field.
fn app_armor_from_annotations(pod: &mut Pod) {
    const PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";
    let Some(spec) = &mut pod.spec else { return };
    let Some(annotations) = &pod.metadata.annotations else {
        return;
    };
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        return;
    }
    let for_all = spec
        .security_context
        .as_ref()
        .and_then(|context| context.app_armor_profile.clone());
    let fill = |container: &mut Container| {
        let has_own = container
            .security_context
            .as_ref()
            .is_some_and(|context| context.app_armor_profile.is_some());
        let profile = annotations
            .get(&format!("{PREFIX}{}", container.name))
            .and_then(|annotation| app_armor_profile(annotation));
        if !has_own && profile.is_some() && profile != for_all {
            container
                .security_context
                .get_or_insert_default()
                .app_armor_profile = profile;
        }
    };
    spec.containers
        .iter_mut()
        .chain(list_mut(&mut spec.init_containers))
        .for_each(fill);
}

/// The profile that an annotation names; `None` when it names none that is valid.
pub fn app_armor_profile(annotation: &str) -> Option<AppArmorProfile> {
    let profile = |type_: &str, localhost: Option<&str>| AppArmorProfile {
        type_: type_.to_owned(),
        localhost_profile: localhost.map(str::to_owned),
    };
    match annotation {
        "unconfined" => Some(profile("Unconfined", None)),
        "runtime/default" => Some(profile("RuntimeDefault", None)),
        _ => match annotation.strip_prefix("localhost/") {
            Some(path) if !path.is_empty() && path.trim() == path && path.len() < 4096 => {
                Some(profile("Localhost", Some(path)))
            }
            _ => None,
        },
    }
}

/// A write of the status keeps the spec, the owners, and what an old kubelet does not know.
pub fn for_status(pod: &mut Pod, old: &Pod) {
    pod.metadata.deletion_timestamp = None;
    pod.metadata
        .owner_references
        .clone_from(&old.metadata.owner_references);
    let no_status = PodStatus::default();
    let old = old.status.as_ref().unwrap_or(&no_status);
    let status = pod.status.get_or_insert_default();
    if text(&status.qos_class).is_empty() {
        status.qos_class.clone_from(&old.qos_class);
    }
    if status.observed_generation.is_none() {
        status.observed_generation = old.observed_generation;
    }
    let mut known: Vec<&PodCondition> = list(&old.conditions).iter().collect();
    for condition in list_mut(&mut status.conditions) {
        // Types may occur more than once: the first old one belongs to the first new one.
        let position = known.iter().position(|old| old.type_ == condition.type_);
        let old = position.map(|position| known.remove(position));
        if condition
            .observed_generation
            .is_none_or(|generation| generation == 0)
        {
            condition.observed_generation = old.and_then(|old| old.observed_generation);
        }
    }
}

/// An update of `ephemeralcontainers` writes just those.
pub fn for_ephemeral_containers(pod: &mut Pod, old: &Pod) {
    let written = pod
        .spec
        .as_mut()
        .and_then(|spec| spec.ephemeral_containers.take());
    pod.spec.clone_from(&old.spec);
    pod.spec.get_or_insert_default().ephemeral_containers = written;
    pod.status.clone_from(&old.status);
    keep_meta_for_status(&mut pod.metadata, &old.metadata);
}

/// An update of `resize` writes just the resources and resize policies of the containers and of
/// the Pod. Containers that were added, removed or renamed are left for validation to refuse.
pub fn for_resize(pod: &mut Pod, old: &Pod) {
    let Some(old_spec) = &old.spec else { return };
    let written = pod.spec.get_or_insert_default();
    if written.containers.len() != old_spec.containers.len()
        || list(&written.init_containers).len() != list(&old_spec.init_containers).len()
    {
        return;
    }
    let containers = resized(&written.containers, &old_spec.containers);
    let init_containers = written
        .init_containers
        .as_ref()
        .map(|written| resized(written, list(&old_spec.init_containers)));
    let resources = written.resources.take();
    *written = PodSpec {
        containers,
        init_containers,
        resources,
        ..old_spec.clone()
    };
    pod.status.clone_from(&old.status);
    keep_meta_for_status(&mut pod.metadata, &old.metadata);
}

fn resized(written: &[Container], old: &[Container]) -> Vec<Container> {
    let same_names = written
        .iter()
        .map(|c| &c.name)
        .eq(old.iter().map(|c| &c.name));
    if !same_names {
        return written.to_vec();
    }
    written
        .iter()
        .zip(old)
        .map(|(written, old)| Container {
            resources: written.resources.clone(),
            resize_policy: written.resize_policy.clone(),
            ..old.clone()
        })
        .collect()
}
