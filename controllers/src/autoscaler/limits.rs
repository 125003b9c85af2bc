//! How fast and how far an autoscaler goes towards what its metrics ask for.
//!
//! Enter at [`History::normalize`]. Upstream: `normalizeDesiredReplicas…` in
//! `pkg/controller/podautoscaler/horizontal.go`.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior};

/// A number of replicas, or a change of it, and when.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Event {
    replicas: i32,
    at: Timestamp,
}

/// What was recommended and done lately.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    recommendations: Vec<Event>,
    up: Vec<Event>,
    down: Vec<Event>,
}

/// The sizes that an autoscaler moves between.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub current: i32,
    pub desired: i32,
    pub min: i32,
    pub max: i32,
}

/// A reason and its message for a condition.
pub(super) type Why = (&'static str, &'static str);

/// What becomes of a wish.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Outcome {
    pub replicas: i32,
    /// Why the recommendation was held back or not.
    pub able: Why,
    /// Whether a limit came in between, and which.
    pub limited: bool,
    pub limit: Why,
}

const READY: Why = ("ReadyForNewScale", "recommended size matches current size");
const UP_STABILIZED: Why = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const DOWN_STABILIZED: Why = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent \
     recommendation",
);
const UP_LIMIT: Why = (
    "ScaleUpLimit",
    "the desired replica count is increasing faster than the maximum scale rate",
);
const DOWN_LIMIT: Why = (
    "ScaleDownLimit",
    "the desired replica count is decreasing faster than the maximum scale rate",
);
const TOO_MANY: Why = (
    "TooManyReplicas",
    "the desired replica count is more than the maximum replica count",
);
const TOO_FEW: Why = (
    "TooFewReplicas",
    "the desired replica count is less than the minimum replica count",
);
const WITHIN: Why = (
    "DesiredWithinRange",
    "the desired count is within the acceptable range",
);

fn since(now: Timestamp, seconds: i32) -> Timestamp {
    let window = SignedDuration::from_secs(i64::from(seconds));
    now.checked_sub(window).unwrap_or(Timestamp::MIN)
}

/// The sum of the changes in the period.
fn changes(events: &[Event], period: i32, now: Timestamp) -> i32 {
    let start = since(now, period);
    let recent = events.iter().filter(|event| event.at > start);
    recent.map(|event| event.replicas).sum()
}

fn longest_period(rules: Option<&HPAScalingRules>) -> i32 {
    let policies = rules.iter().flat_map(|rules| &rules.policies).flatten();
    policies
        .map(|policy| policy.period_seconds)
        .max()
        .unwrap_or(0)
}

impl History {
    /// The first recommendation is what there is when the autoscaler starts.
    pub fn start(&mut self, current: i32, now: Timestamp) {
        if self.recommendations.is_empty() {
            self.recommendations.push(Event {
                replicas: current,
                at: now,
            });
        }
    }

    /// Notes that the size was changed.
    pub fn scaled(
        &mut self,
        behavior: Option<&HorizontalPodAutoscalerBehavior>,
        from: i32,
        to: i32,
        now: Timestamp,
    ) {
        let Some(behavior) = behavior else {
            return;
        };
        let up = longest_period(behavior.scale_up.as_ref());
        let down = longest_period(behavior.scale_down.as_ref());
        let period = up.max(down);
        for events in [&mut self.up, &mut self.down] {
            events.retain(|event| event.at >= since(now, period));
        }
        let (events, replicas) = if to > from {
            (&mut self.up, to - from)
        } else {
            (&mut self.down, from - to)
        };
        events.push(Event { replicas, at: now });
    }

    /// Remembers the wish, and says how far it is followed now. `window`: how long a higher
    /// recommendation holds against a lower one, where the behavior does not say.
    pub fn normalize(
        &mut self,
        behavior: Option<&HorizontalPodAutoscalerBehavior>,
        window: Duration,
        sizes: Sizes,
        now: Timestamp,
    ) -> Outcome {
        let (stabilized, why) = self.stabilize(behavior, window, sizes, now);
        let able = if stabilized == sizes.desired {
            READY
        } else {
            why
        };
        let sizes = Sizes {
            desired: stabilized,
            ..sizes
        };
        let (replicas, limit) = match behavior {
            Some(behavior) => self.limit_by_rules(behavior, sizes, now),
            None => limit(sizes),
        };
        Outcome {
            replicas,
            able,
            limited: replicas != stabilized,
            limit,
        }
    }

    fn stabilize(
        &mut self,
        behavior: Option<&HorizontalPodAutoscalerBehavior>,
        window: Duration,
        sizes: Sizes,
        now: Timestamp,
    ) -> (i32, Why) {
        let downscale = i32::try_from(window.as_secs()).unwrap_or(i32::MAX);
        let window = |rules: Option<&HPAScalingRules>, default: i32| {
            rules
                .and_then(|rules| rules.stabilization_window_seconds)
                .unwrap_or(default)
        };
        let up = behavior.map_or(0, |behavior| window(behavior.scale_up.as_ref(), 0));
        let down = behavior.map_or(downscale, |behavior| {
            window(behavior.scale_down.as_ref(), downscale)
        });
        let lowest = self.recent(up, now).min().unwrap_or(sizes.desired);
        let highest = self.recent(down, now).max().unwrap_or(sizes.desired);
        let (lowest, highest) = (lowest.min(sizes.desired), highest.max(sizes.desired));
        let stabilized = if behavior.is_some() {
            sizes.current.max(lowest).min(highest)
        } else {
            highest
        };
        let oldest = since(now, up.max(down));
        self.recommendations.retain(|event| event.at >= oldest);
        self.recommendations.push(Event {
            replicas: sizes.desired,
            at: now,
        });
        let grows = behavior.is_some() && sizes.desired >= sizes.current;
        (
            stabilized,
            if grows {
                UP_STABILIZED
            } else {
                DOWN_STABILIZED
            },
        )
    }

    fn recent(&self, window: i32, now: Timestamp) -> impl Iterator<Item = i32> + '_ {
        let start = since(now, window);
        let recent = self
            .recommendations
            .iter()
            .filter(move |event| event.at > start);
        recent.map(|event| event.replicas)
    }

    fn limit_by_rules(
        &self,
        behavior: &HorizontalPodAutoscalerBehavior,
        sizes: Sizes,
        now: Timestamp,
    ) -> (i32, Why) {
        let Sizes {
            current, desired, ..
        } = sizes;
        if desired > current {
            let rate = self.rate(behavior.scale_up.as_ref(), current, now, Direction::Up);
            let rate = rate.max(current);
            let (most, why) = if sizes.max > rate {
                (rate, UP_LIMIT)
            } else {
                (sizes.max, TOO_MANY)
            };
            if desired > most {
                return (most, why);
            }
        } else if desired < current {
            let rate = self.rate(behavior.scale_down.as_ref(), current, now, Direction::Down);
            let rate = rate.min(current);
            let (least, why) = if sizes.min < rate {
                (rate, DOWN_LIMIT)
            } else {
                (sizes.min, TOO_FEW)
            };
            if desired < least {
                return (least, why);
            }
        }
        (desired, WITHIN)
    }

    /// How far the rules let the size go now.
    #[allow(clippy::cast_possible_truncation, reason = "saturates, towards zero")]
    fn rate(
        &self,
        rules: Option<&HPAScalingRules>,
        current: i32,
        now: Timestamp,
        direction: Direction,
    ) -> i32 {
        let Some(rules) = rules else {
            return match direction {
                Direction::Up => i32::MAX,
                Direction::Down => i32::MIN,
            };
        };
        let select = rules.select_policy.as_deref();
        if select == Some("Disabled") {
            return current;
        }
        let proposals = rules.policies.iter().flatten().map(|policy| {
            let added = changes(&self.up, policy.period_seconds, now);
            let removed = changes(&self.down, policy.period_seconds, now);
            let start = current.saturating_sub(added).saturating_add(removed);
            let percent = policy.type_ == "Percent";
            match direction {
                // Upwards it is rounded up, as otherwise a small size would never grow.
                Direction::Up if percent => part(start, policy.value).ceil() as i32,
                Direction::Down if percent => part(start, -policy.value) as i32,
                Direction::Up => start.saturating_add(policy.value),
                Direction::Down => start.saturating_sub(policy.value),
            }
        });
        let least_change = select == Some("Min");
        match (direction, least_change) {
            (Direction::Up, false) | (Direction::Down, true) => proposals.max().unwrap_or(i32::MIN),
            (Direction::Up, true) | (Direction::Down, false) => proposals.min().unwrap_or(i32::MAX),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Direction {
    Up,
    Down,
}

/// The number and so many percent of it, in the arithmetic that upstream does it in.
fn part(number: i32, percent: i32) -> f64 {
    f64::from(number) * (1.0 + f64::from(percent) / 100.0)
}

/// Without rules, a size at most doubles at once; but four are always allowed.
fn limit(sizes: Sizes) -> (i32, Why) {
    let rate = sizes.current.saturating_mul(2).max(4);
    let (most, why) = if sizes.max > rate {
        (rate, UP_LIMIT)
    } else {
        (sizes.max, TOO_MANY)
    };
    if sizes.desired < sizes.min {
        (sizes.min, TOO_FEW)
    } else if sizes.desired > most {
        (most, why)
    } else {
        (sizes.desired, WITHIN)
    }
}

#[cfg(test)]
#[path = "limits_tests.rs"]
mod tests;
