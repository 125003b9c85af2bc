//! What to do about a deployment: a pure function of what the caches show.
//!
//! Enter at [`decide`]. One decision scales in one direction only, and its status is computed from
//! the same view; the changes it makes come back as events and lead to the next decision.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStatus, ReplicaSet};
use kube::ResourceExt as _;

use super::{
    scale::{self, Bounds},
    sets::{self, Set},
    status,
};

/// What the caches show.
pub(super) struct World<'a> {
    pub deployment: &'a Deployment,
    /// Every replica set the deployment owns.
    pub sets: Vec<Arc<ReplicaSet>>,
    /// The pods that have not ended, by the uid of their replica set.
    pub running: &'a dyn Fn(&str) -> bool,
    pub now: Timestamp,
}

/// One write, in the order in which the writes must happen.
#[derive(Debug)]
pub(super) enum Action {
    Create(Set),
    Update(Set),
    Delete(Arc<ReplicaSet>),
    /// The deployment's status, and its revision.
    Status(DeploymentStatus, Option<String>),
    /// The deployment itself, and what to say of it.
    RollBack(Box<Deployment>, RollBack),
}

/// What a rollback came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RollBack {
    Done { revision: i64 },
    NoLastRevision,
    NoSuchRevision,
    SameTemplate,
}

/// A decision in the making.
pub(super) struct Rollout<'a> {
    pub deployment: &'a Deployment,
    pub spec: &'a DeploymentSpec,
    pub bounds: Bounds,
    /// In order of creation.
    pub sets: Vec<Set>,
    /// Which of them has the deployment's template.
    pub new: Option<usize>,
    /// The status so far: that which the deployment has, with this decision's conditions.
    pub status: DeploymentStatus,
    pub revision: Option<String>,
    pub now: Timestamp,
    removed: Vec<Arc<ReplicaSet>>,
}

/// Decides the writes that bring the deployment nearer to what it asks for.
pub(super) fn decide(world: &World<'_>) -> Vec<Action> {
    let Some(mut rollout) = Rollout::new(world) else {
        return Vec::new();
    };
    let deleted = world.deployment.metadata.deletion_timestamp.is_some();
    let paused = rollout.spec.paused == Some(true);
    if deleted {
        rollout.adopt_new();
        rollout.observe();
        return rollout.into_actions();
    }
    status::set_paused(&mut rollout, paused);
    if !paused && let Some(revision) = rollback_wanted(world.deployment) {
        return rollout.roll_back(revision);
    }
    rollout.adopt_new();
    if paused || rollout.is_scaling_event() {
        scale::proportionally(&mut rollout);
        if paused {
            rollout.clean_up();
        }
        rollout.observe();
    } else if rollout.bounds.rolling {
        rollout.roll();
    } else {
        rollout.recreate(world.running);
    }
    rollout.into_actions()
}

/// The revision that is asked for through the old API; zero is the last one.
fn rollback_wanted(deployment: &Deployment) -> Option<i64> {
    deployment
        .annotations()
        .get(sets::ROLLBACK_TO)?
        .parse()
        .ok()
}

impl<'a> Rollout<'a> {
    fn new(world: &World<'a>) -> Option<Self> {
        let deployment = world.deployment;
        let spec = deployment.spec.as_ref()?;
        let mut sets: Vec<Set> = world.sets.iter().cloned().map(Set::of).collect();
        sets.sort_by(|left, right| creation(left).cmp(&creation(right)));
        let new = sets.iter().position(|set| {
            let template = set
                .known
                .spec
                .as_ref()
                .and_then(|spec| spec.template.as_ref());
            sets::same_template(template, &spec.template)
        });
        Some(Rollout {
            deployment,
            spec,
            bounds: Bounds::of(spec),
            sets,
            new,
            status: deployment.status.clone().unwrap_or_default(),
            revision: deployment.annotations().get(sets::REVISION).cloned(),
            now: world.now,
            removed: Vec::new(),
        })
    }

    pub fn new_set(&self) -> Option<&Set> {
        self.new.and_then(|new| self.sets.get(new))
    }

    /// Indexes of the sets that have another template, oldest first.
    pub fn old(&self) -> Vec<usize> {
        (0..self.sets.len())
            .filter(|index| Some(*index) != self.new)
            .collect()
    }

    /// The replicas that the sets ask for.
    pub fn replicas(&self) -> i32 {
        self.sets.iter().map(|set| set.replicas).sum()
    }

    /// The available replicas that nobody has asked to go yet: a set's status lags behind its size.
    pub fn available(&self) -> i32 {
        let sets = self.sets.iter();
        sets.map(|set| set.status().available.min(set.replicas))
            .sum()
    }

    /// Gives a set another size. `always` renews its annotations even when the size stays.
    pub fn scale(&mut self, index: usize, replicas: i32, always: bool) -> bool {
        let bounds = self.bounds;
        let set = &mut self.sets[index];
        let changes = set.replicas != replicas;
        if changes || always {
            set.replicas = replicas;
            set.annotate_replicas(bounds.desired, bounds.desired + bounds.surge);
        }
        changes
    }

    fn next_revision(&self) -> i64 {
        let old = self.old();
        let revisions = old.iter().filter_map(|index| self.sets[*index].revision());
        revisions.max().unwrap_or(0) + 1
    }

    /// Brings the new set's annotations up to date, if there is one.
    fn adopt_new(&mut self) {
        let (Some(new), revision) = (self.new, self.next_revision()) else {
            return;
        };
        let set = &mut self.sets[new];
        set.annotate_from(self.deployment, revision);
        if self.spec.min_ready_seconds.unwrap_or(0) != set.min_ready_seconds.unwrap_or(0) {
            set.min_ready_seconds = self.spec.min_ready_seconds;
        }
        self.revision = set.annotations.get(sets::REVISION).cloned();
        let name = set.name().to_owned();
        status::found_new_set(self, &name);
    }

    /// Makes the new set, if there is none.
    fn ensure_new(&mut self) {
        if self.new.is_some() {
            return;
        }
        let Some(mut set) = sets::for_template(self.deployment, self.status.collision_count) else {
            return;
        };
        let revision = self.next_revision();
        set.replicas = scale::new_set_replicas(&self.bounds, 0, self.replicas());
        set.annotate_from(self.deployment, revision);
        set.annotate_replicas(self.bounds.desired, self.bounds.desired + self.bounds.surge);
        let name = set.name().to_owned();
        self.new = Some(self.sets.len());
        self.sets.push(set);
        self.revision = Some(revision.to_string());
        status::created_new_set(self, &name);
    }

    /// Whether the size of the deployment was changed since its sets were last scaled.
    fn is_scaling_event(&self) -> bool {
        let mut active = self.sets.iter().filter(|set| set.replicas > 0);
        active.any(|set| {
            set.desired_annotation()
                .is_some_and(|desired| desired != self.bounds.desired)
        })
    }

    fn roll(&mut self) {
        self.ensure_new();
        if !scale::up_new(self) && !scale::down_old(self) && self.is_complete() {
            self.clean_up();
        }
        self.observe_rollout();
    }

    fn recreate(&mut self, running: &dyn Fn(&str) -> bool) {
        let old = self.old();
        let mut scaled = false;
        for index in &old {
            scaled |= self.sets[*index].replicas > 0 && self.scale(*index, 0, false);
        }
        let waiting = old.iter().any(|index| {
            let set = &self.sets[*index];
            set.status().replicas > 0 || running(set.known.metadata.uid.as_deref().unwrap_or(""))
        });
        if !scaled && !waiting {
            self.ensure_new();
            if let Some(new) = self.new {
                self.scale(new, self.bounds.desired, false);
            }
            if self.is_complete() {
                self.clean_up();
            }
        }
        self.observe_rollout();
    }

    /// Whether the status that stands already says that everything is done.
    fn is_complete(&self) -> bool {
        let status = self.deployment.status.as_ref();
        status.is_some_and(|status| status::is_complete(self.deployment, status))
    }

    /// Drops old sets without pods beyond the limit of the history, lowest revision first.
    fn clean_up(&mut self) {
        let Some(limit) = self
            .spec
            .revision_history_limit
            .filter(|limit| *limit < i32::MAX)
        else {
            return;
        };
        let mut old = self.old();
        old.retain(|index| {
            let meta = &self.sets[*index].known.metadata;
            meta.deletion_timestamp.is_none()
        });
        old.sort_by_key(|index| self.sets[*index].revision().unwrap_or(0));
        let surplus = old
            .len()
            .saturating_sub(usize::try_from(limit).unwrap_or(0));
        for index in old.into_iter().take(surplus) {
            let set = &self.sets[index];
            let observed = set
                .known
                .status
                .as_ref()
                .and_then(|s| s.observed_generation);
            let settled = observed.unwrap_or(0) >= set.known.metadata.generation.unwrap_or(0);
            if set.status().replicas == 0 && set.replicas == 0 && settled {
                self.removed.push(set.known.clone());
            }
        }
    }

    fn observe(&mut self) {
        self.status = status::observed(self);
    }

    fn observe_rollout(&mut self) {
        self.status = status::of_rollout(self);
    }

    fn roll_back(mut self, revision: i64) -> Vec<Action> {
        self.adopt_new();
        self.ensure_new();
        if self
            .sets
            .iter()
            .any(|set| set.to_create || set.is_changed())
        {
            return self.into_actions();
        }
        let revision = if revision == 0 {
            last_revision(&self.sets)
        } else {
            Some(revision)
        };
        let mut object = self.deployment.clone();
        let outcome = match revision {
            None => RollBack::NoLastRevision,
            Some(revision) => {
                let mut sets = self.sets.iter();
                match sets.find(|set| set.revision() == Some(revision)) {
                    None => RollBack::NoSuchRevision,
                    Some(set) if Some(set.name()) == self.new_set().map(Set::name) => {
                        RollBack::SameTemplate
                    }
                    Some(set) => {
                        object = sets::rolled_back(self.deployment, set);
                        RollBack::Done { revision }
                    }
                }
            }
        };
        if let Some(annotations) = &mut object.metadata.annotations {
            annotations.remove(sets::ROLLBACK_TO);
        }
        vec![Action::RollBack(Box::new(object), outcome)]
    }

    fn into_actions(self) -> Vec<Action> {
        let known = self.deployment;
        let removed = self.removed.iter();
        let gone: Vec<Option<String>> = removed.map(|set| set.metadata.uid.clone()).collect();
        let mut actions = Vec::new();
        let (new, old): (Vec<Set>, Vec<Set>) = self.sets.into_iter().partition(|set| set.to_create);
        actions.extend(new.into_iter().map(Action::Create));
        for set in old {
            if set.is_changed() && !gone.contains(&set.known.metadata.uid) {
                actions.push(Action::Update(set));
            }
        }
        actions.extend(self.removed.into_iter().map(Action::Delete));
        let revision = known.annotations().get(sets::REVISION);
        if known.status.as_ref() != Some(&self.status) || self.revision.as_ref() != revision {
            actions.push(Action::Status(self.status, self.revision));
        }
        actions
    }
}

fn creation(set: &Set) -> (Option<Timestamp>, &str) {
    let created = set.known.metadata.creation_timestamp.as_ref();
    (created.map(|time| time.0), set.name())
}

/// The second highest revision.
fn last_revision(sets: &[Set]) -> Option<i64> {
    let mut revisions: Vec<i64> = sets.iter().filter_map(Set::revision).collect();
    revisions.sort_unstable();
    let last = revisions.iter().rev().nth(1).copied();
    last.filter(|revision| *revision > 0)
}
