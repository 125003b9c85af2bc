//! The Pod Security Standards: every rule, from the release on that brought it.
//!
//! Enter at [`evaluate`]. A rule is one line of [`CHECKS`] and one function in [`baseline`] or
//! [`restricted`], which gives the reason and detail that clients see. Upstream:
//! `k8s.io/pod-security-admission/policy`.

mod baseline;
mod restricted;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EphemeralContainer, Lifecycle, PodSecurityContext, PodSpec, Probe,
    SecurityContext,
};

use super::policy::{Level, Standard, Version};

/// What a rule has against a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub reason: &'static str,
    pub detail: String,
}

/// The pod, or the template of one.
pub struct Subject<'a> {
    annotations: Option<&'a BTreeMap<String, String>>,
    spec: &'a PodSpec,
    containers: Vec<View<'a>>,
}

impl<'a> Subject<'a> {
    pub fn new(annotations: Option<&'a BTreeMap<String, String>>, spec: &'a PodSpec) -> Self {
        let init = spec.init_containers.iter().flatten().map(View::from);
        let main = spec.containers.iter().map(View::from);
        let ephemeral = spec.ephemeral_containers.iter().flatten().map(View::from);
        Subject {
            annotations,
            spec,
            containers: init.chain(main).chain(ephemeral).collect(),
        }
    }

    fn security(&self) -> Option<&'a PodSecurityContext> {
        self.spec.security_context.as_ref()
    }

    /// The names of the containers whose settings are bad.
    fn containers_with(&self, mut bad: impl FnMut(&View<'a>) -> bool) -> Vec<&'a str> {
        let containers = self.containers.iter().filter(|container| bad(container));
        containers.map(|container| container.name).collect()
    }

    fn is_windows(&self) -> bool {
        self.spec.os.as_ref().is_some_and(|os| os.name == "windows")
    }

    fn has_own_users(&self) -> bool {
        self.spec.host_users == Some(false)
    }
}

/// What the rules look at of a container of any sort.
struct View<'a> {
    name: &'a str,
    security: Option<&'a SecurityContext>,
    ports: &'a [ContainerPort],
    probes: [Option<&'a Probe>; 3],
    lifecycle: Option<&'a Lifecycle>,
}

impl<'a> From<&'a Container> for View<'a> {
    fn from(container: &'a Container) -> Self {
        View {
            name: &container.name,
            security: container.security_context.as_ref(),
            ports: container.ports.as_deref().unwrap_or_default(),
            probes: [
                container.liveness_probe.as_ref(),
                container.readiness_probe.as_ref(),
                container.startup_probe.as_ref(),
            ],
            lifecycle: container.lifecycle.as_ref(),
        }
    }
}

impl<'a> From<&'a EphemeralContainer> for View<'a> {
    fn from(container: &'a EphemeralContainer) -> Self {
        View {
            name: &container.name,
            security: container.security_context.as_ref(),
            ports: container.ports.as_deref().unwrap_or_default(),
            probes: [
                container.liveness_probe.as_ref(),
                container.readiness_probe.as_ref(),
                container.startup_probe.as_ref(),
            ],
            lifecycle: container.lifecycle.as_ref(),
        }
    }
}

/// One rule.
struct Check {
    id: &'static str,
    level: Level,
    /// The first release of Kubernetes 1.x that has it.
    since: u64,
    /// The rule of the level below that this one stands in for.
    replaces: Option<&'static str>,
    /// Given the release whose rules count.
    find: fn(&Subject<'_>, u64) -> Option<Violation>,
}

const fn baseline(
    id: &'static str,
    since: u64,
    find: fn(&Subject<'_>, u64) -> Option<Violation>,
) -> Check {
    Check {
        id,
        level: Level::Baseline,
        since,
        replaces: None,
        find,
    }
}

const fn restricted(
    id: &'static str,
    since: u64,
    replaces: Option<&'static str>,
    find: fn(&Subject<'_>, u64) -> Option<Violation>,
) -> Check {
    Check {
        id,
        level: Level::Restricted,
        since,
        replaces,
        find,
    }
}

/// The newest release that changed a rule; later ones have the same.
const NEWEST: u64 = 35;

/// In the order in which violations are listed.
const CHECKS: &[Check] = &[
    baseline("appArmorProfile", 0, baseline::app_armor_profile),
    baseline("capabilities_baseline", 0, baseline::capabilities),
    baseline("hostNamespaces", 0, baseline::host_namespaces),
    baseline("hostPathVolumes", 0, baseline::host_path_volumes),
    baseline("hostPorts", 0, baseline::host_ports),
    baseline("hostProbesAndHostLifecycle", 34, baseline::probe_hosts),
    baseline("privileged", 0, baseline::privileged),
    baseline("procMount", 0, baseline::proc_mount_unless_own_users),
    baseline("seLinuxOptions", 0, baseline::selinux_options),
    baseline("seccompProfile_baseline", 0, baseline::seccomp_profile),
    baseline("sysctls", 0, baseline::sysctls),
    baseline("windowsHostProcess", 0, baseline::windows_host_process),
    restricted(
        "allowPrivilegeEscalation",
        8,
        None,
        restricted::privilege_escalation,
    ),
    restricted(
        "capabilities_restricted",
        22,
        Some("capabilities_baseline"),
        restricted::capabilities,
    ),
    restricted(
        "procMount_restricted",
        35,
        Some("procMount"),
        baseline::proc_mount,
    ),
    restricted(
        "restrictedVolumes",
        0,
        Some("hostPathVolumes"),
        restricted::volumes,
    ),
    restricted("runAsNonRoot", 0, None, restricted::run_as_non_root),
    restricted("runAsUser", 23, None, restricted::run_as_user),
    restricted(
        "seccompProfile_restricted",
        19,
        Some("seccompProfile_baseline"),
        restricted::seccomp_profile,
    ),
];

/// Everything that the standard has against the pod.
pub fn evaluate(standard: Standard, subject: &Subject<'_>) -> Vec<Violation> {
    let minor = match standard.version {
        Version::Minor(minor) => minor.min(NEWEST),
        Version::Latest => NEWEST,
    };
    let applies = |check: &&Check| check.since <= minor && check.level <= standard.level;
    let replaced: BTreeSet<&str> = CHECKS
        .iter()
        .filter(applies)
        .filter_map(|check| check.replaces)
        .collect();
    CHECKS
        .iter()
        .filter(applies)
        .filter(|check| !replaced.contains(check.id))
        .filter_map(|check| (check.find)(subject, minor))
        .collect()
}

/// The reasons, one after the other.
pub fn reasons(violations: &[Violation]) -> String {
    let reasons: Vec<&str> = violations.iter().map(|found| found.reason).collect();
    reasons.join(", ")
}

/// The reasons with their details.
pub fn details(violations: &[Violation]) -> String {
    let details: Vec<String> = violations
        .iter()
        .map(|found| match found.detail.as_str() {
            "" => found.reason.to_owned(),
            detail => format!("{} ({detail})", found.reason),
        })
        .collect();
    details.join(", ")
}

fn violation(reason: &'static str, detail: String) -> Option<Violation> {
    Some(Violation { reason, detail })
}

fn plural<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

fn quoted<'a>(items: impl IntoIterator<Item = &'a str>) -> String {
    let items: Vec<String> = items
        .into_iter()
        .map(|item| format!("\"{item}\""))
        .collect();
    items.join(", ")
}

/// `container "a"` or `containers "a", "b"`.
fn containers(names: &[&str]) -> String {
    let word = plural("container", "containers", names.len());
    format!("{word} {}", quoted(names.iter().copied()))
}

/// `pod`, some containers, or both; `None` if neither.
fn setters(pod: bool, names: &[&str]) -> Option<String> {
    let pod = pod.then(|| "pod".to_owned());
    let names = (!names.is_empty()).then(|| containers(names));
    let setters: Vec<String> = pod.into_iter().chain(names).collect();
    (!setters.is_empty()).then(|| setters.join(" and "))
}
