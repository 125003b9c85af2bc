//! Decisions on stateful sets.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{PersistentVolumeClaim, Pod},
};
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::{
    decide::{Revision, Step, World},
    pod::{self, Claims},
};
use crate::history::Revised as _;

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().expect("a time")
}

fn parsed<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object")
}

/// A set with one claim for each pod; `extra` goes into its spec.
fn set(replicas: i32, extra: &Value) -> StatefulSet {
    let mut spec = json!({
        "replicas": replicas,
        "selector": { "matchLabels": { "app": "db" } },
        "serviceName": "db",
        "template": {
            "metadata": { "labels": { "app": "db" } },
            "spec": { "containers": [{ "name": "c", "image": "new" }],
                "volumes": [{ "name": "data", "emptyDir": {} }, { "name": "x", "emptyDir": {} }] },
        },
        "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": 0 } },
        "volumeClaimTemplates": [{ "metadata": { "name": "data" }, "spec": {} }],
    });
    for (key, value) in extra.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    parsed(json!({
        "metadata": { "name": "db", "namespace": "default", "uid": "s", "generation": 1 },
        "spec": spec,
    }))
}

fn parallel() -> Value {
    json!({ "podManagementPolicy": "Parallel" })
}

fn retention(deleted: &str, scaled: &str) -> Value {
    json!({ "persistentVolumeClaimRetentionPolicy": {
        "whenDeleted": deleted, "whenScaled": scaled } })
}

/// A cluster in which the set runs; states of pods are written as words.
struct Cluster {
    set: StatefulSet,
    pods: Vec<Arc<Pod>>,
    claims: Claims,
}

impl Cluster {
    /// `pods` lists a number, a state and a revision for each.
    fn new(set: StatefulSet, pods: &[(i32, &str, &str)]) -> Self {
        let pods: Vec<_> = pods
            .iter()
            .map(|(ordinal, state, revision)| Arc::new(running(&set, *ordinal, state, revision)))
            .collect();
        let claims = pods
            .iter()
            .filter_map(|pod| pod::ordinal(&set, pod))
            .flat_map(|ordinal| pod::claims(&set, ordinal))
            .map(|claim| (claim.name_any(), Arc::new(claim)))
            .collect();
        Cluster { set, pods, claims }
    }

    fn with<T>(&self, ask: impl FnOnce(&World<'_>) -> T) -> T {
        let template = self.set.template().expect("a template").clone();
        let revision = |name: &str| Revision {
            name: name.to_owned(),
            template: template.clone(),
        };
        ask(&World {
            set: &self.set,
            current: &revision("old"),
            update: &revision("new"),
            pods: &self.pods,
            claims: &self.claims,
            now: now(),
        })
    }

    /// The steps in order, in words.
    fn plan(&self) -> Vec<String> {
        let word = |step: &Step| match step {
            Step::Create(pod) => {
                format!("create {} {}", pod.name_any(), pod::revision(pod))
            }
            Step::Delete(pod) => format!("delete {}", pod.name_any()),
            Step::Claims(pod) => format!("claims {}", pod.name_any()),
            Step::Identify(pod) => format!("identify {}", pod.name_any()),
        };
        let plan = self.with(|world| world.plan());
        plan.iter().flatten().map(word).collect()
    }
}

fn running(set: &StatefulSet, ordinal: i32, state: &str, revision: &str) -> Pod {
    let template = set.template().expect("a template");
    let mut pod = pod::new(set, template, revision, ordinal);
    pod.metadata.uid = Some(format!("pod-{ordinal}"));
    let phase = match state {
        "pending" => "Pending",
        "failed" => "Failed",
        _ => "Running",
    };
    let ready = matches!(state, "ready" | "deleted");
    pod.status = Some(parsed(json!({
        "phase": phase,
        "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" },
            "lastTransitionTime": "2026-01-01T00:59:00Z" }],
    })));
    if state == "deleted" {
        pod.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
    }
    pod
}

fn plan(set: StatefulSet, pods: &[(i32, &str, &str)]) -> Vec<String> {
    Cluster::new(set, pods).plan()
}

const NOTHING: [&str; 0] = [];

#[test]
fn pods_come_one_after_the_other() {
    let of = |pods: &[(i32, &str, &str)]| plan(set(3, &json!({})), pods);
    assert_eq!(of(&[]), ["create db-0 new"]);
    assert_eq!(of(&[(0, "pending", "new")]), NOTHING);
    assert_eq!(of(&[(0, "running", "new")]), NOTHING);
    assert_eq!(of(&[(0, "ready", "new")]), ["create db-1 new"]);
    let gap = [(0, "ready", "new"), (2, "ready", "new")];
    assert_eq!(of(&gap), ["create db-1 new"]);
    let failed = [(0, "failed", "new"), (1, "ready", "new")];
    assert_eq!(of(&failed), ["delete db-0"]);
    assert_eq!(of(&[(0, "deleted", "new"), (1, "ready", "new")]), NOTHING);
}

#[test]
fn parallel_pods_come_and_go_together() {
    let of = |replicas, pods: &[(i32, &str, &str)]| plan(set(replicas, &parallel()), pods);
    assert_eq!(
        of(3, &[(1, "pending", "new")]),
        ["create db-0 new", "create db-2 new"]
    );
    let three = [
        (0, "pending", "new"),
        (1, "ready", "new"),
        (2, "ready", "new"),
    ];
    assert_eq!(of(1, &three), ["delete db-2", "delete db-1"]);
}

#[test]
fn a_ready_pod_counts_when_it_is_available() {
    let waiting = set(2, &json!({ "minReadySeconds": 120 }));
    assert_eq!(plan(waiting, &[(0, "ready", "new")]), NOTHING);
    let done = set(2, &json!({ "minReadySeconds": 60 }));
    assert_eq!(plan(done, &[(0, "ready", "new")]), ["create db-1 new"]);
}

#[test]
fn the_highest_number_goes_first_and_alone() {
    let of = |pods: &[(i32, &str, &str)]| plan(set(1, &json!({})), pods);
    let well = [
        (0, "ready", "new"),
        (1, "ready", "new"),
        (2, "ready", "new"),
    ];
    assert_eq!(of(&well), ["delete db-2"]);
    let going = [
        (0, "ready", "new"),
        (1, "ready", "new"),
        (2, "deleted", "new"),
    ];
    assert_eq!(of(&going), NOTHING);
    // The first one that is not well may go; another has to wait for it.
    let last = [
        (0, "ready", "new"),
        (1, "ready", "new"),
        (2, "running", "new"),
    ];
    assert_eq!(of(&last), ["delete db-2"]);
    let two = [
        (0, "ready", "new"),
        (1, "running", "new"),
        (2, "running", "new"),
    ];
    assert_eq!(of(&two), NOTHING);
    let first = [(0, "running", "new"), (1, "ready", "new")];
    assert_eq!(of(&first), NOTHING);
}

#[test]
fn numbers_start_where_they_are_told_to() {
    let moved = json!({ "ordinals": { "start": 2 } });
    assert_eq!(plan(set(2, &moved), &[]), ["create db-2 new"]);
    let both = [
        (0, "ready", "new"),
        (2, "ready", "new"),
        (3, "ready", "new"),
    ];
    assert_eq!(plan(set(2, &moved), &both), ["delete db-0"]);
}

#[test]
fn updates_go_down_to_the_partition() {
    let of = |extra: &Value, pods: &[(i32, &str, &str)]| plan(set(3, extra), pods);
    let rolling = |rolling: Value| json!({ "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": rolling } });
    let old = [
        (0, "ready", "old"),
        (1, "ready", "old"),
        (2, "ready", "old"),
    ];
    let half = [
        (0, "ready", "old"),
        (1, "ready", "old"),
        (2, "ready", "new"),
    ];
    let waits = [
        (0, "ready", "old"),
        (1, "ready", "old"),
        (2, "running", "new"),
    ];
    assert_eq!(of(&json!({}), &old), ["delete db-2"]);
    assert_eq!(of(&json!({}), &half), ["delete db-1"]);
    assert_eq!(of(&json!({}), &waits), NOTHING);
    assert_eq!(of(&rolling(json!({ "partition": 2 })), &half), NOTHING);
    let two = rolling(json!({ "partition": 0, "maxUnavailable": 2 }));
    assert_eq!(of(&two, &old), ["delete db-2", "delete db-1"]);
    let percent = rolling(json!({ "partition": 1, "maxUnavailable": "70%" }));
    assert_eq!(of(&percent, &half), ["delete db-1"]);
    let on_delete = json!({ "updateStrategy": { "type": "OnDelete" } });
    assert_eq!(of(&on_delete, &old), NOTHING);
    // Below the partition a lost pod comes back as it was.
    let partition = rolling(json!({ "partition": 1 }));
    assert_eq!(of(&partition, &[]), ["create db-0 old"]);
    assert_eq!(of(&partition, &[(0, "ready", "old")]), ["create db-1 new"]);
}

#[test]
fn a_pod_has_its_name_and_its_claim() {
    let set = set(1, &json!({}));
    let pod = pod::new(&set, set.template().expect("a template"), "r", 0);
    let found = serde_json::to_value(&pod).expect("JSON");
    assert_eq!(found["metadata"]["name"], "db-0");
    assert_eq!(
        found["metadata"]["labels"],
        json!({
            "app": "db", "controller-revision-hash": "r", "apps.kubernetes.io/pod-index": "0",
            "statefulset.kubernetes.io/pod-name": "db-0",
        })
    );
    assert_eq!(found["spec"]["hostname"], "db-0");
    assert_eq!(found["spec"]["subdomain"], "db");
    assert_eq!(
        found["spec"]["volumes"],
        json!([
            { "name": "data", "persistentVolumeClaim": { "claimName": "data-db-0" } },
            { "name": "x", "emptyDir": {} },
        ])
    );
    assert!(pod::is_identified(&set, &pod, 0));
    let claims = pod::claims(&set, 0);
    assert_eq!(claims[0].name_any(), "data-db-0");
    assert_eq!(claims[0].labels()["app"], "db");
}

#[test]
fn missing_claims_of_waiting_pods_are_made() {
    let mut cluster = Cluster::new(set(1, &json!({})), &[(0, "pending", "new")]);
    assert_eq!(cluster.plan(), NOTHING);
    cluster.claims.clear();
    assert_eq!(cluster.plan(), ["claims db-0"]);
}

#[test]
fn claims_belong_to_the_set_or_to_a_pod_that_is_too_much() {
    let kinds = |policy: &Value, ordinal: i32, known: Value| -> Option<Vec<String>> {
        let set = set(1, policy);
        let pod = running(&set, ordinal, "ready", "new");
        let mut claim: PersistentVolumeClaim = pod::claims(&set, ordinal).remove(0);
        claim.metadata.owner_references = Some(parsed(known));
        let owners = pod::owners(&claim, &set, &pod, ordinal)?;
        Some(owners.into_iter().map(|owner| owner.kind).collect())
    };
    let by = |kind: &str, uid: &str| {
        let (version, name) = match kind {
            "Pod" => ("v1", "db-1"),
            _ => ("apps/v1", "db"),
        };
        json!([{ "apiVersion": version, "kind": kind, "name": name, "uid": uid,
            "controller": true, "blockOwnerDeletion": true }])
    };
    let some = |kinds: &[&str]| Some(kinds.iter().map(ToString::to_string).collect::<Vec<_>>());
    let (keep, delete) = (retention("Retain", "Retain"), retention("Delete", "Delete"));
    assert_eq!(kinds(&keep, 0, json!([])), None);
    assert_eq!(kinds(&keep, 0, by("StatefulSet", "s")), some(&[]));
    assert_eq!(kinds(&delete, 0, json!([])), some(&["StatefulSet"]));
    assert_eq!(kinds(&delete, 0, by("StatefulSet", "s")), None);
    assert_eq!(kinds(&delete, 1, by("StatefulSet", "s")), some(&["Pod"]));
    assert_eq!(kinds(&delete, 1, by("Pod", "pod-1")), None);
    let scaled = retention("Retain", "Delete");
    assert_eq!(kinds(&scaled, 0, json!([])), None);
    assert_eq!(kinds(&scaled, 1, json!([])), some(&["Pod"]));
    // One of an earlier object of the name is left to the garbage collector.
    assert_eq!(kinds(&delete, 0, by("StatefulSet", "before")), None);
    let other = json!([{ "apiVersion": "v1", "kind": "Thing", "name": "t", "uid": "t",
        "controller": true }]);
    assert_eq!(kinds(&delete, 0, other), None);
}

#[test]
fn a_pod_waits_until_the_claim_of_the_one_before_has_gone() {
    let mut cluster = Cluster::new(set(1, &retention("Retain", "Delete")), &[]);
    let mut claim = pod::claims(&cluster.set, 0).remove(0);
    claim.metadata.owner_references = Some(parsed(json!([
        { "apiVersion": "v1", "kind": "Pod", "name": "db-0", "uid": "before",
            "controller": true },
    ])));
    cluster.claims.insert(claim.name_any(), Arc::new(claim));
    assert_eq!(cluster.plan(), NOTHING);
    cluster.claims.clear();
    assert_eq!(cluster.plan(), ["create db-0 new"]);
}

#[test]
fn the_status_counts_and_completes() {
    let pods = [
        (0, "ready", "old"),
        (1, "running", "new"),
        (2, "deleted", "new"),
    ];
    let mut cluster = Cluster::new(set(3, &json!({})), &pods);
    let status = cluster.with(|world| world.status());
    assert_eq!(
        serde_json::to_value(&status).expect("JSON"),
        json!({
            "replicas": 3, "readyReplicas": 2, "availableReplicas": 2, "currentReplicas": 1,
            "updatedReplicas": 1, "currentRevision": "old", "updateRevision": "new",
            "observedGeneration": 1, "collisionCount": 0,
        })
    );
    cluster.set.status = status;
    assert_eq!(cluster.with(|world| world.status()), None);

    let done = [(0, "ready", "new")];
    let status = Cluster::new(set(1, &json!({})), &done).with(|world| world.status());
    let status = status.expect("a status");
    assert_eq!(status.current_revision.as_deref(), Some("new"));
    assert_eq!(status.current_replicas, Some(1));
}
