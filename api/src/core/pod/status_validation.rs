//! What is wrong with an update of a Pod's status.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{
    Container, ContainerRestartRule, ContainerStatus, Pod, PodCondition,
    PodExtendedResourceClaimStatus, PodSpec, PodStatus, ResourceStatus,
};

use super::{update::annotations, validation::annotations::pod_specific};
use crate::{
    check,
    field::{BadValue, ErrorList, Path},
    formats, internal,
    zero::{list, text},
};

const MAX_HEALTH_MESSAGE: usize = 32 * 1024;
const NOT_NEGATIVE: &str = "must be a non-negative integer";

/// Checks the status of `new`; its spec is that of `old`.
pub fn status(new: &Pod, old: &Pod) -> ErrorList {
    let mut errors = ErrorList::new();
    let (no_spec, no_status) = (PodSpec::default(), PodStatus::default());
    let spec = old.spec.as_ref().unwrap_or(&no_spec);
    let status = new.status.as_ref().unwrap_or(&no_status);
    let old_status = old.status.as_ref().unwrap_or(&no_status);
    let path = Path::new("status");

    annotations(new, old, &mut errors);
    let annotations_path = Path::new("metadata.annotations");
    pod_specific(&new.metadata, spec, &annotations_path, &mut errors);
    conditions(
        list(&status.conditions),
        &path.child("conditions"),
        &mut errors,
    );
    nominated_node(
        status,
        old_status,
        spec,
        &path.child("nominatedNodeName"),
        &mut errors,
    );
    if let Some(generation) = status
        .observed_generation
        .filter(|&generation| generation < 0)
    {
        errors.push(
            path.child("observedGeneration")
                .invalid(generation, NOT_NEGATIVE),
        );
    }
    check::immutable(
        &text(&status.qos_class),
        &text(&old_status.qos_class),
        &path.child("qosClass"),
        &mut errors,
    );
    transitions(status, old_status, spec, &path, &mut errors);
    resource_claims(status, spec, &path, &mut errors);
    let ips: Vec<&str> = list(&status.pod_ips)
        .iter()
        .map(|ip| ip.ip.as_str())
        .collect();
    addresses(
        &ips,
        internal::shown("[]PodIP", &status.pod_ips),
        &path.child("podIPs"),
        &mut errors,
    );
    host_addresses(status, &path.child("hostIPs"), &mut errors);
    container_statuses(status, spec, &path, &mut errors);
    errors
}

fn conditions(conditions: &[PodCondition], path: &Path, errors: &mut ErrorList) {
    for (index, condition) in conditions.iter().enumerate() {
        let path = path.index(index);
        if let Some(generation) = condition.observed_generation.filter(|&g| g < 0) {
            errors.push(
                path.child("observedGeneration")
                    .invalid(generation, NOT_NEGATIVE),
            );
        }
        if !matches!(
            condition.type_.as_str(),
            "PodScheduled" | "Ready" | "Initialized"
        ) {
            check::qualified_name(&condition.type_, &path.child("Type"), errors);
        }
    }
}

fn nominated_node(
    new: &PodStatus,
    old: &PodStatus,
    spec: &PodSpec,
    path: &Path,
    errors: &mut ErrorList,
) {
    let node = text(&new.nominated_node_name);
    if node.is_empty() || node == text(&old.nominated_node_name) {
        return;
    }
    check::subdomain(node, path, errors);
    if !text(&spec.node_name).is_empty() {
        errors.push(path.forbidden("may not be set on pods that are already bound to a node"));
    }
}

/// A container that ended for good does not run again.
fn transitions(
    new: &PodStatus,
    old: &PodStatus,
    spec: &PodSpec,
    path: &Path,
    errors: &mut ErrorList,
) {
    let restarts_all = |container: &Container| {
        list(&container.restart_policy_rules)
            .iter()
            .any(|rule| rule.action == "RestartAllContainers")
    };
    let init_containers = list(&spec.init_containers);
    if !spec
        .containers
        .iter()
        .chain(init_containers)
        .any(restarts_all)
    {
        for (field, new, old, containers) in [
            (
                "containerStatuses",
                &new.container_statuses,
                &old.container_statuses,
                &spec.containers[..],
            ),
            (
                "initContainerStatuses",
                &new.init_container_statuses,
                &old.init_container_statuses,
                init_containers,
            ),
        ] {
            let may_restart = |name: &str, exit_code: i32| {
                let container = containers.iter().find(|container| container.name == name);
                container.is_some_and(|c| restarts_after(c, spec, exit_code))
            };
            forbid_revival(
                list(new),
                list(old),
                may_restart,
                &path.child(field),
                errors,
            );
        }
    }
    forbid_revival(
        list(&new.ephemeral_container_statuses),
        list(&old.ephemeral_container_statuses),
        |_, _| false,
        &path.child("ephemeralContainerStatuses"),
        errors,
    );
}

fn forbid_revival(
    new: &[ContainerStatus],
    old: &[ContainerStatus],
    may_restart: impl Fn(&str, i32) -> bool,
    path: &Path,
    errors: &mut ErrorList,
) {
    let exit_code = |status: &ContainerStatus| {
        let terminated = status.state.as_ref()?.terminated.as_ref()?;
        Some(terminated.exit_code)
    };
    for (index, old) in old.iter().enumerate() {
        let Some(code) = exit_code(old) else { continue };
        let revived = new
            .iter()
            .any(|new| new.name == old.name && exit_code(new).is_none());
        if revived && !may_restart(&old.name, code) {
            errors.push(
                path.index(index)
                    .child("state")
                    .forbidden("may not be transitioned to non-terminated state"),
            );
        }
    }
}

/// Whether a container is started again after it ended with that code: its own rules, its own
/// policy, the Pod's policy.
pub fn restarts_after(container: &Container, spec: &PodSpec, exit_code: i32) -> bool {
    let by_policy = |policy: &str| match policy {
        "OnFailure" => exit_code != 0,
        "Never" => false,
        _ => true,
    };
    let Some(policy) = &container.restart_policy else {
        return by_policy(text(&spec.restart_policy));
    };
    let matches = |rule: &&ContainerRestartRule| {
        rule.exit_codes.as_ref().is_some_and(|codes| {
            let is_listed = list(&codes.values).contains(&exit_code);
            match codes.operator.as_str() {
                "In" => is_listed,
                "NotIn" => !is_listed,
                _ => false,
            }
        })
    };
    let rule = list(&container.restart_policy_rules).iter().find(matches);
    rule.is_some_and(|rule| matches!(rule.action.as_str(), "Restart" | "RestartAllContainers"))
        || by_policy(policy)
}

fn resource_claims(status: &PodStatus, spec: &PodSpec, path: &Path, errors: &mut ErrorList) {
    let statuses = list(&status.resource_claim_statuses);
    for (index, claim) in statuses.iter().enumerate() {
        let path = path.child("resourceClaimStatuses").index(index);
        let name = claim.name.as_str();
        if !list(&spec.resource_claims)
            .iter()
            .any(|known| known.name == name)
        {
            errors.push(path.child("name").invalid(
                name,
                "must match the name of an entry in `spec.resourceClaims`",
            ));
        }
        if statuses[..index].iter().any(|other| other.name == name) {
            errors.push(path.child("name").duplicate(name));
        }
        if let Some(name) = &claim.resource_claim_name {
            check::subdomain(name, &path.child("resourceClaimName"), errors);
        }
    }
    if let Some(claim) = &status.extended_resource_claim_status {
        extended_claim(
            claim,
            spec,
            &path.child("extendedResourceClaimStatus"),
            errors,
        );
    }
}

fn extended_claim(
    status: &PodExtendedResourceClaimStatus,
    spec: &PodSpec,
    path: &Path,
    errors: &mut ErrorList,
) {
    let mappings = &status.request_mappings;
    let mappings_path = path.child("requestMappings");
    if mappings.is_empty() {
        errors.push(mappings_path.required("at least one request mapping is required"));
    }
    for (index, mapping) in mappings.iter().enumerate() {
        let item = mappings_path.index(index);
        let container = spec
            .containers
            .iter()
            .chain(list(&spec.init_containers))
            .find(|container| container.name == mapping.container_name);
        let requests = container.map(|container| {
            let resources = container.resources.as_ref();
            resources.and_then(|resources| resources.requests.as_ref())
        });
        match requests {
            None => errors.push(item.child("containerName").invalid(
                mapping.container_name.as_str(),
                "must match the name of an entry in spec.initContainers.name or \
                 spec.containers.name",
            )),
            Some(requests)
                if !requests.is_some_and(|list| list.contains_key(&mapping.resource_name)) =>
            {
                errors.push(item.child("resourceName").invalid(
                    mapping.resource_name.as_str(),
                    "must match the extended resource name of an entry in \
                     spec.initContainers.resources.requests or spec.containers.resources.requests",
                ));
            }
            Some(_) => {}
        }
        check::dns_label(&mapping.request_name, &path.child("requestName"), errors);
        if mappings[..index].contains(mapping) {
            for (field, value) in [
                ("containerName", &mapping.container_name),
                ("resourceName", &mapping.resource_name),
                ("requestName", &mapping.request_name),
            ] {
                errors.push(item.child(field).duplicate(value.as_str()));
            }
        }
    }
    let name_path = path.child("resourceClaimName");
    if status.resource_claim_name.is_empty() {
        errors.push(name_path.required(""));
    } else {
        check::subdomain(&status.resource_claim_name, &name_path, errors);
    }
}

/// At most one address of each family.
fn addresses(ips: &[&str], all: BadValue, path: &Path, errors: &mut ErrorList) {
    for (index, ip) in ips.iter().enumerate() {
        let path = path.index(index);
        check::each(&path, *ip, formats::ip(ip), errors);
    }
    if ips.len() < 2 {
        return;
    }
    if let Some(index) = ips.iter().position(|ip| formats::sloppy_ip(ip).is_none()) {
        let why = format!("invalid IP[{index}]: {}", ips[index]);
        errors.push(path.internal(format!("failed to check for dual stack with error:{why}")));
    }
    let families: Vec<bool> = ips
        .iter()
        .filter_map(|ip| formats::sloppy_ip(ip))
        .map(|ip: IpAddr| ip.is_ipv4())
        .collect();
    let is_dual = families.contains(&true) && families.contains(&false);
    if !is_dual || ips.len() > 2 {
        errors.push(path.invalid(all, "may specify no more than one IP for each IP family"));
    }
}

fn host_addresses(status: &PodStatus, path: &Path, errors: &mut ErrorList) {
    let ips: Vec<&str> = list(&status.host_ips)
        .iter()
        .map(|ip| ip.ip.as_str())
        .collect();
    let Some(first) = ips.first() else { return };
    if text(&status.host_ip) != *first {
        errors.push(
            path.index(0)
                .child("ip")
                .invalid(*first, "must be equal to `hostIP`"),
        );
    }
    let shown = internal::shown("[]HostIP", &status.host_ips);
    addresses(&ips, shown, path, errors);
}

fn container_statuses(status: &PodStatus, spec: &PodSpec, path: &Path, errors: &mut ErrorList) {
    let is_windows = spec.os.as_ref().is_some_and(|os| os.name == "windows");
    let lists = [
        (
            "containerStatuses",
            list(&status.container_statuses),
            Some(&spec.containers[..]),
        ),
        (
            "initContainerStatuses",
            list(&status.init_container_statuses),
            Some(list(&spec.init_containers)),
        ),
        (
            "ephemeralContainerStatuses",
            list(&status.ephemeral_container_statuses),
            None,
        ),
    ];
    for (field, statuses, _) in &lists {
        for (index, status) in statuses.iter().enumerate() {
            let path = path.child(field).index(index);
            container_user(status, is_windows, &path.child("user.linux"), errors);
        }
    }
    for (field, statuses, containers) in lists {
        for (index, status) in statuses.iter().enumerate() {
            let allocated = list(&status.allocated_resources_status);
            let path = path
                .child(field)
                .index(index)
                .child("allocatedResourcesStatus");
            let Some(containers) = containers else {
                if !allocated.is_empty() {
                    errors.push(path.forbidden("must not be specified in container status"));
                }
                continue;
            };
            let container = containers.iter().find(|c| c.name == status.name);
            for (index, resource) in allocated.iter().enumerate() {
                resource_status(resource, container, &path.index(index), errors);
            }
        }
    }
}

fn container_user(status: &ContainerStatus, is_windows: bool, path: &Path, errors: &mut ErrorList) {
    let Some(user) = status.user.as_ref().and_then(|user| user.linux.as_ref()) else {
        return;
    };
    if is_windows {
        errors.push(path.forbidden("cannot be set for a windows pod"));
        return;
    }
    for (field, id) in [("uid", user.uid), ("gid", user.gid)] {
        check::each(&path.child(field), id, formats::user_id(id), errors);
    }
    for (index, id) in list(&user.supplemental_groups).iter().enumerate() {
        let path = path.child("supplementalGroups").index(index);
        check::each(&path, *id, formats::user_id(*id), errors);
    }
}

fn resource_status(
    status: &ResourceStatus,
    container: Option<&Container>,
    path: &Path,
    errors: &mut ErrorList,
) {
    if let Some(container) = container {
        let resources = container.resources.as_ref();
        let (is_known, message) = if status.name.starts_with("claim:") {
            let claims = resources.map_or(&[][..], |resources| list(&resources.claims));
            let is_known = claims.iter().any(|claim| {
                let request = text(&claim.request);
                let name = match request {
                    "" => format!("claim:{}", claim.name),
                    _ => format!("claim:{}/{request}", claim.name),
                };
                name == status.name
            });
            let message = "must match one of the container's resource claims in a format \
                           'claim:<claimName>/<request>' or 'claim:<claimName>' if request is \
                           empty";
            (is_known, message)
        } else {
            let is_known = resources
                .and_then(|resources| resources.requests.as_ref())
                .is_some_and(|requests| requests.contains_key(&status.name));
            (
                is_known,
                "must match one of the container's resource requests",
            )
        };
        if !is_known {
            errors.push(path.child("name").invalid(status.name.as_str(), message));
        }
    }
    let healths = list(&status.resources);
    for (index, health) in healths.iter().enumerate() {
        let path = path.child("resources").index(index);
        check::one_of(
            text(&health.health),
            &["Healthy", "Unhealthy", "Unknown"],
            &path.child("health"),
            errors,
        );
        match health.message.as_deref() {
            Some("") => errors.push(
                path.child("message")
                    .required("must be non-empty if specified"),
            ),
            Some(message) if message.len() > MAX_HEALTH_MESSAGE => {
                errors.push(path.child("message").too_long(MAX_HEALTH_MESSAGE));
            }
            _ => {}
        }
        if healths[..index]
            .iter()
            .any(|h| h.resource_id == health.resource_id)
        {
            let id = health.resource_id.as_str();
            errors.push(path.child("resourceID").duplicate(id));
        }
    }
}
