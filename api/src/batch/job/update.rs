//! What is wrong with a change of a Job: most of it cannot change, and the template only while
//! the Job is suspended and nothing of it runs.

use k8s_openapi::api::{
    batch::v1::{Job, JobSpec},
    core::v1::{Affinity, Container, PodSpec, PodTemplateSpec},
};

use super::{
    CONTROLLER_UID, JOB_NAME, has_condition,
    validation::{self, is_indexed},
};
use crate::{
    apps::workload,
    check,
    field::{ErrorList, Path, value_of},
    internal,
    zero::{list, list_mut},
};

pub fn update(new: &Job, old: &Job) -> ErrorList {
    let (Some(new_spec), Some(old_spec)) = (&new.spec, &old.spec) else {
        return validation::job(new, true);
    };
    let labels = workload::labels(&old_spec.template);
    let prefixed = [JOB_NAME, CONTROLLER_UID]
        .iter()
        .all(|key| labels.is_some_and(|labels| labels.contains_key(*key)));
    let mut errors = validation::job(new, prefixed);
    // Upstream tells twice what is wrong with the spec as such.
    validation::whole_spec(new_spec, &mut errors);
    let path = Path::new("spec");
    completions(new_spec, old_spec, &path.child("completions"), &mut errors);
    macro_rules! immutable {
        ($field:ident, $name:literal) => {
            check::immutable(
                &new_spec.$field,
                &old_spec.$field,
                &path.child($name),
                &mut errors,
            )
        };
    }
    immutable!(selector, "selector");
    template(new_spec, old, old_spec, &path, &mut errors);
    immutable!(completion_mode, "completionMode");
    internal::immutable(
        "PodFailurePolicy",
        &new_spec.pod_failure_policy,
        &old_spec.pod_failure_policy,
        &path.child("podFailurePolicy"),
        &mut errors,
    );
    immutable!(backoff_limit_per_index, "backoffLimitPerIndex");
    immutable!(managed_by, "managedBy");
    internal::immutable(
        "SuccessPolicy",
        &new_spec.success_policy,
        &old_spec.success_policy,
        &path.child("successPolicy"),
        &mut errors,
    );
    errors
}

/// An indexed Job scales by changing both numbers alike.
fn completions(new: &JobSpec, old: &JobSpec, path: &Path, errors: &mut ErrorList) {
    if !is_indexed(new) {
        check::immutable(&new.completions, &old.completions, path, errors);
    } else if new.completions.is_some()
        && new.completions != old.completions
        && new.completions != new.parallelism
    {
        errors.push(path.invalid(
            value_of(&new.completions),
            "can only be modified in tandem with spec.parallelism",
        ));
    }
}

fn template(new: &JobSpec, old_job: &Job, old_spec: &JobSpec, path: &Path, errors: &mut ErrorList) {
    if !is_at_rest(old_job, old_spec) {
        let path = path.child("template");
        let (new, old) = (&new.template, &old_spec.template);
        internal::immutable("PodTemplateSpec", new, old, &path, errors);
        return;
    }
    let mut allowed = old_spec.template.clone();
    take_scheduling(&mut allowed, &new.template);
    let no_spec = PodSpec::default();
    let mut allowed = allowed.spec.unwrap_or_default();
    let spec = new.template.spec.as_ref().unwrap_or(&no_spec);
    take_resources(&mut allowed.containers, &spec.containers);
    take_resources(
        list_mut(&mut allowed.init_containers),
        list(&spec.init_containers),
    );
    let path = path.child("template.spec");
    internal::immutable("PodSpec", spec, &allowed, &path, errors);
}

/// Suspended, and neither started nor still stopping.
fn is_at_rest(job: &Job, spec: &JobSpec) -> bool {
    let status = job.status.as_ref();
    let not_started = status.is_none_or(|status| status.start_time.is_none());
    let active = status.and_then(|status| status.active).unwrap_or_default();
    spec.suspend == Some(true) && (not_started || has_condition(job, "Suspended")) && active == 0
}

/// What says where Pods run may change before they do.
fn take_scheduling(allowed: &mut PodTemplateSpec, new: &PodTemplateSpec) {
    let (Some(allowed), Some(new)) = (&mut allowed.spec, &new.spec) else {
        return;
    };
    let node_affinity = new
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.clone());
    if new.affinity.is_some() || allowed.affinity.is_some() {
        allowed.affinity.get_or_insert_default().node_affinity = node_affinity;
    }
    if new.affinity.is_none() && allowed.affinity == Some(Affinity::default()) {
        allowed.affinity = None;
    }
    allowed.node_selector.clone_from(&new.node_selector);
    allowed.tolerations.clone_from(&new.tolerations);
    allowed.scheduling_gates.clone_from(&new.scheduling_gates);
}

fn take_resources(allowed: &mut [Container], new: &[Container]) {
    if allowed.len() != new.len() {
        return;
    }
    for (allowed, new) in allowed.iter_mut().zip(new) {
        if allowed.name == new.name {
            allowed.resources.clone_from(&new.resources);
        }
    }
}
