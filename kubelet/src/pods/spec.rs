//! Reading a pod's specification: the containers of its three lists, restart policies, and what
//! events call things.

use k8s_openapi::api::core::v1::{
    Container, ContainerRestartRule, EphemeralContainer, ObjectReference, Pod, PodSpec,
};
use kube::ResourceExt as _;

/// Which list of the specification a container stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ContainerKind {
    Init,
    Regular,
    Ephemeral,
}

/// A specification without anything in it, for a pod that has none.
static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);

/// The pod's specification; the API server lets no pod be without one.
pub fn spec(pod: &Pod) -> &PodSpec {
    pod.spec.as_ref().unwrap_or(&EMPTY)
}

pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// How upstream names a pod in messages: `name_namespace(uid)`.
pub fn describe(pod: &Pod) -> String {
    format!(
        "{}_{}({})",
        pod.name_any(),
        pod.namespace().unwrap_or_default(),
        uid(pod)
    )
}

pub fn init_containers(spec: &PodSpec) -> &[Container] {
    spec.init_containers.as_deref().unwrap_or_default()
}

pub fn ephemeral_containers(spec: &PodSpec) -> &[EphemeralContainer] {
    spec.ephemeral_containers.as_deref().unwrap_or_default()
}

/// An ephemeral container as one of the other kinds, which has every field that it has.
pub fn ephemeral_as_container(ephemeral: &EphemeralContainer) -> Container {
    let of = ephemeral.clone();
    Container {
        name: of.name,
        args: of.args,
        command: of.command,
        env: of.env,
        env_from: of.env_from,
        image: of.image,
        image_pull_policy: of.image_pull_policy,
        lifecycle: of.lifecycle,
        liveness_probe: of.liveness_probe,
        ports: of.ports,
        readiness_probe: of.readiness_probe,
        resize_policy: of.resize_policy,
        resources: of.resources,
        restart_policy: of.restart_policy,
        restart_policy_rules: of.restart_policy_rules,
        security_context: of.security_context,
        startup_probe: of.startup_probe,
        stdin: of.stdin,
        stdin_once: of.stdin_once,
        termination_message_path: of.termination_message_path,
        termination_message_policy: of.termination_message_policy,
        tty: of.tty,
        volume_devices: of.volume_devices,
        volume_mounts: of.volume_mounts,
        working_dir: of.working_dir,
    }
}

/// The init and regular containers with their kinds.
pub fn main_containers(spec: &PodSpec) -> impl Iterator<Item = (ContainerKind, &Container)> {
    init_containers(spec)
        .iter()
        .map(|container| (ContainerKind::Init, container))
        .chain(
            spec.containers
                .iter()
                .map(|container| (ContainerKind::Regular, container)),
        )
}

/// The container of that name, of any kind.
pub fn find_container(spec: &PodSpec, name: &str) -> Option<(ContainerKind, Container)> {
    main_containers(spec)
        .find(|(_, container)| container.name == name)
        .map(|(kind, container)| (kind, container.clone()))
        .or_else(|| {
            ephemeral_containers(spec)
                .iter()
                .find(|container| container.name == name)
                .map(|container| (ContainerKind::Ephemeral, ephemeral_as_container(container)))
        })
}

/// An init container that goes on running beside the regular ones.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

pub fn is_host_network(pod: &Pod) -> bool {
    spec(pod).host_network == Some(true)
}

/// Whether the pod's containers run again when they fail.
pub fn restarts_on_failure(spec: &PodSpec) -> bool {
    spec.restart_policy.as_deref() != Some("Never")
}

/// Whether a container that ended with that exit code runs again.
pub fn restarts(container: &Container, spec: &PodSpec, exit_code: i32) -> bool {
    let by_policy = |policy: Option<&str>| match policy {
        Some("OnFailure") => exit_code != 0,
        Some("Never") => false,
        _ => true,
    };
    match container.restart_policy.as_deref() {
        None => by_policy(spec.restart_policy.as_deref()),
        Some(policy) => {
            let action = matching_rule(container, exit_code).map(|rule| rule.action.as_str());
            matches!(action, Some("Restart" | "RestartAllContainers")) || by_policy(Some(policy))
        }
    }
}

/// The first restart rule that the exit code matches.
pub fn matching_rule(container: &Container, exit_code: i32) -> Option<&ContainerRestartRule> {
    container
        .restart_policy_rules
        .iter()
        .flatten()
        .find(|rule| {
            rule.exit_codes.as_ref().is_some_and(|codes| {
                let listed = codes.values.iter().flatten().any(|&code| code == exit_code);
                match codes.operator.as_str() {
                    "In" => listed,
                    "NotIn" => !listed,
                    _ => false,
                }
            })
        })
}

/// Whether the end of some container may restart all of them.
pub fn may_restart_all(spec: &PodSpec) -> bool {
    main_containers(spec)
        .flat_map(|(_, container)| container.restart_policy_rules.iter().flatten())
        .any(|rule| rule.action == "RestartAllContainers")
}

/// What events about the pod refer to.
pub fn pod_reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: pod.metadata.name.clone(),
        namespace: pod.metadata.namespace.clone(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        field_path: None,
    }
}

/// What events about one of its containers refer to.
pub fn container_reference(pod: &Pod, kind: ContainerKind, name: &str) -> ObjectReference {
    let list = match kind {
        ContainerKind::Init => "initContainers",
        ContainerKind::Regular => "containers",
        ContainerKind::Ephemeral => "ephemeralContainers",
    };
    ObjectReference {
        field_path: Some(format!("spec.{list}{{{name}}}")),
        ..pod_reference(pod)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn restart_policies_of_pod_container_and_rules_decide_in_this_order() {
        let container = |value: serde_json::Value| -> Container {
            serde_json::from_value(value).expect("a container")
        };
        let plain = container(json!({"name": "c"}));
        let ruled = container(json!({
            "name": "c", "restartPolicy": "Never",
            "restartPolicyRules": [
                {"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}
            ],
        }));
        let cases = [
            (&plain, "Always", 0, true),
            (&plain, "OnFailure", 0, false),
            (&plain, "OnFailure", 1, true),
            (&plain, "Never", 1, false),
            (&ruled, "Always", 1, false),
            (&ruled, "Never", 42, true),
        ];
        for (container, policy, exit_code, expected) in cases {
            let spec = PodSpec {
                restart_policy: Some(policy.to_owned()),
                ..PodSpec::default()
            };
            assert_eq!(
                restarts(container, &spec, exit_code),
                expected,
                "{policy} {exit_code}"
            );
        }
    }
}
