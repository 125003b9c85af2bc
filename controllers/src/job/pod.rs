//! The pods of a Job: how they are made, which index they have, whether they failed.

use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod, PodSpec},
};
use kube::ResourceExt as _;

use crate::{owner, pods};

/// Keeps a pod until its end has been counted.
pub(super) const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
const IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// Room for the random end of a generated name is kept in its 63 characters.
const MAX_PREFIX: usize = 58;

pub(super) fn is_tracked(pod: &Pod) -> bool {
    pod.finalizers().iter().any(|one| one == FINALIZER)
}

pub(super) fn is_indexed(job: &Job) -> bool {
    let spec = job.spec.as_ref();
    spec.and_then(|spec| spec.completion_mode.as_deref()) == Some("Indexed")
}

/// The index, of whatever Job.
pub(super) fn index(pod: &Pod) -> Option<i32> {
    let annotations = pod.metadata.annotations.as_ref()?;
    let index = annotations.get(INDEX)?.parse().ok()?;
    (index >= 0).then_some(index)
}

/// Whether pods are replaced only when they have failed, not already when they are deleted.
pub(super) fn replaces_failed_only(job: &Job) -> bool {
    job.spec.as_ref().is_some_and(|spec| {
        spec.pod_failure_policy.is_some()
            || spec.pod_replacement_policy.as_deref() == Some("Failed")
    })
}

pub(super) fn is_failed(job: &Job, pod: &Pod) -> bool {
    match pods::phase(pod) {
        "Failed" => true,
        "Succeeded" => false,
        _ => pod.metadata.deletion_timestamp.is_some() && !replaces_failed_only(job),
    }
}

/// The failures of an index so far, as its last pod says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Failures {
    pub counted: i32,
    pub ignored: i32,
}

impl Failures {
    pub fn before(pod: &Pod) -> Self {
        let number = |key| {
            let text = pod.annotations().get(key);
            let number = text.and_then(|text| text.parse::<i32>().ok());
            number.unwrap_or(0).max(0)
        };
        Failures {
            counted: number(FAILURES),
            ignored: number(IGNORED_FAILURES),
        }
    }

    pub fn total(self) -> i32 {
        self.counted.saturating_add(self.ignored)
    }
}

/// A pod of the Job that has no index.
pub(super) fn new(job: &Job) -> Option<Pod> {
    let template = &job.spec.as_ref()?.template;
    let mut pod = pods::from_template(template, &job.metadata, owner::controller_reference(job));
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|one| one == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    if is_indexed(job)
        && let Some(spec) = &mut pod.spec
    {
        tell_index(spec);
    }
    Some(pod)
}

/// Gives the pod an index. `failures` are those of the index, where they are counted by index.
pub(super) fn set_index(job: &Job, pod: &mut Pod, index: i32, failures: Option<Failures>) {
    let text = index.to_string();
    pod.labels_mut().insert(INDEX.to_owned(), text.clone());
    let annotations = pod.annotations_mut();
    annotations.insert(INDEX.to_owned(), text);
    if let Some(failures) = failures {
        annotations.insert(FAILURES.to_owned(), failures.counted.to_string());
        if failures.ignored > 0 {
            annotations.insert(IGNORED_FAILURES.to_owned(), failures.ignored.to_string());
        }
    }
    let name = job.name_any();
    pod.spec.get_or_insert_default().hostname = Some(format!("{name}-{index}"));
    let end = format!("-{index}-");
    let cut = name.get(..MAX_PREFIX - end.len()).unwrap_or(&name);
    pod.metadata.generate_name = Some(format!("{cut}{end}"));
}

/// Lets every container know the pod's index.
fn tell_index(spec: &mut PodSpec) {
    let init = spec.init_containers.iter_mut().flatten();
    for container in init.chain(&mut spec.containers) {
        tell_index_to(container);
    }
}

fn tell_index_to(container: &mut Container) {
    let variables = container.env.get_or_insert_default();
    if variables.iter().any(|one| one.name == INDEX_VARIABLE) {
        return;
    }
    variables.push(EnvVar {
        name: INDEX_VARIABLE.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: None,
                field_path: format!("metadata.labels['{INDEX}']"),
            }),
            ..EnvVarSource::default()
        }),
    });
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn job(name: &str, mode: &str) -> Job {
        serde_json::from_value(json!({
            "metadata": { "name": name, "namespace": "ns", "uid": "j" },
            "spec": { "completionMode": mode, "completions": 2, "template": { "spec": {
                "containers": [{ "name": "c" }], "initContainers": [{ "name": "i",
                    "env": [{ "name": "JOB_COMPLETION_INDEX", "value": "mine" }] }],
            } } },
        }))
        .expect("a job")
    }

    #[test]
    fn a_pod_knows_its_index() {
        let job = job("j", "Indexed");
        let mut pod = new(&job).expect("a pod");
        set_index(
            &job,
            &mut pod,
            1,
            Some(Failures {
                counted: 2,
                ignored: 1,
            }),
        );
        assert_eq!(index(&pod), Some(1));
        assert_eq!(Failures::before(&pod).total(), 3);
        assert!(is_tracked(&pod));
        let found = serde_json::to_value(&pod).expect("JSON");
        assert_eq!(found["metadata"]["generateName"], "j-1-");
        assert_eq!(found["metadata"]["labels"][INDEX], "1");
        assert_eq!(found["spec"]["hostname"], "j-1");
        assert_eq!(
            found["spec"]["containers"][0]["env"][0]["valueFrom"]["fieldRef"]["fieldPath"],
            "metadata.labels['batch.kubernetes.io/job-completion-index']"
        );
        assert_eq!(
            found["spec"]["initContainers"][0]["env"][0]["value"],
            "mine"
        );
    }

    #[test]
    fn names_leave_room_and_other_pods_have_no_index() {
        let long = job(&"x".repeat(63), "Indexed");
        let mut pod = new(&long).expect("a pod");
        set_index(&long, &mut pod, 12, None);
        let prefix = pod.metadata.generate_name.expect("a prefix");
        assert_eq!(prefix.len(), MAX_PREFIX);
        assert!(prefix.ends_with("x-12-"));
        let plain = new(&job("j", "NonIndexed")).expect("a pod");
        assert_eq!(plain.metadata.generate_name.as_deref(), Some("j-"));
        let found = serde_json::to_value(&plain).expect("JSON");
        assert_eq!(found["spec"]["containers"][0]["env"], Value::Null);
    }
}
