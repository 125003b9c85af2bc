//! Which container's log a request is for, and why there is none yet.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

/// The id of the container whose log is wanted, without the runtime's name before it.
///
/// # Errors
/// The text for the client that says why there is no log.
pub fn container_id(pod: &Pod, container: &str, previous: bool) -> Result<String, String> {
    let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
    let found = status_of(pod, container).and_then(|status| chosen(status, previous));
    let id = match found {
        Some(Ok(id)) => id,
        Some(Err(Missing::Previous)) => {
            return Err(format!(
                "previous terminated container {container:?} in pod {pod_name:?} not found"
            ));
        }
        Some(Err(Missing::Terminated)) => {
            return Err(format!(
                "container {container:?} in pod {pod_name:?} is terminated"
            ));
        }
        Some(Err(Missing::Waiting(reason))) => {
            let why = match reason {
                "ErrImagePull" => "image can't be pulled",
                "ImagePullBackOff" => "trying and failing to pull image",
                reason => reason,
            };
            return Err(format!(
                "container {container:?} in pod {pod_name:?} is waiting to start: {why}"
            ));
        }
        None if status_of(pod, container).is_some() => {
            return Err(format!(
                "container {container:?} in pod {pod_name:?} is waiting to start - no logs yet"
            ));
        }
        None => {
            return Err(format!(
                "container {container:?} in pod {pod_name:?} is not available"
            ));
        }
    };
    Ok(id
        .split_once("://")
        .map_or(id, |(_runtime, id)| id)
        .to_owned())
}

/// Whether the pod's spec has the container, of whatever kind.
pub fn has_container(pod: &Pod, name: &str) -> bool {
    let Some(spec) = &pod.spec else {
        return false;
    };
    let init = spec.init_containers.iter().flatten();
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    spec.containers.iter().chain(init).any(|c| c.name == name)
        || ephemeral.into_iter().any(|c| c.name == name)
}

fn status_of<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    [
        &status.container_statuses,
        &status.init_container_statuses,
        &status.ephemeral_container_statuses,
    ]
    .into_iter()
    .flatten()
    .flatten()
    .find(|status| status.name == name)
}

enum Missing<'a> {
    Previous,
    Terminated,
    Waiting(&'a str),
}

/// The container that the state points at; `None` when the state says nothing.
fn chosen(status: &ContainerStatus, previous: bool) -> Option<Result<&str, Missing<'_>>> {
    let last = status.last_state.as_ref();
    let last = last.and_then(|state| state.terminated.as_ref());
    let last_id = last.and_then(|terminated| non_empty(terminated.container_id.as_deref()));
    if previous {
        return Some(last_id.ok_or(Missing::Previous));
    }
    let state = status.state.as_ref()?;
    if state.running.is_some() {
        return Some(Ok(status.container_id.as_deref().unwrap_or_default()));
    }
    if let Some(terminated) = &state.terminated {
        // Without an id, the container that was to come never started.
        let id = non_empty(terminated.container_id.as_deref()).or(last_id);
        return Some(id.ok_or(Missing::Terminated));
    }
    if last.is_some() {
        return Some(last_id.ok_or(Missing::Terminated));
    }
    let waiting = state.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().unwrap_or_default();
    Some(Err(Missing::Waiting(reason)))
}

fn non_empty(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::server::streaming::Process;

    fn pod(state: &Value, last: &Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "c", "tty": true}], "initContainers": [{"name": "i"}]},
            "status": {"containerStatuses": [{
                "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "containerID": "containerd://current", "state": state, "lastState": last,
            }]},
        }))
        .unwrap()
    }

    #[test]
    fn the_container_is_found_by_the_status() {
        let none = json!({});
        let terminated = |id: &str| json!({"terminated": {"exitCode": 0, "containerID": format!("containerd://{id}")}});
        let ended = json!({"terminated": {"exitCode": 0}});
        let waiting = |reason: &str| json!({"waiting": {"reason": reason}});
        let running = json!({"running": {}});
        let missing = |text: &str| Err(format!("container \"c\" in pod \"p\" is {text}"));
        let cases = [
            (&running, &none, Ok("current".to_owned())),
            (&terminated("ended"), &none, Ok("ended".to_owned())),
            (&ended, &terminated("last"), Ok("last".to_owned())),
            (&ended, &none, missing("terminated")),
            (
                &waiting("CrashLoopBackOff"),
                &terminated("last"),
                Ok("last".to_owned()),
            ),
            (
                &waiting("ContainerCreating"),
                &none,
                missing("waiting to start: ContainerCreating"),
            ),
            (
                &waiting("ErrImagePull"),
                &none,
                missing("waiting to start: image can't be pulled"),
            ),
            (
                &waiting("ImagePullBackOff"),
                &none,
                missing("waiting to start: trying and failing to pull image"),
            ),
            (&none, &none, missing("waiting to start - no logs yet")),
        ];
        for (state, last, expected) in cases {
            assert_eq!(container_id(&pod(state, last), "c", false), expected);
        }
        assert_eq!(
            container_id(&pod(&running, &none), "i", false),
            missing("not available").map_err(|text: String| text.replace("\"c\"", "\"i\""))
        );
        assert_eq!(
            container_id(&pod(&running, &terminated("last")), "c", true),
            Ok("last".to_owned())
        );
        assert_eq!(
            container_id(&pod(&running, &none), "c", true),
            Err("previous terminated container \"c\" in pod \"p\" not found".to_owned())
        );
    }

    #[test]
    fn containers_of_every_kind_count() {
        let pod = pod(&json!({}), &json!({}));
        assert!(has_container(&pod, "c") && has_container(&pod, "i"));
        assert!(!has_container(&pod, "x"));
        let tty = |name| Process::of(&pod, name).map(|process| process.tty);
        assert_eq!((tty("c"), tty("i")), (Some(true), Some(false)));
        assert_eq!(tty("x"), None);
    }
}
