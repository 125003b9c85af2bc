//! Tables for [`super::decide`].

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::{
    super::{
        observed::{Activity, Observed, Sandbox, Seen, hash},
        probe_results::{ProbeKind, ProbeResults},
        spec::{find_container, spec},
    },
    Actions, KillReason, decide,
};

fn pod(spec: Value) -> Pod {
    let mut pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}});
    pod["spec"] = spec;
    serde_json::from_value(pod).expect("a pod")
}

fn two(policy: &str) -> Pod {
    pod(json!({
        "restartPolicy": policy,
        "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}],
    }))
}

fn with_init(policy: &str) -> Pod {
    pod(json!({
        "restartPolicy": policy,
        "initContainers": [
            {"name": "first", "image": "i"},
            {"name": "side", "image": "i", "restartPolicy": "Always",
             "startupProbe": {"exec": {"command": ["true"]}}},
            {"name": "last", "image": "i"},
        ],
        "containers": [{"name": "a", "image": "i"}],
    }))
}

fn sandbox(ready: bool) -> Sandbox {
    Sandbox {
        id: "s".to_owned(),
        attempt: 0,
        ready,
        created_at: 1,
        host_network: false,
        ips: vec!["10.0.0.1".to_owned()],
    }
}

fn seen(pod: &Pod, name: &str, activity: Activity, exit_code: i32) -> Seen {
    Seen {
        id: format!("id-{name}"),
        sandbox_id: "s".to_owned(),
        name: name.to_owned(),
        restart_count: 0,
        hash: find_container(spec(pod), name).map_or(0, |(_, container)| hash(&container)),
        activity,
        image: "i".to_owned(),
        image_ref: String::new(),
        created_at: Timestamp::UNIX_EPOCH,
        started_at: None,
        finished_at: None,
        exit_code,
        reason: String::new(),
        message: String::new(),
        log_path: String::new(),
        user: None,
    }
}

fn running(pod: &Pod, names: &[&str]) -> Observed {
    Observed {
        sandboxes: vec![sandbox(true)],
        containers: names
            .iter()
            .map(|name| seen(pod, name, Activity::Running, 0))
            .collect(),
    }
}

fn with(pod: &Pod, names: &[&str], more: &[(&str, Activity, i32)]) -> Observed {
    let mut observed = running(pod, names);
    for (name, activity, exit_code) in more {
        observed
            .containers
            .push(seen(pod, name, *activity, *exit_code));
    }
    observed
}

fn in_sandbox() -> Actions {
    Actions {
        sandbox_id: Some("s".to_owned()),
        ..Actions::default()
    }
}

#[test]
fn a_new_pod_gets_a_sandbox_and_its_containers() {
    let actions = decide(
        &two("Always"),
        &Observed::default(),
        &ProbeResults::default(),
    );
    let expected = Actions {
        kill_pod: true,
        create_sandbox: true,
        regular: vec![0, 1],
        ..Actions::default()
    };
    assert_eq!(actions, expected);
    let actions = decide(
        &with_init("Always"),
        &Observed::default(),
        &ProbeResults::default(),
    );
    assert_eq!((actions.init, actions.regular), (vec![0], vec![]));
}

#[test]
fn ended_containers_start_again_by_the_restart_policy() {
    use Activity::Exited;
    let cases = [
        ("Always", 0, vec![1], false),
        ("OnFailure", 0, vec![], false),
        ("OnFailure", 3, vec![1], false),
        ("Never", 3, vec![], false),
    ];
    for (policy, exit_code, regular, kill_pod) in cases {
        let pod = two(policy);
        let observed = with(&pod, &["a"], &[("b", Exited, exit_code)]);
        let expected = Actions {
            regular,
            kill_pod,
            ..in_sandbox()
        };
        let actions = decide(&pod, &observed, &ProbeResults::default());
        assert_eq!(actions, expected, "{policy} {exit_code}");
    }
    let pod = two("OnFailure");
    let observed = with(&pod, &[], &[("a", Exited, 0), ("b", Exited, 0)]);
    assert!(decide(&pod, &observed, &ProbeResults::default()).kill_pod);
}

#[test]
fn a_lost_sandbox_is_replaced_unless_the_pod_has_run_its_course() {
    for (policy, create) in [("Always", true), ("Never", false)] {
        let pod = two(policy);
        let mut observed = with(
            &pod,
            &[],
            &[("a", Activity::Exited, 137), ("b", Activity::Exited, 0)],
        );
        observed.sandboxes = vec![sandbox(false)];
        let actions = decide(&pod, &observed, &ProbeResults::default());
        assert!(actions.kill_pod, "{policy}");
        assert_eq!(actions.create_sandbox, create, "{policy}");
        assert_eq!(actions.attempt, 1, "{policy}");
    }
}

#[test]
fn failed_probes_and_changed_definitions_kill() {
    let pod = two("Always");
    let mut probes = ProbeResults::default();
    probes.set("id-a", ProbeKind::Liveness, false);
    probes.set("id-b", ProbeKind::Startup, false);
    let actions = decide(&pod, &running(&pod, &["a", "b"]), &probes);
    let kills: Vec<_> = actions
        .kill
        .iter()
        .map(|kill| (kill.message.as_str(), kill.reason))
        .collect();
    assert_eq!(
        kills,
        [
            (
                "Container a failed liveness probe, will be restarted",
                KillReason::LivenessProbe
            ),
            (
                "Container b failed startup probe, will be restarted",
                KillReason::StartupProbe
            ),
        ]
    );
    assert_eq!(actions.regular, [0, 1]);
    let mut observed = running(&pod, &["a", "b"]);
    observed.containers[0].hash = 1;
    let actions = decide(&pod, &observed, &ProbeResults::default());
    assert_eq!(
        actions.kill[0].message,
        "Container a definition changed, will be restarted"
    );
}

#[test]
fn init_containers_run_one_after_the_other() {
    use Activity::{Exited, Running};
    let pod = with_init("Always");
    let mut started = ProbeResults::default();
    started.set("id-side", ProbeKind::Startup, true);
    let first_done = ("first", Exited, 0);
    let side = ("side", Running, 0);
    let none = ProbeResults::default();
    type Case<'a> = (
        &'a [(&'a str, Activity, i32)],
        &'a ProbeResults,
        Vec<usize>,
        Vec<usize>,
    );
    let cases: [Case<'_>; 7] = [
        (&[("first", Running, 0)], &none, vec![], vec![]),
        (&[("first", Exited, 1)], &none, vec![0], vec![]),
        (&[first_done], &none, vec![1], vec![]),
        (&[first_done, side], &none, vec![], vec![]),
        (&[first_done, side], &started, vec![2], vec![]),
        (
            &[first_done, side, ("last", Exited, 0)],
            &started,
            vec![],
            vec![0],
        ),
        // A sidecar that ends is started again beside running containers.
        (
            &[
                first_done,
                ("side", Exited, 0),
                ("last", Exited, 0),
                ("a", Running, 0),
            ],
            &started,
            vec![1],
            vec![],
        ),
    ];
    for (index, (containers, probes, init, regular)) in cases.into_iter().enumerate() {
        let actions = decide(&pod, &with(&pod, &[], containers), probes);
        assert_eq!(
            (actions.init, actions.regular),
            (init, regular),
            "case {index}"
        );
    }
}

#[test]
fn a_failed_init_container_ends_a_pod_that_never_restarts() {
    let pod = with_init("Never");
    let observed = with(&pod, &[], &[("first", Activity::Exited, 1)]);
    let actions = decide(&pod, &observed, &ProbeResults::default());
    assert!(actions.kill_pod && !actions.create_sandbox && actions.init.is_empty());
}

#[test]
fn a_rule_restarts_all_containers_the_one_that_asked_last() {
    let pod = pod(json!({
        "restartPolicy": "Never",
        "containers": [
            {"name": "a", "image": "i", "restartPolicy": "Never", "restartPolicyRules": [
                {"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}
            ]},
            {"name": "b", "image": "i"},
        ],
    }));
    let observed = with(&pod, &["b"], &[("a", Activity::Exited, 42)]);
    let actions = decide(&pod, &observed, &ProbeResults::default());
    let order: Vec<_> = actions
        .reset
        .iter()
        .map(|reset| (reset.name.as_str(), reset.running))
        .collect();
    assert_eq!(order, [("b", true), ("a", false)]);
    assert!(!actions.kill_pod && actions.regular.is_empty());
}
