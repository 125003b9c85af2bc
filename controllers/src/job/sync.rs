//! One look at a Job: how far it is, whether it is over, which pods it needs.
//!
//! Enter at [`Sync::new`]; then either the active pods go ([`Sync::finished`]) or
//! [`Sync::scale`] is done; [`Sync::conclude`] follows, and the counting in [`super::track`].

mod scale;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

pub(super) use scale::Scale;

use super::{
    backoff::{self, Record},
    indexes::Indexes,
    pod::{self, Failures},
    policy::{self, Verdict},
};
use crate::{conditions, pods};

pub(super) const COMPLETE: &str = "Complete";
pub(super) const FAILED: &str = "Failed";
pub(super) const FAILURE_TARGET: &str = "FailureTarget";
pub(super) const SUCCESS: &str = "SuccessCriteriaMet";
const SUSPENDED: &str = "Suspended";

pub(super) fn condition(type_: &str, reason: &str, message: &str, now: Timestamp) -> JobCondition {
    let now = Time(conditions::to_seconds(now));
    JobCondition {
        type_: type_.to_owned(),
        status: "True".to_owned(),
        last_probe_time: Some(now.clone()),
        last_transition_time: Some(now),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
    }
}

/// The condition that holds, if it does.
pub(super) fn holding<'a>(status: Option<&'a JobStatus>, type_: &str) -> Option<&'a JobCondition> {
    let found = conditions::find(status?.conditions.as_ref(), type_);
    found.filter(|condition| condition.status == "True")
}

pub(super) fn is_finished(job: &Job) -> bool {
    let status = job.status.as_ref();
    holding(status, COMPLETE).is_some() || holding(status, FAILED).is_some()
}

pub(super) fn is_suspended(job: &Job) -> bool {
    job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true)
}

/// What happened to the Job's suspension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Suspended,
    Resumed,
}

/// A Job and its pods, looked at together.
pub(super) struct Sync<'a> {
    pub job: &'a Job,
    pub spec: &'a JobSpec,
    pub pods: &'a [Arc<Pod>],
    pub now: Timestamp,
    /// The status so far, which becomes the next one.
    pub status: JobStatus,
    /// Pods that run or are about to.
    pub active: Vec<Arc<Pod>>,
    /// As many of them, or fewer once some are deleted.
    pub active_count: i32,
    pub ready: i32,
    pub terminating: i32,
    /// Successes, those not counted in the status yet too.
    pub succeeded: i32,
    failed: i32,
    /// The successful indexes of the status, and with those of pods.
    pub counted_indexes: Indexes,
    pub succeeded_indexes: Indexes,
    pub failed_indexes: Option<Indexes>,
    /// By index, the failed pod that stays until it is replaced: it knows the failures so far.
    pub last_failed: BTreeMap<i32, Arc<Pod>>,
    /// Why the Job is over: it fails, or has succeeded.
    pub finish: Option<JobCondition>,
    pub record: Record,
}

impl<'a> Sync<'a> {
    /// `record` is what is remembered of failures.
    pub fn new(
        job: &'a Job,
        spec: &'a JobSpec,
        pods: &'a [Arc<Pod>],
        record: Record,
        now: Timestamp,
    ) -> Self {
        let mut status = job.status.clone().unwrap_or_default();
        let uncounted = status
            .uncounted_terminated_pods
            .get_or_insert_with(UncountedTerminatedPods::default);
        let known = |list: &Option<Vec<String>>| -> HashSet<String> {
            list.iter().flatten().cloned().collect()
        };
        let (counted_s, counted_f) = (known(&uncounted.succeeded), known(&uncounted.failed));
        let active: Vec<_> = pods
            .iter()
            .filter(|pod| pods::is_active(pod))
            .cloned()
            .collect();
        let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        let ready = active.iter().filter(|pod| pods::is_ready(pod)).count();
        let terminating = pods.iter().filter(|pod| pods::is_terminating(pod)).count();
        let mut sync = Sync {
            job,
            spec,
            pods,
            now,
            active_count: number(active.len()),
            ready: number(ready),
            terminating: number(terminating),
            active,
            succeeded: 0,
            failed: 0,
            counted_indexes: Indexes::default(),
            succeeded_indexes: Indexes::default(),
            failed_indexes: None,
            last_failed: BTreeMap::new(),
            finish: None,
            record,
            status,
        };
        let fresh_s: Vec<_> = sync
            .valid()
            .filter(|pod| pods::phase(pod) == "Succeeded" && !is_in(&counted_s, pod))
            .collect();
        let fresh_f: Vec<_> = sync
            .valid()
            .filter(|pod| pod::is_failed(job, pod) && !is_in(&counted_f, pod))
            .collect();
        sync.record = record.after(&fresh_s, &fresh_f);
        let counting = fresh_f.iter().filter(|pod| sync.judge(pod).counts());
        let succeeded = number(fresh_s.len() + counted_s.len());
        let failed = number(counting.count() + counted_f.len());
        sync.succeeded = sync.status.succeeded.unwrap_or(0) + succeeded;
        sync.failed = sync.status.failed.unwrap_or(0) + failed;
        if sync.status.start_time.is_none() && !is_suspended(job) {
            sync.status.start_time = Some(Time(conditions::to_seconds(now)));
        }
        sync.finish = sync.over();
        if pod::is_indexed(job) {
            sync.look_at_indexes();
        }
        sync
    }

    pub fn completions(&self) -> i32 {
        self.spec.completions.unwrap_or(0)
    }

    /// The action of the policy's rule that is about the pod.
    pub fn rule_for(&self, pod: &Pod) -> Option<&'static str> {
        let found = policy::matching(self.spec.pod_failure_policy.as_ref(), pod);
        found.map(|verdict| verdict.action())
    }

    pub fn judge(&self, pod: &Pod) -> Verdict {
        policy::judge(self.spec.pod_failure_policy.as_ref(), pod)
    }

    /// The index, if the Job has it.
    pub fn index(&self, pod: &Pod) -> Option<i32> {
        pod::index(pod).filter(|index| *index < self.completions())
    }

    pub fn counts_by_index(&self) -> bool {
        self.spec.backoff_limit_per_index.is_some()
    }

    /// The pods whose end will be counted.
    fn valid(&self) -> impl Iterator<Item = &'a Arc<Pod>> {
        let indexed = pod::is_indexed(self.job);
        let completions = self.completions();
        self.pods.iter().filter(move |pod| {
            pod::is_tracked(pod)
                && (!indexed || pod::index(pod).is_some_and(|index| index < completions))
        })
    }

    /// Whether the Job is over, but for what indexes say.
    fn over(&self) -> Option<JobCondition> {
        let now = self.now;
        if let Some(met) = holding(Some(&self.status), SUCCESS) {
            return Some(met.clone());
        }
        if let Some(target) = holding(Some(&self.status), FAILURE_TARGET) {
            return Some(failed_after(target, now));
        }
        let failed = self.pods.iter().filter(|pod| pod::is_failed(self.job, pod));
        for pod in failed {
            if let Verdict::FailJob(message) = self.judge(pod) {
                return Some(condition(FAILURE_TARGET, "PodFailurePolicy", &message, now));
            }
        }
        let limit = self.spec.backoff_limit.unwrap_or(i32::MAX);
        if self.failed > limit || self.restarts_exceed(limit) {
            let message = "Job has reached the specified backoff limit";
            let reason = "BackoffLimitExceeded";
            return Some(condition(FAILURE_TARGET, reason, message, now));
        }
        if self.deadline().is_some_and(|left| left.is_zero()) {
            let message = "Job was active longer than specified deadline";
            return Some(condition(FAILURE_TARGET, "DeadlineExceeded", message, now));
        }
        None
    }

    /// How long the Job may still be active.
    pub fn deadline(&self) -> Option<Duration> {
        let seconds = self.spec.active_deadline_seconds?;
        let start = self.status.start_time.as_ref()?;
        if is_suspended(self.job) {
            return None;
        }
        let end = start
            .0
            .checked_add(SignedDuration::from_secs(seconds))
            .ok()?;
        Some(Duration::try_from(end.duration_since(self.now)).unwrap_or_default())
    }

    /// Containers that are restarted in place count too.
    fn restarts_exceed(&self, limit: i32) -> bool {
        let template = self.spec.template.spec.as_ref();
        if template.and_then(|spec| spec.restart_policy.as_deref()) != Some("OnFailure") {
            return false;
        }
        let running = self
            .pods
            .iter()
            .filter(|pod| matches!(pods::phase(pod), "Running" | "Pending"));
        let statuses = running
            .filter_map(|pod| pod.status.as_ref())
            .flat_map(|status| {
                let init = status.init_container_statuses.iter().flatten();
                init.chain(status.container_statuses.iter().flatten())
            });
        let restarts: i32 = statuses.map(|status| status.restart_count).sum();
        if limit == 0 {
            restarts > 0
        } else {
            restarts >= limit
        }
    }

    fn look_at_indexes(&mut self) {
        let completions = self.completions();
        let known = self.status.completed_indexes.as_deref().unwrap_or_default();
        self.counted_indexes = Indexes::parse(known, completions);
        let tracked = || self.pods.iter().filter(|pod| pod::is_tracked(pod));
        let succeeded = tracked().filter(|pod| pods::phase(pod) == "Succeeded");
        let succeeded = succeeded.filter_map(|pod| self.index(pod));
        self.succeeded_indexes = self.counted_indexes.with(succeeded);
        self.succeeded = self.succeeded_indexes.count();
        if self.counts_by_index() {
            let known = self.status.failed_indexes.as_deref().unwrap_or_default();
            let failed = tracked().filter(|pod| self.fails_index(pod));
            let failed = failed.filter_map(|pod| self.index(pod));
            let failed = Indexes::parse(known, completions).with(failed);
            if self.finish.is_none() {
                self.finish = self.too_many_failed(failed.count());
            }
            self.failed_indexes = Some(failed);
            self.last_failed = self.find_last_failed();
        }
        if self.finish.is_none() {
            let policy = self.spec.success_policy.as_ref();
            let met = policy::success(policy, completions, &self.succeeded_indexes);
            self.finish =
                met.map(|message| condition(SUCCESS, "SuccessPolicy", &message, self.now));
        }
    }

    fn fails_index(&self, pod: &Pod) -> bool {
        if !pod::is_failed(self.job, pod) {
            return false;
        }
        let limit = self.spec.backoff_limit_per_index.unwrap_or(i32::MAX);
        match self.judge(pod) {
            Verdict::FailIndex => true,
            verdict => verdict.counts() && Failures::before(pod).counted >= limit,
        }
    }

    fn too_many_failed(&self, failed: i32) -> Option<JobCondition> {
        let max = self.spec.max_failed_indexes;
        if max.is_some_and(|max| failed > max) {
            let message = "Job has exceeded the specified maximal number of failed indexes";
            let reason = "MaxFailedIndexesExceeded";
            return Some(condition(FAILURE_TARGET, reason, message, self.now));
        }
        let all = failed + self.succeeded_indexes.count() >= self.completions();
        (failed > 0 && all).then(|| {
            let message = "Job has failed indexes";
            condition(FAILURE_TARGET, "FailedIndexes", message, self.now)
        })
    }

    fn find_last_failed(&self) -> BTreeMap<i32, Arc<Pod>> {
        let active = indexes_of(&self.active);
        let mut last: BTreeMap<i32, Arc<Pod>> = BTreeMap::new();
        for pod in self.valid().filter(|pod| pod::is_failed(self.job, pod)) {
            let Some(index) = self.index(pod) else {
                continue;
            };
            let settled = self.succeeded_indexes.has(index)
                || self
                    .failed_indexes
                    .as_ref()
                    .is_some_and(|failed| failed.has(index))
                || active.contains(&index);
            let later = last.get(&index).is_none_or(|known| {
                Failures::before(known).total() <= Failures::before(pod).total()
                    && backoff::finished(pod) >= backoff::finished(known)
            });
            if !settled && later {
                last.insert(index, pod.clone());
            }
        }
        last
    }

    /// What one failure count more leads to, for the next pod of the index.
    pub fn failures(&self, index: i32) -> Option<Failures> {
        if !self.counts_by_index() {
            return None;
        }
        let Some(pod) = self.last_failed.get(&index) else {
            return Some(Failures::default());
        };
        let mut failures = Failures::before(pod);
        if self.judge(pod).counts() {
            failures.counted += 1;
        } else {
            failures.ignored += 1;
        }
        Some(failures)
    }

    /// Notes that so many active pods, some of them ready, have been deleted.
    pub fn note_deleted(&mut self, deleted: i32, ready: i32) {
        self.active_count -= deleted;
        self.terminating += deleted;
        self.ready -= ready;
    }

    /// After the pods have been seen to: whether the Job is complete, suspended or resumed.
    /// `scaled` says that the Job was free to have pods.
    pub fn conclude(&mut self, scaled: bool) -> Option<Turn> {
        let done = match self.spec.completions {
            None => self.succeeded > 0,
            Some(completions) => self.succeeded >= completions,
        };
        if done && self.active_count == 0 {
            let message = "Reached expected number of succeeded pods";
            let met = condition(SUCCESS, "CompletionsReached", message, self.now);
            self.finish = Some(met);
            return None;
        }
        if !scaled {
            return None;
        }
        if is_suspended(self.job) {
            let turned = self.set_suspended("True", "JobSuspended", "Job suspended");
            if turned {
                self.status.start_time = None;
            }
            turned.then_some(Turn::Suspended)
        } else {
            let turned = self.set_suspended("False", "JobResumed", "Job resumed");
            if turned {
                self.status.start_time = Some(Time(conditions::to_seconds(self.now)));
            }
            turned.then_some(Turn::Resumed)
        }
    }

    fn set_suspended(&mut self, status: &str, reason: &str, message: &str) -> bool {
        let known = conditions::find(self.status.conditions.as_ref(), SUSPENDED);
        let turned = match known {
            None => status == "True",
            Some(known) => {
                known.status != status
                    || known.reason.as_deref() != Some(reason)
                    || known.message.as_deref() != Some(message)
            }
        };
        if turned {
            let next = JobCondition {
                status: status.to_owned(),
                ..condition(SUSPENDED, reason, message, self.now)
            };
            conditions::put(&mut self.status.conditions, next);
        }
        turned
    }
}

/// The condition that ends a Job that was to fail.
pub(super) fn failed_after(target: &JobCondition, now: Timestamp) -> JobCondition {
    let reason = target.reason.as_deref().unwrap_or_default();
    let message = target.message.as_deref().unwrap_or_default();
    condition(FAILED, reason, message, now)
}

fn is_in(uids: &HashSet<String>, pod: &Pod) -> bool {
    pod.metadata
        .uid
        .as_ref()
        .is_some_and(|uid| uids.contains(uid))
}

fn indexes_of(pods: &[Arc<Pod>]) -> BTreeSet<i32> {
    pods.iter().filter_map(|pod| pod::index(pod)).collect()
}
