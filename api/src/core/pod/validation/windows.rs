//! The Pod's operating system, and what only goes with one of them.

use k8s_openapi::api::core::v1::{PodSpec, SecurityContext, WindowsSecurityContextOptions};

use super::visit_containers;
use crate::{
    check,
    field::{ErrorList, Path},
    names,
};

const MAX_CREDENTIAL_SPEC_KIB: usize = 64;
const MAX_DOMAIN_LENGTH: usize = 256;
const MAX_USER_LENGTH: usize = 104;
const FORBIDDEN_IN_WINDOWS: &str = "cannot be set for a windows pod";
const FORBIDDEN_IN_LINUX: &str = "windows options cannot be set for a linux pod";

/// `os` of a spec, and the fields that go with it.
pub fn os(spec: &PodSpec, name: &str, path: &Path, errors: &mut ErrorList) {
    match name {
        "linux" => linux(spec, path, errors),
        "windows" => windows(spec, path, errors),
        _ => {
            let path = path.child("os");
            if name.is_empty() {
                errors.push(path.child("name").required(""));
            } else {
                check::one_of(name, &["linux", "windows"], &path, errors);
            }
        }
    }
}

fn linux(spec: &PodSpec, path: &Path, errors: &mut ErrorList) {
    let for_all = spec.security_context.as_ref();
    if for_all.is_some_and(|context| context.windows_options.is_some()) {
        errors.push(
            path.child("securityContext.windowsOptions")
                .forbidden(FORBIDDEN_IN_LINUX),
        );
    }
    visit_containers(spec, path, |container, path| {
        let context = container.security_context.as_ref();
        if context.is_some_and(|context| context.windows_options.is_some()) {
            errors.push(
                path.child("securityContext.windowsOptions")
                    .forbidden(FORBIDDEN_IN_LINUX),
            );
        }
    });
}

fn windows(spec: &PodSpec, path: &Path, errors: &mut ErrorList) {
    if let Some(context) = &spec.security_context {
        for (field, is_set) in [
            (
                "securityContext.appArmorProfile",
                context.app_armor_profile.is_some(),
            ),
            (
                "securityContext.seLinuxOptions",
                context.se_linux_options.is_some(),
            ),
            ("hostUsers", spec.host_users.is_some()),
            ("hostPID", spec.host_pid == Some(true)),
            ("hostIPC", spec.host_ipc == Some(true)),
            (
                "securityContext.seccompProfile",
                context.seccomp_profile.is_some(),
            ),
            ("securityContext.fsGroup", context.fs_group.is_some()),
            (
                "securityContext.fsGroupChangePolicy",
                context.fs_group_change_policy.is_some(),
            ),
            ("securityContext.sysctls", context.sysctls.is_some()),
            (
                "shareProcessNamespace",
                spec.share_process_namespace.is_some(),
            ),
            ("securityContext.runAsUser", context.run_as_user.is_some()),
            ("securityContext.runAsGroup", context.run_as_group.is_some()),
            (
                "securityContext.supplementalGroups",
                context.supplemental_groups.is_some(),
            ),
            (
                "securityContext.supplementalGroupsPolicy",
                context.supplemental_groups_policy.is_some(),
            ),
            (
                "securityContext.seLinuxChangePolicy",
                context.se_linux_change_policy.is_some(),
            ),
        ] {
            if is_set {
                errors.push(path.child(field).forbidden(FORBIDDEN_IN_WINDOWS));
            }
        }
    }
    visit_containers(spec, path, |container, path| {
        if let Some(context) = &container.security_context {
            windows_container(context, &path.child("securityContext"), errors);
        }
    });
}

fn windows_container(context: &SecurityContext, path: &Path, errors: &mut ErrorList) {
    for (field, is_set) in [
        ("appArmorProfile", context.app_armor_profile.is_some()),
        ("seLinuxOptions", context.se_linux_options.is_some()),
        ("seccompProfile", context.seccomp_profile.is_some()),
        ("capabilities", context.capabilities.is_some()),
        (
            "readOnlyRootFilesystem",
            context.read_only_root_filesystem.is_some(),
        ),
        ("privileged", context.privileged.is_some()),
        (
            "allowPrivilegeEscalation",
            context.allow_privilege_escalation.is_some(),
        ),
        ("procMount", context.proc_mount.is_some()),
        ("runAsUser", context.run_as_user.is_some()),
        ("runAsGroup", context.run_as_group.is_some()),
    ] {
        if is_set {
            errors.push(path.child(field).forbidden(FORBIDDEN_IN_WINDOWS));
        }
    }
}

/// `windowsOptions` of a Pod or container.
pub fn options(options: &WindowsSecurityContextOptions, path: &Path, errors: &mut ErrorList) {
    if let Some(name) = &options.gmsa_credential_spec_name {
        let messages = names::dns1123_subdomain(name);
        check::each(
            &path.child("gmsaCredentialSpecName"),
            name.as_str(),
            messages,
            errors,
        );
    }
    if let Some(spec) = &options.gmsa_credential_spec {
        let path = path.child("gmsaCredentialSpec");
        if spec.is_empty() {
            errors.push(path.invalid(
                spec.as_str(),
                "gmsaCredentialSpec cannot be an empty string",
            ));
        } else if spec.len() > MAX_CREDENTIAL_SPEC_KIB * 1024 {
            errors.push(path.invalid(
                spec.as_str(),
                format!("gmsaCredentialSpec size must be under {MAX_CREDENTIAL_SPEC_KIB} KiB"),
            ));
        }
    }
    if let Some(name) = &options.run_as_user_name {
        let path = path.child("runAsUserName");
        errors.extend(
            user_name(name)
                .into_iter()
                .map(|message| path.invalid(name.as_str(), format!("runAsUserName{message}"))),
        );
    }
}

/// What is wrong with `DOMAIN\user`, as it follows the field's name in a message.
fn user_name(name: &str) -> Vec<String> {
    if name.is_empty() {
        return vec![" cannot be an empty string".to_owned()];
    }
    if name.contains(|c: char| c.is_ascii_control()) {
        return vec![" cannot contain control characters".to_owned()];
    }
    let (domain, user) = match name.split('\\').collect::<Vec<_>>()[..] {
        [user] => (None, user),
        [domain, user] => (Some(domain), user),
        _ => return vec![" cannot contain more than one backslash".to_owned()],
    };
    let mut errors = Vec::new();
    if let Some(domain) = domain {
        if domain.len() >= MAX_DOMAIN_LENGTH {
            errors.push(format!(
                "'s Domain length must be under {MAX_DOMAIN_LENGTH} characters"
            ));
        }
        if !is_netbios(domain) && !is_dns_domain(domain) {
            errors.push("'s Domain doesn't match the NetBios nor the DNS format".to_owned());
        }
    }
    if user.is_empty() {
        errors.push("'s User cannot be empty".to_owned());
    } else if user.len() > MAX_USER_LENGTH {
        errors.push(format!(
            "'s User length must not be longer than {MAX_USER_LENGTH} characters"
        ));
    }
    if !user.is_empty() && user.bytes().all(|byte| b". ".contains(&byte)) {
        errors.push("'s User cannot contain only periods or spaces".to_owned());
    }
    if user.contains(|c: char| r#""/\:;|=,+*?<>@[]"#.contains(c)) {
        errors.push(
            r#"'s User cannot contain the following characters: "/\:;|=,+*?<>@[]"#.to_owned(),
        );
    }
    errors
}

fn is_netbios(domain: &str) -> bool {
    (1..=15).contains(&domain.chars().count())
        && !domain.starts_with('.')
        && !domain.contains(|c: char| r#"\/:*?"<>|"#.contains(c))
}

fn is_dns_domain(domain: &str) -> bool {
    let labels: Vec<&str> = domain.split('.').collect();
    labels.len() > 1
        && labels.iter().all(|label| {
            let is_letter = |byte: u8| byte.is_ascii_alphanumeric();
            (1..=63).contains(&label.len())
                && label.bytes().next().is_some_and(is_letter)
                && label.bytes().last().is_some_and(is_letter)
                && label.bytes().all(|byte| is_letter(byte) || byte == b'-')
        })
}

/// Either all containers are processes of a Windows host, or none is.
pub fn host_process(spec: &PodSpec, path: &Path, errors: &mut ErrorList) {
    let for_all = spec
        .security_context
        .as_ref()
        .and_then(|context| context.windows_options.as_ref())
        .and_then(|options| options.host_process);
    let (mut containers, mut host_processes) = (0, 0);
    visit_containers(spec, path, |container, path| {
        containers += 1;
        let own = container
            .security_context
            .as_ref()
            .and_then(|context| context.windows_options.as_ref())
            .and_then(|options| options.host_process);
        if let (Some(for_all), Some(own)) = (for_all, own)
            && for_all != own
        {
            errors.push(path.child("securityContext.windowsOptions.hostProcess").invalid(
                own,
                format!(
                    "pod hostProcess value must be identical if both are specified, was {for_all}"
                ),
            ));
        }
        if own.or(for_all) == Some(true) {
            host_processes += 1;
        }
    });
    if host_processes == 0 {
        return;
    }
    if host_processes != containers {
        errors.push(path.invalid(
            "",
            "If pod contains any hostProcess containers then all containers must be HostProcess \
             containers",
        ));
    }
    if spec.host_network != Some(true) {
        errors.push(path.child("hostNetwork").invalid(
            false,
            "hostNetwork must be true if pod contains any hostProcess containers",
        ));
    }
}
