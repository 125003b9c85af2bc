//! Looks at Jobs, step by step.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::{
    batch::v1::{Job, JobStatus},
    core::v1::Pod,
};
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::{
    backoff::Record,
    pod,
    sync::{Scale, Sync, Turn},
    track,
};

pub(super) const LONG_AGO: &str = "2026-01-01T00:00:00Z";

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().expect("a time")
}

fn parsed<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object")
}

/// A Job with this in its spec and its status.
pub(super) fn job(spec: &Value, status: &Value) -> Job {
    let mut whole = json!({
        "parallelism": 2,
        "backoffLimit": 6,
        "selector": { "matchLabels": { "job": "j" } },
        "template": { "spec": { "containers": [{ "name": "c" }], "restartPolicy": "Never" } },
    });
    for (key, value) in spec.as_object().into_iter().flatten() {
        whole[key] = value.clone();
    }
    parsed(json!({
        "metadata": { "name": "j", "namespace": "ns", "uid": "j" },
        "spec": whole,
        "status": status,
    }))
}

/// A pod that the Job counts, in this phase; its name is its uid.
pub(super) fn pod(name: &str, phase: &str, extra: &Value) -> Arc<Pod> {
    let mut pod: Pod = parsed(json!({
        "metadata": { "name": name, "namespace": "ns", "uid": name,
            "finalizers": [pod::FINALIZER], "creationTimestamp": LONG_AGO },
        "status": { "phase": phase },
    }));
    for (key, value) in extra.as_object().into_iter().flatten() {
        match key.as_str() {
            "index" => {
                let key = "batch.kubernetes.io/job-completion-index".to_owned();
                pod.annotations_mut().insert(key, value.to_string());
            }
            "failures" => {
                let key = "batch.kubernetes.io/job-index-failure-count".to_owned();
                pod.annotations_mut().insert(key, value.to_string());
            }
            "deleted" => pod.metadata.deletion_timestamp = Some(parsed(value.clone())),
            "ended" => {
                let status = json!([{ "name": "c", "image": "", "imageID": "", "ready": false,
                    "restartCount": 0,
                    "state": { "terminated": { "exitCode": 1, "finishedAt": value } } }]);
                let containers = Some(parsed(status));
                pod.status.get_or_insert_default().container_statuses = containers;
            }
            other => panic!("no such thing: {other}"),
        }
    }
    Arc::new(pod)
}

pub(super) fn plain(name: &str, phase: &str) -> Arc<Pod> {
    pod(name, phase, &json!({}))
}

pub(super) fn indexed(name: &str, phase: &str, index: i32) -> Arc<Pod> {
    pod(name, phase, &json!({ "index": index }))
}

/// What one look finds.
pub(super) fn look<T>(job: &Job, pods: &[Arc<Pod>], ask: impl FnOnce(&mut Sync<'_>) -> T) -> T {
    let spec = job.spec.as_ref().expect("a spec");
    ask(&mut Sync::new(job, spec, pods, Record::default(), now()))
}

pub(super) fn scale(job: &Job, pods: &[Arc<Pod>]) -> Scale {
    look(job, pods, |sync| sync.scale())
}

fn reason(job: &Job, pods: &[Arc<Pod>]) -> Option<String> {
    look(job, pods, |sync| sync.finish.as_ref()?.reason.clone())
}

/// The status to write, and the names of the pods that are let go of then.
fn counted(job: &Job, pods: &[Arc<Pod>]) -> (JobStatus, Vec<String>) {
    look(job, pods, |sync| {
        let tracked = sync.track();
        let names = tracked.remove.iter().map(|pod| pod.name_any()).collect();
        (sync.status.clone(), names)
    })
}

pub(super) fn uncounted(status: &JobStatus) -> Value {
    serde_json::to_value(&status.uncounted_terminated_pods).expect("JSON")
}

fn names(scale: &Scale) -> Vec<String> {
    match scale {
        Scale::Delete(pods) => pods.iter().map(|pod| pod.name_any()).collect(),
        other => panic!("not a deletion: {other:?}"),
    }
}

#[test]
fn as_many_pods_run_as_are_wanted() {
    let create = |count: usize| Scale::Create(vec![None; count]);
    let of = |completions: Option<i32>, pods: &[Arc<Pod>]| {
        let spec = json!({ "completions": completions, "parallelism": 3 });
        scale(&job(&spec, &json!({})), pods)
    };
    let (running, done) = (plain("r", "Running"), plain("s", "Succeeded"));
    assert_eq!(of(Some(5), &[]), create(3));
    assert_eq!(of(Some(2), &[]), create(2));
    assert_eq!(of(Some(2), &[running.clone(), done.clone()]), Scale::Keep);
    assert_eq!(of(Some(3), &[running.clone(), done.clone()]), create(1));
    assert_eq!(of(None, std::slice::from_ref(&running)), create(2));
    // A work queue that one pod has found empty gets no more pods.
    assert_eq!(of(None, &[running, done]), Scale::Keep);
}

#[test]
fn pods_that_are_too_much_go_the_least_advanced_first() {
    let shrunk = job(&json!({ "parallelism": 1, "completions": 5 }), &json!({}));
    let pods = [plain("r", "Running"), plain("p", "Pending")];
    assert_eq!(names(&scale(&shrunk, &pods)), ["p"]);
    let suspended = job(&json!({ "suspend": true, "completions": 5 }), &json!({}));
    assert_eq!(names(&scale(&suspended, &pods)), ["p", "r"]);
    assert_eq!(scale(&suspended, &[]), Scale::Keep);
}

#[test]
fn a_failed_pod_is_replaced_after_a_while() {
    let job = job(&json!({ "completions": 1 }), &json!({}));
    let late = pod("f", "Failed", &json!({ "ended": "2026-01-01T00:59:56Z" }));
    assert_eq!(scale(&job, &[late]), Scale::Wait(Duration::from_secs(6)));
    let early = pod("f", "Failed", &json!({ "ended": LONG_AGO }));
    assert_eq!(scale(&job, &[early]), Scale::Create(vec![None]));
}

#[test]
fn a_deleted_pod_is_replaced_at_once_or_when_it_has_failed() {
    let going = pod("d", "Running", &json!({ "deleted": LONG_AGO }));
    let of = |policy: &str| {
        let spec = json!({ "completions": 1, "podReplacementPolicy": policy });
        scale(&job(&spec, &json!({})), std::slice::from_ref(&going))
    };
    assert_eq!(of("TerminatingOrFailed"), Scale::Create(vec![None]));
    assert_eq!(of("Failed"), Scale::Keep);
}

#[test]
fn each_index_gets_a_pod_until_it_succeeds() {
    let spec = json!({ "completionMode": "Indexed", "completions": 4, "parallelism": 3 });
    let job = job(&spec, &json!({ "completedIndexes": "0" }));
    let pods = [
        indexed("a", "Running", 2),
        indexed("b", "Succeeded", 1),
        indexed("c", "Failed", 3),
    ];
    assert_eq!(scale(&job, &pods), Scale::Create(vec![Some(3)]));
    let twice = [indexed("x", "Running", 2), indexed("y", "Pending", 2)];
    assert_eq!(names(&scale(&job, &twice)), ["y"]);
    let beyond = [indexed("z", "Running", 7)];
    assert_eq!(names(&scale(&job, &beyond)), ["z"]);
}

#[test]
fn a_job_fails_for_these_reasons() {
    let failed = |count: usize| -> Vec<Arc<Pod>> {
        let name = |number| plain(&format!("f{number}"), "Failed");
        (0..count).map(name).collect()
    };
    let limited = job(&json!({ "completions": 9, "backoffLimit": 2 }), &json!({}));
    assert_eq!(reason(&limited, &failed(2)), None);
    assert_eq!(
        reason(&limited, &failed(3)).as_deref(),
        Some("BackoffLimitExceeded")
    );
    let counted = json!({ "failed": 2, "uncountedTerminatedPods": { "failed": ["f0"] } });
    let limited = job(&json!({ "completions": 9, "backoffLimit": 3 }), &counted);
    assert_eq!(reason(&limited, &failed(1)), None);
    assert_eq!(
        reason(&limited, &failed(2)).as_deref(),
        Some("BackoffLimitExceeded")
    );

    let started = json!({ "startTime": "2026-01-01T00:58:00Z" });
    let deadline = |seconds: i32| job(&json!({ "activeDeadlineSeconds": seconds }), &started);
    assert_eq!(
        reason(&deadline(120), &[]).as_deref(),
        Some("DeadlineExceeded")
    );
    assert_eq!(reason(&deadline(130), &[]), None);
    let left = look(&deadline(130), &[], |sync| sync.deadline());
    assert_eq!(left, Some(Duration::from_secs(10)));

    let policy = json!({ "podFailurePolicy": { "rules": [
        { "action": "Ignore", "onExitCodes": { "operator": "In", "values": [7] } },
        { "action": "FailJob", "onExitCodes": { "operator": "In", "values": [1] } }] } });
    let ended = [pod("f", "Failed", &json!({ "ended": LONG_AGO }))];
    let found = reason(&job(&policy, &json!({})), &ended);
    assert_eq!(found.as_deref(), Some("PodFailurePolicy"));

    let announced = json!({ "conditions": [{ "type": "FailureTarget", "status": "True",
        "reason": "Why", "message": "so" }] });
    look(&job(&json!({}), &announced), &[], |sync| {
        let finish = sync.finish.as_ref().expect("an end");
        assert_eq!(finish.type_, "Failed");
        assert_eq!(finish.reason.as_deref(), Some("Why"));
    });
}

#[test]
fn restarts_in_place_count_towards_the_limit() {
    let restarted = |count: i32| -> Arc<Pod> {
        Arc::new(parsed(json!({
            "metadata": { "name": "p", "uid": "p", "finalizers": [pod::FINALIZER] },
            "status": { "phase": "Running", "containerStatuses": [{ "name": "c", "image": "",
                "imageID": "", "ready": false, "restartCount": count }] },
        })))
    };
    let of = |limit: i32, count: i32| {
        let mut spec = json!({ "backoffLimit": limit });
        spec["template"] = json!({ "spec": { "containers": [], "restartPolicy": "OnFailure" } });
        reason(&job(&spec, &json!({})), &[restarted(count)]).is_some()
    };
    assert_eq!(
        [of(2, 1), of(2, 2), of(0, 0), of(0, 1)],
        [false, true, false, true]
    );
}

fn by_index(extra: &Value, status: &Value) -> Job {
    let mut spec = json!({ "completionMode": "Indexed", "completions": 3, "parallelism": 3,
        "backoffLimitPerIndex": 1, "backoffLimit": i32::MAX });
    for (key, value) in extra.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    job(&spec, status)
}

#[test]
fn indexes_fail_by_themselves() {
    let fails = |failures: i32, index: i32| {
        let name = format!("f{index}");
        let extra = json!({ "index": index, "failures": failures, "ended": LONG_AGO });
        pod(&name, "Failed", &extra)
    };
    let job = by_index(&json!({}), &json!({}));
    // The first failure of an index stays until its replacement is there.
    let first = [
        fails(0, 0),
        indexed("a", "Running", 1),
        indexed("b", "Running", 2),
    ];
    assert_eq!(scale(&job, &first), Scale::Create(vec![Some(0)]));
    let next = look(&job, &first, |sync| sync.failures(0));
    assert_eq!(
        next,
        Some(pod::Failures {
            counted: 1,
            ignored: 0
        })
    );
    assert_eq!(counted(&job, &first).1, [""; 0]);
    let replaced = [fails(0, 0), indexed("r", "Running", 0)];
    assert_eq!(counted(&job, &replaced).1, ["f0"]);

    let second = [
        fails(1, 0),
        indexed("a", "Running", 1),
        indexed("b", "Running", 2),
    ];
    assert_eq!(scale(&job, &second), Scale::Keep);
    let (status, gone) = counted(&job, &second);
    assert_eq!(status.failed_indexes.as_deref(), Some("0"));
    assert_eq!(gone, ["f0"]);

    let over = [
        fails(1, 0),
        indexed("a", "Succeeded", 1),
        indexed("b", "Succeeded", 2),
    ];
    assert_eq!(reason(&job, &over).as_deref(), Some("FailedIndexes"));
    let few = by_index(
        &json!({ "maxFailedIndexes": 1 }),
        &json!({ "failedIndexes": "1" }),
    );
    let found = reason(&few, &second);
    assert_eq!(found.as_deref(), Some("MaxFailedIndexesExceeded"));
}

#[test]
fn the_success_policy_ends_a_job_early() {
    let spec = json!({ "completionMode": "Indexed", "completions": 3,
        "successPolicy": { "rules": [{ "succeededIndexes": "1" }] } });
    let job = job(&spec, &json!({}));
    let pods = [indexed("a", "Running", 0), indexed("b", "Succeeded", 1)];
    let (status, gone) = counted(&job, &pods);
    let conditions = status.conditions.expect("a condition");
    assert_eq!(conditions[0].type_, "SuccessCriteriaMet");
    assert_eq!(
        conditions[0].message.as_deref(),
        Some("Matched rules at index 0")
    );
    assert_eq!(gone, ["a", "b"]);
    // A pod that is stopped for success has not failed.
    assert_eq!(status.failed, None);
    assert_eq!(
        uncounted(&JobStatus {
            conditions: None,
            ..status
        }),
        json!({})
    );
}

#[test]
fn ended_pods_are_counted_once() {
    let spec = json!({ "completions": 3 });
    let pods = [
        plain("s", "Succeeded"),
        plain("f", "Failed"),
        plain("r", "Running"),
    ];
    let (status, gone) = counted(&job(&spec, &json!({})), &pods);
    assert_eq!(
        uncounted(&status),
        json!({ "succeeded": ["s"], "failed": ["f"] })
    );
    assert_eq!((status.succeeded, status.failed), (None, None));
    assert_eq!(gone, ["s", "f"]);

    // Ended before the finalizers were taken off: they are not counted again.
    let again = job(&spec, &serde_json::to_value(&status).expect("JSON"));
    let (same, gone) = counted(&again, &pods);
    assert_eq!(uncounted(&same), uncounted(&status));
    assert_eq!(gone, ["s", "f"]);

    // Ended after that: the uids become numbers.
    let released: Vec<_> = pods
        .iter()
        .map(|pod| {
            let mut pod = (**pod).clone();
            pod.metadata.finalizers = None;
            Arc::new(pod)
        })
        .collect();
    let (status, gone) = counted(&again, &released);
    assert_eq!((status.succeeded, status.failed), (Some(1), Some(1)));
    assert_eq!(uncounted(&status), json!({}));
    assert_eq!(gone, [""; 0]);
}

#[test]
fn a_job_completes_when_all_is_counted() {
    let job = job(&json!({ "completions": 1 }), &json!({}));
    let pods = [plain("s", "Succeeded")];
    look(&job, &pods, |sync| {
        assert_eq!(sync.conclude(true), None);
        let mut tracked = sync.track();
        let mut status = sync.status.clone();
        let finish = sync.finish.clone().expect("an end");
        assert_eq!(finish.type_, "Complete");
        assert!(!track::end(&mut status, &finish, 0));
        tracked.held.clear();
        track::count_released(&mut status, &tracked.held);
        assert!(!track::end(&mut status, &finish, 1));
        assert!(track::end(&mut status, &finish, 0));
        assert_eq!(status.succeeded, Some(1));
        assert!(status.completion_time.is_some());
        let types: Vec<_> = status
            .conditions
            .iter()
            .flatten()
            .map(|one| &one.type_)
            .collect();
        assert_eq!(types, ["SuccessCriteriaMet", "Complete"]);
    });
}

#[test]
fn indexes_are_written_when_their_pods_are_counted() {
    let spec = json!({ "completionMode": "Indexed", "completions": 4 });
    let pods = [
        indexed("c", "Succeeded", 3),
        indexed("a", "Succeeded", 0),
        indexed("b", "Failed", 2),
    ];
    let job = job(&spec, &json!({ "completedIndexes": "1", "succeeded": 1 }));
    let (status, _) = counted(&job, &pods);
    assert_eq!(status.completed_indexes.as_deref(), Some("0,1,3"));
    assert_eq!(status.succeeded, Some(3));
    assert_eq!(uncounted(&status), json!({ "failed": ["b"] }));
}

#[test]
fn jobs_are_suspended_and_resumed() {
    let spec = |suspend: bool| json!({ "completions": 1, "suspend": suspend });
    let mut suspended = job(&spec(true), &json!({}));
    let status = look(&suspended, &[], |sync| {
        assert_eq!(sync.conclude(true), Some(Turn::Suspended));
        sync.status.clone()
    });
    assert_eq!(status.start_time, None);
    suspended.status = Some(status.clone());
    assert_eq!(look(&suspended, &[], |sync| sync.conclude(true)), None);

    let mut resumed = job(&spec(false), &json!({}));
    assert_eq!(look(&resumed, &[], |sync| sync.conclude(true)), None);
    resumed.status = Some(status);
    look(&resumed, &[], |sync| {
        assert_eq!(sync.conclude(true), Some(Turn::Resumed));
        assert!(sync.status.start_time.is_some());
    });
}

#[test]
fn active_pods_of_a_job_that_fails_count_as_failed() {
    let announced = json!({ "conditions": [{ "type": "FailureTarget", "status": "True",
        "reason": "DeadlineExceeded", "message": "late" }] });
    let job = job(&json!({ "completions": 2 }), &announced);
    let (status, gone) = counted(&job, &[plain("r", "Running")]);
    assert_eq!(uncounted(&status), json!({ "failed": ["r"] }));
    assert_eq!(gone, ["r"]);
}
