//! Jobs that have ended go when their `ttlSecondsAfterFinished` is over.
//!
//! Upstream: `pkg/controller/ttlafterfinished`.

use std::time::Duration;

use coracle_client::Queue;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use kube::api::DeleteParams;
use tokio_util::sync::CancellationToken;

use crate::{
    Context, Error,
    changes::{self, Pace, Seen},
    objects::Objects,
    work::{Done, Key},
};

const NAME: &str = "ttl-after-finished-controller";
const WORKERS: usize = 5;

/// Runs the controller.
pub(crate) async fn run(context: Context, shutdown: CancellationToken) -> Result<(), Error> {
    let jobs: Objects<Job> = context.objects();
    let pace = Pace {
        name: NAME,
        queue: "ttl_jobs_to_delete",
        workers: WORKERS,
    };
    let ended = |queue: &Queue<Key>, seen: Seen<Job>| {
        if let Seen::Applied { new: job, .. } = seen
            && left(&job, Timestamp::now()).is_some()
        {
            queue.add(Key::of(&job.metadata));
        }
    };
    let sync = |key| sync(&jobs, key);
    changes::follow(pace, &jobs.cache, &shutdown, ended, sync).await;
    Ok(())
}

async fn sync(jobs: &Objects<Job>, key: Key) -> Result<Done, Error> {
    let Some(known) = jobs.get(&key.namespace, &key.name) else {
        return Ok(Done::Settled);
    };
    match left(&known, Timestamp::now()) {
        None => return Ok(Done::Settled),
        Some(left) if !left.is_zero() => return Ok(Done::Again(left)),
        Some(_) => {}
    }
    // The time may have been changed since.
    let Some(fresh) = jobs.read(&key.namespace, &key.name).await? else {
        return Ok(Done::Settled);
    };
    if left(&fresh, Timestamp::now()).is_some_and(|left| left.is_zero()) {
        jobs.delete(&fresh, DeleteParams::foreground()).await?;
    }
    Ok(Done::Settled)
}

/// How long the Job may still stay; `None` when it may stay for ever.
fn left(job: &Job, now: Timestamp) -> Option<Duration> {
    if job.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let seconds = job.spec.as_ref()?.ttl_seconds_after_finished?;
    let conditions = job.status.as_ref()?.conditions.iter().flatten();
    let mut ends = conditions.filter(|condition| {
        matches!(condition.type_.as_str(), "Complete" | "Failed") && condition.status == "True"
    });
    let end = ends.next()?.last_transition_time.as_ref()?.0;
    let until = end
        .checked_add(SignedDuration::from_secs(i64::from(seconds)))
        .ok()?;
    Some(Duration::try_from(until.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_job_stays_for_its_time_after_its_end() {
        let now = "2026-01-01T00:01:00Z".parse().expect("a time");
        let of = |ttl: Value, end: &str| {
            let job = serde_json::from_value(json!({
                "metadata": { "name": "j" },
                "spec": { "template": {}, "ttlSecondsAfterFinished": ttl },
                "status": { "conditions": [{ "type": end, "status": "True",
                    "lastTransitionTime": "2026-01-01T00:00:30Z" }] },
            }));
            left(&job.expect("a job"), now)
        };
        assert_eq!(of(json!(100), "Complete"), Some(Duration::from_secs(70)));
        assert_eq!(of(json!(30), "Failed"), Some(Duration::ZERO));
        assert_eq!(of(json!(0), "Complete"), Some(Duration::ZERO));
        assert_eq!(of(json!(0), "FailureTarget"), None);
        assert_eq!(of(Value::Null, "Complete"), None);
    }
}
