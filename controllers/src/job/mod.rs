//! Jobs: pods that run until so many of them have succeeded, or too many have failed.
//!
//! Enter at [`run`]. [`sync`] looks at a Job and its pods and decides, [`track`] counts pods that
//! have ended; here it is read and written. [`orphans`] lets go of pods that no Job counts any
//! more. Upstream: `pkg/controller/job`.

mod backoff;
#[cfg(test)]
mod cases;
mod indexes;
mod orphans;
mod pod;
mod policy;
mod sync;
#[cfg(test)]
mod tests;
mod track;

use std::{
    cmp::Ordering,
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use coracle_client::{EventType, Queue};
use jiff::Timestamp;
use k8s_openapi::api::{
    batch::v1::{Job, JobCondition, JobSpec, JobStatus},
    core::v1::Pod,
};
use kube::{Resource as _, ResourceExt as _, api::Patch};
use parking_lot::Mutex;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use self::{
    backoff::Record,
    sync::{COMPLETE, Scale, Sync, Turn},
};
use crate::{
    Context, Error, batch,
    changes::{self, Seen},
    error,
    labels::{self, Labels},
    metrics::{self, Tracking},
    objects::Objects,
    owner, pods,
    pods::PodControl,
    work::{self, Done, Key},
};

const NAME: &str = "job-controller";
const WORKERS: usize = 5;
/// Who manages Jobs that do not say.
const MANAGER: &str = "kubernetes.io/job-controller";

/// Runs the Job controller.
pub(crate) async fn run(context: Context, shutdown: CancellationToken) -> Result<(), Error> {
    Controller::new(&context).run(shutdown).await
}

struct Controller {
    jobs: Objects<Job>,
    pods: Objects<Pod>,
    control: PodControl,
    /// The failures of each Job since its last success, with the Job's uid. Lost with the process,
    /// which only makes it try sooner.
    records: Mutex<HashMap<Key, (String, Record)>>,
    queue: Queue<Key>,
    /// Pods that may have the finalizer in vain.
    orphans: Queue<Key>,
}

/// Whether pods of these labels are the Job's.
fn selects(job: &Job, labels: Option<&Labels>) -> bool {
    let selector = job.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| labels::selects(selector, labels))
}

/// As the Job's spec has it.
fn mode(job: &Job) -> &str {
    let spec = job.spec.as_ref();
    let mode = spec.and_then(|spec| spec.completion_mode.as_deref());
    mode.unwrap_or("NonIndexed")
}

fn is_managed_elsewhere(job: &Job) -> bool {
    let manager = job
        .spec
        .as_ref()
        .and_then(|spec| spec.managed_by.as_deref());
    manager.is_some_and(|manager| manager != MANAGER)
}

impl Controller {
    fn new(context: &Context) -> Self {
        let pods: Objects<Pod> = context.objects();
        Controller {
            jobs: context.objects(),
            control: PodControl {
                recorder: context.recorder(NAME),
                pods: pods.clone(),
            },
            pods,
            records: Mutex::default(),
            queue: Queue::named("job"),
            orphans: Queue::named("job_orphan_pod"),
        }
    }

    async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let jobs = changes::each(&self.jobs.cache, |seen| match seen {
            Seen::Applied { new: job, .. } => {
                if sync::is_finished(&job) {
                    self.queue_orphans(&job);
                }
                self.queue.add(Key::of(&job.metadata));
            }
            Seen::Deleted(job) => {
                self.queue_orphans(&job);
                self.queue.add(Key::of(&job.metadata));
            }
            Seen::Lagged => {}
        });
        let pods = async {
            self.jobs.cache.synced().await;
            changes::each(&self.pods.cache, |seen| {
                if let Seen::Applied { new, .. } = &seen
                    && self.is_orphan(new)
                {
                    self.orphans.add(Key::of(&new.metadata));
                }
                changes::queue_owners(&self.queue, &self.jobs.cache, seen, selects);
            })
            .await;
        };
        let synced = async || {
            self.jobs.cache.synced().await;
            self.pods.cache.synced().await;
        };
        let workers = async {
            synced().await;
            work::work(NAME, &self.queue, WORKERS, &shutdown, |key| self.sync(key)).await;
        };
        let releasers = async {
            synced().await;
            work::work(NAME, &self.orphans, WORKERS, &shutdown, |key| {
                self.release_orphan(key)
            })
            .await;
        };
        tokio::select! {
            () = jobs => {}
            () = pods => {}
            () = workers => {}
            () = releasers => {}
            () = shutdown.cancelled() => {}
        }
        Ok(())
    }

    async fn sync(&self, key: Key) -> Result<Done, Error> {
        let Some(job) = self.jobs.get(&key.namespace, &key.name) else {
            self.records.lock().remove(&key);
            return Ok(Done::Settled);
        };
        let Some(spec) = job.spec.as_ref() else {
            return Ok(Done::Settled);
        };
        if is_managed_elsewhere(&job) {
            return Ok(Done::Settled);
        }
        if sync::is_finished(&job) {
            self.records.lock().remove(&key);
            return Ok(Done::Settled);
        }
        let (since, mut action) = (Instant::now(), "reconciling");
        let outcome = self.reconcile(&key, &job, spec, &mut action).await;
        metrics::job_synced(action, mode(&job), outcome.is_err(), since.elapsed());
        outcome
    }

    /// `action` becomes what upstream's metrics call that which is done.
    async fn reconcile(
        &self,
        key: &Key,
        job: &Arc<Job>,
        spec: &JobSpec,
        action: &mut &'static str,
    ) -> Result<Done, Error> {
        let owned = self.claim(job).await?;
        let record = self.record(key, job);
        let now = Timestamp::now();
        let mut sync = Sync::new(job, spec, &owned, record, now);
        let mut again = sync.deadline();
        let mut outcome = Ok(());
        let mut scaled = false;
        if sync.finish.is_some() {
            outcome = self.end_active(&mut sync).await;
        } else {
            if job.metadata.deletion_timestamp.is_none() {
                scaled = true;
                let active = sync.active_count;
                let (waiting, done) = self.scale(&mut sync).await;
                again = again.into_iter().chain(waiting).min();
                outcome = done;
                match sync.active_count.cmp(&active) {
                    Ordering::Less => *action = "pods_deleted",
                    Ordering::Equal => {}
                    Ordering::Greater => *action = "pods_created",
                }
            }
            if let Some(turn) = sync.conclude(scaled) {
                self.tell_turn(job, turn);
            }
        }
        if self.track(key, sync).await? {
            *action = "tracking";
        }
        outcome?;
        let again = again.filter(|again| !again.is_zero());
        Ok(again.map_or(Done::Settled, Done::Again))
    }

    async fn claim(&self, job: &Arc<Job>) -> Result<Vec<Arc<Pod>>, Error> {
        let uid = job.metadata.uid.as_deref().unwrap_or_default();
        let mut candidates = self.pods.cache.controlled_by(uid);
        candidates.extend(self.pods.orphans(job.metadata.namespace.as_deref()));
        let claim = owner::claim(job.meta(), candidates, |pod| {
            selects(job, pod.metadata.labels.as_ref())
        });
        let finalizers = [pod::FINALIZER];
        owner::take(&self.jobs, &self.pods, &**job, claim, &finalizers).await
    }

    fn record(&self, key: &Key, job: &Job) -> Record {
        let records = self.records.lock();
        let known = records.get(key);
        let same = known.filter(|(uid, _)| Some(uid) == job.metadata.uid.as_ref());
        same.map(|(_, record)| *record).unwrap_or_default()
    }

    fn tell_turn(&self, job: &Job, turn: Turn) {
        let (reason, message) = match turn {
            Turn::Suspended => ("Suspended", "Job suspended"),
            Turn::Resumed => ("Resumed", "Job resumed"),
        };
        self.control
            .recorder
            .on(job, EventType::Normal, reason, message);
    }

    /// Ends the pods of a Job that is over. Only when all of them are deleted is it really over.
    async fn end_active(&self, sync: &mut Sync<'_>) -> Result<(), Error> {
        let active = std::mem::take(&mut sync.active);
        let job = sync.job;
        let outcomes = active.iter().map(|pod| self.control.delete(job, pod));
        let outcomes = futures::future::join_all(outcomes).await;
        let outcome = note(sync, &active, outcomes);
        if outcome.is_err() {
            sync.finish = None;
        }
        outcome
    }

    /// Creates or deletes pods. Returns how long there is to wait before more are created.
    async fn scale(&self, sync: &mut Sync<'_>) -> (Option<Duration>, Result<(), Error>) {
        match sync.scale() {
            Scale::Keep => (None, Ok(())),
            Scale::Wait(delay) => (Some(delay), Ok(())),
            Scale::Delete(pods) => {
                let job = sync.job;
                let outcomes = pods.iter().map(|pod| self.remove(job, pod));
                let outcomes = futures::future::join_all(outcomes).await;
                (None, note(sync, &pods, outcomes))
            }
            Scale::Create(indexes) => (None, self.create(sync, &indexes).await),
        }
    }

    /// Deletes a pod that is not to be counted.
    async fn remove(&self, job: &Job, pod: &Pod) -> Result<(), Error> {
        self.let_go(pod).await?;
        self.control.delete(job, pod).await
    }

    async fn create(&self, sync: &mut Sync<'_>, indexes: &[Option<i32>]) -> Result<(), Error> {
        let Some(pattern) = pod::new(sync.job) else {
            return Ok(());
        };
        let seen = &*sync;
        let create = |position: usize| {
            let mut pod = pattern.clone();
            if let Some(index) = indexes[position] {
                pod::set_index(seen.job, &mut pod, index, seen.failures(index));
            }
            async move { self.control.create(seen.job, &pod).await }
        };
        let outcome = batch::slow_start(indexes.len(), create).await;
        let created = i32::try_from(outcome.0.len()).unwrap_or(i32::MAX);
        sync.active_count += created;
        batch::created(outcome)
    }

    /// Counts pods that have ended, in the order that [`track`] explains.
    /// Returns whether there were any.
    async fn track(&self, key: &Key, mut sync: Sync<'_>) -> Result<bool, Error> {
        let before = sync.job.status.clone().unwrap_or_default();
        let mut tracked = sync.track();
        let (terminating, record) = (sync.terminating, sync.record);
        let (finish, next) = (sync.finish, sync.status);
        let Some(mut job) = self.write(sync.job, next).await? else {
            return Ok(false);
        };
        let uid = job.uid().unwrap_or_default();
        self.records.lock().insert(key.clone(), (uid, record));

        let released = tracked.remove.iter().map(|pod| self.let_go(pod));
        let released = futures::future::join_all(released).await;
        let mut outcome = Ok(());
        for (pod, released) in tracked.remove.iter().zip(released) {
            match released {
                Ok(()) => {
                    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
                    tracked.held.remove(uid);
                    metrics::tracked(Tracking::Add);
                    metrics::tracked(Tracking::Delete);
                }
                Err(error) => outcome = Err(error),
            }
        }
        let mut status = job.status.take().unwrap_or_default();
        job.status = Some(status.clone());
        track::count_released(&mut status, &tracked.held);
        let ended = finish.filter(|finish| {
            outcome.is_ok() && !tracked.full && track::end(&mut status, finish, terminating)
        });
        let written = self.write(&job, status).await?;
        if let Some(status) = written.as_ref().and_then(|job| job.status.as_ref()) {
            let more =
                |now: Option<i32>, before: Option<i32>| now.unwrap_or(0) - before.unwrap_or(0);
            let succeeded = more(status.succeeded, before.succeeded);
            let failed = more(status.failed, before.failed);
            metrics::job_pods_finished(mode(&job), succeeded, failed);
        }
        if let (Some(job), Some(finish)) = (written, ended) {
            self.tell_end(&job, &finish);
        }
        outcome.map(|()| !tracked.remove.is_empty())
    }

    /// Writes the status, if it says something new. `None` when the Job is gone.
    async fn write(&self, job: &Job, status: JobStatus) -> Result<Option<Job>, Error> {
        let next = Job {
            status: Some(status),
            ..job.clone()
        };
        if job.status == next.status {
            return Ok(Some(next));
        }
        let written = self.jobs.replace_status(&next).await;
        written.map_err(Error::doing("tracking status"))
    }

    fn tell_end(&self, job: &Job, finish: &JobCondition) {
        let recorder = &self.control.recorder;
        let failed = finish.type_ != COMPLETE;
        let reason = finish.reason.as_deref().unwrap_or_default();
        metrics::job_finished(mode(job), reason, failed);
        if failed {
            let message = finish.message.as_deref().unwrap_or_default();
            recorder.on(job, EventType::Warning, reason, message);
            return;
        }
        let completions = job
            .spec
            .as_ref()
            .and_then(|spec: &JobSpec| spec.completions);
        let succeeded = job.status.as_ref().and_then(|status| status.succeeded);
        if completions.is_some_and(|completions| succeeded.unwrap_or(0) > completions) {
            let message = "Too many succeeded pods running after completion count reached";
            recorder.on(job, EventType::Warning, "TooManySucceededPods", message);
        }
        recorder.on(job, EventType::Normal, "Completed", "Job completed");
    }

    /// Takes the Job's finalizer off the pod.
    async fn let_go(&self, pod: &Pod) -> Result<(), Error> {
        if !pod::is_tracked(pod) {
            return Ok(());
        }
        let patch = json!({ "metadata": {
            "uid": pod.metadata.uid,
            "$deleteFromPrimitiveList/finalizers": [pod::FINALIZER],
        }});
        let namespace = pod.namespace().unwrap_or_default();
        let name = pod.name_any();
        let patched = self
            .pods
            .patch(&namespace, &name, Patch::Strategic(patch))
            .await;
        match error::optional(patched) {
            Ok(_) => Ok(()),
            // Another pod has the name by now.
            Err(error) if error::is_invalid(&error) || error::is_conflict(&error) => Ok(()),
            Err(error) => Err(Error::doing("removing completion finalizer")(error)),
        }
    }
}

/// Takes deletions that went well into account.
fn note(
    sync: &mut Sync<'_>,
    pods: &[Arc<Pod>],
    outcomes: Vec<Result<(), Error>>,
) -> Result<(), Error> {
    let mut outcome = Ok(());
    let (mut deleted, mut ready) = (0, 0);
    for (pod, one) in pods.iter().zip(outcomes) {
        match one {
            Ok(()) => {
                deleted += 1;
                ready += i32::from(pods::is_ready(pod));
            }
            Err(error) => outcome = Err(error),
        }
    }
    sync.note_deleted(deleted, ready);
    outcome
}
