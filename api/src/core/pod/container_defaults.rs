//! Default values of containers: regular, init and ephemeral ones.

use k8s_openapi::{
    api::core::v1::{Container, EnvVar, EphemeralContainer, HTTPGetAction, Lifecycle, Probe},
    apimachinery::pkg::api::resource::Quantity,
};

use super::{image, resources};
use crate::zero::{default_number, default_text, list_mut, text};

/// The defaults of a container in a Pod or a template.
pub fn container(container: &mut Container) {
    default_pull_policy(&mut container.image_pull_policy, text(&container.image));
    default_text(
        &mut container.termination_message_path,
        "/dev/termination-log",
    );
    default_text(&mut container.termination_message_policy, "File");
    resources::round(container.resources.get_or_insert_default());

    for port in list_mut(&mut container.ports) {
        default_text(&mut port.protocol, "TCP");
    }
    for variable in list_mut(&mut container.env) {
        env_var(variable);
    }
    for check in [
        &mut container.liveness_probe,
        &mut container.readiness_probe,
        &mut container.startup_probe,
    ]
    .into_iter()
    .flatten()
    {
        probe(check);
    }
    if let Some(hooks) = &mut container.lifecycle {
        lifecycle(hooks);
    }
}

/// The same defaults for an ephemeral container, which has the fields of a container.
pub fn ephemeral_container(ephemeral: &mut EphemeralContainer) {
    let target = ephemeral.target_container_name.take();
    let mut common = into_container(std::mem::take(ephemeral));
    container(&mut common);
    *ephemeral = from_container(common, target);
}

/// The fields that an ephemeral container shares with the others.
pub fn into_container(ephemeral: EphemeralContainer) -> Container {
    Container {
        args: ephemeral.args,
        command: ephemeral.command,
        env: ephemeral.env,
        env_from: ephemeral.env_from,
        image: ephemeral.image,
        image_pull_policy: ephemeral.image_pull_policy,
        lifecycle: ephemeral.lifecycle,
        liveness_probe: ephemeral.liveness_probe,
        name: ephemeral.name,
        ports: ephemeral.ports,
        readiness_probe: ephemeral.readiness_probe,
        resize_policy: ephemeral.resize_policy,
        resources: ephemeral.resources,
        restart_policy: ephemeral.restart_policy,
        restart_policy_rules: ephemeral.restart_policy_rules,
        security_context: ephemeral.security_context,
        startup_probe: ephemeral.startup_probe,
        stdin: ephemeral.stdin,
        stdin_once: ephemeral.stdin_once,
        termination_message_path: ephemeral.termination_message_path,
        termination_message_policy: ephemeral.termination_message_policy,
        tty: ephemeral.tty,
        volume_devices: ephemeral.volume_devices,
        volume_mounts: ephemeral.volume_mounts,
        working_dir: ephemeral.working_dir,
    }
}

fn from_container(common: Container, target_container_name: Option<String>) -> EphemeralContainer {
    EphemeralContainer {
        args: common.args,
        command: common.command,
        env: common.env,
        env_from: common.env_from,
        image: common.image,
        image_pull_policy: common.image_pull_policy,
        lifecycle: common.lifecycle,
        liveness_probe: common.liveness_probe,
        name: common.name,
        ports: common.ports,
        readiness_probe: common.readiness_probe,
        resize_policy: common.resize_policy,
        resources: common.resources,
        restart_policy: common.restart_policy,
        restart_policy_rules: common.restart_policy_rules,
        security_context: common.security_context,
        startup_probe: common.startup_probe,
        stdin: common.stdin,
        stdin_once: common.stdin_once,
        target_container_name,
        termination_message_path: common.termination_message_path,
        termination_message_policy: common.termination_message_policy,
        tty: common.tty,
        volume_devices: common.volume_devices,
        volume_mounts: common.volume_mounts,
        working_dir: common.working_dir,
    }
}

/// `Always` for the tag `latest`, otherwise `IfNotPresent`.
pub fn default_pull_policy(policy: &mut Option<String>, reference: &str) {
    let default = match image::tag(reference) {
        Some("latest") => "Always",
        _ => "IfNotPresent",
    };
    default_text(policy, default);
}

/// What is limited and not requested is requested as limited. Only Pods get this, so that a
/// template keeps what its author wrote.
pub fn requests_from_limits(container: &mut Container) {
    let Some(requirements) = &mut container.resources else {
        return;
    };
    if let Some(limits) = &requirements.limits {
        let requests = requirements.requests.get_or_insert_default();
        for (name, quantity) in limits {
            if !requests.contains_key(name) {
                requests.insert(name.clone(), quantity.clone());
            }
        }
    }
}

/// On the host's network a container's port is the host's port.
pub fn host_ports(container: &mut Container) {
    for port in list_mut(&mut container.ports) {
        if port.host_port.is_none() && port.container_port != 0 {
            port.host_port = Some(port.container_port);
        }
    }
}

fn env_var(variable: &mut EnvVar) {
    let Some(source) = &mut variable.value_from else {
        return;
    };
    if let Some(field) = &mut source.field_ref {
        default_text(&mut field.api_version, "v1");
    }
    if let Some(resource) = &mut source.resource_field_ref {
        default_divisor(&mut resource.divisor);
    }
    if let Some(file) = &mut source.file_key_ref {
        file.optional.get_or_insert(false);
    }
}

/// Upstream serves an unset divisor as `"0"`.
pub fn default_divisor(divisor: &mut Option<Quantity>) {
    divisor.get_or_insert_with(|| Quantity("0".to_owned()));
}

fn probe(probe: &mut Probe) {
    default_number(&mut probe.timeout_seconds, 1);
    default_number(&mut probe.period_seconds, 10);
    default_number(&mut probe.success_threshold, 1);
    default_number(&mut probe.failure_threshold, 3);
    if let Some(action) = &mut probe.http_get {
        http_get(action);
    }
    if let Some(grpc) = &mut probe.grpc {
        grpc.service.get_or_insert_default();
    }
}

fn lifecycle(lifecycle: &mut Lifecycle) {
    // The feature ContainerStopSignals is off in v1.36.
    lifecycle.stop_signal = None;
    for hook in [&mut lifecycle.post_start, &mut lifecycle.pre_stop]
        .into_iter()
        .flatten()
    {
        if let Some(action) = &mut hook.http_get {
            http_get(action);
        }
    }
}

fn http_get(action: &mut HTTPGetAction) {
    default_text(&mut action.path, "/");
    default_text(&mut action.scheme, "HTTP");
}
