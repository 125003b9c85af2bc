//! Job.

mod indexes;
mod policies;
mod status;
mod update;
pub(super) mod validation;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use serde_json::Value;

use crate::{
    apps::workload,
    core::pod::{defaults, warnings as pod_warnings},
    field::{ErrorList, Path},
    selector, shape,
    strategy::{Behaviour, Column, Shape, Subresource},
    table::{AGE, NAME, age, column, container_cells, human_duration, name, template_pod, wide},
    zero::{default_text, list, list_mut, text},
};

const JOB_NAME: &str = "batch.kubernetes.io/job-name";
const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
const LEGACY_JOB_NAME: &str = "job-name";
const LEGACY_CONTROLLER_UID: &str = "controller-uid";

const DEFAULT_BACKOFF_LIMIT: i32 = 6;

impl Behaviour for Job {
    const SHAPE: Shape<Self> = shape!(generation: spec, status);

    fn default_fields(&mut self) {
        let spec = self.spec.get_or_insert_default();
        default_spec(spec);
        let labels = workload::labels(&spec.template);
        if self.metadata.labels.as_ref().is_none_or(BTreeMap::is_empty) {
            self.metadata.labels = labels.cloned();
        }
    }

    fn prepare_for_create(&mut self) {
        let (name, uid) = (
            text(&self.metadata.name).to_owned(),
            text(&self.metadata.uid).to_owned(),
        );
        if let Some(spec) = &mut self.spec
            && spec.manual_selector != Some(true)
        {
            generate_selector(spec, &name, &uid);
        }
        // Upstream's default comes into effect when the stored object is read.
        if self.metadata.labels.as_ref().is_none_or(BTreeMap::is_empty)
            && let Some(spec) = &self.spec
            && let Some(template) = &spec.template.metadata
        {
            self.metadata.labels.clone_from(&template.labels);
        }
    }

    fn validate(&self) -> ErrorList {
        validation::job(self, true)
    }

    fn validate_update(&self, old: &Self) -> ErrorList {
        update::update(self, old)
    }

    fn validate_subresource(&self, old: &Self, _subresource: Subresource) -> ErrorList {
        status::update(self, old)
    }

    fn warnings(&self, old: Option<&Self>) -> Vec<String> {
        let mut warnings = match old {
            None => workload::name_warning(&self.metadata),
            Some(old) if self.metadata.generation == old.metadata.generation => return Vec::new(),
            Some(_) => Vec::new(),
        };
        if let Some(spec) = &self.spec {
            spec_warnings(spec, &Path::new("spec"), &mut warnings);
        }
        warnings
    }

    const SELECTABLE_FIELDS: &'static [&'static str] = &["status.successful"];

    fn selectable_fields(&self) -> Vec<String> {
        let succeeded = self.status.as_ref().and_then(|status| status.succeeded);
        vec![succeeded.unwrap_or_default().to_string()]
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column("Status", "string", "Status of the job."),
            column(
                "Completions",
                "string",
                "The number of pods which reached phase Succeeded. The value increases monotonically for a given spec. However, it may decrease in reaction to scale down of elastic indexed jobs.",
            ),
            column("Duration", "string", "Time required to complete the job."),
            AGE,
            wide("Containers", "Names of each container in the template."),
            wide(
                "Images",
                "Images referenced by each container in the template.",
            ),
            wide(
                "Selector",
                "A label query over pods that should match the pod count. Normally, the system sets this field for you. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
            ),
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (self.spec.as_ref(), self.status.as_ref());
        let succeeded = status
            .and_then(|status| status.succeeded)
            .unwrap_or_default();
        let parallelism = spec.and_then(|spec| spec.parallelism).unwrap_or_default();
        let completions = match spec.and_then(|spec| spec.completions) {
            Some(completions) => format!("{succeeded}/{completions}"),
            None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
            None => format!("{succeeded}/1"),
        };
        let started = status.and_then(|status| status.start_time.as_ref());
        let ended = status.and_then(|status| status.completion_time.as_ref());
        let duration = started.map_or_else(String::new, |started| {
            human_duration(ended.map_or(now, |ended| ended.0) - started.0)
        });
        let [containers, images] = container_cells(template_pod(spec.map(|spec| &spec.template)));
        vec![
            name(&self.metadata),
            Value::from(summary(self)),
            Value::from(completions),
            Value::from(duration),
            age(&self.metadata, now),
            containers,
            images,
            Value::from(selector::format_object(
                spec.and_then(|spec| spec.selector.as_ref()),
            )),
        ]
    }
}

/// The condition that says most about the Job.
fn summary(job: &Job) -> &'static str {
    let has = |kind: &str| has_condition(job, kind);
    if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if job.metadata.deletion_timestamp.is_some() {
        "Terminating"
    } else if has("Suspended") {
        "Suspended"
    } else if has("FailureTarget") {
        "FailureTarget"
    } else if has("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

/// Defaults of what a CronJob's template has too.
pub(super) fn default_template(spec: &mut JobSpec) {
    defaults::pod_template(&mut spec.template);
    if let Some(policy) = &mut spec.pod_failure_policy {
        for rule in &mut policy.rules {
            for pattern in list_mut(&mut rule.on_pod_conditions) {
                default_text(&mut pattern.status, "True");
            }
        }
    }
}

fn default_spec(spec: &mut JobSpec) {
    default_template(spec);
    if spec.completions.is_none() && spec.parallelism.is_none() {
        spec.completions = Some(1);
    }
    spec.parallelism.get_or_insert(1);
    let backoff_limit = match spec.backoff_limit_per_index {
        Some(_) => i32::MAX,
        None => DEFAULT_BACKOFF_LIMIT,
    };
    spec.backoff_limit.get_or_insert(backoff_limit);
    spec.completion_mode
        .get_or_insert_with(|| "NonIndexed".to_owned());
    spec.suspend.get_or_insert(false);
    spec.manual_selector.get_or_insert(false);
    let policy = match spec.pod_failure_policy {
        Some(_) => "Failed",
        None => "TerminatingOrFailed",
    };
    spec.pod_replacement_policy
        .get_or_insert_with(|| policy.to_owned());
}

/// Labels the Pods with the Job's name and uid, and selects by the uid.
fn generate_selector(spec: &mut JobSpec, name: &str, uid: &str) {
    let metadata = spec.template.metadata.get_or_insert_default();
    let labels = metadata.labels.get_or_insert_default();
    for (key, value) in [
        (LEGACY_JOB_NAME, name),
        (JOB_NAME, name),
        (LEGACY_CONTROLLER_UID, uid),
        (CONTROLLER_UID, uid),
    ] {
        labels
            .entry(key.to_owned())
            .or_insert_with(|| value.to_owned());
    }
    let selector = spec.selector.get_or_insert_default();
    selector
        .match_labels
        .get_or_insert_default()
        .entry(CONTROLLER_UID.to_owned())
        .or_insert_with(|| uid.to_owned());
}

/// Whether a condition is true.
fn has_condition(job: &Job, kind: &str) -> bool {
    let conditions = job.status.as_ref().map(|status| list(&status.conditions));
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == kind && condition.status == "True")
}

/// Warnings about a Job's spec.
pub(super) fn spec_warnings(spec: &JobSpec, path: &Path, warnings: &mut Vec<String>) {
    let completions = spec.completions.unwrap_or_default();
    let parallelism = spec.parallelism.unwrap_or_default();
    if validation::is_indexed(spec) && completions > 100_000 && parallelism > 10_000 {
        warnings.push(format!(
            "{path}: In Indexed Jobs with a number of completions higher than 10^5 and a \
             parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes \
             when a big number of indexes fail"
        ));
    }
    warnings.extend(pod_warnings::pod_template(
        &spec.template,
        &path.child("template"),
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs() {
        crate::testing::run::<Job>(include_str!("../../testdata/job.yaml"));
    }
}
