//! The Jobs of a CronJob: what one is made like, and what those that there are tell.

use std::sync::Arc;

use coracle_api::cron::time_zone;
use coracle_client::EventType;
use jiff::{Timestamp, tz::TimeZone};
use k8s_openapi::{
    api::{
        batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job},
        core::v1::ObjectReference,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Resource as _, ResourceExt as _};

use crate::owner;

const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// How a Job has ended.
pub(super) fn outcome(job: &Job) -> Option<&str> {
    let conditions = job.status.iter().flat_map(|status| &status.conditions);
    let mut ends = conditions.flatten().filter(|condition| {
        matches!(condition.type_.as_str(), "Complete" | "Failed") && condition.status == "True"
    });
    ends.next().map(|condition| condition.type_.as_str())
}

/// Something that happened, for the object's events.
pub(super) struct Note {
    pub type_: EventType,
    pub reason: &'static str,
    pub message: String,
}

pub(super) fn note(type_: EventType, reason: &'static str, message: String) -> Note {
    Note {
        type_,
        reason,
        message,
    }
}

/// The Jobs that are beyond the limits of what is kept, the oldest first.
pub(super) fn to_clean_up(spec: &CronJobSpec, jobs: &[Arc<Job>]) -> Vec<Arc<Job>> {
    let limits = [
        ("Complete", spec.successful_jobs_history_limit),
        ("Failed", spec.failed_jobs_history_limit),
    ];
    let mut surplus = Vec::new();
    for (end, limit) in limits {
        let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else {
            continue;
        };
        let ended = jobs.iter().filter(|job| outcome(job) == Some(end));
        let mut ended: Vec<_> = ended.cloned().collect();
        ended.sort_by_cached_key(|job| {
            let start = job
                .status
                .as_ref()
                .and_then(|status| status.start_time.as_ref());
            let start = start.map(|time| time.0);
            (start.is_none(), start, job.name_any())
        });
        ended.truncate(ended.len().saturating_sub(limit));
        surplus.extend(ended);
    }
    surplus
}

/// Brings the list of active Jobs, and the time of the last success, up to date with the Jobs that
/// there are.
pub(super) fn observe(status: &mut CronJobStatus, jobs: &[Arc<Job>]) -> Vec<Note> {
    let mut notes = Vec::new();
    let mut active = status.active.take().unwrap_or_default();
    for job in jobs {
        let uid = job.metadata.uid.as_ref();
        let name = job.name_any();
        let listed = active.iter().position(|one| one.uid.as_ref() == uid);
        match (outcome(job), listed) {
            (None, None) => notes.push(note(
                EventType::Warning,
                "UnexpectedJob",
                format!("Saw a job that the controller did not create or forgot: {name}"),
            )),
            (Some(end), Some(position)) => {
                active.remove(position);
                let message = format!("Saw completed job: {name}, condition: {end}");
                notes.push(note(EventType::Normal, "SawCompletedJob", message));
            }
            _ => {}
        }
        if outcome(job) == Some("Complete") {
            let done = job
                .status
                .as_ref()
                .and_then(|job| job.completion_time.clone());
            let known = status.last_successful_time.as_ref().map(|time| time.0);
            if done.as_ref().map(|time| time.0) > known {
                status.last_successful_time = done;
            }
        }
    }
    active.retain(|one| {
        let there = jobs.iter().any(|job| job.metadata.uid == one.uid);
        if !there {
            let name = one.name.as_deref().unwrap_or_default();
            let message = format!("Active job went missing: {name}");
            notes.push(note(EventType::Normal, "MissingJob", message));
        }
        there
    });
    status.active = (!active.is_empty()).then_some(active);
    notes
}

pub(super) fn job_name(object: &CronJob, at: Timestamp) -> String {
    format!("{}-{}", object.name_any(), at.as_second() / 60)
}

/// The Job of one time.
pub(super) fn job_of(object: &CronJob, spec: &CronJobSpec, at: Timestamp) -> Job {
    let template = &spec.job_template;
    let meta = template.metadata.clone().unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    let zone = spec.time_zone.as_deref().unwrap_or_default();
    let zone = time_zone(zone).unwrap_or(TimeZone::UTC);
    let local = at.to_zoned(zone);
    let offset = match local.offset().seconds() {
        0 => local.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        _ => local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
    };
    annotations.insert(SCHEDULED_AT.to_owned(), offset);
    Job {
        metadata: ObjectMeta {
            name: Some(job_name(object, at)),
            namespace: object.namespace(),
            labels: meta.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![owner::controller_reference(object)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

pub(super) fn reference(job: &Job) -> ObjectReference {
    ObjectReference {
        resource_version: job.resource_version(),
        ..job.object_ref(&())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn job(name: &str, end: Option<&str>, minute: u8) -> Arc<Job> {
        let at = format!("2026-01-01T00:{minute:02}:00Z");
        let conditions = end.map(|end| json!([{ "type": end, "status": "True" }]));
        Arc::new(
            serde_json::from_value(json!({
                "metadata": { "name": name, "namespace": "ns", "uid": name },
                "status": { "startTime": at, "completionTime": at, "conditions": conditions },
            }))
            .expect("a job"),
        )
    }

    fn object(zone: Option<&str>) -> CronJob {
        serde_json::from_value(json!({
            "metadata": { "name": "c", "namespace": "ns", "uid": "c" },
            "spec": {
                "schedule": "* * * * *", "timeZone": zone,
                "successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 0,
                "jobTemplate": {
                    "metadata": { "labels": { "a": "b" }, "annotations": { "x": "y" } },
                    "spec": { "completions": 3, "template": {} },
                },
            },
        }))
        .expect("a cron job")
    }

    #[test]
    fn the_oldest_ended_jobs_are_cleaned_up() {
        let jobs = [
            job("c3", Some("Complete"), 3),
            job("c1", Some("Complete"), 1),
            job("c2", Some("Complete"), 2),
            job("f1", Some("Failed"), 4),
            job("a1", None, 0),
        ];
        let spec = object(None).spec;
        let names: Vec<_> = to_clean_up(&spec, &jobs)
            .iter()
            .map(|job| job.name_any())
            .collect();
        assert_eq!(names, ["c1", "c2", "f1"]);
        let all = CronJobSpec {
            successful_jobs_history_limit: None,
            failed_jobs_history_limit: None,
            ..spec
        };
        assert!(to_clean_up(&all, &jobs).is_empty());
    }

    #[test]
    fn active_jobs_are_followed_to_their_end() {
        let jobs = [job("done", Some("Complete"), 2), job("mine", None, 0)];
        let mut status = CronJobStatus {
            active: Some(
                ["done", "mine", "gone"]
                    .map(|name| reference(&job(name, None, 0)))
                    .into(),
            ),
            ..CronJobStatus::default()
        };
        let notes = observe(&mut status, &jobs);
        let reasons: Vec<_> = notes.iter().map(|note| note.reason).collect();
        assert_eq!(reasons, ["SawCompletedJob", "MissingJob"]);
        assert_eq!(
            notes[0].message,
            "Saw completed job: done, condition: Complete"
        );
        let active = status.active.as_ref().expect("one");
        assert_eq!(active.len(), 1);
        assert_eq!(active[0].name.as_deref(), Some("mine"));
        let last = status.last_successful_time.clone().expect("a time");
        assert_eq!(last.0.to_string(), "2026-01-01T00:02:00Z");
        assert!(observe(&mut status, &jobs).is_empty());
        let stranger = observe(&mut status, &[job("mine", None, 0), job("new", None, 0)]);
        assert_eq!(stranger[0].reason, "UnexpectedJob");
    }

    #[test]
    fn a_job_is_named_after_its_time() {
        let made = |zone| {
            let object = object(zone);
            let at = "2026-01-01T01:00:00Z".parse().expect("a time");
            job_of(&object, &object.spec, at)
        };
        let job = made(None);
        assert_eq!(job.name_any(), "c-29453820");
        assert_eq!(job.annotations()[SCHEDULED_AT], "2026-01-01T01:00:00Z");
        assert_eq!(
            (job.annotations()["x"].as_str(), job.labels()["a"].as_str()),
            ("y", "b")
        );
        assert_eq!(job.spec.as_ref().and_then(|spec| spec.completions), Some(3));
        let there = made(Some("Europe/Berlin"));
        assert_eq!(
            there.annotations()[SCHEDULED_AT],
            "2026-01-01T02:00:00+01:00"
        );
    }
}
