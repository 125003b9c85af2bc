//! What is allowed in a Pod or a template and yet most likely not meant: upstream's
//! `pkg/api/pod/warnings.go`.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::core::v1::{
        Container, ContainerPort, NodeSelectorTerm, Pod, PodAffinity, PodAffinityTerm,
        PodAntiAffinity, PodSpec, PodStatus, PodTemplateSpec, Volume,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{prepare::app_armor_profile, validation::visit_containers, virtual_paths};
use crate::{
    core::persistent_volume_claim,
    field::Path,
    formats, names,
    quantity::{Amount, ResourceList},
    zero::{list, text},
};

const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER_PREFIX: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APP_ARMOR_PREFIX: &str = super::validation::annotations::APP_ARMOR_PREFIX;
const NULL_SELECTOR: &str = "a null labelSelector results in matching no pod";

const DEPRECATED_NODE_LABELS: [(&str, &str); 8] = [
    (
        "beta.kubernetes.io/arch",
        r#"deprecated since v1.14; use "kubernetes.io/arch" instead"#,
    ),
    (
        "beta.kubernetes.io/os",
        r#"deprecated since v1.14; use "kubernetes.io/os" instead"#,
    ),
    (
        "failure-domain.beta.kubernetes.io/region",
        r#"deprecated since v1.17; use "topology.kubernetes.io/region" instead"#,
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        r#"deprecated since v1.17; use "topology.kubernetes.io/zone" instead"#,
    ),
    (
        "beta.kubernetes.io/instance-type",
        r#"deprecated since v1.17; use "node.kubernetes.io/instance-type" instead"#,
    ),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    (
        "scheduler.alpha.kubernetes.io/preferAvoidPods",
        "deprecated since v1.22; use Taints and Tolerations instead",
    ),
    (
        "node-role.kubernetes.io/master",
        r#"use "node-role.kubernetes.io/control-plane" instead"#,
    ),
];

const DEPRECATED_ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        r#"non-functional in v1.16+; use the "priorityClassName" field instead"#,
    ),
    (
        "security.alpha.kubernetes.io/sysctls",
        r#"non-functional in v1.11+; use the "sysctls" field instead"#,
    ),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        r#"non-functional in v1.11+; use the "sysctls" field instead"#,
    ),
];

/// What a client is warned of that wrote the status of a Pod.
pub fn status(status: Option<&PodStatus>) -> Vec<String> {
    let Some(status) = status else {
        return Vec::new();
    };
    let path = Path::new("status");
    let pod = list(&status.pod_ips).iter().map(|ip| ip.ip.as_str());
    let host = list(&status.host_ips).iter().map(|ip| ip.ip.as_str());
    let of = |field: &str, index: usize, ip: &str| {
        formats::ip_warning(&path.child(field).index(index).child("ip"), ip)
    };
    let pod = pod.enumerate().filter_map(|(i, ip)| of("podIPs", i, ip));
    let host = host.enumerate().filter_map(|(i, ip)| of("hostIPs", i, ip));
    pod.chain(host).collect()
}

/// Warnings about a new Pod.
pub fn new_pod(pod: &Pod) -> Vec<String> {
    let mut warnings = Vec::new();
    let messages = names::dns1123_label(text(&pod.metadata.name));
    if !messages.is_empty() {
        warnings.push(format!(
            "metadata.name: this is used in the Pod's hostname, which can result in surprising \
             behavior; a DNS label is recommended: [{}]",
            messages.join(" ")
        ));
    }
    if let Some(spec) = &pod.spec {
        spec_and_metadata(spec, &pod.metadata, &Path::default(), &mut warnings);
    }
    warnings
}

/// Warnings about a template, whose path they name.
pub fn pod_template(template: &PodTemplateSpec, path: &Path) -> Vec<String> {
    let mut warnings = Vec::new();
    let no_metadata = ObjectMeta::default();
    let metadata = template.metadata.as_ref().unwrap_or(&no_metadata);
    if let Some(spec) = &template.spec {
        spec_and_metadata(spec, metadata, path, &mut warnings);
    }
    warnings
}

fn spec_and_metadata(
    spec: &PodSpec,
    metadata: &ObjectMeta,
    path: &Path,
    warnings: &mut Vec<String>,
) {
    let spec_path = path.child("spec");
    node_labels(spec, &spec_path, warnings);
    for (index, constraint) in list(&spec.topology_spread_constraints).iter().enumerate() {
        let path = spec_path.child("topologySpreadConstraints").index(index);
        if let Some(message) = deprecated_node_label(&constraint.topology_key) {
            let path = path.child("topologyKey");
            warnings.push(format!("{path}: {} is {message}", constraint.topology_key));
        }
        if constraint.label_selector.is_none() {
            warnings.push(format!("{}: {NULL_SELECTOR}", path.child("labelSelector")));
        }
    }
    let annotations_path = path.child("metadata.annotations");
    let has = |annotation: &str| {
        let annotations = metadata.annotations.as_ref();
        annotations.is_some_and(|annotations| annotations.contains_key(annotation))
    };
    for (annotation, message) in DEPRECATED_ANNOTATIONS {
        if has(annotation) {
            warnings.push(format!("{}: {message}", annotations_path.key(annotation)));
        }
    }
    for (index, volume) in list(&spec.volumes).iter().enumerate() {
        old_volume(volume, &spec_path.child("volumes").index(index), warnings);
    }
    virtual_paths::overlaps(list(&spec.volumes), warnings);
    duplicates(spec, &spec_path, warnings);
    fractional(
        spec.overhead.as_ref(),
        &spec_path.child("overhead"),
        warnings,
    );
    let context = spec.security_context.as_ref();
    if has(SECCOMP_POD) && context.is_none_or(|context| context.seccomp_profile.is_none()) {
        warnings.push(old_seccomp(&annotations_path.key(SECCOMP_POD)));
    }
    visit_containers(spec, &spec_path, |container, path| {
        old_annotations(spec, metadata, container, &annotations_path, warnings);
        one_container(container, &path, warnings);
    });
    ports(spec, &spec_path, warnings);
    if spec
        .termination_grace_period_seconds
        .is_some_and(|period| period < 0)
    {
        warnings.push(format!(
            "{}: must be >= 0; negative values are invalid and will be treated as 1",
            spec_path.child("terminationGracePeriodSeconds")
        ));
    }
    pod_affinity(spec, &spec_path.child("affinity"), warnings);
    addresses(spec, &spec_path, warnings);
}

/// What to use instead of a node label that is no more.
pub fn deprecated_node_label(key: &str) -> Option<&'static str> {
    DEPRECATED_NODE_LABELS
        .iter()
        .find(|(label, _)| *label == key)
        .map(|(_, message)| *message)
}

fn node_labels(spec: &PodSpec, path: &Path, warnings: &mut Vec<String>) {
    for key in spec.node_selector.iter().flat_map(BTreeMap::keys) {
        if let Some(message) = deprecated_node_label(key) {
            let path = path.child("nodeSelector").key(key);
            warnings.push(format!("{path}: {message}"));
        }
    }
    let affinity = spec.affinity.as_ref();
    let Some(node) = affinity.and_then(|affinity| affinity.node_affinity.as_ref()) else {
        return;
    };
    let path = path.child("affinity.nodeAffinity");
    if let Some(selector) = &node.required_during_scheduling_ignored_during_execution {
        let path = path
            .child("requiredDuringSchedulingIgnoredDuringExecution")
            .child("nodeSelectorTerms");
        for (index, term) in selector.node_selector_terms.iter().enumerate() {
            node_selector_term(term, false, &path.index(index), warnings);
        }
    }
    let preferred = list(&node.preferred_during_scheduling_ignored_during_execution);
    let path = path.child("preferredDuringSchedulingIgnoredDuringExecution");
    for (index, term) in preferred.iter().enumerate() {
        let path = path.index(index).child("preference");
        node_selector_term(&term.preference, true, &path, warnings);
    }
}

/// Warnings about a term; only those of preferences may hold values that no label can have.
pub fn node_selector_term(
    term: &NodeSelectorTerm,
    check_values: bool,
    path: &Path,
    warnings: &mut Vec<String>,
) {
    for (index, expression) in list(&term.match_expressions).iter().enumerate() {
        let path = path.child("matchExpressions").index(index);
        let key = &expression.key;
        if let Some(message) = deprecated_node_label(key) {
            warnings.push(format!("{}: {key} is {message}", path.child("key")));
        }
        let values = list(&expression.values).iter().enumerate();
        for (index, value) in values.filter(|_| check_values) {
            let path = path.child("values").index(index);
            for message in names::label_value(value) {
                warnings.push(format!("{path}: {value} is invalid, {message}"));
            }
        }
    }
}

fn old_volume(volume: &Volume, path: &Path, warnings: &mut Vec<String>) {
    const GONE_IN_25: &str = "deprecated in v1.22, non-functional in v1.25+";
    const GONE_IN_31: &str = "deprecated in v1.28, non-functional in v1.31+";
    for (field, is_set, message) in [
        (
            "photonPersistentDisk",
            volume.photon_persistent_disk.is_some(),
            "deprecated in v1.11, non-functional in v1.16+",
        ),
        (
            "gitRepo",
            volume.git_repo.is_some(),
            "deprecated in v1.11, and disabled by default in v1.33+",
        ),
        (
            "scaleIO",
            volume.scale_io.is_some(),
            "deprecated in v1.16, non-functional in v1.22+",
        ),
        ("flocker", volume.flocker.is_some(), GONE_IN_25),
        ("storageOS", volume.storageos.is_some(), GONE_IN_25),
        ("quobyte", volume.quobyte.is_some(), GONE_IN_25),
        (
            "glusterfs",
            volume.glusterfs.is_some(),
            "deprecated in v1.25, non-functional in v1.26+",
        ),
    ] {
        if is_set {
            warnings.push(format!("{}: {message}", path.child(field)));
        }
    }
    if let Some(template) = volume
        .ephemeral
        .as_ref()
        .and_then(|ephemeral| ephemeral.volume_claim_template.as_ref())
    {
        let path = path.child("ephemeral.volumeClaimTemplate.spec");
        persistent_volume_claim::spec_warnings(&template.spec, &path, warnings);
    }
    for (field, is_set) in [
        ("cephfs", volume.cephfs.is_some()),
        ("rbd", volume.rbd.is_some()),
    ] {
        if is_set {
            warnings.push(format!("{}: {GONE_IN_31}", path.child(field)));
        }
    }
}

fn duplicates(spec: &PodSpec, path: &Path, warnings: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for (index, alias) in list(&spec.host_aliases).iter().enumerate() {
        if !seen.insert(&alias.ip) {
            let path = path.child("hostAliases").index(index).child("ip");
            warnings.push(format!("{path}: duplicate ip {:?}", alias.ip));
        }
    }
    let secrets = list(&spec.image_pull_secrets);
    let secret_path = |index| path.child("imagePullSecrets").index(index).child("name");
    let mut seen = BTreeSet::new();
    for (index, secret) in secrets.iter().enumerate() {
        if !seen.insert(&secret.name) {
            let path = secret_path(index);
            warnings.push(format!("{path}: duplicate name {:?}", secret.name));
        }
    }
    for (index, _) in secrets
        .iter()
        .enumerate()
        .filter(|(_, s)| s.name.is_empty())
    {
        warnings.push(format!("{}: invalid empty name \"\"", secret_path(index)));
    }
}

/// Parts of a byte.
fn fractional(resources: Option<&ResourceList>, path: &Path, warnings: &mut Vec<String>) {
    for name in ["memory", "ephemeral-storage"] {
        let Some(quantity) = resources.and_then(|resources| resources.get(name)) else {
            continue;
        };
        let amount = Amount::from(quantity);
        if !amount.is_integer() {
            warnings.push(format!(
                "{}: fractional byte value \"{amount}\" is invalid, must be an integer",
                path.key(name)
            ));
        }
    }
}

fn old_seccomp(path: &Path) -> String {
    format!("{path}: non-functional in v1.27+; use the \"seccompProfile\" field instead")
}

/// Annotations of a container that its fields have replaced.
fn old_annotations(
    spec: &PodSpec,
    metadata: &ObjectMeta,
    container: &Container,
    path: &Path,
    warnings: &mut Vec<String>,
) {
    let Some(annotations) = &metadata.annotations else {
        return;
    };
    let context = container.security_context.as_ref();
    let key = format!("{SECCOMP_CONTAINER_PREFIX}{}", container.name);
    if annotations.contains_key(&key)
        && context.is_none_or(|context| context.seccomp_profile.is_none())
    {
        warnings.push(old_seccomp(&path.key(&key)));
    }
    let key = format!("{APP_ARMOR_PREFIX}{}", container.name);
    if let Some(annotation) = annotations.get(&key)
        && context.is_none_or(|context| context.app_armor_profile.is_none())
    {
        let for_all = spec
            .security_context
            .as_ref()
            .and_then(|context| context.app_armor_profile.as_ref());
        if for_all.is_none() || for_all != app_armor_profile(annotation).as_ref() {
            warnings.push(format!(
                "{}: deprecated since v1.30; use the \"appArmorProfile\" field instead",
                path.key(&key)
            ));
        }
    }
}

fn one_container(container: &Container, path: &Path, warnings: &mut Vec<String>) {
    if let Some(resources) = &container.resources {
        let path = path.child("resources");
        for name in ["memory", "ephemeral-storage"] {
            for (field, resources) in [
                ("limits", &resources.limits),
                ("requests", &resources.requests),
            ] {
                let one = resources.as_ref().and_then(|r| r.get_key_value(name));
                let one = one.map(|(name, q)| ResourceList::from([(name.clone(), q.clone())]));
                fractional(one.as_ref(), &path.child(field), warnings);
            }
        }
    }
    let mut seen = BTreeSet::new();
    for (index, variable) in list(&container.env).iter().enumerate() {
        if seen.insert(&variable.name) {
            continue;
        }
        // A later value may build on the earlier one: X=$(X):more.
        let reference = format!("$({})", variable.name);
        let value = text(&variable.value);
        if variable.value_from.is_some() || value == reference || !value.contains(&reference) {
            warnings.push(format!(
                "{}: hides previous definition of {:?}, which may be dropped when using apply",
                path.child("env").index(index),
                variable.name
            ));
        }
    }
}

fn ports(spec: &PodSpec, path: &Path, warnings: &mut Vec<String>) {
    let mut by_number: BTreeMap<(i32, String), Vec<(Path, ContainerPort)>> = BTreeMap::new();
    let mut by_name: BTreeMap<String, Path> = BTreeMap::new();
    let mut name_warnings = Vec::new();
    visit_containers(spec, path, |container, path| {
        for (index, port) in list(&container.ports).iter().enumerate() {
            let path = path.child("ports").index(index);
            let (host_ip, host_port) = (text(&port.host_ip), port.host_port.unwrap_or(0));
            let (name, protocol) = (text(&port.name), text(&port.protocol));
            if !host_ip.is_empty() && host_port == 0 {
                warnings.push(format!(
                    "{path}: hostIP set without hostPort: {{Name:{name} HostPort:0 \
                     ContainerPort:{} Protocol:{protocol} HostIP:{host_ip}}}",
                    port.container_port
                ));
            }
            let key = (port.container_port, protocol.to_owned());
            let others = by_number.entry(key).or_default();
            for (other_path, other) in &*others {
                if let Some(problem) = port_conflict(port, other) {
                    warnings.push(format!(
                        "{path}: {problem} port definition with {other_path}"
                    ));
                }
            }
            others.push((path.clone(), port.clone()));
            if name.is_empty() {
                continue;
            }
            match by_name.get(name) {
                Some(other) => name_warnings.push(format!(
                    "{path}: duplicate port name {name:?} with {other}, services and probes that \
                     select ports by name will use {other}"
                )),
                None => drop(by_name.insert(name.to_owned(), path)),
            }
        }
    });
    warnings.append(&mut name_warnings);
}

/// How the same port of two containers clashes.
fn port_conflict(port: &ContainerPort, other: &ContainerPort) -> Option<&'static str> {
    let place = |port: &ContainerPort| {
        let address = text(&port.host_ip).to_owned();
        (address, port.host_port.unwrap_or(0))
    };
    let (ip, host_port) = place(port);
    let (other_ip, other_port) = place(other);
    if ip == other_ip && host_port == other_port {
        Some("duplicate")
    } else if host_port == 0 || other_port == 0 {
        Some("overlapping")
    } else if host_port == other_port && ip.is_empty() != other_ip.is_empty() {
        Some("dangerously ambiguous")
    } else {
        None
    }
}

fn pod_affinity(spec: &PodSpec, path: &Path, warnings: &mut Vec<String>) {
    let Some(affinity) = &spec.affinity else {
        return;
    };
    let mut terms =
        |field: &str, required: &[PodAffinityTerm], preferred: Vec<&PodAffinityTerm>| {
            let path = path.child(field);
            for (index, _) in required
                .iter()
                .enumerate()
                .filter(|(_, t)| t.label_selector.is_none())
            {
                let path = path.child("requiredDuringSchedulingIgnoredDuringExecution");
                let path = path.index(index).child("labelSelector");
                warnings.push(format!("{path}: {NULL_SELECTOR}"));
            }
            for (index, _) in preferred
                .iter()
                .enumerate()
                .filter(|(_, t)| t.label_selector.is_none())
            {
                let path = path.child("preferredDuringSchedulingIgnoredDuringExecution");
                let path = path.index(index).child("podAffinityTerm.labelSelector");
                warnings.push(format!("{path}: {NULL_SELECTOR}"));
            }
        };
    if let Some(PodAffinity {
        preferred_during_scheduling_ignored_during_execution: preferred,
        required_during_scheduling_ignored_during_execution: required,
    }) = &affinity.pod_affinity
    {
        let preferred = list(preferred)
            .iter()
            .map(|t| &t.pod_affinity_term)
            .collect();
        terms("podAffinity", list(required), preferred);
    }
    if let Some(PodAntiAffinity {
        preferred_during_scheduling_ignored_during_execution: preferred,
        required_during_scheduling_ignored_during_execution: required,
    }) = &affinity.pod_anti_affinity
    {
        let preferred = list(preferred)
            .iter()
            .map(|t| &t.pod_affinity_term)
            .collect();
        terms("podAntiAffinity", list(required), preferred);
    }
}

fn addresses(spec: &PodSpec, path: &Path, warnings: &mut Vec<String>) {
    let nameservers = spec
        .dns_config
        .as_ref()
        .map_or(&[][..], |config| list(&config.nameservers));
    for (index, nameserver) in nameservers.iter().enumerate() {
        let path = path.child("dnsConfig.nameservers").index(index);
        warnings.extend(formats::ip_warning(&path, nameserver));
    }
    for (index, alias) in list(&spec.host_aliases).iter().enumerate() {
        let path = path.child("hostAliases").index(index).child("ip");
        warnings.extend(formats::ip_warning(&path, &alias.ip));
    }
}
