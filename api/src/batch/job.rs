//! Job.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use serde_json::Value;

use crate::{
    selector,
    strategy::Column,
    table::{AGE, NAME, age, column, container_cells, human_duration, name, template_pod, wide},
};
use crate::{
    shape,
    strategy::{Behaviour, Shape},
};

impl Behaviour for Job {
    const SHAPE: Shape<Self> = shape!(generation: spec, status);

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
    let conditions = job
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let has = |kind: &str| {
        conditions
            .into_iter()
            .flatten()
            .any(|condition| condition.type_ == kind && condition.status == "True")
    };
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
