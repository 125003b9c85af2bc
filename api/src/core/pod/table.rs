//! The columns of `kubectl get pods`, as upstream's `printPod`.

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Container, ContainerStateTerminated, ContainerStatus, Pod, PodStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};
use serde_json::Value;

use super::resources::is_sidecar;
use crate::{
    strategy::Column,
    table::{AGE, NAME, age, column, human_duration, wide},
    zero::{list, text},
};

pub const COLUMNS: &[Column] = &[
    NAME,
    column(
        "Ready",
        "string",
        "The aggregate readiness state of this pod for accepting traffic.",
    ),
    column(
        "Status",
        "string",
        "The aggregate status of the containers in this pod.",
    ),
    column(
        "Restarts",
        "string",
        "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
    ),
    AGE,
    wide(
        "IP",
        "podIP address allocated to the pod. Routable at least within the cluster. Empty if not yet allocated.",
    ),
    wide(
        "Node",
        "NodeName indicates in which node this pod is scheduled. If empty, this pod is a candidate for scheduling by the scheduler defined in schedulerName. Once this field is set, the kubelet for this node becomes responsible for the lifecycle of this pod. This field should not be used to express a desire for the pod to be scheduled on a specific node. https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#nodename",
    ),
    wide(
        "Nominated Node",
        "nominatedNodeName is set only when this pod preempts other pods on the node, but it cannot be scheduled right away as preemption victims receive their graceful termination periods. This field does not guarantee that the pod will be scheduled on this node. Scheduler may decide to place the pod elsewhere if other nodes become available sooner. Scheduler may also decide to give the resources on this node to a higher priority pod that is created after preemption. As a result, this field may be different than PodSpec.nodeName when the pod is scheduled.",
    ),
    wide(
        "Readiness Gates",
        "If specified, all readiness gates will be evaluated for pod readiness. A pod is ready when all its containers are ready AND all conditions specified in the readiness gates have status equal to \"True\" More info: https://git.k8s.io/enhancements/keps/sig-network/580-pod-readiness-gates",
    ),
];

/// One cell per column.
pub fn cells(pod: &Pod, now: Timestamp) -> Vec<Value> {
    let summary = Summary::of(pod);
    let spec = pod.spec.as_ref();
    let status = pod.status.as_ref();
    let or_none = |value: &str| Value::from(if value.is_empty() { "<none>" } else { value });
    let ip = status
        .and_then(|status| list(&status.pod_ips).first())
        .map_or("", |ip| &ip.ip);
    vec![
        Value::from(text(&pod.metadata.name)),
        Value::from(format!("{}/{}", summary.ready, summary.total)),
        Value::from(summary.reason),
        Value::from(summary.restarts.cell(now)),
        age(&pod.metadata, now),
        or_none(ip),
        or_none(spec.map_or("", |spec| text(&spec.node_name))),
        or_none(status.map_or("", |status| text(&status.nominated_node_name))),
        Value::from(readiness_gates(pod)),
    ]
}

fn readiness_gates(pod: &Pod) -> String {
    let gates = pod
        .spec
        .as_ref()
        .map_or(&[][..], |spec| list(&spec.readiness_gates));
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let open = gates
        .iter()
        .filter(|gate| condition(pod.status.as_ref(), &gate.condition_type) == Some("True"))
        .count();
    format!("{open}/{}", gates.len())
}

/// The status of a condition; `None` when the Pod does not have it.
fn condition<'a>(status: Option<&'a PodStatus>, condition_type: &str) -> Option<&'a str> {
    list(&status?.conditions)
        .iter()
        .find(|condition| condition.type_ == condition_type)
        .map(|condition| condition.status.as_str())
}

/// How often containers restarted, and when the last one ended before it did.
#[derive(Clone, Copy, Default)]
struct Restarts {
    count: i32,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, status: &ContainerStatus) {
        self.count += status.restart_count;
        let finished = status
            .last_state
            .as_ref()
            .and_then(|state| state.terminated.as_ref())
            .and_then(|terminated| terminated.finished_at.as_ref())
            .map(|Time(finished)| *finished);
        self.last = self.last.max(finished);
    }

    fn cell(self, now: Timestamp) -> String {
        match self.last {
            Some(last) if self.count != 0 => {
                format!("{} ({} ago)", self.count, human_duration(now - last))
            }
            _ => self.count.to_string(),
        }
    }
}

struct Summary {
    ready: usize,
    total: usize,
    reason: String,
    restarts: Restarts,
}

impl Summary {
    fn of(pod: &Pod) -> Self {
        let no_status = PodStatus::default();
        let status = pod.status.as_ref().unwrap_or(&no_status);
        let (containers, init_containers) = pod.spec.as_ref().map_or((0, &[][..]), |spec| {
            (spec.containers.len(), list(&spec.init_containers))
        });
        let sidecars = init_containers.iter().filter(|c| is_sidecar(c)).count();

        let mut summary = Summary {
            ready: 0,
            total: containers + sidecars,
            reason: first_reason(status),
            restarts: Restarts::default(),
        };
        let is_initializing = summary.add_init_containers(status, init_containers);
        if !is_initializing || condition(Some(status), "Initialized") == Some("True") {
            summary.add_containers(status);
        }
        if pod.metadata.deletion_timestamp.is_some() {
            if text(&status.reason) == "NodeLost" {
                summary.reason = "Unknown".to_owned();
            } else if !matches!(text(&status.phase), "Succeeded" | "Failed") {
                summary.reason = "Terminating".to_owned();
            }
        }
        summary
    }

    /// Whether the Pod is still initialising. Afterwards only the sidecars' restarts count.
    fn add_init_containers(&mut self, status: &PodStatus, containers: &[Container]) -> bool {
        let mut sidecars = Restarts::default();
        for (index, container) in list(&status.init_container_statuses).iter().enumerate() {
            self.restarts.add(container);
            let sidecar = containers
                .iter()
                .any(|spec| spec.name == container.name && is_sidecar(spec));
            if sidecar {
                sidecars.add(container);
            }
            let state = container.state.as_ref();
            let terminated = state.and_then(|state| state.terminated.as_ref());
            let waiting = state
                .and_then(|state| state.waiting.as_ref())
                .map_or("", |waiting| text(&waiting.reason));
            if terminated.is_some_and(|terminated| terminated.exit_code == 0) {
                continue;
            }
            if sidecar && container.started == Some(true) {
                self.ready += usize::from(container.ready);
                continue;
            }
            self.reason = match terminated {
                Some(terminated) => format!("Init:{}", termination(terminated)),
                None if !waiting.is_empty() && waiting != "PodInitializing" => {
                    format!("Init:{waiting}")
                }
                None => format!("Init:{index}/{}", containers.len()),
            };
            // Once initialised, the restarts of sidecars are all that is kept of these.
            if condition(Some(status), "Initialized") == Some("True") {
                self.restarts = sidecars;
            }
            return true;
        }
        self.restarts = sidecars;
        false
    }

    fn add_containers(&mut self, status: &PodStatus) {
        let mut has_running = false;
        let mut error = None;
        for container in list(&status.container_statuses).iter().rev() {
            self.restarts.add(container);
            let Some(state) = &container.state else {
                continue;
            };
            let waiting = state.waiting.as_ref().map_or("", |w| text(&w.reason));
            if !waiting.is_empty() {
                self.reason = waiting.to_owned();
            } else if let Some(terminated) = &state.terminated {
                self.reason = termination(terminated);
                if terminated.exit_code != 0 {
                    error = Some(self.reason.clone());
                }
            } else if container.ready && state.running.is_some() {
                has_running = true;
                self.ready += 1;
            }
        }
        // A Pod of which only some containers have completed is not complete.
        if self.reason == "Completed" {
            if has_running && condition(Some(status), "Ready") == Some("True") {
                self.reason = "Running".to_owned();
            } else if let Some(error) = error {
                self.reason = error;
            } else if has_running {
                self.reason = "NotReady".to_owned();
            }
        }
    }
}

fn first_reason(status: &PodStatus) -> String {
    let is_gated = list(&status.conditions).iter().any(|condition| {
        condition.type_ == "PodScheduled" && text(&condition.reason) == "SchedulingGated"
    });
    if is_gated {
        "SchedulingGated".to_owned()
    } else if text(&status.reason).is_empty() {
        text(&status.phase).to_owned()
    } else {
        text(&status.reason).to_owned()
    }
}

fn termination(terminated: &ContainerStateTerminated) -> String {
    match (text(&terminated.reason), terminated.signal) {
        ("", Some(signal)) if signal != 0 => format!("Signal:{signal}"),
        ("", _) => format!("ExitCode:{}", terminated.exit_code),
        (reason, _) => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Name, pod and the cells Ready, Status and Restarts, at 2026-01-01T01:00:00Z.
    #[test]
    fn status_ready_and_restarts_summarise_the_containers() {
        let ended =
            |code: i32, reason: &str| json!({"terminated": {"exitCode": code, "reason": reason}});
        let running = json!({"running": {}});
        let waiting = |reason: &str| json!({"waiting": {"reason": reason}});
        let status = |name: &str, state: Value, ready: bool| {
            json!({
                "name": name, "image": "", "imageID": "", "state": state, "ready": ready, "restartCount": 0
            })
        };
        let two = json!({"containers": [{"name": "a"}, {"name": "b"}]});
        let init = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "j"}]});
        let sidecar = json!({"containers": [{"name": "a"}],
            "initContainers": [{"name": "s", "restartPolicy": "Always"}]});
        let restarted = json!({"name": "a", "image": "", "imageID": "", "state": running, "ready": true,
            "restartCount": 3, "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:55:00Z"}}});
        let gated = json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]});
        let ready = json!([{"type": "Ready", "status": "True"}]);
        let cases = [
            (
                "pending",
                two.clone(),
                json!({"phase": "Pending"}),
                "0/2",
                "Pending",
                "0",
            ),
            ("gated", two.clone(), gated, "0/2", "SchedulingGated", "0"),
            (
                "evicted",
                two.clone(),
                json!({"phase": "Failed", "reason": "Evicted"}),
                "0/2",
                "Evicted",
                "0",
            ),
            (
                "running",
                two.clone(),
                json!({"phase": "Running", "containerStatuses": [restarted, status("b", running.clone(), true)]}),
                "2/2",
                "Running",
                "3 (5m ago)",
            ),
            (
                "crashing",
                two.clone(),
                json!({"phase": "Running", "containerStatuses": [
                    status("a", waiting("CrashLoopBackOff"), false), status("b", running.clone(), true)]}),
                "1/2",
                "CrashLoopBackOff",
                "0",
            ),
            (
                "half complete",
                two.clone(),
                json!({"phase": "Running", "containerStatuses": [
                    status("a", ended(0, "Completed"), false), status("b", running.clone(), true)]}),
                "1/2",
                "NotReady",
                "0",
            ),
            (
                "half complete and ready",
                two.clone(),
                json!({"phase": "Running", "conditions": ready, "containerStatuses": [
                    status("a", ended(0, "Completed"), false), status("b", running.clone(), true)]}),
                "1/2",
                "Running",
                "0",
            ),
            (
                "complete but for an error",
                two.clone(),
                json!({"phase": "Failed", "containerStatuses": [
                    status("a", ended(0, "Completed"), false), status("b", ended(1, "Error"), false)]}),
                "0/2",
                "Error",
                "0",
            ),
            (
                "ended without reason",
                two,
                json!({"phase": "Failed", "containerStatuses": [status("a", ended(137, ""), false)]}),
                "0/2",
                "ExitCode:137",
                "0",
            ),
            (
                "second init container",
                init.clone(),
                json!({"phase": "Pending", "initContainerStatuses": [
                    status("i", ended(0, "Completed"), false), status("j", running.clone(), false)]}),
                "0/1",
                "Init:1/2",
                "0",
            ),
            (
                "failing init container",
                init,
                json!({"phase": "Pending", "initContainerStatuses": [status("i", waiting("CrashLoopBackOff"), false)]}),
                "0/1",
                "Init:CrashLoopBackOff",
                "0",
            ),
            (
                "sidecar",
                sidecar,
                json!({"phase": "Running",
                    "initContainerStatuses": [{"name": "s", "image": "", "imageID": "", "state": running,
                        "ready": true, "started": true, "restartCount": 2}],
                    "containerStatuses": [status("a", running, true)]}),
                "2/2",
                "Running",
                "2",
            ),
        ];
        for (name, spec, status, ready, reason, restarts) in cases {
            let pod: Pod = serde_json::from_value(json!({"spec": spec, "status": status})).unwrap();
            let cells = cells(&pod, "2026-01-01T01:00:00Z".parse().unwrap());
            assert_eq!(
                cells[1..4],
                [json!(ready), json!(reason), json!(restarts)],
                "{name}"
            );
        }
    }

    #[test]
    fn a_deleted_pod_is_terminating() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"phase": "Running"}
        }))
        .unwrap();
        assert_eq!(cells(&pod, Timestamp::UNIX_EPOCH)[2], "Terminating");
    }
}
