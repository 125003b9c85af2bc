//! Containers: what all share, and what differs for regular, init and ephemeral ones.

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, ContainerResizePolicy, ContainerRestartRule, EphemeralContainer,
    PodSpec,
};

use super::{env, probes, resources, security, spec::claim_names, volumes, volumes::Volumes};
use crate::{
    check,
    core::pod::{container_defaults::into_container, resources::is_sidecar},
    field::{ErrorList, Path},
    formats,
    zero::{list, text},
};

const MAX_RESTART_RULES: usize = 20;
const MAX_EXIT_CODES: usize = 255;

/// What containers refer to in the rest of the Pod.
struct Surroundings<'a> {
    spec: &'a PodSpec,
    volumes: &'a Volumes<'a>,
    claims: Vec<&'a str>,
}

/// All containers of a spec.
pub fn all(spec: &PodSpec, volumes: &Volumes<'_>, path: &Path, errors: &mut ErrorList) {
    let surroundings = Surroundings {
        spec,
        volumes,
        claims: claim_names(spec),
    };
    regular(&surroundings, &path.child("containers"), errors);
    init(&surroundings, &path.child("initContainers"), errors);
    ephemeral(&surroundings, &path.child("ephemeralContainers"), errors);
}

fn regular(pod: &Surroundings<'_>, path: &Path, errors: &mut ErrorList) {
    let containers = &pod.spec.containers;
    let grace_period = pod.spec.termination_grace_period_seconds;
    if containers.is_empty() {
        errors.push(path.required(""));
        return;
    }
    for (index, container) in containers.iter().enumerate() {
        let path = path.index(index);
        common(container, pod, &path, errors);
        if containers[..index].iter().any(|c| c.name == container.name) {
            errors.push(path.child("name").duplicate(container.name.as_str()));
        }
        if let Some(hooks) = &container.lifecycle {
            probes::lifecycle(hooks, grace_period, &path.child("lifecycle"), errors);
        }
        probes::probes(container, grace_period, &path, errors);
        restart_policy(container, &path, errors);
    }
    host_port_conflicts(containers, path, errors);
}

fn init(pod: &Surroundings<'_>, path: &Path, errors: &mut ErrorList) {
    let containers = list(&pod.spec.init_containers);
    let grace_period = pod.spec.termination_grace_period_seconds;
    for (index, container) in containers.iter().enumerate() {
        let list_path = path;
        let path = path.index(index);
        common(container, pod, &path, errors);
        restart_policy(container, &path, errors);
        let name = container.name.as_str();
        let mut others = pod.spec.containers.iter().chain(&containers[..index]);
        if !name.is_empty() && others.any(|other| other.name == name) {
            errors.push(path.child("name").duplicate(name));
        }
        host_port_conflicts(std::slice::from_ref(container), list_path, errors);
        if is_sidecar(container) {
            if let Some(hooks) = &container.lifecycle {
                probes::lifecycle(hooks, grace_period, &path.child("lifecycle"), errors);
            }
            probes::probes(container, grace_period, &path, errors);
            continue;
        }
        for (field, is_set) in [
            ("lifecycle", container.lifecycle.is_some()),
            ("livenessProbe", container.liveness_probe.is_some()),
            ("readinessProbe", container.readiness_probe.is_some()),
            ("startupProbe", container.startup_probe.is_some()),
        ] {
            if is_set {
                errors.push(
                    path.child(field).forbidden(
                        "may not be set for init containers without restartPolicy=Always",
                    ),
                );
            }
        }
        for (index, policy) in list(&container.resize_policy).iter().enumerate() {
            if policy.restart_policy == "RestartContainer" {
                let path = path.child("resizePolicy").index(index);
                errors.push(path.child("restartPolicy").invalid(
                    "RestartContainer",
                    "must not be set to 'RestartContainer' for non-sidecar initContainers",
                ));
            }
        }
    }
}

fn ephemeral(pod: &Surroundings<'_>, path: &Path, errors: &mut ErrorList) {
    let containers = list(&pod.spec.ephemeral_containers);
    let lasting = || {
        pod.spec
            .containers
            .iter()
            .chain(list(&pod.spec.init_containers))
    };
    for (index, ephemeral) in containers.iter().enumerate() {
        let path = path.index(index);
        let container = into_container(ephemeral.clone());
        common(&container, pod, &path, errors);
        untrimmed_image(&container, &path, errors);
        let name = ephemeral.name.as_str();
        if lasting().any(|other| other.name == name)
            || containers[..index].iter().any(|other| other.name == name)
        {
            errors.push(path.child("name").duplicate(name));
        }
        let target = text(&ephemeral.target_container_name);
        if !target.is_empty() && !lasting().any(|other| other.name == target) {
            errors.push(path.child("targetContainerName").not_found(target));
        }
        only_ephemeral_fields(ephemeral, &path, errors);
    }
}

/// An ephemeral container is a guest: it can neither be probed nor given resources or ports.
fn only_ephemeral_fields(container: &EphemeralContainer, path: &Path, errors: &mut ErrorList) {
    const DETAIL: &str = "cannot be set for an Ephemeral Container";
    let has_resources = container.resources.as_ref().is_some_and(|resources| {
        resources.limits.is_some() || resources.requests.is_some() || resources.claims.is_some()
    });
    for (field, is_set) in [
        ("ports", container.ports.is_some()),
        ("resources", has_resources),
        ("resizePolicy", container.resize_policy.is_some()),
        ("restartPolicy", container.restart_policy.is_some()),
        (
            "restartPolicyRules",
            container.restart_policy_rules.is_some(),
        ),
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
        ("lifecycle", container.lifecycle.is_some()),
    ] {
        if is_set {
            errors.push(path.child(field).forbidden(DETAIL));
        }
    }
    for (index, mount) in list(&container.volume_mounts).iter().enumerate() {
        let path = path.child("volumeMounts").index(index);
        for (field, value) in [
            ("subPath", &mount.sub_path),
            ("subPathExpr", &mount.sub_path_expr),
        ] {
            if !text(value).is_empty() {
                errors.push(path.child(field).forbidden(DETAIL));
            }
        }
    }
}

/// What every kind of container is checked for.
fn common(container: &Container, pod: &Surroundings<'_>, path: &Path, errors: &mut ErrorList) {
    let name_path = path.child("name");
    if container.name.is_empty() {
        errors.push(name_path.required(""));
    } else {
        check::dns_label(&container.name, &name_path, errors);
    }
    check::required(text(&container.image), &path.child("image"), errors);
    check::required_one_of(
        text(&container.termination_message_policy),
        &["File", "FallbackToLogsOnError"],
        &path.child("terminationMessagePolicy"),
        errors,
    );
    ports(list(&container.ports), &path.child("ports"), errors);
    env::variables(list(&container.env), &path.child("env"), errors);
    env::sources(list(&container.env_from), &path.child("envFrom"), errors);
    volumes::mounts(container, pod.volumes, &path.child("volumeMounts"), errors);
    volumes::devices(container, pod.volumes, &path.child("volumeDevices"), errors);
    pull_policy(
        text(&container.image_pull_policy),
        &path.child("imagePullPolicy"),
        errors,
    );
    if let Some(requirements) = &container.resources {
        let path = path.child("resources");
        resources::container(requirements, &pod.claims, &path, errors);
    }
    resize_policy(
        list(&container.resize_policy),
        text(&pod.spec.restart_policy),
        &path.child("resizePolicy"),
        errors,
    );
    if let Some(context) = &container.security_context {
        let has_host_users = pod.spec.host_users != Some(false);
        security::container(
            context,
            has_host_users,
            &path.child("securityContext"),
            errors,
        );
    }
}

/// When an image is pulled, of a container or of a volume.
pub fn pull_policy(policy: &str, path: &Path, errors: &mut ErrorList) {
    check::required_one_of(policy, &["Always", "IfNotPresent", "Never"], path, errors);
}

/// An image's name may be padded in a template, where it has always been accepted.
pub fn untrimmed_image(container: &Container, path: &Path, errors: &mut ErrorList) {
    let image = text(&container.image);
    if image.trim() != image {
        errors.push(
            path.child("image")
                .invalid(image, "must not have leading or trailing whitespace"),
        );
    }
}

fn ports(ports: &[ContainerPort], path: &Path, errors: &mut ErrorList) {
    let mut names = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = text(&port.name);
        if !name.is_empty() {
            let path = path.child("name");
            let messages = formats::port_name(name);
            if messages.is_empty() && names.contains(&name) {
                errors.push(path.duplicate(name));
            } else if messages.is_empty() {
                names.push(name);
            }
            check::each(&path, name, messages, errors);
        }
        let container_port_path = path.child("containerPort");
        if port.container_port == 0 {
            errors.push(container_port_path.required(""));
        } else {
            let messages = formats::port_number(port.container_port);
            check::each(&container_port_path, port.container_port, messages, errors);
        }
        if let Some(host_port) = port.host_port.filter(|&port| port != 0) {
            let messages = formats::port_number(host_port);
            check::each(&path.child("hostPort"), host_port, messages, errors);
        }
        check::required_one_of(
            text(&port.protocol),
            &["SCTP", "TCP", "UDP"],
            &path.child("protocol"),
            errors,
        );
    }
}

/// Two containers cannot have one port of the host.
fn host_port_conflicts(containers: &[Container], path: &Path, errors: &mut ErrorList) {
    let mut taken = Vec::new();
    for (index, container) in containers.iter().enumerate() {
        let path = path.index(index).child("ports");
        for (index, port) in list(&container.ports).iter().enumerate() {
            let Some(host_port) = port.host_port.filter(|&port| port != 0) else {
                continue;
            };
            let key = format!(
                "{}/{}/{host_port}",
                text(&port.protocol),
                text(&port.host_ip)
            );
            if taken.contains(&key) {
                errors.push(path.index(index).child("hostPort").duplicate(key));
            } else {
                taken.push(key);
            }
        }
    }
}

fn resize_policy(
    policies: &[ContainerResizePolicy],
    pod_restart_policy: &str,
    path: &Path,
    errors: &mut ErrorList,
) {
    for (index, policy) in policies.iter().enumerate() {
        let (resource, restart) = (
            policy.resource_name.as_str(),
            policy.restart_policy.as_str(),
        );
        if policies[..index]
            .iter()
            .any(|p| p.resource_name == resource)
        {
            errors.push(path.index(index).duplicate(resource));
        }
        check::required_one_of(resource, &["cpu", "memory"], path, errors);
        check::required_one_of(restart, &["NotRequired", "RestartContainer"], path, errors);
        if pod_restart_policy == "Never" && restart != "NotRequired" {
            errors.push(path.invalid(
                restart,
                "must be 'NotRequired' when pod `restartPolicy` is 'Never'",
            ));
        }
    }
}

/// A restart policy of the container's own, with rules by exit code.
fn restart_policy(container: &Container, path: &Path, errors: &mut ErrorList) {
    let rules = list(&container.restart_policy_rules);
    let policy_path = path.child("restartPolicy");
    match &container.restart_policy {
        None if rules.is_empty() => return,
        None => errors
            .push(policy_path.required("must specify restartPolicy when restart rules are used")),
        Some(policy) => check::one_of(
            policy,
            &["Always", "Never", "OnFailure"],
            &policy_path,
            errors,
        ),
    }
    let rules_path = path.child("restartPolicyRules");
    if rules.len() > MAX_RESTART_RULES {
        errors.push(rules_path.too_many(rules.len(), MAX_RESTART_RULES));
    }
    for (index, rule) in rules.iter().enumerate() {
        restart_rule(rule, &rules_path.index(index), errors);
    }
}

fn restart_rule(rule: &ContainerRestartRule, path: &Path, errors: &mut ErrorList) {
    let action_path = path.child("action");
    check::one_of(
        &rule.action,
        &["Restart", "RestartAllContainers"],
        &action_path,
        errors,
    );
    let path = path.child("exitCodes");
    let Some(exit_codes) = &rule.exit_codes else {
        errors.push(path.required("must be specified"));
        return;
    };
    let operator_path = path.child("operator");
    check::one_of(
        &exit_codes.operator,
        &["In", "NotIn"],
        &operator_path,
        errors,
    );
    let values = list(&exit_codes.values).len();
    if values > MAX_EXIT_CODES {
        errors.push(path.child("values").too_many(values, MAX_EXIT_CODES));
    }
}

/// The containers of a changed Pod: none came or went, and each has an image. Whether the rest
/// of the change can be looked at.
pub fn updated(
    new: &[Container],
    old: &[Container],
    path: &Path,
    errors: &mut ErrorList,
) -> std::ops::ControlFlow<()> {
    if new.len() != old.len() {
        errors.push(path.forbidden("pod updates may not add or remove containers"));
        return std::ops::ControlFlow::Break(());
    }
    for (index, container) in new.iter().enumerate() {
        let path = path.index(index);
        check::required(text(&container.image), &path.child("image"), errors);
        untrimmed_image(container, &path, errors);
    }
    std::ops::ControlFlow::Continue(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_that_clash_are_named_with_protocol_and_address() {
        let container: Container = serde_json::from_value(serde_json::json!({
            "name": "a",
            "ports": [
                {"containerPort": 80, "hostPort": 80, "protocol": "TCP"},
                {"containerPort": 81, "hostPort": 80, "protocol": "TCP"},
                {"containerPort": 82, "hostPort": 80, "protocol": "UDP"},
            ]
        }))
        .unwrap();
        let mut errors = ErrorList::new();
        host_port_conflicts(&[container], &Path::new("spec.containers"), &mut errors);
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            errors,
            [r#"spec.containers[0].ports[1].hostPort: Duplicate value: "TCP//80""#]
        );
    }
}
