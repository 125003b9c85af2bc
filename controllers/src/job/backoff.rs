//! How long a Job waits before it replaces pods that failed: ten seconds after the first failure in
//! a row, and twice as long after each further one, up to ten minutes.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt as _;

use crate::pods;

const FIRST: Duration = Duration::from_secs(10);
const MAX: Duration = Duration::from_secs(600);

/// The failures since the last success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    failures: u32,
    last: Option<Timestamp>,
}

impl Record {
    /// With pods that have ended since.
    pub fn after(mut self, succeeded: &[&Arc<Pod>], failed: &[&Arc<Pod>]) -> Self {
        let success = succeeded.iter().map(|pod| finished(pod)).max();
        if success.is_some() {
            self = Record::default();
        }
        for at in failed.iter().map(|pod| finished(pod)) {
            if success.is_none_or(|success| at > success) {
                self.failures += 1;
                self.last = self.last.max(Some(at));
            }
        }
        self
    }

    /// How long there is still to wait.
    pub fn remaining(&self, now: Timestamp) -> Duration {
        self.last
            .map_or(Duration::ZERO, |last| remaining(self.failures, last, now))
    }
}

/// How long there is still to wait, after so many failures in a row.
pub(super) fn remaining(failures: u32, last: Timestamp, now: Timestamp) -> Duration {
    let Some(doublings) = failures.checked_sub(1) else {
        return Duration::ZERO;
    };
    let delay = FIRST
        .saturating_mul(2_u32.saturating_pow(doublings))
        .min(MAX);
    let passed = Duration::try_from(now.duration_since(last)).unwrap_or_default();
    delay.saturating_sub(passed)
}

/// When the pod ended, as well as that can be told.
pub(super) fn finished(pod: &Pod) -> Timestamp {
    let ready = pods::condition(pod, "Ready").filter(|ready| ready.status == "False");
    let unready = ready.and_then(|ready| ready.last_transition_time.as_ref());
    let deleted = pod.metadata.deletion_timestamp.as_ref().and_then(|at| {
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
        at.0.checked_sub(SignedDuration::from_secs(grace)).ok()
    });
    containers_finished(pod)
        .or(unready.map(|time| time.0))
        .or(deleted)
        .or(pod.creation_timestamp().map(|time| time.0))
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

/// When the last of the containers ended; `None` while some has not.
fn containers_finished(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    let init = pod.spec.iter().flat_map(|spec| &spec.init_containers);
    let is_sidecar = |status: &&ContainerStatus| {
        init.clone().flatten().any(|container| {
            container.name == status.name && container.restart_policy.as_deref() == Some("Always")
        })
    };
    let sidecars = status.init_container_statuses.iter().flatten();
    let containers = status.container_statuses.iter().flatten();
    let mut last = None;
    for status in containers.chain(sidecars.filter(is_sidecar)) {
        let ended = status.state.as_ref()?.terminated.as_ref()?;
        last = last.max(Some(ended.finished_at.as_ref()?.0));
    }
    last
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(second: i64) -> Arc<Pod> {
        let at = Timestamp::from_second(second).expect("a time").to_string();
        Arc::new(
            serde_json::from_value(json!({
                "metadata": { "name": "p" },
                "status": { "containerStatuses": [{ "name": "c", "image": "", "imageID": "",
                    "ready": false, "restartCount": 0,
                    "state": { "terminated": { "exitCode": 1, "finishedAt": at } } }] },
            }))
            .expect("a pod"),
        )
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn each_failure_in_a_row_doubles_the_delay() {
        let mut record = Record::default();
        assert_eq!(record.remaining(at(100)), Duration::ZERO);
        record = record.after(&[], &[&pod(100)]);
        assert_eq!(record.remaining(at(100)), Duration::from_secs(10));
        assert_eq!(record.remaining(at(107)), Duration::from_secs(3));
        assert_eq!(record.remaining(at(111)), Duration::ZERO);
        record = record.after(&[], &[&pod(110), &pod(112)]);
        assert_eq!(record.remaining(at(112)), Duration::from_secs(40));
        for _ in 0..20 {
            record = record.after(&[], &[&pod(112)]);
        }
        assert_eq!(record.remaining(at(112)), MAX);
        assert_eq!(record.after(&[&pod(120)], &[]), Record::default());
        let after = record.after(&[&pod(120)], &[&pod(119), &pod(121)]);
        assert_eq!(after.remaining(at(121)), Duration::from_secs(10));
    }

    #[test]
    fn the_end_is_read_from_what_there_is() {
        let finish = |value| finished(&serde_json::from_value(value).expect("a pod"));
        assert_eq!(finished(&pod(7)), at(7));
        let created = json!({ "metadata": { "creationTimestamp": "1970-01-01T00:00:05Z" } });
        assert_eq!(finish(created), at(5));
        let deleted = json!({ "metadata": { "deletionTimestamp": "1970-01-01T00:01:00Z",
            "deletionGracePeriodSeconds": 30 } });
        assert_eq!(finish(deleted), at(30));
        let unready = json!({ "metadata": {}, "status": { "conditions": [{ "type": "Ready",
            "status": "False", "lastTransitionTime": "1970-01-01T00:00:09Z" }] } });
        assert_eq!(finish(unready), at(9));
    }
}
