//! How many pods a Job should have, and which of them go or come.

use std::{cmp::Reverse, collections::BTreeSet, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use super::{Sync, indexes_of, is_suspended};
use crate::{
    job::{
        backoff,
        pod::{self, Failures},
    },
    pods,
};

/// Pods created or deleted in one go.
const BURST: usize = 500;

/// What to do about the number of pods.
#[derive(Debug, PartialEq)]
pub(in crate::job) enum Scale {
    Keep,
    /// Without counting them as failed.
    Delete(Vec<Arc<Pod>>),
    /// One for each, with its index if the Job has indexes.
    Create(Vec<Option<i32>>),
    /// Nothing, until the backoff is over.
    Wait(Duration),
}

impl Sync<'_> {
    /// What to do about the number of pods of a Job that is not over.
    pub fn scale(&self) -> Scale {
        if is_suspended(self.job) {
            let all = self.active.len();
            return delete(self.to_remove(all));
        }
        let active = self.active_count;
        let parallelism = self.spec.parallelism.unwrap_or(1);
        let wanted = match self.spec.completions {
            None if self.succeeded > 0 => active,
            None => parallelism,
            Some(completions) => (completions - self.succeeded).clamp(0, parallelism),
        };
        let surplus = usize::try_from(active - wanted).unwrap_or(0);
        let mut remove = self.to_remove(surplus);
        remove.truncate(BURST);
        if !remove.is_empty() {
            return Scale::Delete(remove);
        }
        let held = if pod::replaces_failed_only(self.job) {
            self.terminating
        } else {
            0
        };
        let missing = usize::try_from(wanted - held - active).unwrap_or(0);
        if missing == 0 {
            return Scale::Keep;
        }
        self.grow(missing.min(BURST))
    }

    fn grow(&self, count: usize) -> Scale {
        if !self.counts_by_index() {
            let wait = self.record.remaining(self.now);
            if !wait.is_zero() {
                return Scale::Wait(wait);
            }
        }
        if !pod::is_indexed(self.job) {
            return Scale::Create(vec![None; count]);
        }
        let indexes = self.pending(count);
        if !self.counts_by_index() {
            return Scale::Create(indexes.into_iter().map(Some).collect());
        }
        let wait = |index: i32| {
            self.last_failed.get(&index).map_or(Duration::ZERO, |pod| {
                let failures = Failures::before(pod).total().saturating_add(1);
                let failures = u32::try_from(failures).unwrap_or(0);
                backoff::remaining(failures, backoff::finished(pod), self.now)
            })
        };
        let (now, later): (Vec<_>, Vec<_>) = indexes
            .into_iter()
            .partition(|index| wait(*index).is_zero());
        if now.is_empty() {
            let soonest = later.into_iter().map(wait).min();
            return soonest.map_or(Scale::Keep, Scale::Wait);
        }
        Scale::Create(now.into_iter().map(Some).collect())
    }

    /// The first indexes that no pod has.
    fn pending(&self, count: usize) -> Vec<i32> {
        let mut taken = self.succeeded_indexes.with(indexes_of(&self.active));
        if pod::replaces_failed_only(self.job) {
            let terminating = self.pods.iter().filter(|pod| pods::is_terminating(pod));
            taken = taken.with(terminating.filter_map(|pod| pod::index(pod)));
        }
        if let Some(failed) = &self.failed_indexes {
            taken = taken.union(failed);
        }
        taken.missing(count, self.completions())
    }

    /// Active pods to do without: those of an index that another has, and then those that have
    /// come less far.
    fn to_remove(&self, at_least: usize) -> Vec<Arc<Pod>> {
        let mut rest = self.active.clone();
        rest.sort_by_cached_key(progress);
        let mut remove = Vec::new();
        if pod::is_indexed(self.job) {
            // The last of an index has come farthest, and stays.
            let mut kept = BTreeSet::new();
            rest.reverse();
            let (keep, mut surplus): (Vec<_>, Vec<_>) = rest
                .into_iter()
                .partition(|pod| self.index(pod).is_some_and(|index| kept.insert(index)));
            surplus.reverse();
            remove = surplus;
            rest = keep;
            rest.reverse();
        }
        let more = at_least.saturating_sub(remove.len());
        remove.extend(rest.into_iter().take(more));
        remove
    }
}

fn delete(pods: Vec<Arc<Pod>>) -> Scale {
    if pods.is_empty() {
        Scale::Keep
    } else {
        Scale::Delete(pods)
    }
}

/// Smaller for a pod that less is lost with.
fn progress(pod: &Arc<Pod>) -> impl Ord + use<> {
    let phase = match pods::phase(pod) {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    };
    let ready = pods::ready_since(pod);
    let created = pod.creation_timestamp().map(|time| time.0);
    (
        !pods::node_name(pod).is_empty(),
        phase,
        pods::is_ready(pod),
        (ready.is_some(), Reverse(ready)),
        Reverse(pods::restarts(pod)),
        (created.is_some(), Reverse(created)),
    )
}
