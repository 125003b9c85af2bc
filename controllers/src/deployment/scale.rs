//! How many replicas each set gets: rolling within the bounds, and in proportion when the size of
//! the deployment changes.

use k8s_openapi::{api::apps::v1::DeploymentSpec, apimachinery::pkg::util::intstr::IntOrString};

use super::{decide::Rollout, sets::Set};
use crate::percent::{self, Round};

/// What the strategy allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub desired: i32,
    /// RollingUpdate; otherwise Recreate.
    pub rolling: bool,
    /// Replicas there may be beyond the desired ones.
    pub surge: i32,
    /// Desired replicas that need not be available.
    pub unavailable: i32,
}

impl Bounds {
    pub fn of(spec: &DeploymentSpec) -> Self {
        let desired = spec.replicas.unwrap_or(1);
        let strategy = spec.strategy.as_ref();
        let kind = strategy.and_then(|strategy| strategy.type_.as_deref());
        if kind == Some("Recreate") {
            return Bounds {
                desired,
                rolling: false,
                surge: 0,
                unavailable: 0,
            };
        }
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let part = |value: Option<&IntOrString>, round| {
            value
                .and_then(|value| percent::scaled(value, desired, round))
                .unwrap_or(0)
        };
        let surge = part(
            rolling.and_then(|update| update.max_surge.as_ref()),
            Round::Up,
        );
        let given = rolling.and_then(|update| update.max_unavailable.as_ref());
        let mut unavailable = part(given, Round::Down);
        // Both can round to nothing; then nothing could ever move.
        if surge == 0 && unavailable == 0 {
            unavailable = 1;
        }
        Bounds {
            desired,
            rolling: true,
            surge,
            unavailable: unavailable.min(desired),
        }
    }

    fn min_available(self) -> i32 {
        self.desired - self.unavailable
    }
}

/// The size that the new set may have, of which `total` replicas there are in all sets.
pub(super) fn new_set_replicas(bounds: &Bounds, replicas: i32, total: i32) -> i32 {
    if !bounds.rolling {
        return bounds.desired;
    }
    let room = bounds.desired + bounds.surge - total;
    if room <= 0 {
        return replicas;
    }
    replicas + room.min(bounds.desired - replicas)
}

/// Brings the new set towards the desired size. Returns whether that changed it.
pub(super) fn up_new(rollout: &mut Rollout<'_>) -> bool {
    let Some(new) = rollout.new else {
        return false;
    };
    let (set, bounds) = (&rollout.sets[new], rollout.bounds);
    if set.to_create || set.replicas == bounds.desired {
        return false;
    }
    let replicas = if set.replicas > bounds.desired {
        bounds.desired
    } else {
        new_set_replicas(&bounds, set.replicas, rollout.replicas())
    };
    rollout.scale(new, replicas, false)
}

/// Takes from the old sets what availability allows: first replicas that are not available anyway,
/// then others, oldest set first. Returns whether anything changed.
pub(super) fn down_old(rollout: &mut Rollout<'_>) -> bool {
    let Some(new) = rollout.new_set() else {
        return false;
    };
    let bounds = rollout.bounds;
    let new_unavailable = new.replicas - new.status().available;
    let spare = rollout.replicas() - bounds.min_available() - new_unavailable;
    let old: Vec<usize> = rollout
        .old()
        .into_iter()
        .filter(|index| rollout.sets[*index].replicas > 0)
        .collect();
    if old.is_empty() || spare <= 0 {
        return false;
    }
    let mut unhealthy = spare;
    for index in &old {
        let set = &rollout.sets[*index];
        let take = (set.replicas - set.status().available).clamp(0, unhealthy);
        let replicas = set.replicas - take;
        unhealthy -= take;
        rollout.scale(*index, replicas, false);
    }
    let mut healthy = rollout.available() - bounds.min_available();
    for index in &old {
        let set = &rollout.sets[*index];
        let take = set.replicas.clamp(0, healthy.max(0));
        let replicas = set.replicas - take;
        healthy -= take;
        rollout.scale(*index, replicas, false);
    }
    old.iter()
        .any(|index| rollout.sets[*index].replicas != rollout.sets[*index].known_replicas())
}

/// Spreads a change of the deployment's size over the sets that have replicas.
pub(super) fn proportionally(rollout: &mut Rollout<'_>) {
    let desired = rollout.bounds.desired;
    let mut active: Vec<usize> = (0..rollout.sets.len())
        .filter(|index| rollout.sets[*index].replicas > 0)
        .collect();
    if let Some(only) = only_one(rollout, &active) {
        if rollout.sets[only].replicas != desired {
            rollout.scale(only, desired, false);
        }
        return;
    }
    if rollout
        .new_set()
        .is_some_and(|set| is_saturated(set, desired))
    {
        for index in rollout.old() {
            rollout.scale(index, 0, false);
        }
        return;
    }
    if !rollout.bounds.rolling || active.is_empty() {
        return;
    }
    let allowed = if desired > 0 {
        desired + rollout.bounds.surge
    } else {
        0
    };
    let change = allowed - rollout.replicas();
    // The largest comes first, and of equally large ones the newer when growing, the older when
    // shrinking: it also gets what is left over from rounding.
    let size = |index: &usize| std::cmp::Reverse(rollout.sets[*index].replicas);
    if change > 0 {
        active.reverse();
    }
    active.sort_by_key(size);
    let mut spread = 0;
    let mut sizes = Vec::new();
    for index in &active {
        let part = proportion(rollout, &rollout.sets[*index], change, spread);
        spread += part;
        sizes.push(rollout.sets[*index].replicas + part);
    }
    if change != 0
        && let Some(first) = sizes.first_mut()
    {
        *first = (*first + change - spread).max(0);
    }
    for (index, size) in active.into_iter().zip(sizes) {
        rollout.scale(index, size, true);
    }
}

/// The set to scale when there is no doubt: the only one with replicas, or, when none has any, the
/// new one or else the latest.
fn only_one(rollout: &Rollout<'_>, active: &[usize]) -> Option<usize> {
    match active {
        [] => rollout.new.or(rollout.sets.len().checked_sub(1)),
        [one] => Some(*one),
        _ => None,
    }
}

/// Whether the set has everything that is desired, and has had time to be told so.
fn is_saturated(set: &Set, desired: i32) -> bool {
    set.desired_annotation() == Some(desired)
        && set.replicas == desired
        && set.status().available == desired
}

/// The set's part of `change`, of which `spread` has been given out.
fn proportion(rollout: &Rollout<'_>, set: &Set, change: i32, spread: i32) -> i32 {
    if change == 0 || change == spread {
        return 0;
    }
    let (fraction, left) = (fraction(rollout, set), change - spread);
    if change > 0 {
        fraction.min(left)
    } else {
        fraction.max(left)
    }
}

/// By how much the set would change if its share stayed exactly the same.
fn fraction(rollout: &Rollout<'_>, set: &Set) -> i32 {
    let bounds = rollout.bounds;
    if bounds.desired == 0 {
        return -set.replicas;
    }
    let known = rollout.deployment.status.as_ref();
    let former = set
        .max_annotation()
        .filter(|max| *max > 0)
        .or(known.and_then(|status| status.replicas))
        .unwrap_or(0);
    if former == 0 {
        return 0;
    }
    let exact =
        f64::from(set.replicas) * f64::from(bounds.desired + bounds.surge) / f64::from(former);
    // Halves go away from zero, and the sizes are far below what an i32 holds.
    exact.round() as i32 - set.replicas
}
