//! CronJob.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec};
use serde_json::Value;

use super::job;
use crate::{
    apps::workload,
    check,
    cron::{self, Schedule},
    field::{ErrorList, Path},
    selector, shape,
    strategy::{Behaviour, Column, Shape},
    table::{AGE, NAME, age, column, container_cells, name, since, template_pod, wide},
    zero::{default_text, text},
};

/// Jobs are named after the CronJob, with a suffix of 11 characters.
const MAX_NAME: usize = 52;

impl Behaviour for CronJob {
    const SHAPE: Shape<Self> = shape!(generation: spec, status);

    fn default_fields(&mut self) {
        let spec = &mut self.spec;
        default_text(&mut spec.concurrency_policy, "Allow");
        spec.suspend.get_or_insert(false);
        spec.successful_jobs_history_limit.get_or_insert(3);
        spec.failed_jobs_history_limit.get_or_insert(1);
        // Of the Job only the Pods have their defaults; its own come when it is made.
        job::default_template(spec.job_template.spec.get_or_insert_default());
    }

    fn validate(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_spec(&self.spec, None, &mut errors);
        let name = text(&self.metadata.name);
        if name.len() > MAX_NAME {
            errors.push(
                Path::new("metadata.name").invalid(name, "must be no more than 52 characters"),
            );
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_spec(&self.spec, Some(&old.spec), &mut errors);
        errors
    }

    fn warnings(&self, old: Option<&Self>) -> Vec<String> {
        let mut warnings = match old {
            None => workload::name_warning(&self.metadata),
            Some(_) => Vec::new(),
        };
        let changed = old.is_none_or(|old| self.metadata.generation != old.metadata.generation);
        if let Some(spec) = self.spec.job_template.spec.as_ref().filter(|_| changed) {
            job::spec_warnings(spec, &Path::new("spec.jobTemplate.spec"), &mut warnings);
        }
        if old.is_some() && self.spec.schedule.contains("TZ") {
            warnings.push(
                "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see \
                 https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more \
                 details"
                    .to_owned(),
            );
        }
        warnings
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "Schedule",
                "string",
                "The schedule in Cron format, see https://en.wikipedia.org/wiki/Cron.",
            ),
            column(
                "Timezone",
                "string",
                "The time zone name for the given schedule, see https://en.wikipedia.org/wiki/List_of_tz_database_time_zones. If not specified, this will default to the time zone of the kube-controller-manager process. The set of valid time zone names and the time zone offset is loaded from the system-wide time zone database by the API server during CronJob validation and the controller manager during execution. If no system-wide time zone database can be found a bundled version of the database is used instead. If the time zone name becomes invalid during the lifetime of a CronJob or due to a change in host configuration, the controller will stop creating new new Jobs and will create a system event with the reason UnknownTimeZone. More information can be found in https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/#time-zones",
            ),
            column(
                "Suspend",
                "boolean",
                "This flag tells the controller to suspend subsequent executions, it does not apply to already started executions.  Defaults to false.",
            ),
            column(
                "Active",
                "integer",
                "A list of pointers to currently running jobs.",
            ),
            column(
                "Last Schedule",
                "string",
                "Information when was the last time the job was successfully scheduled.",
            ),
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
        let (spec, status) = (&self.spec, self.status.as_ref());
        let suspend = match spec.suspend {
            Some(true) => "True",
            Some(false) => "False",
            None => "<unset>",
        };
        let scheduled = status.and_then(|status| status.last_schedule_time.as_ref());
        let job = spec.job_template.spec.as_ref();
        let [containers, images] = container_cells(template_pod(job.map(|job| &job.template)));
        vec![
            name(&self.metadata),
            Value::from(spec.schedule.clone()),
            Value::from(spec.time_zone.as_deref().unwrap_or("<none>")),
            Value::from(suspend),
            Value::from(
                status
                    .and_then(|status| status.active.as_ref())
                    .map_or(0, Vec::len),
            ),
            Value::from(
                scheduled.map_or_else(|| "<none>".to_owned(), |time| since(Some(time), now)),
            ),
            age(&self.metadata, now),
            containers,
            images,
            Value::from(selector::format_object(
                job.and_then(|job| job.selector.as_ref()),
            )),
        ]
    }
}

fn validate_spec(spec: &CronJobSpec, old: Option<&CronJobSpec>, errors: &mut ErrorList) {
    let path = Path::new("spec");
    schedule(spec, old, &path.child("schedule"), errors);
    let not_negative = |field: &str, value: Option<i64>, errors: &mut ErrorList| {
        if let Some(value) = value {
            check::not_negative(value, &path.child(field), errors);
        }
    };
    let deadline = spec.starting_deadline_seconds;
    not_negative("startingDeadlineSeconds", deadline, errors);
    if let Some(zone) = &spec.time_zone
        && old.is_none_or(|old| old.time_zone != spec.time_zone)
    {
        time_zone(zone, &path.child("timeZone"), errors);
    }
    check::required_one_of(
        text(&spec.concurrency_policy),
        &["Allow", "Forbid", "Replace"],
        &path.child("concurrencyPolicy"),
        errors,
    );
    job::validation::job_template(&spec.job_template, &path.child("jobTemplate"), errors);
    let limit = spec.successful_jobs_history_limit;
    not_negative("successfulJobsHistoryLimit", limit.map(i64::from), errors);
    let limit = spec.failed_jobs_history_limit;
    not_negative("failedJobsHistoryLimit", limit.map(i64::from), errors);
}

fn schedule(spec: &CronJobSpec, old: Option<&CronJobSpec>, path: &Path, errors: &mut ErrorList) {
    let schedule = spec.schedule.as_str();
    if schedule.is_empty() {
        errors.push(path.required(""));
        return;
    }
    if let Err(problem) = Schedule::parse(schedule) {
        errors.push(path.invalid(schedule, problem.to_string()));
    }
    // CronJobs from before `timeZone` may keep the zone in the schedule.
    let allowed = old.is_some_and(|old| old.schedule.contains("TZ"));
    let problem = match schedule.contains("TZ") {
        true if !allowed => "cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
        true if spec.time_zone.is_some() => {
            "cannot use both timeZone field and TZ or CRON_TZ in schedule"
        }
        _ => return,
    };
    errors.push(path.invalid(schedule, problem));
}

fn time_zone(zone: &str, path: &Path, errors: &mut ErrorList) {
    let mut invalid = |detail: String| errors.push(path.invalid(zone, detail));
    if zone.is_empty() {
        return invalid("timeZone must be nil or non-empty string".to_owned());
    }
    if !zone.split('/').all(is_zone_part) {
        return invalid(format!("unknown time zone {zone}"));
    }
    if zone.eq_ignore_ascii_case("Local") {
        invalid(
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
                .to_owned(),
        );
        // Spelt so, it is a zone to upstream's library.
        if zone == "Local" {
            return;
        }
    }
    if let Err(problem) = cron::time_zone(zone) {
        invalid(problem);
    }
}

fn is_zone_part(part: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_+".contains(&byte);
    (1..=14).contains(&part.len())
        && part.bytes().all(is_allowed)
        && !matches!(part, "." | "..")
        && !part.starts_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cron_jobs() {
        crate::testing::run::<CronJob>(include_str!("../../testdata/cron_job.yaml"));
    }
}
