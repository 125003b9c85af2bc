//! Tables for [`super::derive`].

use serde_json::{Value, json};

use super::*;
use crate::pods::{
    observed::{Activity, Sandbox, Seen},
    probe_results::ProbeKind,
};

fn pod(spec: Value) -> Pod {
    let mut pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u", "generation": 1}});
    pod["spec"] = spec;
    serde_json::from_value(pod).expect("a pod")
}

fn one(policy: &str) -> Pod {
    pod(json!({"restartPolicy": policy, "containers": [{"name": "a", "image": "i"}]}))
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn seen(name: &str, activity: Activity, exit_code: i32, restart_count: i32) -> Seen {
    Seen {
        id: format!("{name}{restart_count}"),
        sandbox_id: "s".to_owned(),
        name: name.to_owned(),
        restart_count,
        hash: 0,
        activity,
        image: "i".to_owned(),
        image_ref: "sha256:1".to_owned(),
        created_at: at(100 + i64::from(restart_count)),
        started_at: Some(at(101)),
        finished_at: (activity == Activity::Exited).then(|| at(102)),
        exit_code,
        reason: if exit_code == 0 { "Completed" } else { "Error" }.to_owned(),
        message: String::new(),
        log_path: String::new(),
        user: None,
    }
}

fn observed(containers: Vec<Seen>) -> Observed {
    let sandbox = Sandbox {
        id: "s".to_owned(),
        attempt: 0,
        ready: true,
        created_at: 1,
        host_network: false,
        ips: vec!["10.0.0.1".to_owned()],
    };
    let mut observed = Observed::default();
    observed.put_sandbox(sandbox);
    for container in containers {
        observed.put_container(container);
    }
    observed
}

struct World {
    pod: Pod,
    old: PodStatus,
    observed: Observed,
    probes: ProbeResults,
    waiting: HashMap<String, Waiting>,
    terminal: bool,
}

impl World {
    fn new(pod: Pod, observed: Observed) -> Self {
        World {
            old: pod.status.clone().unwrap_or_default(),
            pod,
            observed,
            probes: ProbeResults::default(),
            waiting: HashMap::new(),
            terminal: false,
        }
    }

    fn status(&self) -> PodStatus {
        derive(&Facts {
            pod: &self.pod,
            old: &self.old,
            observed: &self.observed,
            probes: &self.probes,
            waiting: &self.waiting,
            runtime_name: "containerd",
            host_ips: &["192.168.0.1".to_owned()],
            recursive_read_only_mounts: false,
            terminal: self.terminal,
            failure: None,
            resize: &Progress::default(),
            kubelet_started: at(0),
            now: at(1000),
        })
    }

    fn phase(&self) -> String {
        self.status().phase.unwrap_or_default()
    }
}

fn condition(status: &PodStatus, name: &str) -> (String, String) {
    let found = conditions::find(status, name).expect("the condition is there");
    (
        found.status.clone(),
        found.reason.clone().unwrap_or_default(),
    )
}

#[test]
fn a_new_pod_waits_for_its_containers() {
    let world = World::new(one("Always"), Observed::default());
    let status = world.status();
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    assert_eq!(status.host_ip.as_deref(), Some("192.168.0.1"));
    assert_eq!(status.pod_ip, None);
    let value = serde_json::to_value(&status.container_statuses).expect("it is JSON");
    assert_eq!(
        value,
        json!([{
            "name": "a", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "started": false, "state": {"waiting": {"reason": "ContainerCreating"}},
        }])
    );
    let of = |name| condition(&status, name);
    assert_eq!(of("PodScheduled").0, "True");
    assert_eq!(of("Initialized").0, "True");
    assert_eq!(of("PodReadyToStartContainers").0, "False");
    assert_eq!(of("Ready"), ("False".into(), "ContainersNotReady".into()));
}

#[test]
fn phases_follow_the_containers_and_the_restart_policy() {
    use Activity::{Exited, Running};
    let cases = [
        ("Always", Running, 0, false, "Running"),
        ("Always", Exited, 0, false, "Running"),
        ("OnFailure", Exited, 0, false, "Succeeded"),
        ("OnFailure", Exited, 1, false, "Running"),
        ("Never", Exited, 0, false, "Succeeded"),
        ("Never", Exited, 1, false, "Failed"),
        ("Always", Exited, 0, true, "Succeeded"),
        ("Always", Exited, 137, true, "Failed"),
    ];
    for (policy, activity, exit_code, terminal, expected) in cases {
        let containers = vec![seen("a", activity, exit_code, 0)];
        let mut world = World::new(one(policy), observed(containers));
        world.terminal = terminal;
        assert_eq!(
            world.phase(),
            expected,
            "{policy} {activity:?} {exit_code} {terminal}"
        );
    }
}

#[test]
fn a_terminal_phase_is_never_left() {
    let mut world = World::new(one("Never"), Observed::default());
    world.old.phase = Some("Failed".to_owned());
    world.old.reason = Some("Evicted".to_owned());
    let status = world.status();
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    assert_eq!(status.reason.as_deref(), Some("Evicted"));
}

#[test]
fn a_running_pod_is_ready_and_keeps_its_times() {
    let mut world = World::new(
        one("Always"),
        observed(vec![seen("a", Activity::Running, 0, 0)]),
    );
    let first = world.status();
    assert_eq!(condition(&first, "Ready").0, "True");
    assert_eq!(first.pod_ip.as_deref(), Some("10.0.0.1"));
    world.old = first.clone();
    assert_eq!(world.status(), first, "deriving again changes nothing");
    world.observed.sandboxes[0].ready = false;
    let lost = world.status();
    assert_eq!(condition(&lost, "PodReadyToStartContainers").0, "False");
    assert_eq!(lost.pod_ip.as_deref(), Some("10.0.0.1"));
}

#[test]
fn a_crashing_container_shows_why_it_waits_and_how_it_ended() {
    let mut world = World::new(
        one("Always"),
        observed(vec![
            seen("a", Activity::Exited, 1, 0),
            seen("a", Activity::Exited, 2, 1),
        ]),
    );
    world.waiting.insert(
        "a".to_owned(),
        Waiting {
            reason: "CrashLoopBackOff".to_owned(),
            message: "back-off 10s".to_owned(),
        },
    );
    let status = world.status();
    let container = &status.container_statuses.expect("a status")[0];
    assert_eq!(container.restart_count, 1);
    let state = container.state.as_ref().expect("a state");
    let waiting = state.waiting.as_ref().expect("it waits");
    assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
    let last = container.last_state.as_ref().expect("a last state");
    let ended = last.terminated.as_ref().expect("it has ended");
    assert_eq!(ended.exit_code, 2);
    assert_eq!(ended.container_id.as_deref(), Some("containerd://a1"));
    assert_eq!(status.phase.as_deref(), Some("Running"));
}

#[test]
fn readiness_and_startup_come_from_probes() {
    let pod = pod(json!({"containers": [{
        "name": "a", "image": "i",
        "startupProbe": {"exec": {"command": ["true"]}},
        "readinessProbe": {"exec": {"command": ["true"]}},
    }]}));
    let mut world = World::new(pod, observed(vec![seen("a", Activity::Running, 0, 0)]));
    let both = |world: &World| {
        let status = world.status();
        let container = &status.container_statuses.expect("a status")[0];
        (container.started, container.ready)
    };
    assert_eq!(both(&world), (Some(false), false));
    world.probes.set("a0", ProbeKind::Startup, true);
    assert_eq!(both(&world), (Some(true), false));
    world.probes.set("a0", ProbeKind::Readiness, true);
    assert_eq!(both(&world), (Some(true), true));
    world.probes.set("a0", ProbeKind::Readiness, false);
    assert_eq!(both(&world), (Some(true), false));
}

#[test]
fn what_a_restarted_kubelet_finds_running_stays_ready_until_probed() {
    let pod = pod(json!({"containers": [{
        "name": "a", "image": "i", "readinessProbe": {"exec": {"command": ["true"]}},
    }]}));
    let mut world = World::new(pod, observed(vec![seen("a", Activity::Running, 0, 0)]));
    world.probes.set("a0", ProbeKind::Readiness, true);
    world.old = world.status();
    world.probes = ProbeResults::default();
    let facts_ready = |kubelet_started| {
        let status = derive(&Facts {
            pod: &world.pod,
            old: &world.old,
            observed: &world.observed,
            probes: &world.probes,
            waiting: &world.waiting,
            runtime_name: "containerd",
            host_ips: &[],
            recursive_read_only_mounts: false,
            terminal: false,
            failure: None,
            resize: &Progress::default(),
            kubelet_started,
            now: at(2000),
        });
        status.container_statuses.expect("a status")[0].ready
    };
    assert!(facts_ready(at(500)));
    assert!(!facts_ready(at(50)));
}

#[test]
fn init_containers_hold_the_phase_back() {
    let pod = pod(json!({
        "restartPolicy": "Never",
        "initContainers": [{"name": "i", "image": "i"}],
        "containers": [{"name": "a", "image": "i"}],
    }));
    use Activity::{Exited, Running};
    let cases = [
        (vec![seen("i", Running, 0, 0)], "Pending", "False"),
        (vec![seen("i", Exited, 0, 0)], "Pending", "True"),
        (vec![seen("i", Exited, 1, 0)], "Failed", "False"),
        (
            vec![seen("i", Exited, 0, 0), seen("a", Running, 0, 0)],
            "Running",
            "True",
        ),
    ];
    for (containers, phase, initialized) in cases {
        let world = World::new(pod.clone(), observed(containers));
        let status = world.status();
        assert_eq!(status.phase.as_deref(), Some(phase));
        assert_eq!(condition(&status, "Initialized").0, initialized, "{phase}");
    }
}

#[test]
fn the_api_hears_of_the_end_only_when_nothing_runs_any_more() {
    let mut world = World::new(
        one("Never"),
        observed(vec![seen("a", Activity::Exited, 1, 0)]),
    );
    world.pod.status = Some(PodStatus {
        phase: Some("Running".to_owned()),
        ..PodStatus::default()
    });
    let derived = world.status();
    let phase = |may_run| {
        merge(&world.pod, &derived, may_run, at(1))
            .phase
            .unwrap_or_default()
    };
    assert_eq!(phase(true), "Running");
    assert_eq!(phase(false), "Failed");
}

#[test]
fn a_start_with_standard_input_is_shown_late() {
    let with_input = |stdin| {
        let containers = json!([{"name": "a", "image": "i", "stdin": stdin}]);
        pod(json!({"restartPolicy": "Never", "containers": containers}))
    };
    // The table's clock stands at 1000 s.
    let started = |activity, milliseconds| {
        let mut seen = seen("a", activity, 0, 0);
        seen.started_at = Timestamp::from_millisecond(milliseconds).ok();
        observed(vec![seen])
    };
    let state = |stdin, observed: &Observed| {
        let status = World::new(with_input(stdin), observed.clone()).status();
        let state = status.container_statuses.unwrap_or_default().remove(0);
        let state = serde_json::to_value(state.state).expect("it is JSON");
        let name = state.as_object().and_then(|state| state.keys().next());
        name.cloned().unwrap_or_default()
    };
    let just_now = started(Activity::Running, 999_500);
    assert_eq!(state(false, &just_now), "running");
    assert_eq!(state(true, &just_now), "waiting");
    assert_eq!(state(true, &started(Activity::Running, 999_000)), "running");
    assert_eq!(
        state(true, &started(Activity::Running, 1_000_500)),
        "running"
    );
    assert_eq!(
        state(true, &started(Activity::Exited, 999_500)),
        "terminated"
    );

    let next = |stdin| changes_at(&with_input(stdin), &just_now, at(1000));
    assert_eq!(next(true), Timestamp::from_millisecond(1_000_500).ok());
    assert_eq!(next(false), None);
}
