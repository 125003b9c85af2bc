//! How Jobs end, and what becomes of their pods: case by case as upstream documents it in
//! `pkg/controller/job/job_controller_test.go`.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::{
    Controller,
    pod::FINALIZER,
    sync::Scale,
    tests::{LONG_AGO, indexed, job, look, plain, pod, scale, uncounted},
};
use crate::{Config, Context, fakes::FakeApi, work::Key};

/// A Job, its pods, and what one look makes of them.
struct Case {
    name: &'static str,
    spec: Value,
    status: Value,
    pods: Vec<Arc<Pod>>,
    /// `type reason` of each condition that the status gets, with `type=False` for one that does
    /// not hold.
    conditions: &'static [&'static str],
    /// Pods that are to be counted.
    uncounted: Value,
    /// Pods that are let go of.
    gone: &'static [&'static str],
}

impl Case {
    fn check(&self) {
        let job = job(&self.spec, &self.status);
        look(&job, &self.pods, |sync| {
            if sync.finish.is_none() {
                sync.conclude(true);
            }
            let tracked = sync.track();
            let names: Vec<_> = tracked.remove.iter().map(|pod| pod.name_any()).collect();
            assert_eq!(names, self.gone, "{}", self.name);
            assert_eq!(uncounted(&sync.status), self.uncounted, "{}", self.name);
            let conditions = sync.status.conditions.iter().flatten();
            let conditions: Vec<_> = conditions
                .map(|one| {
                    let reason = one.reason.as_deref().unwrap_or_default();
                    let not = if one.status == "True" { "" } else { "=False" };
                    format!("{}{not} {reason}", one.type_)
                })
                .collect();
            assert_eq!(conditions, self.conditions, "{}", self.name);
        });
    }
}

fn failed(name: &str, extra: &Value) -> Arc<Pod> {
    let mut whole = json!({ "ended": LONG_AGO });
    for (key, value) in extra.as_object().into_iter().flatten() {
        whole[key] = value.clone();
    }
    pod(name, "Failed", &whole)
}

fn going(name: &str) -> Arc<Pod> {
    pod(name, "Running", &json!({ "deleted": LONG_AGO }))
}

fn on_exit(action: &str) -> Value {
    json!({ "rules": [{ "action": action,
        "onExitCodes": { "operator": "In", "values": [1] } }] })
}

fn held(type_: &str, status: &str) -> Value {
    json!({ "conditions": [{ "type": type_, "status": status, "reason": "Before",
        "message": "before" }] })
}

#[test]
fn failures_come_before_success_unless_success_was_first() {
    let success = json!({ "rules": [{ "succeededIndexes": "0,1", "succeededCount": 1 }] });
    let with = |extra: Value| {
        let mut spec = json!({ "completionMode": "Indexed", "completions": 2,
            "successPolicy": success });
        for (key, value) in extra.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        spec
    };
    let pods = || {
        vec![
            indexed("a", "Succeeded", 0),
            failed("b", &json!({ "index": 1 })),
        ]
    };
    let met = held("SuccessCriteriaMet", "True");
    let case = |name, spec, conditions| Case {
        name,
        spec,
        status: json!({}),
        pods: pods(),
        conditions,
        uncounted: json!({ "failed": ["b"] }),
        gone: &["a", "b"],
    };
    for case in [
        case(
            "success alone",
            with(json!({})),
            &["SuccessCriteriaMet SuccessPolicy"],
        ),
        case(
            "a pod that fails the Job",
            with(json!({ "podFailurePolicy": on_exit("FailJob") })),
            &["FailureTarget PodFailurePolicy"],
        ),
        case(
            "the backoff limit",
            with(json!({ "backoffLimit": 0 })),
            &["FailureTarget BackoffLimitExceeded"],
        ),
        case(
            "failed indexes",
            with(json!({ "backoffLimitPerIndex": 0 })),
            &["FailureTarget FailedIndexes"],
        ),
        Case {
            status: met.clone(),
            ..case(
                "success was before a pod that fails the Job",
                with(json!({ "podFailurePolicy": on_exit("FailJob") })),
                &["SuccessCriteriaMet Before"],
            )
        },
        Case {
            status: met,
            ..case(
                "success was before the backoff limit",
                with(json!({ "backoffLimit": 0 })),
                &["SuccessCriteriaMet Before"],
            )
        },
        Case {
            status: held("FailureTarget", "True"),
            ..case(
                "failure was before success",
                with(json!({})),
                &["FailureTarget Before"],
            )
        },
        Case {
            status: held("FailureTarget", "False"),
            ..case(
                "a failure that does not hold",
                with(json!({})),
                &[
                    "FailureTarget=False Before",
                    "SuccessCriteriaMet SuccessPolicy",
                ],
            )
        },
    ] {
        case.check();
    }
}

#[test]
fn every_action_of_a_pod_failure_policy() {
    let by_index = |action: &str| {
        json!({ "completionMode": "Indexed", "completions": 2,
        "backoffLimitPerIndex": 1, "backoffLimit": i32::MAX, "podFailurePolicy": on_exit(action) })
    };
    let plainly = |action: &str| json!({ "completions": 2, "podFailurePolicy": on_exit(action) });
    let pods = || {
        vec![
            failed("f", &json!({ "index": 0 })),
            indexed("r", "Running", 1),
        ]
    };
    let case = |name, spec| Case {
        name,
        spec,
        status: json!({}),
        pods: pods(),
        conditions: &[],
        uncounted: json!({ "failed": ["f"] }),
        gone: &["f"],
    };
    for case in [
        case("count", plainly("Count")),
        Case {
            uncounted: json!({}),
            ..case("ignore", plainly("Ignore"))
        },
        // It stays until the pod that replaces it knows of it.
        Case {
            uncounted: json!({}),
            gone: &[],
            ..case("count by index", by_index("Count"))
        },
        Case {
            uncounted: json!({}),
            gone: &[],
            ..case("ignore by index", by_index("Ignore"))
        },
        case("fail the index", by_index("FailIndex")),
        Case {
            conditions: &["FailureTarget PodFailurePolicy"],
            uncounted: json!({ "failed": ["f", "r"] }),
            gone: &["f", "r"],
            ..case("fail the Job", by_index("FailJob"))
        },
    ] {
        case.check();
    }
    // What is ignored is made again after a while too, and is remembered.
    let ignoring = job(&by_index("Ignore"), &json!({}));
    let now = json!({ "index": 0, "ended": "2026-01-01T00:59:55Z" });
    let pods = [pod("f", "Failed", &now), indexed("r", "Running", 1)];
    assert_eq!(scale(&ignoring, &pods), Scale::Wait(Duration::from_secs(5)));
    let failures = look(&ignoring, &pods, |sync| sync.failures(0)).expect("counted by index");
    assert_eq!((failures.counted, failures.ignored), (0, 1));
}

#[test]
fn a_pod_that_is_being_deleted_has_failed_only_where_it_is_replaced_at_once() {
    let case = |name, spec: Value| Case {
        name,
        spec,
        status: json!({}),
        pods: vec![going("d"), plain("s", "Succeeded")],
        conditions: &[],
        uncounted: json!({ "succeeded": ["s"], "failed": ["d"] }),
        gone: &["d", "s"],
    };
    let waits = |case| Case {
        uncounted: json!({ "succeeded": ["s"] }),
        gone: &["s"],
        ..case
    };
    case("by default", json!({ "completions": 3 })).check();
    let policy = json!({ "completions": 3, "podReplacementPolicy": "Failed" });
    waits(case("when failed", policy)).check();
    let policy = json!({ "completions": 3, "podFailurePolicy": on_exit("Ignore") });
    waits(case("with a failure policy", policy)).check();
    // As many that go as may run: nothing new.
    let spec = json!({ "completions": 5, "parallelism": 2, "podReplacementPolicy": "Failed" });
    let three = [going("a"), going("b"), going("c")];
    assert_eq!(scale(&job(&spec, &json!({})), &three), Scale::Keep);
    // The Job ends only when they are gone.
    let done = job(&json!({ "completions": 1 }), &json!({}));
    look(&done, &[plain("s", "Succeeded"), going("d")], |sync| {
        sync.conclude(true);
        assert_eq!(sync.terminating, 1);
    });
}

#[test]
fn indexes_beyond_the_completions_and_pods_without_one_do_not_count() {
    let spec = json!({ "completionMode": "Indexed", "completions": 3, "parallelism": 3 });
    // The completions were five before.
    let job = job(&spec, &json!({ "completedIndexes": "1,4", "succeeded": 2 }));
    let pods = [
        indexed("a", "Succeeded", 0),
        indexed("x", "Succeeded", 3),
        indexed("y", "Failed", 4),
        plain("n", "Failed"),
        plain("m", "Succeeded"),
    ];
    look(&job, &pods, |sync| {
        assert_eq!(sync.scale(), Scale::Create(vec![Some(2)]));
        let tracked = sync.track();
        assert_eq!(tracked.remove.len(), 5);
        assert_eq!(sync.status.completed_indexes.as_deref(), Some("0,1"));
        assert_eq!(sync.status.succeeded, Some(2));
        assert_eq!(uncounted(&sync.status), json!({}));
    });
    // Of running ones, those go first.
    let running = [
        indexed("a", "Running", 0),
        indexed("b", "Pending", 0),
        plain("n", "Running"),
        indexed("x", "Running", 3),
    ];
    let Scale::Delete(surplus) = scale(&job, &running) else {
        panic!("not a deletion");
    };
    let mut names: Vec<_> = surplus.iter().map(|pod| pod.name_any()).collect();
    names.sort();
    assert_eq!(names, ["b", "n", "x"]);
}

#[test]
fn no_more_pods_are_counted_at_once_than_the_status_holds() {
    let name = |number| plain(&format!("p{number}"), "Succeeded");
    let pods: Vec<_> = (0..600).map(name).collect();
    look(
        &job(&json!({ "completions": 900 }), &json!({})),
        &pods,
        |sync| {
            let tracked = sync.track();
            assert_eq!((tracked.remove.len(), tracked.full), (500, true));
        },
    );
}

#[test]
fn a_pod_that_was_counted_as_failed_does_not_succeed_too() {
    let status = json!({ "uncountedTerminatedPods": { "failed": ["p"] } });
    Case {
        name: "it flips",
        spec: json!({ "completions": 1 }),
        status,
        pods: vec![plain("p", "Succeeded")],
        conditions: &["SuccessCriteriaMet CompletionsReached"],
        uncounted: json!({ "failed": ["p"] }),
        gone: &["p"],
    }
    .check();
}

/// A Job that somebody else manages is not touched, and neither are its pods.
#[tokio::test]
async fn jobs_of_other_managers_are_left_alone() {
    for (manager, touched) in [
        (Value::Null, true),
        (json!("kubernetes.io/job-controller"), true),
        (json!("example.com/mine"), false),
    ] {
        let api = FakeApi::new();
        let mut managed = serde_json::to_value(job(
            &json!({ "managedBy": manager,
            "completions": 1, "parallelism": 1 }),
            &json!({}),
        ))
        .expect("json");
        managed["metadata"]["resourceVersion"] = json!("3");
        let owner = json!([{ "apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "j",
            "controller": true }]);
        let ended = json!({ "metadata": { "name": "p", "namespace": "ns", "uid": "p",
                "resourceVersion": "4", "finalizers": [FINALIZER], "ownerReferences": owner,
                "labels": { "job": "j" } },
            "status": { "phase": "Succeeded" } });
        let list = |items: &Value| {
            json!({ "metadata": { "resourceVersion": "5" },
            "items": [items] })
        };
        api.answer("GET /apis/batch/v1/jobs", 200, list(&managed));
        api.answer("GET /api/v1/pods", 200, list(&ended));
        let client = api.client();
        let informers = coracle_client::Informers::new(client.clone());
        let controller = Controller::new(&Context::new(client, informers, Config::default()));
        controller.jobs.cache.synced().await;
        controller.pods.cache.synced().await;
        // What is written is refused, which does not matter here.
        let _ = controller.sync(Key::new("ns", "j")).await;
        let _ = controller.release_orphan(Key::new("ns", "p")).await;
        let writes = api.all().into_iter().filter(|asked| asked.method != "GET");
        assert_eq!(writes.count() > 0, touched, "{manager}");
    }
}
