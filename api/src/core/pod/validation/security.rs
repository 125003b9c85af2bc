//! Security contexts of Pods and containers.

use k8s_openapi::api::core::v1::{
    AppArmorProfile, PodSpec, SeccompProfile, SecurityContext, Sysctl,
};

use super::{volumes::descending_path, windows};
use crate::{
    check,
    field::{ErrorList, Path, value_of},
    formats,
    zero::list,
};

const SYSCTL_MAX_LENGTH: usize = 253;
const SYSCTL_REGEX: &str =
    r"^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
const MAX_PROFILE_PATH: usize = 4095;

/// The security context of a Pod.
pub fn pod(spec: &PodSpec, path: &Path, errors: &mut ErrorList) {
    let Some(context) = &spec.security_context else {
        return;
    };
    for (field, id) in [
        ("fsGroup", context.fs_group),
        ("runAsUser", context.run_as_user),
        ("runAsGroup", context.run_as_group),
    ] {
        id_of(id, &path.child(field), errors);
    }
    for (index, group) in list(&context.supplemental_groups).iter().enumerate() {
        id_of(
            Some(*group),
            &path.child("supplementalGroups").index(index),
            errors,
        );
    }
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        errors.push(path.child("shareProcessNamespace").invalid(
            true,
            "ShareProcessNamespace and HostPID cannot both be enabled",
        ));
    }
    sysctls(spec, list(&context.sysctls), &path.child("sysctls"), errors);
    if let Some(policy) = &context.fs_group_change_policy {
        let path = path.child("fsGroupChangePolicy");
        check::one_of(policy, &["Always", "OnRootMismatch"], &path, errors);
    }
    seccomp(
        context.seccomp_profile.as_ref(),
        &path.child("seccompProfile"),
        errors,
    );
    if let Some(options) = &context.windows_options {
        windows::options(options, &path.child("windowsOptions"), errors);
    }
    app_armor(
        context.app_armor_profile.as_ref(),
        &path.child("appArmorProfile"),
        errors,
    );
    if let Some(policy) = &context.supplemental_groups_policy {
        let path = path.child("supplementalGroupsPolicy");
        check::one_of(policy, &["Merge", "Strict"], &path, errors);
    }
    if let Some(policy) = &context.se_linux_change_policy {
        let path = path.child("seLinuxChangePolicy");
        check::one_of(policy, &["MountOption", "Recursive"], &path, errors);
    }
}

/// The security context of a container. `has_host_users`: the Pod has no user namespace.
pub fn container(
    context: &SecurityContext,
    has_host_users: bool,
    path: &Path,
    errors: &mut ErrorList,
) {
    id_of(context.run_as_user, &path.child("runAsUser"), errors);
    id_of(context.run_as_group, &path.child("runAsGroup"), errors);
    if let Some(mount) = &context.proc_mount {
        let path = path.child("procMount");
        check::one_of(mount, &["Default", "Unmasked"], &path, errors);
        if has_host_users && mount == "Unmasked" {
            errors.push(path.invalid(
                mount.as_str(),
                "`hostUsers` must be false to use `Unmasked`",
            ));
        }
    }
    seccomp(
        context.seccomp_profile.as_ref(),
        &path.child("seccompProfile"),
        errors,
    );
    if context.allow_privilege_escalation == Some(false) {
        if context.privileged == Some(true) {
            errors.push(path.invalid(
                value_of(context),
                "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
            ));
        }
        let added = context
            .capabilities
            .as_ref()
            .map_or(&[][..], |c| list(&c.add));
        for _ in added
            .iter()
            .filter(|capability| *capability == "CAP_SYS_ADMIN")
        {
            errors.push(path.invalid(
                value_of(context),
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` \
                 CAP_SYS_ADMIN",
            ));
        }
    }
    if let Some(options) = &context.windows_options {
        windows::options(options, &path.child("windowsOptions"), errors);
    }
    app_armor(
        context.app_armor_profile.as_ref(),
        &path.child("appArmorProfile"),
        errors,
    );
}

/// A user or group id.
pub fn id_of(id: Option<i64>, path: &Path, errors: &mut ErrorList) {
    if let Some(id) = id {
        check::each(path, id, formats::user_id(id), errors);
    }
}

fn sysctls(spec: &PodSpec, sysctls: &[Sysctl], path: &Path, errors: &mut ErrorList) {
    for (index, sysctl) in sysctls.iter().enumerate() {
        let path = path.index(index).child("name");
        let name = sysctl.name.as_str();
        if name.is_empty() {
            errors.push(path.required(""));
        } else if !is_sysctl_name(name) {
            errors.push(path.invalid(
                name,
                format!(
                    "must have at most {SYSCTL_MAX_LENGTH} characters and match regex \
                     {SYSCTL_REGEX}"
                ),
            ));
        } else if sysctls[..index].iter().any(|other| other.name == name) {
            errors.push(path.duplicate(name));
        }
        match namespace_of(name) {
            Some(Namespace::Net) if spec.host_network == Some(true) => {
                errors.push(path.invalid(name, "may not be specified when 'hostNetwork' is true"));
            }
            Some(Namespace::Ipc) if spec.host_ipc == Some(true) => {
                errors.push(path.invalid(name, "may not be specified when 'hostIPC' is true"));
            }
            _ => {}
        }
    }
}

fn is_sysctl_name(name: &str) -> bool {
    let is_letter = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= SYSCTL_MAX_LENGTH
        && name.split(['.', '/']).all(|segment| {
            let segment = segment.as_bytes();
            segment.first().is_some_and(is_letter)
                && segment.last().is_some_and(is_letter)
                && segment
                    .iter()
                    .all(|byte| is_letter(byte) || b"-_".contains(byte))
        })
}

/// The kernel namespace that a sysctl belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Namespace {
    Net,
    Ipc,
}

/// The namespace of a sysctl, written with dots or slashes; `None` for one of the whole node.
fn namespace_of(name: &str) -> Option<Namespace> {
    // The separator that comes first is the one that parts the name.
    let dotted = match name.find(['.', '/']) {
        Some(index) if name[index..].starts_with('/') => name
            .chars()
            .map(|c| match c {
                '/' => '.',
                '.' => '/',
                c => c,
            })
            .collect(),
        _ => name.to_owned(),
    };
    match dotted.as_str() {
        "kernel.sem"
        | "kernel.shmall"
        | "kernel.shmmax"
        | "kernel.shmmni"
        | "kernel.shm_rmid_forced"
        | "kernel.msgmax"
        | "kernel.msgmnb"
        | "kernel.msgmni" => Some(Namespace::Ipc),
        name if name.starts_with("fs.mqueue.") => Some(Namespace::Ipc),
        name if name.starts_with("net.") => Some(Namespace::Net),
        _ => None,
    }
}

fn seccomp(profile: Option<&SeccompProfile>, path: &Path, errors: &mut ErrorList) {
    let Some(profile) = profile else { return };
    let type_path = path.child("type");
    if profile.type_.is_empty() {
        errors.push(type_path.required("type is required when seccompProfile is set"));
    } else {
        let types = &["Localhost", "RuntimeDefault", "Unconfined"];
        check::one_of(&profile.type_, types, &type_path, errors);
    }
    let local_path = path.child("localhostProfile");
    match (&profile.localhost_profile, profile.type_ == "Localhost") {
        (None, true) => {
            errors.push(local_path.required("must be set when seccomp type is Localhost"));
        }
        (Some(file), true) => descending_path(file, &local_path, errors),
        (Some(_), false) => errors.push(local_path.invalid(
            value_of(profile),
            "can only be set when seccomp type is Localhost",
        )),
        (None, false) => {}
    }
}

fn app_armor(profile: Option<&AppArmorProfile>, path: &Path, errors: &mut ErrorList) {
    const MISSING: &str = "must be set when AppArmor type is Localhost";
    let Some(profile) = profile else { return };
    let type_path = path.child("type");
    let local_path = path.child("localhostProfile");
    match (profile.type_.as_str(), profile.localhost_profile.as_deref()) {
        ("Localhost", None) => errors.push(local_path.required(MISSING)),
        ("Localhost", Some(name)) => {
            if name.trim() != name {
                errors.push(local_path.invalid(name, "must not be padded with whitespace"));
            } else if name.is_empty() {
                errors.push(local_path.required(MISSING));
            }
            if name.len() > MAX_PROFILE_PATH {
                errors.push(local_path.too_long(MAX_PROFILE_PATH));
            }
        }
        ("RuntimeDefault" | "Unconfined", Some(name)) => {
            errors.push(local_path.invalid(name, "can only be set when AppArmor type is Localhost"))
        }
        ("RuntimeDefault" | "Unconfined", None) => {}
        ("", _) => {
            errors.push(type_path.required("type is required when appArmorProfile is set"));
        }
        (other, _) => errors
            .push(type_path.not_supported(other, &["Localhost", "RuntimeDefault", "Unconfined"])),
    }
}
