//! The labels and annotations by which containers are known again, with upstream's names
//! (pkg/kubelet/kuberuntime/labels.go): log collectors and other tools read them too.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt as _;

use super::{
    observed,
    spec::{spec, uid},
};

pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const POD_UID: &str = "io.kubernetes.pod.uid";
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";

const HASH: &str = "io.kubernetes.container.hash";
const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
const MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
const PRE_STOP: &str = "io.kubernetes.container.preStopHandler";
const PORTS: &str = "io.kubernetes.container.ports";
const DELETION_GRACE: &str = "io.kubernetes.pod.deletionGracePeriod";
const TERMINATION_GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";

type Map = HashMap<String, String>;

/// The labels of a pod's sandbox: the pod's own and ours.
pub fn of_sandbox(pod: &Pod) -> Map {
    let own = pod.labels().iter();
    own.map(|(key, value)| (key.clone(), value.clone()))
        .chain(identity(pod))
        .collect()
}

/// The labels of a container.
pub fn of_container(pod: &Pod, container: &Container) -> Map {
    identity(pod)
        .chain([(CONTAINER_NAME.to_owned(), container.name.clone())])
        .collect()
}

fn identity(pod: &Pod) -> impl Iterator<Item = (String, String)> {
    [
        (POD_NAME.to_owned(), pod.name_any()),
        (
            POD_NAMESPACE.to_owned(),
            pod.namespace().unwrap_or_default(),
        ),
        (POD_UID.to_owned(), uid(pod).to_owned()),
    ]
    .into_iter()
}

/// The annotations of a container.
pub fn annotations(pod: &Pod, container: &Container, restart_count: i32) -> Map {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let mut annotations = Map::from([
        (HASH.to_owned(), format!("{:x}", observed::hash(container))),
        (RESTART_COUNT.to_owned(), restart_count.to_string()),
        (
            MESSAGE_PATH.to_owned(),
            text(&container.termination_message_path),
        ),
        (
            MESSAGE_POLICY.to_owned(),
            text(&container.termination_message_policy),
        ),
    ]);
    if let Some(grace) = pod.metadata.deletion_grace_period_seconds {
        annotations.insert(DELETION_GRACE.to_owned(), grace.to_string());
    }
    if let Some(grace) = spec(pod).termination_grace_period_seconds {
        annotations.insert(TERMINATION_GRACE.to_owned(), grace.to_string());
    }
    let pre_stop = container
        .lifecycle
        .as_ref()
        .and_then(|it| it.pre_stop.as_ref());
    if let Some(text) = pre_stop.and_then(|handler| serde_json::to_string(handler).ok()) {
        annotations.insert(PRE_STOP.to_owned(), text);
    }
    let ports = container.ports.as_ref().filter(|ports| !ports.is_empty());
    if let Some(text) = ports.and_then(|ports| serde_json::to_string(ports).ok()) {
        annotations.insert(PORTS.to_owned(), text);
    }
    annotations
}

fn get<'a>(map: &'a Map, key: &str) -> &'a str {
    map.get(key).map(String::as_str).unwrap_or_default()
}

pub fn container_name(labels: &Map) -> &str {
    get(labels, CONTAINER_NAME)
}

pub fn pod_uid(labels: &Map) -> &str {
    get(labels, POD_UID)
}

pub fn restart_count(annotations: &Map) -> i32 {
    get(annotations, RESTART_COUNT).parse().unwrap_or(0)
}

pub fn hash(annotations: &Map) -> u64 {
    u64::from_str_radix(get(annotations, HASH), 16).unwrap_or(0)
}

/// The path in the container at which it leaves its termination message; may be empty.
pub fn message_path(annotations: &Map) -> &str {
    get(annotations, MESSAGE_PATH)
}

/// Whether a failed container's log stands in for a message that it has not left.
pub fn falls_back_to_logs(annotations: &Map) -> bool {
    get(annotations, MESSAGE_POLICY) == "FallbackToLogsOnError"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_written_is_read_back() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"app": "x"}},
            "spec": {"containers": [{
                "name": "c", "image": "i", "terminationMessagePath": "/m",
                "terminationMessagePolicy": "FallbackToLogsOnError",
            }], "terminationGracePeriodSeconds": 30},
        }))
        .expect("a pod");
        let container = &spec(&pod).containers[0];
        let labels = of_container(&pod, container);
        assert_eq!((container_name(&labels), pod_uid(&labels)), ("c", "u"));
        assert_eq!(get(&of_sandbox(&pod), "app"), "x");
        let annotations = annotations(&pod, container, 3);
        assert_eq!(restart_count(&annotations), 3);
        assert_eq!(hash(&annotations), observed::hash(container));
        assert_eq!(message_path(&annotations), "/m");
        assert!(falls_back_to_logs(&annotations));
        assert_eq!(get(&annotations, TERMINATION_GRACE), "30");
    }
}
