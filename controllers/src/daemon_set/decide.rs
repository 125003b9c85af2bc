//! What a daemon set has to do: which nodes get a pod, which pods go.
//!
//! Enter at [`World::new`], then [`World::manage`]; only when that leaves nothing to do is it the
//! turn of [`World::roll`].

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{DaemonSet, DaemonSetStatus},
    core::v1::{Node, Pod},
};
use kube::ResourceExt as _;

use super::pod::{self, Fit};
use crate::{
    percent::{self, Round},
    pods,
};

/// All that a decision depends on.
pub(super) struct World<'a> {
    set: &'a DaemonSet,
    hash: &'a str,
    now: Timestamp,
    /// Whether a daemon belongs there, for each node in order of name.
    fits: BTreeMap<&'a str, Fit>,
    /// The set's pods by the node they are meant for, the oldest first. Those that have ended and
    /// are deleted do not count.
    by_node: BTreeMap<&'a str, Vec<&'a Arc<Pod>>>,
}

/// What to do.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Nodes to create a pod for.
    pub create: Vec<String>,
    pub delete: Vec<Arc<Pod>>,
    /// Deleted too, because they failed.
    pub failed: Vec<Arc<Pod>>,
    /// Deleted too, because they ended, which daemons do not.
    pub succeeded: Vec<Arc<Pod>>,
    /// When a failed pod that is left for now may be replaced.
    pub again: Option<Duration>,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.create.is_empty()
            && self.delete.is_empty()
            && self.failed.is_empty()
            && self.succeeded.is_empty()
    }
}

/// How many pods may be too many or too few during an update.
struct Bounds {
    surge: i32,
    unavailable: i32,
    desired: i32,
}

/// The one pod of each template on a node.
enum Pair<'a> {
    /// There are more than one of some; [`World::manage`] sees to that.
    Crowded,
    Of {
        new: Option<&'a Arc<Pod>>,
        old: Option<&'a Arc<Pod>>,
    },
}

impl<'a> World<'a> {
    pub fn new(
        set: &'a DaemonSet,
        nodes: &'a [Arc<Node>],
        owned: &'a [Arc<Pod>],
        hash: &'a str,
        now: Timestamp,
    ) -> Self {
        let spec = set
            .spec
            .as_ref()
            .and_then(|spec| spec.template.spec.as_ref());
        let tolerations = spec.map(pod::tolerations).unwrap_or_default();
        let fits = nodes.iter().filter_map(|node| {
            let name = node.metadata.name.as_deref()?;
            Some((name, pod::fit(spec?, &tolerations, node)))
        });
        let mut by_node: BTreeMap<&str, Vec<&Arc<Pod>>> = BTreeMap::new();
        for one in owned {
            let gone = pods::is_terminal(one) && one.metadata.deletion_timestamp.is_some();
            if !gone && let Some(node) = pod::target(one) {
                by_node.entry(node).or_default().push(one);
            }
        }
        for there in by_node.values_mut() {
            there.sort_by_key(|pod| {
                let created = pod.creation_timestamp().map(|time| time.0);
                (pods::node_name(pod).is_empty(), created, pod.name_any())
            });
        }
        World {
            set,
            hash,
            now,
            fits: fits.collect(),
            by_node,
        }
    }

    fn on(&self, node: &str) -> &[&'a Arc<Pod>] {
        self.by_node.get(node).map_or(&[], Vec::as_slice)
    }

    fn min_ready_seconds(&self) -> i32 {
        let spec = self.set.spec.as_ref();
        spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        pods::is_available(pod, self.min_ready_seconds(), self.now)
    }

    fn is_updated(&self, pod: &Pod) -> bool {
        pod::is_updated(pod, self.set, self.hash)
    }

    /// One pod on every node where one belongs, none elsewhere. `wait` says how long the failed
    /// pod of a node has to be left.
    pub fn manage(&self, wait: impl Fn(&str) -> Option<Duration>) -> Plan {
        let mut plan = Plan::default();
        for (node, fit) in &self.fits {
            let there = self.by_node.get(node);
            match (fit, there) {
                (Fit::Run, None) => plan.create.push((*node).to_owned()),
                (Fit::Run | Fit::Stay, there) => {
                    let there = there.map_or(&[][..], Vec::as_slice);
                    self.thin_out(node, *fit, there, &wait, &mut plan);
                }
                (Fit::No, there) => {
                    let there = there.into_iter().flatten().copied();
                    let here = there.filter(|pod| pod.metadata.deletion_timestamp.is_none());
                    plan.delete.extend(here.cloned());
                }
            }
        }
        // What waits for a node that is gone is never scheduled.
        for (node, there) in &self.by_node {
            if !self.fits.contains_key(node) {
                let unscheduled = there.iter().filter(|pod| pods::node_name(pod).is_empty());
                plan.delete.extend(unscheduled.copied().cloned());
            }
        }
        plan
    }

    /// Deletes what has ended, and what is too much, on a node where a daemon may be.
    fn thin_out(
        &self,
        node: &str,
        fit: Fit,
        there: &[&Arc<Pod>],
        wait: impl Fn(&str) -> Option<Duration>,
        plan: &mut Plan,
    ) {
        let mut running = Vec::new();
        for pod in there.iter().copied() {
            if pod.metadata.deletion_timestamp.is_some() {
                continue;
            }
            match pods::phase(pod) {
                "Failed" => match wait(node) {
                    Some(delay) => {
                        plan.again = Some(plan.again.map_or(delay, |known| known.min(delay)));
                    }
                    None => plan.failed.push(pod.clone()),
                },
                "Succeeded" => plan.succeeded.push(pod.clone()),
                _ => running.push(pod),
            }
        }
        if !self.allows_surge() {
            plan.delete.extend(running.into_iter().skip(1).cloned());
            return;
        }
        if running.is_empty() && fit == Fit::Run {
            plan.create.push(node.to_owned());
        }
        if running.len() > 1 {
            self.thin_out_surge(&running, plan);
        }
    }

    /// With a surge, an old pod and a new one may be on a node together, until the new one does.
    fn thin_out_surge(&self, running: &[&Arc<Pod>], plan: &mut Plan) {
        let (mut new, mut old) = (None, None);
        for pod in running.iter().copied() {
            let labels = pod.metadata.labels.as_ref();
            let hash = labels.and_then(|labels| labels.get(crate::history::POD_LABEL));
            let kept = if hash.is_some_and(|hash| hash == self.hash) {
                &mut new
            } else {
                &mut old
            };
            if kept.is_none() {
                *kept = Some(pod);
            } else {
                plan.delete.push(pod.clone());
            }
        }
        if let (Some(new), Some(old)) = (new, old)
            && (!pods::is_ready(old) || self.is_available(new))
        {
            plan.delete.push(old.clone());
        }
    }

    fn allows_surge(&self) -> bool {
        self.surge(1) > 0
    }

    fn surge(&self, desired: i32) -> i32 {
        self.rolling_limit(desired, |rolling| rolling.max_surge.as_ref())
    }

    /// Zero for a set that does not roll.
    fn rolling_limit(
        &self,
        desired: i32,
        which: impl Fn(
            &k8s_openapi::api::apps::v1::RollingUpdateDaemonSet,
        ) -> Option<&k8s_openapi::apimachinery::pkg::util::intstr::IntOrString>,
    ) -> i32 {
        let spec = self.set.spec.as_ref();
        let strategy = spec.and_then(|spec| spec.update_strategy.as_ref());
        strategy
            .filter(|strategy| strategy.type_.as_deref() == Some("RollingUpdate"))
            .and_then(|strategy| strategy.rolling_update.as_ref())
            .and_then(which)
            .and_then(|limit| percent::scaled(limit, desired, Round::Up))
            .unwrap_or(0)
    }

    fn bounds(&self) -> Bounds {
        let running = self.fits.values().filter(|fit| **fit == Fit::Run).count();
        let desired = i32::try_from(running).unwrap_or(i32::MAX);
        let surge = self.surge(desired);
        let mut unavailable =
            self.rolling_limit(desired, |rolling| rolling.max_unavailable.as_ref());
        if desired > 0 && surge == 0 && unavailable == 0 {
            unavailable = 1;
        }
        Bounds {
            surge,
            unavailable,
            desired,
        }
    }

    /// Replaces pods of older templates, as many at once as the strategy allows.
    pub fn roll(&self) -> Plan {
        let strategy = self.set.spec.as_ref().and_then(|spec| {
            let strategy = spec.update_strategy.as_ref()?;
            strategy.type_.as_deref()
        });
        if strategy != Some("RollingUpdate") {
            return Plan::default();
        }
        let bounds = self.bounds();
        if bounds.surge == 0 {
            self.roll_in_place(&bounds)
        } else {
            self.roll_with_surge(&bounds)
        }
    }

    /// The nodes that have or should have a pod.
    fn concerned(&self) -> impl Iterator<Item = &'a str> {
        let wanted = self.fits.iter().filter(|(_, fit)| **fit == Fit::Run);
        let mut nodes: Vec<&'a str> = wanted.map(|(node, _)| *node).collect();
        nodes.extend(self.by_node.keys());
        nodes.sort_unstable();
        nodes.dedup();
        nodes.into_iter()
    }

    fn pair(&self, node: &str) -> Pair<'a> {
        let (mut new, mut old) = (None, None);
        for pod in self.on(node).iter().copied() {
            if pod.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let place = if self.is_updated(pod) {
                &mut new
            } else {
                &mut old
            };
            if place.replace(pod).is_some() {
                return Pair::Crowded;
            }
        }
        Pair::Of { new, old }
    }

    /// The old pod goes first; what is not available does not count against the limit.
    fn roll_in_place(&self, bounds: &Bounds) -> Plan {
        let mut unavailable = 0;
        let mut candidates = Vec::new();
        let mut plan = Plan::default();
        for node in self.concerned() {
            match self.pair(node) {
                Pair::Of {
                    new: None,
                    old: Some(old),
                } => {
                    if self.is_available(old) {
                        candidates.push(old);
                    } else {
                        plan.delete.push(old.clone());
                        unavailable += 1;
                    }
                }
                Pair::Of {
                    new: Some(new),
                    old: None,
                } => unavailable += i32::from(!self.is_available(new)),
                _ => unavailable += 1,
            }
        }
        let room = usize::try_from(bounds.unavailable - unavailable).unwrap_or(0);
        plan.delete
            .extend(candidates.into_iter().take(room).cloned());
        plan
    }

    /// The new pod comes first; the old one goes when it is available.
    fn roll_with_surge(&self, bounds: &Bounds) -> Plan {
        let (mut surging, mut available) = (0, 0);
        let (mut candidates, mut misplaced) = (Vec::new(), Vec::new());
        let mut plan = Plan::default();
        for node in self.concerned() {
            let Pair::Of { new, old } = self.pair(node) else {
                surging += 1;
                continue;
            };
            available += i32::from(old.or(new).is_some_and(|pod| self.is_available(pod)));
            let Some(old) = old else {
                continue;
            };
            let belongs = self.fits.get(node) == Some(&Fit::Run);
            match new {
                Some(new) if self.is_available(new) => plan.delete.push(old.clone()),
                Some(_) => surging += 1,
                None if self.is_available(old) && belongs => candidates.push(node.to_owned()),
                None if self.is_available(old) => misplaced.push(old),
                None if belongs => plan.create.push(node.to_owned()),
                None => plan.delete.push(old.clone()),
            }
        }
        let spare = usize::try_from(available - bounds.desired).unwrap_or(0);
        plan.delete
            .extend(misplaced.into_iter().take(spare).cloned());
        let room = usize::try_from(bounds.surge - surging).unwrap_or(0);
        plan.create.extend(candidates.into_iter().take(room));
        plan
    }

    /// The status to write; `None` when it stands already.
    pub fn status(&self) -> Option<DaemonSetStatus> {
        let known = self.set.status.clone().unwrap_or_default();
        let mut next = DaemonSetStatus {
            observed_generation: self.set.metadata.generation,
            collision_count: known.collision_count,
            conditions: known.conditions.clone(),
            ..DaemonSetStatus::default()
        };
        let (mut updated, mut available) = (0, 0);
        for (node, fit) in &self.fits {
            let first = self.on(node).first();
            if *fit != Fit::Run {
                next.number_misscheduled += i32::from(first.is_some());
                continue;
            }
            next.desired_number_scheduled += 1;
            let Some(pod) = first else {
                continue;
            };
            next.current_number_scheduled += 1;
            next.number_ready += i32::from(pods::is_ready(pod));
            available += i32::from(self.is_available(pod));
            updated += i32::from(self.is_updated(pod));
        }
        let present = |count: i32| (count != 0).then_some(count);
        next.updated_number_scheduled = present(updated);
        next.number_available = present(available);
        next.number_unavailable = present(next.desired_number_scheduled - available);
        (next != known).then_some(next)
    }

    /// After how long the first pod that is ready becomes available.
    pub fn next_available(&self, owned: &[Arc<Pod>]) -> Option<Duration> {
        pods::next_available(owned, self.min_ready_seconds(), self.now)
    }
}
