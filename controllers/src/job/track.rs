//! Counting pods that have ended, each once, whatever happens in between.
//!
//! A pod that has ended keeps the Job's finalizer until its uid stands in the status; then the
//! finalizer goes; then the uid becomes one more of the count. A process that ends between two of
//! these goes on from where the status and the finalizers stand.

use std::{collections::HashSet, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::{
    batch::v1::{JobCondition, JobStatus},
    core::v1::Pod,
};

use super::{
    indexes::Indexes,
    pod,
    sync::{self, COMPLETE, FAILURE_TARGET, SUCCESS, Sync},
};
use crate::{conditions, metrics, pods};

/// Pods counted in one go: the status has to stay small.
const MAX_UNCOUNTED: usize = 500;

/// Pods to let go of once the status is written.
pub(super) struct Tracked {
    pub remove: Vec<Arc<Pod>>,
    /// The uids of pods that have the finalizer.
    pub held: HashSet<String>,
    /// There are more than fit: the Job cannot end yet.
    pub full: bool,
}

/// Zero is not written, as upstream's types leave it out.
fn present(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}

fn list(uids: &[String]) -> Option<Vec<String>> {
    (!uids.is_empty()).then(|| uids.to_vec())
}

/// Turns the uids whose pods are let go of, or gone, into numbers.
pub(super) fn count_released(status: &mut JobStatus, held: &HashSet<String>) {
    let Some(uncounted) = &mut status.uncounted_terminated_pods else {
        return;
    };
    let release = |uids: &mut Option<Vec<String>>, count: &mut Option<i32>| {
        let known = uids.take().unwrap_or_default();
        let (kept, released): (Vec<_>, Vec<_>) =
            known.into_iter().partition(|uid| held.contains(uid));
        *uids = list(&kept);
        let released = i32::try_from(released.len()).unwrap_or(i32::MAX);
        *count = present(count.unwrap_or(0).saturating_add(released));
    };
    release(&mut uncounted.succeeded, &mut status.succeeded);
    release(&mut uncounted.failed, &mut status.failed);
}

/// Ends the Job, unless pods are still to be counted or to end. Returns whether it did.
pub(super) fn end(status: &mut JobStatus, finish: &JobCondition, terminating: i32) -> bool {
    let uncounted = status.uncounted_terminated_pods.as_ref();
    let uncounted = uncounted.is_some_and(|uncounted| {
        let lists = [&uncounted.succeeded, &uncounted.failed];
        lists.into_iter().flatten().any(|list| !list.is_empty())
    });
    if uncounted || terminating > 0 {
        return false;
    }
    if finish.type_ == COMPLETE {
        status
            .completion_time
            .clone_from(&finish.last_transition_time);
    }
    conditions::put(&mut status.conditions, finish.clone());
    true
}

impl Sync<'_> {
    /// Puts what is to be counted into the status, with the other numbers.
    pub fn track(&mut self) -> Tracked {
        let held: HashSet<String> = self
            .pods
            .iter()
            .filter(|pod| pod::is_tracked(pod))
            .filter_map(|pod| pod.metadata.uid.clone())
            .collect();
        self.status.active = present(self.active_count);
        self.status.ready = Some(self.ready);
        self.status.terminating = Some(self.terminating);
        count_released(&mut self.status, &held);
        let indexed = pod::is_indexed(self.job);
        let mut ended: Vec<_> = self
            .pods
            .iter()
            .filter(|pod| self.lets_go_of(pod))
            .collect();
        if indexed {
            ended.sort_by_key(|pod| pod::index(pod).unwrap_or(-1));
        }
        let uncounted = self.status.uncounted_terminated_pods.take();
        let uncounted = uncounted.unwrap_or_default();
        let mut succeeded = uncounted.succeeded.unwrap_or_default();
        let mut failed = uncounted.failed.unwrap_or_default();
        let mut indexes: Vec<i32> = Vec::new();
        let mut tracked = Tracked {
            remove: Vec::new(),
            held,
            full: false,
        };
        for pod in ended {
            tracked.remove.push(pod.clone());
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            let index = self.index(pod);
            if pods::phase(pod) == "Succeeded" && !failed.contains(&uid) {
                if indexed {
                    indexes.extend(index.filter(|index| !self.counted_indexes.has(*index)));
                } else if !succeeded.contains(&uid) {
                    succeeded.push(uid);
                }
            } else if self.counts_as_failed(pod)
                && !failed.contains(&uid)
                && (!indexed || index.is_some())
            {
                if let Some(action) = self.rule_for(pod) {
                    metrics::judged(action);
                }
                if self.judge(pod).counts() {
                    failed.push(uid);
                }
            }
            if indexes.len() + succeeded.len() + failed.len() >= MAX_UNCOUNTED {
                tracked.full = true;
                break;
            }
        }
        let uncounted = self
            .status
            .uncounted_terminated_pods
            .get_or_insert_default();
        uncounted.succeeded = list(&succeeded);
        uncounted.failed = list(&failed);
        if indexed {
            self.write_indexes(indexes);
        }
        self.note_finish(self.now);
        tracked
    }

    /// Indexes of pods that are not let go of yet are not written.
    fn write_indexes(&mut self, more: Vec<i32>) {
        let text = |indexes: &Indexes| indexes.to_string();
        let all = self.counted_indexes.with(more);
        self.status.succeeded = present(all.count());
        self.status.completed_indexes = Some(text(&all)).filter(|text| !text.is_empty());
        self.status.failed_indexes = self.failed_indexes.as_ref().map(text);
    }

    fn counts_as_failed(&self, pod: &Pod) -> bool {
        let fails = self
            .finish
            .as_ref()
            .is_some_and(|finish| finish.type_ != SUCCESS);
        pod::is_failed(self.job, pod) || fails
    }

    /// Whether the Job needs nothing of the pod any more but to count it.
    fn lets_go_of(&self, pod: &Pod) -> bool {
        if !pod::is_tracked(pod) {
            return false;
        }
        let over = self.job.metadata.deletion_timestamp.is_some() || self.finish.is_some();
        if over || pods::phase(pod) == "Succeeded" {
            return true;
        }
        let last = self
            .index(pod)
            .and_then(|index| self.last_failed.get(&index));
        let stays = last.is_some_and(|last| last.metadata.uid == pod.metadata.uid);
        pod::is_failed(self.job, pod) && !stays
    }

    /// Says first that the Job is about to end; [`Sync::finish`] becomes how it ends.
    fn note_finish(&mut self, now: Timestamp) {
        let Some(finish) = &self.finish else {
            return;
        };
        let known = sync::holding(Some(&self.status), &finish.type_).is_some();
        let next = match finish.type_.as_str() {
            FAILURE_TARGET => sync::failed_after(finish, now),
            SUCCESS => {
                let reason = finish.reason.as_deref().unwrap_or_default();
                let message = finish.message.as_deref().unwrap_or_default();
                sync::condition(COMPLETE, reason, message, now)
            }
            _ => return,
        };
        if !known {
            let announced = finish.clone();
            conditions::put(&mut self.status.conditions, announced);
        }
        self.finish = Some(next);
    }
}
