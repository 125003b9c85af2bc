//! Default values of Pods and of the pod templates in workload kinds.
//!
//! Enter at [`pod`] and [`pod_template`]. Values follow upstream's
//! `pkg/apis/core/v1/defaults.go`, and its conversions where a field has two names.

use k8s_openapi::{
    api::core::v1::{Container, Pod, PodIP, PodSpec, PodStatus, PodTemplateSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{container_defaults, resources, volume_defaults};
use crate::zero::{default_text, list, list_mut, text};

/// Annotations that init containers once lived in. Upstream drops them wherever it sees them.
const INIT_CONTAINER_ANNOTATIONS: [&str; 4] = [
    "pod.beta.kubernetes.io/init-containers",
    "pod.alpha.kubernetes.io/init-containers",
    "pod.beta.kubernetes.io/init-container-statuses",
    "pod.alpha.kubernetes.io/init-container-statuses",
];

/// A Pod's defaults: those of its spec, and some that templates do not get.
pub fn pod(pod: &mut Pod) {
    drop_init_container_annotations(&mut pod.metadata);
    let spec = pod.spec.get_or_insert_default();
    pod_spec(spec);
    for container in containers_mut(spec) {
        container_defaults::requests_from_limits(container);
    }
    resources::default_pod_level(spec);
    spec.enable_service_links.get_or_insert(true);
    if spec.host_network == Some(true) {
        for container in containers_mut(spec) {
            container_defaults::host_ports(container);
        }
    }
    if let Some(period) = &mut spec.termination_grace_period_seconds
        && *period < 0
    {
        *period = 1;
    }
    let status = pod.status.get_or_insert_default();
    pod_status(status);
}

/// The defaults of the template of a workload kind.
pub fn pod_template(template: &mut PodTemplateSpec) {
    let metadata = template.metadata.get_or_insert_default();
    drop_init_container_annotations(metadata);
    pod_spec(template.spec.get_or_insert_default());
}

/// The defaults of a spec, in a Pod or in a template.
pub fn pod_spec(spec: &mut PodSpec) {
    sync_service_account(spec);

    default_text(&mut spec.dns_policy, "ClusterFirst");
    default_text(&mut spec.restart_policy, "Always");
    default_text(&mut spec.scheduler_name, "default-scheduler");
    spec.termination_grace_period_seconds.get_or_insert(30);
    spec.security_context.get_or_insert_default();

    for volume in list_mut(&mut spec.volumes) {
        volume_defaults::volume(volume);
    }
    for container in containers_mut(spec) {
        container_defaults::container(container);
    }
    for container in list_mut(&mut spec.ephemeral_containers) {
        container_defaults::ephemeral_container(container);
    }
    if let Some(requirements) = &mut spec.resources {
        resources::round(requirements);
    }
    resources::round_list(&mut spec.overhead);
    drop_disabled(spec);
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are always served, equal.
fn sync_service_account(spec: &mut PodSpec) {
    if text(&spec.service_account_name).is_empty() {
        spec.service_account_name = spec.service_account.take();
    }
    spec.service_account.clone_from(&spec.service_account_name);
}

fn containers_mut(spec: &mut PodSpec) -> impl Iterator<Item = &mut Container> {
    spec.containers
        .iter_mut()
        .chain(list_mut(&mut spec.init_containers))
}

/// Fields of features that are off in v1.36 are dropped, as if the type did not have them.
fn drop_disabled(spec: &mut PodSpec) {
    spec.scheduling_group = None;
}

fn drop_init_container_annotations(metadata: &mut ObjectMeta) {
    if let Some(annotations) = &mut metadata.annotations {
        for annotation in INIT_CONTAINER_ANNOTATIONS {
            annotations.remove(annotation);
        }
    }
}

/// `podIP` and `podIPs` say the same; when they differ, `podIP` is right, since older kubelets
/// write only that one.
fn pod_status(status: &mut PodStatus) {
    let first = list(&status.pod_ips).first().map(|ip| &ip.ip);
    match (&status.pod_ip, first) {
        (Some(ip), first) if first != Some(ip) => {
            status.pod_ips = Some(vec![PodIP { ip: ip.clone() }]);
        }
        (None, Some(first)) => status.pod_ip = Some(first.clone()),
        _ => {}
    }
    for container in list_mut(&mut status.init_container_statuses)
        .iter_mut()
        .chain(list_mut(&mut status.container_statuses))
        .chain(list_mut(&mut status.ephemeral_container_statuses))
    {
        resources::round_list(&mut container.allocated_resources);
        if let Some(requirements) = &mut container.resources {
            resources::round(requirements);
        }
    }
    resources::round_list(&mut status.allocated_resources);
    if let Some(requirements) = &mut status.resources {
        resources::round(requirements);
    }
}
