//! Decisions on deployments, step by step and as whole rollouts.

mod rollouts;

use std::{cell::RefCell, sync::Arc};

use coracle_api::core::pod::defaults;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::{
    decide::{Action, RollBack, World, decide},
    sets::{self, Set},
};

const NOW: &str = "2026-01-01T01:00:00Z";

fn at(time: &str) -> Timestamp {
    time.parse().expect("a time")
}

fn template(image: &str) -> Value {
    json!({
        "metadata": { "labels": { "app": "web" } },
        "spec": { "containers": [{ "name": "c", "image": image }] },
    })
}

/// A deployment of image `v2`; `extra` goes into its spec.
fn deployment(replicas: i32, extra: &Value) -> Deployment {
    let mut spec = json!({
        "replicas": replicas,
        "selector": { "matchLabels": { "app": "web" } },
        "template": template("v2"),
        "progressDeadlineSeconds": 600,
        "revisionHistoryLimit": 10,
        "strategy": { "type": "RollingUpdate",
            "rollingUpdate": { "maxSurge": "25%", "maxUnavailable": "25%" } },
    });
    for (key, value) in extra.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    serde_json::from_value(json!({
        "metadata": { "name": "web", "namespace": "default", "uid": "d", "generation": 1 },
        "spec": spec,
    }))
    .expect("a deployment")
}

/// A replica set of the image, its size, how many of it are available, and annotations.
fn set(name: &str, image: &str, replicas: i32, available: i32, annotations: &Value) -> ReplicaSet {
    let mut template = template(image);
    template["metadata"]["labels"]["pod-template-hash"] = json!(name);
    let order = name.bytes().last().unwrap_or(0) % 60;
    serde_json::from_value(json!({
        "metadata": {
            "name": name, "namespace": "default", "uid": name, "generation": 1,
            "creationTimestamp": format!("2026-01-01T00:00:{order:02}Z"),
            "annotations": annotations,
        },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": "web", "pod-template-hash": name } },
            "template": template,
        },
        "status": {
            "replicas": replicas, "readyReplicas": available, "availableReplicas": available,
            "observedGeneration": 1, "terminatingReplicas": 0,
        },
    }))
    .expect("a replica set")
}

fn sized(desired: i32, max: i32) -> Value {
    json!({
        "deployment.kubernetes.io/desired-replicas": desired.to_string(),
        "deployment.kubernetes.io/max-replicas": max.to_string(),
        "deployment.kubernetes.io/revision": "1",
    })
}

fn decide_at(now: &str, deployment: &Deployment, sets: Vec<ReplicaSet>) -> Vec<Action> {
    decide(&World {
        deployment,
        sets: sets.into_iter().map(Arc::new).collect(),
        running: &|_| false,
        now: at(now),
    })
}

/// The sizes that the sets of these names get, in that order; those that stay are left out.
fn sizes(actions: &[Action]) -> Vec<String> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Create(set) => Some(format!("new={}", set.replicas)),
            Action::Update(set) if set.replicas != set.known_replicas() => {
                Some(format!("{}={}", set.name(), set.replicas))
            }
            Action::Delete(set) => Some(format!("{} deleted", set.name_any())),
            _ => None,
        })
        .collect()
}

fn status(actions: &[Action]) -> DeploymentStatus {
    let found = actions.iter().find_map(|action| match action {
        Action::Status(status, _) => Some(status.clone()),
        _ => None,
    });
    found.expect("the status is written")
}

/// `Type=Status Reason: message` of each condition.
fn conditions(status: &DeploymentStatus) -> Vec<String> {
    let conditions = status.conditions.iter().flatten();
    conditions
        .map(|condition| {
            format!(
                "{}={} {}: {}",
                condition.type_,
                condition.status,
                condition.reason.as_deref().unwrap_or_default(),
                condition.message.as_deref().unwrap_or_default()
            )
        })
        .collect()
}

#[test]
fn a_new_deployment_gets_a_set_of_full_size() {
    let mut new = deployment(3, &json!({}));
    new.metadata.annotations = serde_json::from_value(json!({
        "team": "blue", "kubectl.kubernetes.io/last-applied-configuration": "{}"
    }))
    .expect("annotations");
    let actions = decide_at(NOW, &new, Vec::new());
    let [Action::Create(set), Action::Status(status, revision)] = &actions[..] else {
        panic!("a set and a status: {actions:?}");
    };
    let object = set.to_object();
    let hash = object.labels()["pod-template-hash"].clone();
    assert_eq!(object.name_any(), format!("web-{hash}"));
    let value = serde_json::to_value(&object).expect("JSON");
    assert_eq!(
        value["metadata"]["annotations"],
        json!({
            "team": "blue",
            "deployment.kubernetes.io/revision": "1",
            "deployment.kubernetes.io/desired-replicas": "3",
            "deployment.kubernetes.io/max-replicas": "4",
        })
    );
    assert_eq!(value["spec"]["replicas"], 3);
    assert_eq!(
        value["spec"]["selector"]["matchLabels"]["pod-template-hash"],
        json!(hash)
    );
    assert_eq!(
        value["spec"]["template"]["metadata"]["labels"],
        json!({ "app": "web", "pod-template-hash": hash })
    );
    assert_eq!(
        value["metadata"]["ownerReferences"][0]["kind"],
        "Deployment"
    );
    assert_eq!(revision.as_deref(), Some("1"));
    assert_eq!(status.observed_generation, Some(1));
    assert_eq!(status.unavailable_replicas, Some(3));
    assert_eq!(status.replicas, None);
    assert_eq!(
        conditions(status),
        [
            format!(
                "Progressing=True NewReplicaSetCreated: Created new replica set \"web-{hash}\""
            ),
            "Available=False MinimumReplicasUnavailable: \
             Deployment does not have minimum availability."
                .to_owned(),
        ]
    );
}

#[test]
fn a_rolling_update_keeps_within_its_bounds_at_every_step() {
    // desired, surge, unavailable; (size, available) of the old and the new set; the new sizes.
    let cases = [
        (10, "2", "0", (10, 10), (0, 0), vec!["new=2"]),
        (10, "2", "0", (10, 10), (2, 0), vec![]),
        (10, "2", "0", (10, 10), (2, 2), vec!["old-1=8"]),
        (10, "2", "0", (8, 8), (2, 2), vec!["new-2=4"]),
        (10, "0", "2", (10, 10), (0, 0), vec!["old-1=8"]),
        (10, "0", "2", (8, 8), (0, 0), vec!["new-2=2"]),
        (10, "0", "2", (8, 8), (2, 1), vec!["old-1=7"]),
        // What is not available anyway goes first.
        (10, "5", "5", (10, 3), (5, 0), vec!["old-1=5"]),
        (4, "0%", "0%", (4, 4), (0, 0), vec!["old-1=3"]),
        (1, "25%", "25%", (1, 1), (0, 0), vec!["new=1"]),
        (10, "100%", "0", (10, 10), (10, 6), vec!["old-1=4"]),
        // The old set's status lags behind its size.
        (10, "2", "0", (8, 10), (4, 4), vec!["old-1=6"]),
    ];
    let given = |text: &str| -> Value {
        text.parse::<i32>()
            .map_or_else(|_| json!(text), |number| json!(number))
    };
    for (desired, surge, unavailable, old, new, expected) in cases {
        let rolling = json!({ "type": "RollingUpdate", "rollingUpdate": {
            "maxSurge": given(surge), "maxUnavailable": given(unavailable) } });
        let deployment = deployment(desired, &json!({ "strategy": rolling }));
        let annotations = || sized(desired, desired + 2);
        let mut sets = vec![set("old-1", "v1", old.0, old.1, &annotations())];
        let exists = new.0 > 0 || !expected.contains(&"new=1") && !expected.contains(&"new=2");
        if exists {
            sets.push(set("new-2", "v2", new.0, new.1, &annotations()));
        }
        assert_eq!(
            sizes(&decide_at(NOW, &deployment, sets)),
            expected,
            "{desired} +{surge} -{unavailable}, old {old:?}, new {new:?}"
        );
    }
}

#[test]
fn a_change_of_size_is_spread_in_proportion() {
    // The deployment's new size, surge; the sets' sizes with the former maximum; the new sizes.
    // From upstream's table for scaling in the middle of a rollout.
    type Case = (i32, i32, &'static [i32], i32, &'static [i32]);
    let cases: [Case; 7] = [
        (12, 0, &[5, 5], 10, &[6, 6]),
        (6, 0, &[5, 5], 10, &[3, 3]),
        (20, 0, &[5, 3, 2], 10, &[10, 6, 4]),
        (5, 0, &[10], 10, &[5]),
        (20, 3, &[7, 3], 10, &[16, 7]),
        (0, 0, &[5, 3], 8, &[0, 0]),
        (6, 2, &[10, 1], 11, &[7, 1]),
    ];
    for (desired, surge, from, former, to) in cases {
        let rolling = json!({ "type": "RollingUpdate", "rollingUpdate": {
            "maxSurge": surge, "maxUnavailable": 1 } });
        let deployment = deployment(desired, &json!({ "strategy": rolling }));
        let count = from.len();
        let sets: Vec<ReplicaSet> = from
            .iter()
            .enumerate()
            .map(|(index, size)| {
                let image = if index + 1 == count { "v2" } else { "v1" };
                let name = format!("set-{}", char::from(b'a' + index as u8));
                set(&name, image, *size, 0, &sized(former, former))
            })
            .collect();
        let actions = decide_at(NOW, &deployment, sets.clone());
        let mut result: Vec<i32> = from.to_vec();
        for action in &actions {
            if let Action::Update(changed) = action {
                let index = sets
                    .iter()
                    .position(|set| set.name_any() == changed.name())
                    .expect("a known set");
                result[index] = changed.replicas;
                assert_eq!(changed.desired_annotation(), Some(desired));
            }
        }
        assert_eq!(result, to, "{from:?} to {desired}+{surge}");
    }
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let paused = deployment(4, &json!({ "paused": true }));
    let old = set("old-1", "v1", 2, 2, &sized(2, 3));
    let actions = decide_at(NOW, &paused, vec![old.clone()]);
    assert_eq!(sizes(&actions), ["old-1=4"]);
    let mut resumed = deployment(2, &json!({}));
    resumed.status = Some(status(&actions));
    assert_eq!(
        conditions(&status(&actions))[0],
        "Progressing=Unknown DeploymentPaused: Deployment is paused"
    );
    let actions = decide_at(NOW, &resumed, vec![old]);
    let conditions = conditions(&status(&actions));
    assert!(
        conditions
            .iter()
            .any(|condition| condition.starts_with("Progressing=True NewReplicaSetCreated")),
        "{conditions:?}"
    );
}

#[test]
fn a_rollout_that_stands_still_runs_out_of_time_and_recovers() {
    let mut stuck = deployment(2, &json!({ "progressDeadlineSeconds": 60 }));
    let new = |available| set("new-2", "v2", 2, available, &sized(2, 3));
    stuck.status = Some(status(&decide_at(
        "2026-01-01T01:00:00Z",
        &stuck,
        vec![new(0)],
    )));
    stuck
        .annotations_mut()
        .insert(sets::REVISION.to_owned(), "1".to_owned());
    assert!(decide_at("2026-01-01T01:00:59Z", &stuck, vec![new(0)]).is_empty());
    let check = super::status::next_check(&stuck, at("2026-01-01T01:00:59Z"));
    assert_eq!(check, Some(std::time::Duration::from_secs(2)));

    let late = status(&decide_at("2026-01-01T01:01:01Z", &stuck, vec![new(0)]));
    assert!(
        conditions(&late).contains(
            &"Progressing=False ProgressDeadlineExceeded: \
          ReplicaSet \"new-2\" has timed out progressing."
                .to_owned()
        )
    );
    stuck.status = Some(late);
    assert_eq!(
        super::status::next_check(&stuck, at("2026-01-01T01:01:02Z")),
        None
    );
    let better = status(&decide_at("2026-01-01T01:02:00Z", &stuck, vec![new(1)]));
    assert!(conditions(&better).contains(
        &"Progressing=True ReplicaSetUpdated: ReplicaSet \"new-2\" is progressing.".to_owned()
    ));
    stuck.status = Some(better);
    let done = status(&decide_at("2026-01-01T01:03:00Z", &stuck, vec![new(2)]));
    assert!(
        conditions(&done).contains(
            &"Progressing=True NewReplicaSetAvailable: \
          ReplicaSet \"new-2\" has successfully progressed."
                .to_owned()
        )
    );
}

#[test]
fn a_replica_failure_of_a_set_is_one_of_the_deployment() {
    let mut failing = set("new-2", "v2", 2, 0, &sized(2, 3));
    failing.status = serde_json::from_value(json!({ "replicas": 0, "conditions": [
        { "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "no" },
    ]}))
    .expect("a status");
    let status = status(&decide_at(NOW, &deployment(2, &json!({})), vec![failing]));
    assert!(conditions(&status).contains(&"ReplicaFailure=True FailedCreate: no".to_owned()));
}

#[test]
fn recreation_waits_until_the_old_pods_have_ended() {
    let recreate = deployment(3, &json!({ "strategy": { "type": "Recreate" } }));
    let old = |replicas, available| set("old-1", "v1", replicas, available, &sized(3, 3));
    assert_eq!(
        sizes(&decide_at(NOW, &recreate, vec![old(3, 3)])),
        ["old-1=0"]
    );
    let decided = |still_running: bool| {
        sizes(&decide(&World {
            deployment: &recreate,
            sets: vec![Arc::new(old(0, 0))],
            running: &|uid| still_running && uid == "old-1",
            now: at(NOW),
        }))
    };
    assert!(decided(true).is_empty());
    assert_eq!(decided(false), ["new=3"]);
}

#[test]
fn old_sets_beyond_the_limit_go_when_the_rollout_is_complete() {
    let mut done = deployment(1, &json!({ "revisionHistoryLimit": 1 }));
    let revision = |revision: &str| json!({ sets::REVISION: revision });
    let all = || {
        vec![
            set("old-a", "v0", 0, 0, &revision("3")),
            set("old-b", "v1", 0, 0, &revision("1")),
            set("old-c", "v1b", 0, 0, &revision("2")),
            set("new-d", "v2", 1, 1, &revision("4")),
        ]
    };
    done.status = Some(status(&decide_at(NOW, &done, all())));
    assert_eq!(
        sizes(&decide_at(NOW, &done, all())),
        ["old-b deleted", "old-c deleted"]
    );
}

#[test]
fn a_rollback_brings_back_the_template_of_a_revision() {
    let mut asked = deployment(1, &json!({}));
    let mut roll_back = |to: &str| {
        asked.metadata.annotations =
            serde_json::from_value(json!({ sets::ROLLBACK_TO: to, sets::REVISION: "2" }))
                .expect("annotations");
        let mut old = set("old-1", "v1", 0, 0, &sized(1, 2));
        old.annotations_mut()
            .insert("change-cause".to_owned(), "first".to_owned());
        let mut new = set("new-2", "v2", 1, 1, &sized(1, 2));
        new.annotations_mut()
            .insert(sets::REVISION.to_owned(), "2".to_owned());
        let mut actions = decide_at(NOW, &asked, vec![old, new]);
        assert_eq!(actions.len(), 1);
        let Some(Action::RollBack(object, outcome)) = actions.pop() else {
            panic!("a rollback");
        };
        assert!(!object.annotations().contains_key(sets::ROLLBACK_TO));
        (object, outcome)
    };
    for to in ["0", "1"] {
        let (object, outcome) = roll_back(to);
        assert_eq!(outcome, RollBack::Done { revision: 1 });
        let expected: Value = template("v1");
        let spec = object.spec.as_ref().expect("a spec");
        assert_eq!(
            serde_json::to_value(&spec.template).expect("JSON"),
            expected
        );
        assert_eq!(object.annotations()["change-cause"], "first");
    }
    assert_eq!(roll_back("2").1, RollBack::SameTemplate);
    assert_eq!(roll_back("7").1, RollBack::NoSuchRevision);
}

#[test]
fn a_deployment_that_is_deleted_only_counts() {
    let mut deleted = deployment(3, &json!({}));
    deleted.metadata.deletion_timestamp =
        serde_json::from_value(json!("2026-01-01T00:59:00Z")).expect("a time");
    let actions = decide_at(NOW, &deleted, vec![set("old-1", "v1", 1, 1, &sized(3, 4))]);
    assert!(sizes(&actions).is_empty());
    assert_eq!(status(&actions).replicas, Some(1));
}

#[test]
fn a_set_with_the_template_is_found_whatever_it_is_called() {
    let template = |value: Value| serde_json::from_value(value).expect("a template");
    let known = set("new-2", "v2", 1, 1, &json!({}));
    let known = known.spec.as_ref().and_then(|spec| spec.template.as_ref());
    assert!(sets::same_template(
        known,
        &template(super::tests::template("v2"))
    ));
    assert!(!sets::same_template(
        known,
        &template(super::tests::template("v3"))
    ));
    // Kept before the API knew of some default, it is found too.
    let mut defaulted = template(super::tests::template("v2"));
    defaults::pod_spec(defaulted.spec.as_mut().expect("a spec"));
    assert!(sets::same_template(known, &defaulted));
    let set = Set::of(Arc::new(set("new-2", "v2", 1, 1, &json!({}))));
    assert!(!set.is_changed());
}
