//! What a pod and its containers may do, put into the words of CRI (upstream's
//! pkg/securitycontext and pkg/kubelet/kuberuntime/security_context.go).

use std::path::Path;

use k8s_cri::v1::{
    self as cri, Capability, Int64Value, LinuxContainerSecurityContext,
    LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption, SeLinuxOption, SecurityProfile,
    SupplementalGroupsPolicy, security_profile::ProfileType,
};
use k8s_openapi::api::core::v1::{
    AppArmorProfile, Capabilities, Container, Pod, PodSecurityContext, SELinuxOptions,
    SeccompProfile, SecurityContext,
};
use kube::ResourceExt as _;

use super::spec::{describe, ephemeral_containers, main_containers, spec};

const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// What the node decides for every pod.
#[derive(Clone, Copy, Debug)]
pub struct Policy<'a> {
    /// Where `Localhost` seccomp profiles are looked for.
    pub seccomp_root: &'a Path,
    /// Whether a pod that names no seccomp profile gets the runtime's.
    pub seccomp_default: bool,
}

/// The user of an image, as the runtime reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageUser {
    pub uid: Option<i64>,
    /// Set when the image names its user by name.
    pub name: String,
}

/// Which namespaces the pod's containers share with whom.
pub fn namespaces(pod: &Pod) -> NamespaceOption {
    let spec = spec(pod);
    let node_or = |host: Option<bool>, other| match host {
        Some(true) => NamespaceMode::Node,
        _ => other,
    };
    let pid = match spec.share_process_namespace {
        Some(true) => NamespaceMode::Pod,
        _ => NamespaceMode::Container,
    };
    NamespaceOption {
        network: node_or(spec.host_network, NamespaceMode::Pod).into(),
        ipc: node_or(spec.host_ipc, NamespaceMode::Pod).into(),
        pid: node_or(spec.host_pid, pid).into(),
        target_id: String::new(),
        userns_options: None,
    }
}

/// The security context of the pod's sandbox.
pub fn sandbox(pod: &Pod) -> LinuxSandboxSecurityContext {
    let privileged = |context: Option<&SecurityContext>| {
        context.is_some_and(|context| context.privileged == Some(true))
    };
    let spec = spec(pod);
    let any_privileged = main_containers(spec)
        .any(|(_, container)| privileged(container.security_context.as_ref()))
        || ephemeral_containers(spec)
            .iter()
            .any(|container| privileged(container.security_context.as_ref()));
    let context = spec.security_context.clone().unwrap_or_default();
    LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod)),
        selinux_options: context.se_linux_options.as_ref().map(selinux),
        run_as_user: context.run_as_user.map(|value| Int64Value { value }),
        run_as_group: context.run_as_group.map(|value| Int64Value { value }),
        supplemental_groups: groups(&context),
        supplemental_groups_policy: groups_policy(&context),
        privileged: any_privileged,
        seccomp: Some(profile(ProfileType::RuntimeDefault, "")),
        ..LinuxSandboxSecurityContext::default()
    }
}

/// The security context of a container.
///
/// # Errors
/// In upstream's words, when what is asked for contradicts itself or cannot be verified.
pub fn container(
    pod: &Pod,
    container: &Container,
    image_user: &ImageUser,
    policy: &Policy<'_>,
) -> Result<LinuxContainerSecurityContext, String> {
    let context = effective(pod, container);
    verify_non_root(pod, container, &context, image_user)?;
    let empty = PodSecurityContext::default();
    let of_pod = spec(pod).security_context.as_ref().unwrap_or(&empty);
    let unmasked = context.proc_mount.as_deref() == Some("Unmasked");
    let paths = |paths: &[&str]| match unmasked {
        true => Vec::new(),
        false => paths.iter().map(|&path| path.to_owned()).collect(),
    };
    let (run_as_user, run_as_username) = match context.run_as_user {
        Some(value) => (Some(value), String::new()),
        None => (image_user.uid, image_user.name.clone()),
    };
    Ok(LinuxContainerSecurityContext {
        capabilities: context.capabilities.as_ref().map(capabilities),
        privileged: context.privileged == Some(true),
        namespace_options: Some(namespaces(pod)),
        selinux_options: context.se_linux_options.as_ref().map(selinux),
        run_as_user: run_as_user.map(|value| Int64Value { value }),
        run_as_group: context.run_as_group.map(|value| Int64Value { value }),
        run_as_username,
        readonly_rootfs: context.read_only_root_filesystem == Some(true),
        supplemental_groups: groups(of_pod),
        supplemental_groups_policy: groups_policy(of_pod),
        no_new_privs: context.allow_privilege_escalation == Some(false),
        masked_paths: paths(&MASKED),
        readonly_paths: paths(&READ_ONLY),
        seccomp: Some(seccomp(of_pod, container, policy)?),
        apparmor: app_armor(pod, of_pod, container)?,
        ..LinuxContainerSecurityContext::default()
    })
}

/// The container's own context over the pod's.
pub fn effective(pod: &Pod, container: &Container) -> SecurityContext {
    let of_pod = spec(pod).security_context.clone().unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    SecurityContext {
        run_as_user: own.run_as_user.or(of_pod.run_as_user),
        run_as_group: own.run_as_group.or(of_pod.run_as_group),
        run_as_non_root: own.run_as_non_root.or(of_pod.run_as_non_root),
        se_linux_options: own.se_linux_options.clone().or(of_pod.se_linux_options),
        ..own
    }
}

fn verify_non_root(
    pod: &Pod,
    container: &Container,
    context: &SecurityContext,
    image: &ImageUser,
) -> Result<(), String> {
    if context.run_as_non_root != Some(true) {
        return Ok(());
    }
    let where_ = format!("(pod: {:?}, container: {})", describe(pod), container.name);
    match (context.run_as_user, image.uid) {
        (Some(0), _) => Err(format!(
            "container's runAsUser breaks non-root policy {where_}"
        )),
        (Some(_), _) => Ok(()),
        (None, None) if !image.name.is_empty() => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user \
             is non-root {where_}",
            image.name
        )),
        // An image without a user runs as root.
        (None, None | Some(0)) => Err(format!(
            "container has runAsNonRoot and image will run as root {where_}"
        )),
        (None, Some(_)) => Ok(()),
    }
}

fn profile(profile_type: ProfileType, reference: &str) -> SecurityProfile {
    SecurityProfile {
        profile_type: profile_type.into(),
        localhost_ref: reference.to_owned(),
    }
}

fn seccomp(
    of_pod: &PodSecurityContext,
    container: &Container,
    policy: &Policy<'_>,
) -> Result<SecurityProfile, String> {
    let own = container.security_context.as_ref();
    let wanted: Option<&SeccompProfile> = own
        .and_then(|context| context.seccomp_profile.as_ref())
        .or(of_pod.seccomp_profile.as_ref());
    let Some(wanted) = wanted else {
        return Ok(profile(
            match policy.seccomp_default {
                true => ProfileType::RuntimeDefault,
                false => ProfileType::Unconfined,
            },
            "",
        ));
    };
    Ok(match wanted.type_.as_str() {
        "RuntimeDefault" => profile(ProfileType::RuntimeDefault, ""),
        "Localhost" => {
            let name = wanted
                .localhost_profile
                .as_deref()
                .filter(|name| !name.is_empty())
                .ok_or("localhostProfile must be set if seccompProfile type is Localhost.")?;
            let path = policy.seccomp_root.join(name);
            profile(ProfileType::Localhost, &path.to_string_lossy())
        }
        _ => profile(ProfileType::Unconfined, ""),
    })
}

fn app_armor(
    pod: &Pod,
    of_pod: &PodSecurityContext,
    container: &Container,
) -> Result<Option<SecurityProfile>, String> {
    let own = container.security_context.as_ref();
    let annotation = format!(
        "container.apparmor.security.beta.kubernetes.io/{}",
        container.name
    );
    let annotated = || {
        let value = pod.annotations().get(&annotation)?;
        let (type_, name) = match value.as_str() {
            "runtime/default" => ("RuntimeDefault", None),
            "unconfined" => ("Unconfined", None),
            other => ("Localhost", Some(other.strip_prefix("localhost/")?)),
        };
        Some(AppArmorProfile {
            type_: type_.to_owned(),
            localhost_profile: name.map(str::to_owned),
        })
    };
    let wanted = own
        .and_then(|context| context.app_armor_profile.clone())
        .or_else(annotated)
        .or_else(|| of_pod.app_armor_profile.clone());
    let Some(wanted) = wanted else {
        return Ok(None);
    };
    Ok(Some(match wanted.type_.as_str() {
        "RuntimeDefault" => profile(ProfileType::RuntimeDefault, ""),
        "Unconfined" => profile(ProfileType::Unconfined, ""),
        "Localhost" => {
            let name = wanted.localhost_profile.as_deref();
            let name = name.ok_or("missing localhost apparmor profile name")?;
            profile(ProfileType::Localhost, name)
        }
        other => return Err(format!("unknown apparmor profile type: {other:?}")),
    }))
}

fn capabilities(capabilities: &Capabilities) -> Capability {
    Capability {
        add_capabilities: capabilities.add.clone().unwrap_or_default(),
        drop_capabilities: capabilities.drop.clone().unwrap_or_default(),
        add_ambient_capabilities: Vec::new(),
    }
}

fn selinux(options: &SELinuxOptions) -> SeLinuxOption {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    SeLinuxOption {
        user: text(&options.user),
        role: text(&options.role),
        r#type: text(&options.type_),
        level: text(&options.level),
    }
}

fn groups(context: &PodSecurityContext) -> Vec<i64> {
    context
        .fs_group
        .into_iter()
        .chain(context.supplemental_groups.iter().flatten().copied())
        .collect()
}

fn groups_policy(context: &PodSecurityContext) -> i32 {
    match context.supplemental_groups_policy.as_deref() {
        Some("Strict") => SupplementalGroupsPolicy::Strict.into(),
        _ => SupplementalGroupsPolicy::Merge.into(),
    }
}

/// Turns the namespaces of an ephemeral container towards the container that it looks into.
pub fn target(context: &mut LinuxContainerSecurityContext, target_id: &str) {
    if let Some(namespaces) = &mut context.namespace_options
        && namespaces.pid() == NamespaceMode::Container
    {
        namespaces.pid = cri::NamespaceMode::Target.into();
        namespaces.target_id = target_id.to_owned();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        let mut pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}});
        pod["spec"] = spec;
        serde_json::from_value(pod).expect("a pod")
    }

    fn of(spec: Value, user: &ImageUser) -> Result<LinuxContainerSecurityContext, String> {
        let pod = pod(spec);
        let policy = Policy {
            seccomp_root: Path::new("/seccomp"),
            seccomp_default: true,
        };
        container(&pod, &super::spec(&pod).containers[0], user, &policy)
    }

    #[test]
    fn the_containers_context_wins_over_the_pods() {
        let context = of(
            json!({
                "securityContext": {"runAsUser": 1, "runAsGroup": 2, "fsGroup": 5, "supplementalGroups": [6]},
                "containers": [{"name": "c", "securityContext": {
                    "runAsUser": 7, "allowPrivilegeEscalation": false,
                    "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
                }}],
            }),
            &ImageUser::default(),
        )
        .expect("it is allowed");
        assert_eq!(context.run_as_user.map(|it| it.value), Some(7));
        assert_eq!(context.run_as_group.map(|it| it.value), Some(2));
        assert_eq!(context.supplemental_groups, [5, 6]);
        assert!(context.no_new_privs && !context.privileged);
        assert_eq!(context.masked_paths.len(), MASKED.len());
        let seccomp = context.seccomp.expect("a profile");
        assert_eq!(seccomp.profile_type(), ProfileType::RuntimeDefault);
    }

    #[test]
    fn running_as_root_is_refused_where_it_is_not_wanted() {
        let spec = |user: Value| {
            json!({
                "securityContext": {"runAsNonRoot": true, "runAsUser": user},
                "containers": [{"name": "c"}],
            })
        };
        let named = ImageUser {
            uid: None,
            name: "web".to_owned(),
        };
        let numeric = |uid| ImageUser {
            uid: Some(uid),
            name: String::new(),
        };
        let root = "image will run as root (pod: \"p_n(u)\", container: c)";
        let cases = [
            (
                json!(0),
                named.clone(),
                Some("runAsUser breaks non-root policy"),
            ),
            (json!(1), named.clone(), None),
            (json!(null), named, Some("non-numeric user (web)")),
            (json!(null), numeric(0), Some(root)),
            (json!(null), ImageUser::default(), Some(root)),
            (json!(null), numeric(65535), None),
        ];
        for (user, image, expected) in cases {
            let result = of(spec(user.clone()), &image);
            match expected {
                None => assert!(result.is_ok(), "{user} {image:?}"),
                Some(part) => {
                    let error = result.expect_err("it is refused");
                    assert!(error.contains(part), "{error}");
                }
            }
        }
    }

    #[test]
    fn namespaces_follow_the_host_flags() {
        let of = |spec: Value| {
            let options = namespaces(&pod(spec));
            (options.network(), options.pid(), options.ipc())
        };
        use NamespaceMode::{Container, Node, Pod};
        assert_eq!(of(json!({"containers": []})), (Pod, Container, Pod));
        assert_eq!(
            of(json!({"containers": [], "hostNetwork": true, "hostPID": true, "hostIPC": true})),
            (Node, Node, Node)
        );
        assert_eq!(
            of(json!({"containers": [], "shareProcessNamespace": true})),
            (Pod, Pod, Pod)
        );
    }
}
