//! CronJobs: a Job whenever the schedule says so.
//!
//! Enter at [`run`]. [`schedule`] says when and [`jobs`] what; here Jobs are created, watched and
//! cleaned up.
//! Upstream: `pkg/controller/cronjob`.

mod jobs;
mod schedule;

use std::{sync::Arc, time::Duration};

use coracle_api::cron::{Schedule, time_zone};
use coracle_client::{EventRecorder, EventType, Queue};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{ResourceExt as _, api::DeleteParams};
use tokio_util::sync::CancellationToken;

use self::{
    jobs::{Note, job_name, job_of, note, observe, outcome, reference, to_clean_up},
    schedule::Clock,
};
use crate::{
    Context, Error,
    changes::{self, Seen},
    conditions, error, metrics,
    objects::Objects,
    owner,
    work::{self, Done, Key},
};

const NAME: &str = "cronjob-controller";
const WORKERS: usize = 5;

/// Runs the CronJob controller.
pub(crate) async fn run(context: Context, shutdown: CancellationToken) -> Result<(), Error> {
    let controller = Controller {
        objects: context.objects(),
        jobs: context.objects(),
        recorder: context.recorder(NAME),
        queue: Queue::named("cronjob"),
    };
    controller.run(shutdown).await
}

struct Controller {
    objects: Objects<CronJob>,
    jobs: Objects<Job>,
    recorder: EventRecorder,
    queue: Queue<Key>,
}

/// How long it is to the first time of a schedule that replaces another. The times that it would
/// have had before are not made up for, as they would be were the CronJob looked at at once.
fn new_schedule(old: Option<&CronJob>, new: &CronJob, now: Timestamp) -> Option<Duration> {
    let old = old.filter(|old| {
        old.spec.schedule != new.spec.schedule || old.spec.time_zone != new.spec.time_zone
    });
    old?;
    let zone = time_zone(new.spec.time_zone.as_deref().unwrap_or_default()).ok()?;
    let schedule = Schedule::parse(&new.spec.schedule).ok()?;
    Clock { schedule, zone }.wait(new, now)
}

impl Controller {
    async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let objects = changes::each(&self.objects.cache, |seen| {
            if let Seen::Applied { old, new } = seen {
                let key = Key::of(&new.metadata);
                match new_schedule(old.as_deref(), &new, Timestamp::now()) {
                    Some(delay) => self.queue.add_after(key, delay),
                    None => self.queue.add(key),
                }
            }
        });
        let jobs = async {
            self.objects.cache.synced().await;
            changes::each(&self.jobs.cache, |seen| {
                changes::queue_owners(&self.queue, &self.objects.cache, seen, |_, _| false);
            })
            .await;
        };
        let workers = async {
            self.objects.cache.synced().await;
            self.jobs.cache.synced().await;
            work::work(NAME, &self.queue, WORKERS, &shutdown, |key| self.sync(key)).await;
        };
        tokio::select! {
            () = objects => {}
            () = jobs => {}
            () = workers => {}
            () = shutdown.cancelled() => {}
        }
        Ok(())
    }

    fn tell(&self, object: &CronJob, note: &Note) {
        self.recorder
            .on(object, note.type_, note.reason, note.message.clone());
    }

    fn warn(&self, object: &CronJob, reason: &'static str, message: String) {
        self.tell(object, &note(EventType::Warning, reason, message));
    }

    async fn sync(&self, key: Key) -> Result<Done, Error> {
        let Some(object) = self.objects.get(&key.namespace, &key.name) else {
            return Ok(Done::Settled);
        };
        let spec = &object.spec;
        let uid = object.metadata.uid.as_deref().unwrap_or_default();
        let jobs = self.jobs.cache.controlled_by(uid);
        let mut status = object.status.clone().unwrap_or_default();
        let surplus = to_clean_up(spec, &jobs);
        for job in &surplus {
            // The Job stays for the next time.
            let _ = self.delete(&object, job, &mut status).await;
        }
        for note in observe(&mut status, &jobs) {
            self.tell(&object, &note);
        }
        let run = if object.metadata.deletion_timestamp.is_some() {
            Ok(None)
        } else {
            self.run_if_due(&object, spec, &jobs, &mut status).await
        };
        if object.status.clone().unwrap_or_default() != status {
            let next = CronJob {
                status: Some(status),
                ..(*object).clone()
            };
            self.objects.replace_status(&next).await?;
        }
        Ok(run?.map_or(Done::Settled, Done::Again))
    }

    async fn delete(
        &self,
        object: &CronJob,
        job: &Job,
        status: &mut CronJobStatus,
    ) -> Result<(), Error> {
        let name = job.name_any();
        match self.jobs.delete(job, DeleteParams::background()).await {
            Ok(_) => {
                if let Some(active) = &mut status.active {
                    active.retain(|one| one.uid != job.metadata.uid);
                }
                let message = format!("Deleted job {name}");
                self.tell(
                    object,
                    &note(EventType::Normal, "SuccessfulDelete", message),
                );
                Ok(())
            }
            Err(error) => {
                let message = format!("Deleted job: {}", error::message(&error));
                self.warn(object, "FailedDelete", message);
                Err(error.into())
            }
        }
    }

    /// The schedule; `None`, with an event, when there is none to go by.
    fn clock(&self, object: &CronJob, spec: &CronJobSpec) -> Option<Clock> {
        let zone = spec.time_zone.as_deref().unwrap_or_default();
        let Ok(found) = time_zone(zone) else {
            let message = format!("invalid timeZone: {zone:?}: unknown time zone {zone}");
            self.warn(object, "UnknownTimeZone", message);
            return None;
        };
        if spec.suspend == Some(true) {
            return None;
        }
        let text = &spec.schedule;
        if text.contains("TZ") {
            let message = format!(
                "CRON_TZ or TZ used in schedule {text:?} is not officially supported, see \
                 https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more \
                 details"
            );
            self.warn(object, "UnsupportedSchedule", message);
        }
        match Schedule::parse(text) {
            Ok(schedule) => Some(Clock {
                schedule,
                zone: found,
            }),
            Err(error) => {
                let message = format!("unparseable schedule: {text:?} : {error}");
                self.warn(object, "UnparseableSchedule", message);
                None
            }
        }
    }

    /// Starts the Job whose time has come. Returns how long it is to the next time.
    async fn run_if_due(
        &self,
        object: &Arc<CronJob>,
        spec: &CronJobSpec,
        jobs: &[Arc<Job>],
        status: &mut CronJobStatus,
    ) -> Result<Option<Duration>, Error> {
        let Some(clock) = self.clock(object, spec) else {
            return Ok(None);
        };
        let now = Timestamp::now();
        let due = match clock.due(object, now) {
            Ok(due) => due,
            Err(error) => {
                let message = format!("invalid schedule: {} : {error}", spec.schedule);
                self.warn(object, "InvalidSchedule", message);
                return Ok(None);
            }
        };
        if due.missed_many {
            let message = "too many missed start times. Set or decrease \
                .spec.startingDeadlineSeconds or check clock skew";
            self.warn(object, "TooManyMissedTimes", message.to_owned());
        }
        if let Some(at) = due.time
            && self.is_wanted(object, spec, status, at, now)
        {
            self.start(object, spec, jobs, status, at).await?;
        }
        // From the time that has just been served on.
        let next = CronJob {
            metadata: object.metadata.clone(),
            spec: CronJobSpec::default(),
            status: Some(status.clone()),
        };
        Ok(clock.wait(&next, now))
    }

    fn is_wanted(
        &self,
        object: &CronJob,
        spec: &CronJobSpec,
        status: &CronJobStatus,
        at: Timestamp,
        now: Timestamp,
    ) -> bool {
        let late = spec.starting_deadline_seconds.is_some_and(|seconds| {
            let last = at.checked_add(SignedDuration::from_secs(seconds));
            last.is_ok_and(|last| last < now)
        });
        if late {
            let time = at.strftime("%a, %d %b %Y %H:%M:%S UTC");
            let message = format!("Missed scheduled time to start a job: {time}");
            self.warn(object, "MissSchedule", message);
            return false;
        }
        let name = job_name(object, at);
        let mut active = status.active.iter().flatten();
        let served = status
            .last_schedule_time
            .as_ref()
            .is_some_and(|last| last.0 == at);
        if served || active.any(|one| one.name.as_ref() == Some(&name)) {
            return false;
        }
        let policy = spec.concurrency_policy.as_deref();
        if policy == Some("Forbid") && status.active.is_some() {
            let message = "Not starting job because prior execution is running and concurrency \
                policy is Forbid";
            let type_ = EventType::Normal;
            self.tell(object, &note(type_, "JobAlreadyActive", message.to_owned()));
            return false;
        }
        true
    }

    async fn start(
        &self,
        object: &Arc<CronJob>,
        spec: &CronJobSpec,
        jobs: &[Arc<Job>],
        status: &mut CronJobStatus,
        at: Timestamp,
    ) -> Result<(), Error> {
        if spec.concurrency_policy.as_deref() == Some("Replace") {
            let active = status.active.clone().unwrap_or_default();
            let active = jobs
                .iter()
                .filter(|job| active.iter().any(|one| one.uid == job.metadata.uid));
            for job in active {
                self.delete(object, job, status).await?;
            }
        }
        let wanted = job_of(object, spec, at);
        let job = match self.jobs.create(&wanted).await {
            Ok(job) => {
                let skew = Timestamp::now().duration_since(at);
                metrics::scheduled(Duration::try_from(skew).unwrap_or_default());
                let message = format!("Created job {}", job.name_any());
                self.tell(
                    object,
                    &note(EventType::Normal, "SuccessfulCreate", message),
                );
                job
            }
            // Created before, by a process that could not say so any more.
            Err(error) if error::is_already_exists(&error) => {
                let namespace = object.namespace().unwrap_or_default();
                let known = self.jobs.read(&namespace, &wanted.name_any()).await?;
                let ours = |job: &Job| owner::is_controlled_by(&job.metadata, &object.metadata);
                let Some(job) = known.filter(ours) else {
                    return Ok(());
                };
                job
            }
            Err(error) => {
                if !error::is_namespace_terminating(&error) {
                    let message = format!("Error creating job: {}", error::message(&error));
                    self.warn(object, "FailedCreate", message);
                }
                return Err(error.into());
            }
        };
        let active = status.active.get_or_insert_default();
        if !active.iter().any(|one| one.uid == job.metadata.uid) && outcome(&job).is_none() {
            active.push(reference(&job));
        }
        if active.is_empty() {
            status.active = None;
        }
        status.last_schedule_time = Some(Time(conditions::to_seconds(at)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_new_schedule_begins_with_its_next_time() {
        let now: Timestamp = "2026-01-01T10:32:00Z".parse().expect("a time");
        let object = |schedule: &str, zone: Option<&str>, suspend: bool| -> CronJob {
            serde_json::from_value(json!({
                "metadata": { "name": "c", "creationTimestamp": "2026-01-01T10:00:00Z" },
                "spec": { "schedule": schedule, "timeZone": zone, "suspend": suspend,
                    "jobTemplate": { "spec": { "template": {} } } },
            }))
            .expect("a cron job")
        };
        let daily = object("0 0 * * *", None, false);
        let often = object("*/5 * * * *", None, false);
        let elsewhere = object("0 0 * * *", Some("Asia/Kolkata"), false);
        let stopped = object("0 0 * * *", None, true);
        let minutes = |count: u64| Some(Duration::from_millis(count * 60_000 + 100));
        let cases = [
            (None, &often, None),
            (Some(&daily), &often, minutes(3)),
            (Some(&daily), &elsewhere, minutes(7 * 60 + 58)),
            (Some(&daily), &stopped, None),
            (Some(&often), &often, None),
        ];
        for (old, new, expected) in cases {
            assert_eq!(new_schedule(old, new, now), expected, "{:?}", new.spec);
        }
    }
}
