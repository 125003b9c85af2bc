//! The fields of a PodSpec that belong to no container, volume or scheduling rule.

use k8s_openapi::api::core::v1::{HostAlias, PodDNSConfig, PodResourceClaim, PodSpec};

use super::{
    Holder, annotations::MIRROR_ANNOTATION, containers, resources, scheduling, security,
    visit_containers, volumes, windows,
};
use crate::{
    check,
    field::{BadValue, ErrorList, Path, value_of},
    formats, names,
    zero::{list, text},
};

/// The longest host name that the kernel takes.
const HOST_NAME_MAX_LENGTH: usize = 64;
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCH_PATHS: usize = 32;
const MAX_SEARCH_LENGTH: usize = 2048;

/// Checks a spec in a Pod or in a template.
pub fn pod_spec(spec: &PodSpec, holder: Holder<'_>, path: &Path, errors: &mut ErrorList) {
    if spec.termination_grace_period_seconds.is_none() {
        errors.push(path.child("terminationGracePeriodSeconds").required(""));
    }
    let volumes_path = path.child("volumes");
    let volumes = volumes::volumes(list(&spec.volumes), holder, &volumes_path, errors);
    resource_claims(spec, holder, &path.child("resourceClaims"), errors);
    containers::all(spec, &volumes, path, errors);
    resources::pod_level(spec, path, errors);
    host_network_ports(spec, holder, path, errors);
    restart_policy(
        text(&spec.restart_policy),
        &path.child("restartPolicy"),
        errors,
    );
    check::required_one_of(
        text(&spec.dns_policy),
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
        &path.child("dnsPolicy"),
        errors,
    );
    check::labels(
        spec.node_selector.as_ref(),
        &path.child("nodeSelector"),
        errors,
    );
    security::pod(spec, &path.child("securityContext"), errors);
    if let Some(affinity) = &spec.affinity {
        scheduling::affinity(affinity, &path.child("affinity"), errors);
    }
    dns_config(spec, &path.child("dnsConfig"), errors);
    gates(spec, path, errors);
    scheduling::topology_spread(
        list(&spec.topology_spread_constraints),
        &path.child("topologySpreadConstraints"),
        errors,
    );
    windows::host_process(spec, path, errors);
    host_users(spec, path, errors);
    host_names(spec, path, errors);
    references(spec, path, errors);
    file_key_volumes(spec, path, errors);
}

fn restart_policy(policy: &str, path: &Path, errors: &mut ErrorList) {
    check::required_one_of(policy, &["Always", "OnFailure", "Never"], path, errors);
}

/// Names of other objects, numbers and the remaining lists.
fn references(spec: &PodSpec, path: &Path, errors: &mut ErrorList) {
    let name = |field: &str, value: &Option<String>, errors: &mut ErrorList| {
        if !text(value).is_empty() {
            check::subdomain(text(value), &path.child(field), errors);
        }
    };
    name("serviceAccountName", &spec.service_account_name, errors);
    name("nodeName", &spec.node_name, errors);
    if let Some(seconds) = spec.active_deadline_seconds
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        let message = formats::inclusive_range(1, i32::MAX.into());
        errors.push(
            path.child("activeDeadlineSeconds")
                .invalid(seconds, message),
        );
    }
    for (field, value) in [("hostname", &spec.hostname), ("subdomain", &spec.subdomain)] {
        if !text(value).is_empty() {
            check::dns_label(text(value), &path.child(field), errors);
        }
    }
    scheduling::tolerations(list(&spec.tolerations), &path.child("tolerations"), errors);
    host_aliases(list(&spec.host_aliases), &path.child("hostAliases"), errors);
    name("priorityClassName", &spec.priority_class_name, errors);
    if let Some(class) = &spec.runtime_class_name {
        check::subdomain(class, &path.child("runtimeClassName"), errors);
    }
    if let Some(policy) = &spec.preemption_policy {
        let path = path.child("preemptionPolicy");
        check::required_one_of(policy, &["PreemptLowerPriority", "Never"], &path, errors);
    }
    if let Some(overhead) = &spec.overhead {
        resources::overhead(overhead, &path.child("overhead"), errors);
    }
    if let Some(os) = &spec.os {
        windows::os(spec, &os.name, path, errors);
    }
}

fn gates(spec: &PodSpec, path: &Path, errors: &mut ErrorList) {
    for (index, gate) in list(&spec.readiness_gates).iter().enumerate() {
        let path = path.child("readinessGates").index(index);
        check::qualified_name(&gate.condition_type, &path.child("conditionType"), errors);
    }
    let gates = list(&spec.scheduling_gates);
    for (index, gate) in gates.iter().enumerate() {
        let path = path.child("schedulingGates").index(index);
        check::qualified_name(&gate.name, &path, errors);
        if gates[..index].iter().any(|other| other.name == gate.name) {
            errors.push(path.duplicate(gate.name.as_str()));
        }
    }
}

/// On the host's network, a container's port is the host's.
fn host_network_ports(spec: &PodSpec, holder: Holder<'_>, path: &Path, errors: &mut ErrorList) {
    if spec.host_network != Some(true) {
        return;
    }
    for (index, container) in spec.containers.iter().enumerate() {
        let path = path.child("containers").index(index).child("ports");
        for (index, port) in list(&container.ports).iter().enumerate() {
            let host_port = port.host_port.unwrap_or(0);
            if (holder.is_pod() || host_port != 0) && host_port != port.container_port {
                errors.push(path.index(index).child("hostPort").invalid(
                    host_port,
                    "must match `containerPort` when `hostNetwork` is true",
                ));
            }
        }
    }
}

fn dns_config(spec: &PodSpec, path: &Path, errors: &mut ErrorList) {
    let config = spec.dns_config.as_ref();
    if text(&spec.dns_policy) == "None" {
        let Some(config) = config else {
            errors.push(path.required("must provide `dnsConfig` when `dnsPolicy` is None"));
            return;
        };
        if list(&config.nameservers).is_empty() {
            errors.push(
                path.child("nameservers")
                    .required("must provide at least one DNS nameserver when `dnsPolicy` is None"),
            );
            return;
        }
    }
    if let Some(config) = config {
        dns_lists(config, path, errors);
    }
}

fn dns_lists(config: &PodDNSConfig, path: &Path, errors: &mut ErrorList) {
    let nameservers = list(&config.nameservers);
    let nameservers_path = path.child("nameservers");
    if nameservers.len() > MAX_NAMESERVERS {
        errors.push(nameservers_path.invalid(
            value_of(&nameservers),
            format!("must not have more than {MAX_NAMESERVERS} nameservers"),
        ));
    }
    for (index, nameserver) in nameservers.iter().enumerate() {
        check::ip(nameserver, &nameservers_path.index(index), errors);
    }
    let searches = list(&config.searches);
    let searches_path = path.child("searches");
    if searches.len() > MAX_SEARCH_PATHS {
        errors.push(searches_path.invalid(
            value_of(&searches),
            format!("must not have more than {MAX_SEARCH_PATHS} search paths"),
        ));
    }
    if searches.join(" ").len() > MAX_SEARCH_LENGTH {
        errors.push(searches_path.invalid(
            value_of(&searches),
            format!(
                "must not have more than {MAX_SEARCH_LENGTH} characters (including spaces) in \
                 the search list"
            ),
        ));
    }
    for (index, search) in searches.iter().enumerate().filter(|(_, s)| *s != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        check::each(
            &searches_path.index(index),
            search,
            formats::subdomain_with_underscore(search),
            errors,
        );
    }
    for (index, option) in list(&config.options).iter().enumerate() {
        if text(&option.name).is_empty() {
            errors.push(
                path.child("options")
                    .index(index)
                    .required("must not be empty"),
            );
        }
    }
}

fn host_aliases(aliases: &[HostAlias], path: &Path, errors: &mut ErrorList) {
    for (index, alias) in aliases.iter().enumerate() {
        let path = path.index(index);
        check::ip(&alias.ip, &path.child("ip"), errors);
        for (index, name) in list(&alias.hostnames).iter().enumerate() {
            check::subdomain(name, &path.child("hostnames").index(index), errors);
        }
    }
}

fn host_users(spec: &PodSpec, path: &Path, errors: &mut ErrorList) {
    const DETAIL: &str = "when `hostUsers` is false";
    if spec.host_users != Some(false) {
        return;
    }
    for (field, is_set) in [
        ("hostNetwork", spec.host_network),
        ("HostPID", spec.host_pid),
        ("HostIPC", spec.host_ipc),
    ] {
        if is_set == Some(true) {
            errors.push(path.child(field).forbidden(DETAIL));
        }
    }
    visit_containers(spec, path, |container, path| {
        if !list(&container.volume_devices).is_empty() {
            errors.push(path.child("volumeDevices").forbidden(DETAIL));
        }
    });
}

fn host_names(spec: &PodSpec, path: &Path, errors: &mut ErrorList) {
    let Some(name) = &spec.hostname_override else {
        return;
    };
    let path = path.child("hostnameOverride");
    if spec.set_hostname_as_fqdn == Some(true) {
        errors.push(path.forbidden("may not be specified when setHostnameAsFQDN is true"));
    }
    if spec.host_network == Some(true) {
        errors.push(path.forbidden("may not be specified when hostNetwork is true"));
    }
    if name.len() > HOST_NAME_MAX_LENGTH {
        errors.push(path.too_long(HOST_NAME_MAX_LENGTH));
    }
    check::subdomain(name, &path, errors);
}

/// Names of the Pod's resource claims, which containers refer to.
pub fn claim_names(spec: &PodSpec) -> Vec<&str> {
    list(&spec.resource_claims)
        .iter()
        .map(|claim| claim.name.as_str())
        .filter(|name| !name.is_empty())
        .collect()
}

fn resource_claims(spec: &PodSpec, holder: Holder<'_>, path: &Path, errors: &mut ErrorList) {
    let claims = list(&spec.resource_claims);
    for (index, claim) in claims.iter().enumerate() {
        if let Holder::Pod(metadata) = holder
            && metadata
                .annotations
                .as_ref()
                .is_some_and(|annotations| annotations.contains_key(MIRROR_ANNOTATION))
        {
            errors.push(Path::new("").forbidden("static pods do not support resource claims"));
            continue;
        }
        resource_claim(claim, &claims[..index], &path.index(index), errors);
    }
}

fn resource_claim(
    claim: &PodResourceClaim,
    earlier: &[PodResourceClaim],
    path: &Path,
    errors: &mut ErrorList,
) {
    let name_path = path.child("name");
    if claim.name.is_empty() {
        errors.push(name_path.required(""));
    } else if earlier.iter().any(|other| other.name == claim.name) {
        errors.push(name_path.duplicate(claim.name.as_str()));
    } else {
        check::dns_label(&claim.name, &name_path, errors);
    }
    match (
        &claim.resource_claim_name,
        &claim.resource_claim_template_name,
    ) {
        (Some(_), Some(_)) => errors.push(path.invalid(
            shown(claim),
            "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
        )),
        (None, None) => errors.push(path.invalid(
            shown(claim),
            "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
        )),
        _ => {}
    }
    for (field, name) in [
        ("resourceClaimName", &claim.resource_claim_name),
        (
            "resourceClaimTemplateName",
            &claim.resource_claim_template_name,
        ),
    ] {
        if let Some(name) = name {
            let messages = names::dns1123_subdomain(name);
            check::each(&path.child(field), name.as_str(), messages, errors);
        }
    }
}

/// Environment variables are read from files in an emptyDir only.
fn file_key_volumes(spec: &PodSpec, path: &Path, errors: &mut ErrorList) {
    visit_containers(spec, path, |container, path| {
        for (index, variable) in list(&container.env).iter().enumerate() {
            let reference = variable
                .value_from
                .as_ref()
                .and_then(|source| source.file_key_ref.as_ref());
            let Some(reference) = reference else { continue };
            let path = path
                .child("env")
                .index(index)
                .child("valueFrom.fileKeyRef.volumeName");
            let name = reference.volume_name.as_str();
            // A later volume of the same name hides the earlier one.
            match list(&spec.volumes).iter().rev().find(|v| v.name == name) {
                None => errors.push(path.not_found(name)),
                Some(volume) if volume.empty_dir.is_none() => {
                    errors.push(path.invalid(name, "referenced volume must be of type emptyDir"))
                }
                Some(_) => {}
            }
        }
    });
}

fn shown(claim: &PodResourceClaim) -> BadValue {
    BadValue::Struct(vec![
        ("Name", claim.name.as_str().into()),
        (
            "ResourceClaimName",
            value_of(&claim.resource_claim_name).into(),
        ),
        (
            "ResourceClaimTemplateName",
            value_of(&claim.resource_claim_template_name).into(),
        ),
    ])
}
