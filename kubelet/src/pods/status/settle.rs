//! When a container that reads its standard input is first shown as running.
//!
//! Clients such as `kubectl run -i` attach as soon as the status says running, and see nothing of
//! what was written before; of a container that has ended they print the log. The runtime tells
//! of a start at once, so that without a pause they would meet short commands halfway: too late
//! for the output, too early for the log. Upstream notices starts once a second, which gives such
//! commands the time to end. Here it is given to those containers alone that can be attached to
//! with input.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

use crate::pods::{
    observed::{Activity, Observed, Seen},
    spec::spec,
};

/// From the start of a container until it is shown as running.
const SETTLING: SignedDuration = SignedDuration::from_secs(1);

/// When a container with standard input, as the runtime knows it, is shown as running, if that is
/// after `now`.
pub fn shown_at(seen: &Seen, now: Timestamp) -> Option<Timestamp> {
    if seen.activity != Activity::Running || seen.restart_count != 0 {
        return None;
    }
    let started_at = seen.started_at?;
    // A start in the future is that of a clock which was set back.
    let at = started_at.checked_add(SETTLING).ok()?;
    (started_at <= now && now < at).then_some(at)
}

/// When the status will change next because a container of the pod has run long enough.
pub fn changes_at(pod: &Pod, observed: &Observed, now: Timestamp) -> Option<Timestamp> {
    let spec = spec(pod);
    let regular = spec.containers.iter().map(|it| (&it.name, it.stdin));
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    regular
        .chain(ephemeral.map(|it| (&it.name, it.stdin)))
        .filter(|&(_, stdin)| stdin == Some(true))
        .filter_map(|(name, _)| shown_at(observed.container(name)?, now))
        .min()
}
