//! Default values of Pods and of the pod templates in workload kinds.
//!
//! Enter at [`pod`] and [`pod_template`]. Both first bring the object into the one form in which
//! it is stored (see [`crate::zero`]; upstream does this by converting to its internal types).
//! Values follow upstream's `pkg/apis/core/v1/defaults.go`.

use k8s_openapi::{
    api::core::v1::{
        Affinity, Container, NodeSelector, NodeSelectorTerm, Pod, PodAffinityTerm, PodDNSConfig,
        PodSecurityContext, PodSpec, PodTemplateSpec, WeightedPodAffinityTerm,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};

use super::{container_defaults, resources, volume_defaults};
use crate::{
    drop_zero,
    zero::{default_text, list_mut, text},
};

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
    drop_zero!(metadata; annotations, finalizers, generate_name, labels, name, namespace,
        owner_references, resource_version, self_link, uid);
    pod_spec(template.spec.get_or_insert_default());
}

/// The defaults of a spec, in a Pod or in a template.
pub fn pod_spec(spec: &mut PodSpec) {
    drop_zero!(spec; host_ipc, host_network, host_pid);
    drop_zero!(spec; ephemeral_containers, host_aliases, hostname, image_pull_secrets,
        init_containers, node_name, node_selector, overhead, priority_class_name,
        readiness_gates, resource_claims, scheduling_gates, service_account,
        service_account_name, subdomain, tolerations, topology_spread_constraints, volumes);
    sync_service_account(spec);

    default_text(&mut spec.dns_policy, "ClusterFirst");
    default_text(&mut spec.restart_policy, "Always");
    default_text(&mut spec.scheduler_name, "default-scheduler");
    spec.termination_grace_period_seconds.get_or_insert(30);
    security_context(spec.security_context.get_or_insert_default());

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
        resources::normalize(requirements);
    }
    resources::normalize_list(&mut spec.overhead);
    scheduling(spec);
    if let Some(config) = &mut spec.dns_config {
        dns_config(config);
    }
    for alias in list_mut(&mut spec.host_aliases) {
        drop_zero!(alias; hostnames);
    }
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

fn security_context(context: &mut PodSecurityContext) {
    drop_zero!(context; supplemental_groups, sysctls);
    if let Some(options) = &mut context.se_linux_options {
        drop_zero!(options; level, role, type_, user);
    }
}

fn scheduling(spec: &mut PodSpec) {
    for toleration in list_mut(&mut spec.tolerations) {
        drop_zero!(toleration; effect, key, operator, value);
    }
    for constraint in list_mut(&mut spec.topology_spread_constraints) {
        drop_zero!(constraint; match_label_keys);
        if let Some(selector) = &mut constraint.label_selector {
            label_selector(selector);
        }
    }
    if let Some(rules) = &mut spec.affinity {
        affinity(rules);
    }
}

fn affinity(affinity: &mut Affinity) {
    if let Some(node) = &mut affinity.node_affinity {
        drop_zero!(node; preferred_during_scheduling_ignored_during_execution);
        if let Some(required) = &mut node.required_during_scheduling_ignored_during_execution {
            node_selector(required);
        }
        for term in list_mut(&mut node.preferred_during_scheduling_ignored_during_execution) {
            node_selector_term(&mut term.preference);
        }
    }
    if let Some(pods) = &mut affinity.pod_affinity {
        drop_zero!(pods; preferred_during_scheduling_ignored_during_execution,
            required_during_scheduling_ignored_during_execution);
        affinity_terms(list_mut(
            &mut pods.required_during_scheduling_ignored_during_execution,
        ));
        weighted_terms(list_mut(
            &mut pods.preferred_during_scheduling_ignored_during_execution,
        ));
    }
    if let Some(pods) = &mut affinity.pod_anti_affinity {
        drop_zero!(pods; preferred_during_scheduling_ignored_during_execution,
            required_during_scheduling_ignored_during_execution);
        affinity_terms(list_mut(
            &mut pods.required_during_scheduling_ignored_during_execution,
        ));
        weighted_terms(list_mut(
            &mut pods.preferred_during_scheduling_ignored_during_execution,
        ));
    }
}

/// The normal form of a node selector, also of those in PersistentVolumes.
pub fn node_selector(selector: &mut NodeSelector) {
    for term in &mut selector.node_selector_terms {
        node_selector_term(term);
    }
}

fn node_selector_term(term: &mut NodeSelectorTerm) {
    drop_zero!(term; match_expressions, match_fields);
    for requirement in list_mut(&mut term.match_expressions)
        .iter_mut()
        .chain(list_mut(&mut term.match_fields))
    {
        drop_zero!(requirement; values);
    }
}

fn weighted_terms(terms: &mut [WeightedPodAffinityTerm]) {
    for term in terms {
        affinity_term(&mut term.pod_affinity_term);
    }
}

fn affinity_terms(terms: &mut [PodAffinityTerm]) {
    for term in terms {
        affinity_term(term);
    }
}

fn affinity_term(term: &mut PodAffinityTerm) {
    drop_zero!(term; match_label_keys, mismatch_label_keys, namespaces);
    for selector in [&mut term.label_selector, &mut term.namespace_selector]
        .into_iter()
        .flatten()
    {
        label_selector(selector);
    }
}

/// The normal form of a label selector, in any kind.
pub fn label_selector(selector: &mut LabelSelector) {
    drop_zero!(selector; match_expressions, match_labels);
    for requirement in list_mut(&mut selector.match_expressions) {
        drop_zero!(requirement; values);
    }
}

fn dns_config(config: &mut PodDNSConfig) {
    drop_zero!(config; nameservers, options, searches);
    for option in list_mut(&mut config.options) {
        drop_zero!(option; name);
    }
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
fn pod_status(status: &mut k8s_openapi::api::core::v1::PodStatus) {
    use k8s_openapi::api::core::v1::PodIP;

    drop_zero!(status; conditions, container_statuses, ephemeral_container_statuses, host_ip,
        host_ips, init_container_statuses, message, nominated_node_name, observed_generation,
        phase, pod_ip, pod_ips, qos_class, reason, resize, resource_claim_statuses);
    let first = status
        .pod_ips
        .as_ref()
        .and_then(|ips| ips.first())
        .map(|ip| ip.ip.clone());
    match (&status.pod_ip, first) {
        (Some(ip), first) if first.as_ref() != Some(ip) => {
            status.pod_ips = Some(vec![PodIP { ip: ip.clone() }]);
        }
        (None, Some(first)) => status.pod_ip = Some(first),
        _ => {}
    }
    for container in list_mut(&mut status.init_container_statuses)
        .iter_mut()
        .chain(list_mut(&mut status.container_statuses))
        .chain(list_mut(&mut status.ephemeral_container_statuses))
    {
        container.last_state.get_or_insert_default();
        container.state.get_or_insert_default();
        resources::normalize_list(&mut container.allocated_resources);
        if let Some(requirements) = &mut container.resources {
            resources::normalize(requirements);
        }
    }
    resources::normalize_list(&mut status.allocated_resources);
    if let Some(requirements) = &mut status.resources {
        resources::normalize(requirements);
    }
}
