//! What the level baseline forbids: known ways out of a container.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    AppArmorProfile, LifecycleHandler, Probe, SELinuxOptions, SeccompProfile,
};

use super::{Subject, View, Violation, containers, plural, quoted, setters, violation};

const APP_ARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP_POD_ANNOTATION: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_ANNOTATION: &str = "container.seccomp.security.alpha.kubernetes.io/";

pub fn app_armor_profile(subject: &Subject<'_>, _minor: u64) -> Option<Violation> {
    let mut values = BTreeSet::new();
    let mut bad = |profile: Option<&AppArmorProfile>| {
        let profile = profile.map(|profile| profile.type_.clone());
        let bad = profile.filter(|type_| !matches!(type_.as_str(), "RuntimeDefault" | "Localhost"));
        let is_bad = bad.is_some();
        values.extend(bad);
        is_bad
    };
    let pod = bad(subject
        .security()
        .and_then(|security| security.app_armor_profile.as_ref()));
    let names = subject
        .containers_with(|view| bad(view.security.and_then(|s| s.app_armor_profile.as_ref())));
    let allowed = |value: &str| {
        value.is_empty() || value == "runtime/default" || value.starts_with("localhost/")
    };
    let annotations: Vec<String> = subject
        .annotations
        .into_iter()
        .flatten()
        .filter(|(key, value)| key.starts_with(APP_ARMOR_ANNOTATION) && !allowed(value))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    let annotated = (!annotations.is_empty())
        .then(|| plural("annotation", "annotations", annotations.len()).to_owned());
    let setters: Vec<String> = setters(pod, &names).into_iter().chain(annotated).collect();
    if setters.is_empty() {
        return None;
    }
    let values: Vec<String> = values.into_iter().chain(annotations).collect();
    violation(
        plural(
            "forbidden AppArmor profile",
            "forbidden AppArmor profiles",
            values.len(),
        ),
        format!(
            "{} must not set AppArmor profile type to {}",
            setters.join(" and "),
            quoted(values.iter().map(String::as_str))
        ),
    )
}

const DEFAULT_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

pub fn capabilities(subject: &Subject<'_>, _minor: u64) -> Option<Violation> {
    let mut forbidden = BTreeSet::new();
    let names = subject.containers_with(|view| {
        let bad: Vec<&str> = added_capabilities(view)
            .filter(|name| !DEFAULT_CAPABILITIES.contains(name))
            .collect();
        forbidden.extend(bad.iter().copied());
        !bad.is_empty()
    });
    if names.is_empty() {
        return None;
    }
    violation(
        "non-default capabilities",
        format!(
            "{} must not include {} in securityContext.capabilities.add",
            containers(&names),
            quoted(forbidden)
        ),
    )
}

pub(super) fn added_capabilities<'a>(view: &View<'a>) -> impl Iterator<Item = &'a str> + use<'a> {
    let capabilities = view.security.and_then(|s| s.capabilities.as_ref());
    let added = capabilities.and_then(|capabilities| capabilities.add.as_deref());
    added.unwrap_or_default().iter().map(String::as_str)
}

pub fn host_namespaces(subject: &Subject<'_>, _minor: u64) -> Option<Violation> {
    let spec = subject.spec;
    let used: Vec<&str> = [
        (spec.host_network, "hostNetwork=true"),
        (spec.host_pid, "hostPID=true"),
        (spec.host_ipc, "hostIPC=true"),
    ]
    .into_iter()
    .filter_map(|(used, text)| (used == Some(true)).then_some(text))
    .collect();
    if used.is_empty() {
        return None;
    }
    violation("host namespaces", used.join(", "))
}

pub fn host_path_volumes(subject: &Subject<'_>, _minor: u64) -> Option<Violation> {
    let volumes = subject.spec.volumes.iter().flatten();
    let names: Vec<&str> = volumes
        .filter(|volume| volume.host_path.is_some())
        .map(|volume| volume.name.as_str())
        .collect();
    if names.is_empty() {
        return None;
    }
    let word = plural("volume", "volumes", names.len());
    violation("hostPath volumes", format!("{word} {}", quoted(names)))
}

pub fn host_ports(subject: &Subject<'_>, _minor: u64) -> Option<Violation> {
    let mut ports = BTreeSet::new();
    let names = subject.containers_with(|view| {
        let bad: Vec<String> = view
            .ports
            .iter()
            .filter_map(|port| port.host_port.filter(|&port| port != 0))
            .map(|port| port.to_string())
            .collect();
        let is_bad = !bad.is_empty();
        ports.extend(bad);
        is_bad
    });
    if names.is_empty() {
        return None;
    }
    let uses = plural("uses", "use", names.len());
    let word = plural("hostPort", "hostPorts", ports.len());
    let ports: Vec<String> = ports.into_iter().collect();
    violation(
        "hostPort",
        format!("{} {uses} {word} {}", containers(&names), ports.join(", ")),
    )
}

pub fn probe_hosts(subject: &Subject<'_>, _minor: u64) -> Option<Violation> {
    let mut hosts = BTreeSet::new();
    let mut names = subject.containers_with(|view| {
        let probes = view.probes.iter().copied().flatten().flat_map(of_probe);
        let hooks = view.lifecycle.into_iter().flat_map(|lifecycle| {
            [lifecycle.post_start.as_ref(), lifecycle.pre_stop.as_ref()]
                .into_iter()
                .flatten()
                .flat_map(of_handler)
        });
        let bad: Vec<&str> = probes.chain(hooks).collect();
        hosts.extend(bad.iter().copied());
        !bad.is_empty()
    });
    if names.is_empty() {
        return None;
    }
    names.sort_unstable();
    names.dedup();
    let uses = plural("uses", "use", names.len());
    let word = plural(
        "probe or lifecycle host",
        "probe or lifecycle hosts",
        hosts.len(),
    );
    violation(
        "probe or lifecycle host",
        format!("{} {uses} {word} {}", containers(&names), quoted(hosts)),
    )
}

fn of_probe(probe: &Probe) -> impl Iterator<Item = &str> {
    let http = probe.http_get.as_ref().and_then(|get| get.host.as_deref());
    let tcp = probe
        .tcp_socket
        .as_ref()
        .and_then(|tcp| tcp.host.as_deref());
    http.into_iter().chain(tcp).filter(|host| !host.is_empty())
}

fn of_handler(handler: &LifecycleHandler) -> impl Iterator<Item = &str> {
    let http = handler
        .http_get
        .as_ref()
        .and_then(|get| get.host.as_deref());
    let tcp = handler
        .tcp_socket
        .as_ref()
        .and_then(|tcp| tcp.host.as_deref());
    http.into_iter().chain(tcp).filter(|host| !host.is_empty())
}

pub fn privileged(subject: &Subject<'_>, _minor: u64) -> Option<Violation> {
    let names =
        subject.containers_with(|view| view.security.and_then(|s| s.privileged) == Some(true));
    if names.is_empty() {
        return None;
    }
    violation(
        "privileged",
        format!(
            "{} must not set securityContext.privileged=true",
            containers(&names)
        ),
    )
}

/// Root in a user namespace of the pod's own is nobody outside.
pub fn proc_mount_unless_own_users(subject: &Subject<'_>, minor: u64) -> Option<Violation> {
    if minor >= 35 && subject.has_own_users() {
        return None;
    }
    proc_mount(subject, minor)
}

pub fn proc_mount(subject: &Subject<'_>, _minor: u64) -> Option<Violation> {
    let mut types = BTreeSet::new();
    let names = subject.containers_with(|view| {
        let given = view.security.and_then(|s| s.proc_mount.as_deref());
        let bad = given.filter(|&given| given != "Default");
        types.extend(bad);
        bad.is_some()
    });
    if names.is_empty() {
        return None;
    }
    violation(
        "procMount",
        format!(
            "{} must not set securityContext.procMount to {}",
            containers(&names),
            quoted(types)
        ),
    )
}

pub fn selinux_options(subject: &Subject<'_>, minor: u64) -> Option<Violation> {
    let allowed = |type_: &str| match type_ {
        "" | "container_t" | "container_init_t" | "container_kvm_t" => true,
        "container_engine_t" => minor >= 31,
        _ => false,
    };
    let (mut types, mut user, mut role) = (BTreeSet::new(), false, false);
    let mut bad = |options: Option<&SELinuxOptions>| {
        let Some(options) = options else {
            return false;
        };
        let given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        let type_ = options.type_.clone().unwrap_or_default();
        let (bad_user, bad_role) = (given(&options.user), given(&options.role));
        let bad_type = !allowed(&type_);
        if bad_type {
            types.insert(type_);
        }
        user |= bad_user;
        role |= bad_role;
        bad_type || bad_user || bad_role
    };
    let pod = bad(subject
        .security()
        .and_then(|security| security.se_linux_options.as_ref()));
    let names = subject
        .containers_with(|view| bad(view.security.and_then(|s| s.se_linux_options.as_ref())));
    let setters = setters(pod, &names)?;
    let mut data = Vec::new();
    if !types.is_empty() {
        let word = plural("type", "types", types.len());
        data.push(format!(
            "{word} {}",
            quoted(types.iter().map(String::as_str))
        ));
    }
    if user {
        data.push("user may not be set".to_owned());
    }
    if role {
        data.push("role may not be set".to_owned());
    }
    let data = data.join("; ");
    violation(
        "seLinuxOptions",
        format!("{setters} set forbidden securityContext.seLinuxOptions: {data}"),
    )
}

pub fn seccomp_profile(subject: &Subject<'_>, minor: u64) -> Option<Violation> {
    if minor < 19 {
        return seccomp_annotations(subject);
    }
    let mut values = BTreeSet::new();
    let mut bad = |profile| seccomp_is_bad(profile, &mut values);
    let pod = bad(subject
        .security()
        .and_then(|security| security.seccomp_profile.as_ref()));
    let names =
        subject.containers_with(|view| bad(view.security.and_then(|s| s.seccomp_profile.as_ref())));
    bad_seccomp_types(&setters(pod, &names)?, &values)
}

/// Whether the profile is none that containers may have; its type is added to `values` then.
pub(super) fn seccomp_is_bad<'a>(
    profile: Option<&'a SeccompProfile>,
    values: &mut BTreeSet<&'a str>,
) -> bool {
    let type_ = profile.map(|profile| profile.type_.as_str());
    let bad = type_.filter(|type_| !matches!(*type_, "RuntimeDefault" | "Localhost"));
    values.extend(bad);
    bad.is_some()
}

pub(super) fn bad_seccomp_types(setters: &str, values: &BTreeSet<&str>) -> Option<Violation> {
    let values = quoted(values.iter().copied());
    violation(
        "seccompProfile",
        format!("{setters} must not set securityContext.seccompProfile.type to {values}"),
    )
}

/// Before there was a field.
fn seccomp_annotations(subject: &Subject<'_>) -> Option<Violation> {
    let annotations = subject.annotations?;
    let of_containers = subject
        .containers
        .iter()
        .map(|container| format!("{SECCOMP_ANNOTATION}{}", container.name));
    let allowed = |value: &str| {
        matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/")
    };
    let forbidden: BTreeSet<String> = std::iter::once(SECCOMP_POD_ANNOTATION.to_owned())
        .chain(of_containers)
        .filter_map(|key| {
            let value = annotations.get(&key).filter(|value| !allowed(value))?;
            Some(format!("{key}={value:?}"))
        })
        .collect();
    if forbidden.is_empty() {
        return None;
    }
    let word = plural("annotation", "annotations", forbidden.len());
    let forbidden: Vec<String> = forbidden.into_iter().collect();
    violation(
        "seccompProfile",
        format!("forbidden {word} {}", forbidden.join(", ")),
    )
}

/// Sysctls that concern only the pod, and the release that found them so.
const SAFE_SYSCTLS: [(&str, u64); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

pub fn sysctls(subject: &Subject<'_>, minor: u64) -> Option<Violation> {
    let safe = |name: &str| {
        SAFE_SYSCTLS
            .iter()
            .any(|&(safe, since)| safe == name && since <= minor)
    };
    let given = subject.security()?.sysctls.iter().flatten();
    let forbidden: Vec<&str> = given
        .map(|sysctl| sysctl.name.as_str())
        .filter(|name| !safe(name))
        .collect();
    if forbidden.is_empty() {
        return None;
    }
    violation("forbidden sysctls", forbidden.join(", "))
}

pub fn windows_host_process(subject: &Subject<'_>, _minor: u64) -> Option<Violation> {
    let names = subject.containers_with(|view| {
        let options = view.security.and_then(|s| s.windows_options.as_ref());
        options.and_then(|options| options.host_process) == Some(true)
    });
    let options = subject.security().and_then(|s| s.windows_options.as_ref());
    let pod = options.and_then(|options| options.host_process) == Some(true);
    let setters = setters(pod, &names)?;
    violation(
        "hostProcess",
        format!("{setters} must not set securityContext.windowsOptions.hostProcess=true"),
    )
}
