//! What a stateful set has to do next: which pods it creates, deletes and puts right.
//!
//! Enter at [`World::plan`] and [`World::status`].

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus},
    core::v1::{Pod, PodTemplateSpec},
};

use super::pod::{self, Claims};
use crate::{
    history,
    percent::{self, Round},
    pods,
};

/// A revision of the set's template, by name.
pub(super) struct Revision {
    pub name: String,
    pub template: PodTemplateSpec,
}

impl Revision {
    /// `None` when the object keeps no template.
    pub fn of(object: &ControllerRevision) -> Option<Self> {
        Some(Revision {
            name: object.metadata.name.clone()?,
            template: history::template_in(object)?,
        })
    }
}

/// All that a decision depends on.
pub(super) struct World<'a> {
    pub set: &'a StatefulSet,
    /// The revision that the set has, and the one it is to have.
    pub current: &'a Revision,
    pub update: &'a Revision,
    /// The set's pods, with names that it gives.
    pub pods: &'a [Arc<Pod>],
    /// The claims of its namespace that its pods have, by name.
    pub claims: &'a Claims,
    pub now: Timestamp,
}

/// One thing to do.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Create the claims, then the pod.
    Create(Box<Pod>),
    Delete(Arc<Pod>),
    /// Create claims that are missing, and give all the owners they should have.
    Claims(Arc<Pod>),
    /// Give the pod the labels and volumes of its number.
    Identify(Arc<Pod>),
}

/// What to do: the phases one after the other. The steps of a phase go at once in a parallel set,
/// one after the other in an ordered one.
pub(super) type Plan = Vec<Vec<Step>>;

/// A pod of the set, or that there is none of a number.
struct Replica<'a> {
    ordinal: i32,
    pod: Option<&'a Arc<Pod>>,
}

impl World<'_> {
    fn is_ordered(&self) -> bool {
        let spec = self.set.spec.as_ref();
        let policy = spec.and_then(|spec| spec.pod_management_policy.as_deref());
        policy != Some("Parallel")
    }

    fn min_ready_seconds(&self) -> i32 {
        let spec = self.set.spec.as_ref();
        spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        pods::is_available(pod, self.min_ready_seconds(), self.now)
    }

    fn is_unavailable(&self, replica: &Replica<'_>) -> bool {
        replica
            .pod
            .is_none_or(|pod| !self.is_available(pod) || is_deleted(pod))
    }

    /// One for each number that the set has, in order.
    fn replicas(&self) -> Vec<Replica<'_>> {
        let start = pod::start(self.set);
        let end = start.saturating_add(pod::replicas(self.set));
        let of = |ordinal| {
            let mut found = self.pods.iter();
            found.find(|pod| pod::ordinal(self.set, pod) == Some(ordinal))
        };
        (start..end)
            .map(|ordinal| Replica {
                ordinal,
                pod: of(ordinal),
            })
            .collect()
    }

    /// The pods of numbers that the set has no more, the highest first.
    fn condemned(&self) -> Vec<Replica<'_>> {
        let mut condemned: Vec<_> = self
            .pods
            .iter()
            .filter_map(|pod| {
                let ordinal = pod::ordinal(self.set, pod)?;
                let pod = Some(pod);
                (!pod::in_range(self.set, ordinal)).then_some(Replica { ordinal, pod })
            })
            .collect();
        condemned.sort_by_key(|replica| std::cmp::Reverse(replica.ordinal));
        condemned
    }

    /// What to do now. Whatever it leads to brings the set back here.
    pub fn plan(&self) -> Plan {
        let (replicas, condemned) = (self.replicas(), self.condemned());
        let mut plan = Vec::new();
        let mut steps = Vec::new();
        let mut stopped = false;
        for replica in &replicas {
            if self.look_at(replica, &mut steps) && self.is_ordered() {
                stopped = true;
                break;
            }
        }
        plan.push(steps);
        if stopped {
            return plan;
        }
        let orphaned = condemned.iter().filter_map(|replica| {
            let pod = replica.pod?;
            let owned = pod::claims_are_owned(self.set, pod, replica.ordinal, self.claims);
            (!owned).then(|| Step::Claims(pod.clone()))
        });
        plan.push(orphaned.collect());
        plan.push(self.scale_down(&replicas, &condemned));
        if condemned.is_empty() || !self.is_ordered() {
            plan.push(self.roll(&replicas));
        }
        plan
    }

    /// What one replica needs. Returns whether those after it have to wait, in an ordered set.
    fn look_at(&self, replica: &Replica<'_>, steps: &mut Vec<Step>) -> bool {
        let ordinal = replica.ordinal;
        let Some(pod) = replica.pod else {
            let pod = self.new_pod(ordinal);
            if !pod::has_stale_claim(self.set, &pod, ordinal, self.claims) {
                steps.push(Step::Create(Box::new(pod)));
            }
            return true;
        };
        if pods::is_terminal(pod) {
            if !is_deleted(pod) {
                steps.push(Step::Delete(pod.clone()));
            }
            return true;
        }
        let owned = pod::claims_are_owned(self.set, pod, ordinal, self.claims);
        let complete = pod::claim_names(self.set, ordinal).all(|name| {
            let claim = self.claims.get(&name);
            claim.is_some_and(|claim| claim.metadata.deletion_timestamp.is_none())
        });
        let pending = pods::phase(pod) == "Pending";
        let settled = !is_deleted(pod) && is_running_and_ready(pod) && self.is_available(pod);
        let waits = self.is_ordered() && !settled;
        if (pending && !complete) || (!owned && (pending || !waits)) {
            steps.push(Step::Claims(pod.clone()));
        }
        if waits {
            return true;
        }
        if !pod::is_identified(self.set, pod, ordinal) {
            steps.push(Step::Identify(pod.clone()));
        }
        false
    }

    /// Below the partition a pod is created as the set was, from it on as it is to be.
    fn new_pod(&self, ordinal: i32) -> Pod {
        let rolling = self.rolling();
        let kept = match rolling {
            Some(rolling) => rolling.partition.unwrap_or(0),
            None if self.strategy() == "RollingUpdate" => {
                let status = self.set.status.as_ref();
                status
                    .and_then(|status| status.current_replicas)
                    .unwrap_or(0)
            }
            None => 0,
        };
        let old = ordinal < pod::start(self.set).saturating_add(kept);
        let revision = if old { self.current } else { self.update };
        pod::new(self.set, &revision.template, &revision.name, ordinal)
    }

    fn strategy(&self) -> &str {
        let spec = self.set.spec.as_ref();
        let strategy = spec.and_then(|spec| spec.update_strategy.as_ref());
        strategy
            .and_then(|strategy| strategy.type_.as_deref())
            .unwrap_or("RollingUpdate")
    }

    fn rolling(&self) -> Option<&k8s_openapi::api::apps::v1::RollingUpdateStatefulSetStrategy> {
        let strategy = self.set.spec.as_ref()?.update_strategy.as_ref()?;
        strategy.rolling_update.as_ref()
    }

    /// In an ordered set one pod goes at a time, and only while all others are well; but the first
    /// one that is not well may be the one that goes.
    fn scale_down(&self, replicas: &[Replica<'_>], condemned: &[Replica<'_>]) -> Vec<Step> {
        let pods = condemned.iter().filter_map(|replica| replica.pod);
        if !self.is_ordered() {
            let alive = pods.filter(|pod| !is_deleted(pod));
            return alive.map(|pod| Step::Delete(pod.clone())).collect();
        }
        let Some(last) = condemned.first().and_then(|replica| replica.pod) else {
            return Vec::new();
        };
        let mut all = replicas.iter().chain(condemned.iter().rev());
        let first_unwell = all.find(|replica| self.is_unavailable(replica));
        let is_first = first_unwell
            .and_then(|replica| replica.pod)
            .is_some_and(|pod| Arc::ptr_eq(pod, last));
        let well = is_running_and_ready(last) && self.is_available(last);
        if is_deleted(last) || !(well || is_first) {
            return Vec::new();
        }
        vec![Step::Delete(last.clone())]
    }

    /// Deletes pods of other revisions, from the highest number down to the partition.
    fn roll(&self, replicas: &[Replica<'_>]) -> Vec<Step> {
        if self.strategy() == "OnDelete" {
            return Vec::new();
        }
        let rolling = self.rolling();
        let partition = rolling.and_then(|rolling| rolling.partition).unwrap_or(0);
        let kept = usize::try_from(partition).unwrap_or(0);
        let candidates = replicas.iter().skip(kept).rev();
        let outdated = |replica: &Replica<'_>| {
            let pod = replica.pod?;
            let old = pod::revision(pod) != self.update.name && !is_deleted(pod);
            old.then(|| Step::Delete(pod.clone()))
        };
        let limit = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
        let Some(limit) = limit else {
            // One at a time, each when those above it are well.
            for replica in candidates {
                if let Some(step) = outdated(replica) {
                    return vec![step];
                }
                if self.is_unavailable(replica) {
                    return Vec::new();
                }
            }
            return Vec::new();
        };
        let total = pod::replicas(self.set);
        let limit = percent::scaled(limit, total, Round::Down)
            .unwrap_or(1)
            .max(1);
        let limit = usize::try_from(limit).unwrap_or(1);
        let unavailable = replicas
            .iter()
            .filter(|one| self.is_unavailable(one))
            .count();
        let room = limit.saturating_sub(unavailable);
        candidates.filter_map(outdated).take(room).collect()
    }

    /// The status to write; `None` when it stands already.
    pub fn status(&self) -> Option<StatefulSetStatus> {
        let known = self.set.status.clone().unwrap_or_default();
        let (mut ready, mut available, mut current, mut updated) = (0, 0, 0, 0);
        for pod in self.pods {
            if is_running_and_ready(pod) {
                ready += 1;
                available += i32::from(self.is_available(pod));
            }
            if !is_deleted(pod) {
                let revision = pod::revision(pod);
                current += i32::from(revision == self.current.name);
                updated += i32::from(revision == self.update.name);
            }
        }
        let replicas = i32::try_from(self.pods.len()).unwrap_or(i32::MAX);
        let wanted = pod::replicas(self.set);
        let mut current_revision = &self.current.name;
        let complete = [updated, ready, replicas] == [wanted; 3];
        if complete && self.strategy() == "RollingUpdate" {
            current = updated;
            current_revision = &self.update.name;
        }
        let present = |count: i32| (count != 0).then_some(count);
        let next = StatefulSetStatus {
            replicas,
            ready_replicas: present(ready),
            available_replicas: Some(available),
            current_replicas: present(current),
            updated_replicas: present(updated),
            current_revision: Some(current_revision.clone()),
            update_revision: Some(self.update.name.clone()),
            observed_generation: self.set.metadata.generation,
            collision_count: Some(known.collision_count.unwrap_or(0)),
            conditions: known.conditions.clone(),
        };
        (!same(&known, &next)).then_some(next)
    }
}

/// An absent count is zero.
fn same(known: &StatefulSetStatus, next: &StatefulSetStatus) -> bool {
    let counts = |status: &StatefulSetStatus| {
        [
            Some(status.replicas),
            status.ready_replicas,
            status.available_replicas,
            status.current_replicas,
            status.updated_replicas,
        ]
        .map(|count| count.unwrap_or(0))
    };
    counts(known) == counts(next)
        && known.observed_generation == next.observed_generation
        && known.current_revision == next.current_revision
        && known.update_revision == next.update_revision
}

fn is_deleted(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

fn is_running_and_ready(pod: &Pod) -> bool {
    pods::phase(pod) == "Running" && pods::is_ready(pod)
}
