//! What the level restricted forbids besides: everything that hardened pods do without.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Volume;
use serde_json::Value;

use super::{
    Subject, Violation,
    baseline::{added_capabilities, bad_seccomp_types, seccomp_is_bad},
    containers, plural, quoted, setters, violation,
};

pub fn privilege_escalation(subject: &Subject<'_>, minor: u64) -> Option<Violation> {
    if minor >= 25 && subject.is_windows() {
        return None;
    }
    let names = subject.containers_with(|view| {
        let allow = view.security.and_then(|s| s.allow_privilege_escalation);
        allow != Some(false)
    });
    if names.is_empty() {
        return None;
    }
    violation(
        "allowPrivilegeEscalation != false",
        format!(
            "{} must set securityContext.allowPrivilegeEscalation=false",
            containers(&names)
        ),
    )
}

pub fn capabilities(subject: &Subject<'_>, minor: u64) -> Option<Violation> {
    if minor >= 25 && subject.is_windows() {
        return None;
    }
    let keeping = subject.containers_with(|view| {
        let capabilities = view.security.and_then(|s| s.capabilities.as_ref());
        let dropped = capabilities.and_then(|capabilities| capabilities.drop.as_ref());
        !dropped.into_iter().flatten().any(|name| name == "ALL")
    });
    let mut forbidden = BTreeSet::new();
    let adding = subject.containers_with(|view| {
        let bad: Vec<&str> = added_capabilities(view)
            .filter(|&name| name != "NET_BIND_SERVICE")
            .collect();
        forbidden.extend(bad.iter().copied());
        !bad.is_empty()
    });
    let mut details = Vec::new();
    if !keeping.is_empty() {
        details.push(format!(
            "{} must set securityContext.capabilities.drop=[\"ALL\"]",
            containers(&keeping)
        ));
    }
    if !adding.is_empty() {
        details.push(format!(
            "{} must not include {} in securityContext.capabilities.add",
            containers(&adding),
            quoted(forbidden)
        ));
    }
    if details.is_empty() {
        return None;
    }
    violation("unrestricted capabilities", details.join("; "))
}

const VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];
/// The types of volume that errors name, in the order in which they are looked for.
const RESTRICTED_VOLUMES: [&str; 21] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "gitRepo",
    "nfs",
    "iscsi",
    "glusterfs",
    "rbd",
    "flexVolume",
    "cinder",
    "cephfs",
    "flocker",
    "fc",
    "azureFile",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "photonPersistentDisk",
    "portworxVolume",
    "scaleIO",
    "storageos",
];

pub fn volumes(subject: &Subject<'_>, _minor: u64) -> Option<Violation> {
    let volumes = subject.spec.volumes.iter().flatten();
    let (names, types): (Vec<&str>, BTreeSet<&str>) = volumes
        .filter_map(|volume| Some((volume.name.as_str(), restricted_type(volume)?)))
        .unzip();
    if names.is_empty() {
        return None;
    }
    let volumes = plural("volume", "volumes", names.len());
    let uses = plural("uses", "use", names.len());
    let word = plural(
        "restricted volume type",
        "restricted volume types",
        types.len(),
    );
    violation(
        "restricted volume types",
        format!(
            "{volumes} {} {uses} {word} {}",
            quoted(names),
            quoted(types)
        ),
    )
}

/// The volume's type, if it is none that restricted pods may use.
fn restricted_type(volume: &Volume) -> Option<&'static str> {
    let value = serde_json::to_value(volume).unwrap_or(Value::Null);
    if VOLUMES.iter().any(|&name| value.get(name).is_some()) {
        return None;
    }
    let mut types = RESTRICTED_VOLUMES.into_iter();
    Some(
        types
            .find(|&name| value.get(name).is_some())
            .unwrap_or("unknown"),
    )
}

pub fn run_as_non_root(subject: &Subject<'_>, minor: u64) -> Option<Violation> {
    const REASON: &str = "runAsNonRoot != true";
    if minor >= 35 && subject.has_own_users() {
        return None;
    }
    let of_pod = subject.security().and_then(|s| s.run_as_non_root);
    let of = |view: &super::View<'_>| view.security.and_then(|s| s.run_as_non_root);
    let explicit = subject.containers_with(|view| of(view) == Some(false));
    if let Some(setters) = setters(of_pod == Some(false), &explicit) {
        return violation(
            REASON,
            format!("{setters} must not set securityContext.runAsNonRoot=false"),
        );
    }
    let implicit = subject.containers_with(|view| of(view).is_none() && of_pod != Some(true));
    if implicit.is_empty() {
        return None;
    }
    violation(
        REASON,
        format!(
            "pod or {} must set securityContext.runAsNonRoot=true",
            containers(&implicit)
        ),
    )
}

pub fn run_as_user(subject: &Subject<'_>, minor: u64) -> Option<Violation> {
    if minor >= 35 && subject.has_own_users() {
        return None;
    }
    let pod = subject.security().and_then(|s| s.run_as_user) == Some(0);
    let names =
        subject.containers_with(|view| view.security.and_then(|s| s.run_as_user) == Some(0));
    let setters = setters(pod, &names)?;
    violation("runAsUser=0", format!("{setters} must not set runAsUser=0"))
}

pub fn seccomp_profile(subject: &Subject<'_>, minor: u64) -> Option<Violation> {
    if minor >= 25 && subject.is_windows() {
        return None;
    }
    let mut values = BTreeSet::new();
    let of_pod = subject.security().and_then(|s| s.seccomp_profile.as_ref());
    let bad_pod = seccomp_is_bad(of_pod, &mut values);
    let explicit = subject.containers_with(|view| {
        let profile = view.security.and_then(|s| s.seccomp_profile.as_ref());
        seccomp_is_bad(profile, &mut values)
    });
    if let Some(setters) = setters(bad_pod, &explicit) {
        return bad_seccomp_types(&setters, &values);
    }
    let implicit = subject.containers_with(|view| {
        let profile = view.security.and_then(|s| s.seccomp_profile.as_ref());
        profile.is_none() && of_pod.is_none()
    });
    if implicit.is_empty() {
        return None;
    }
    violation(
        "seccompProfile",
        format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
            containers(&implicit)
        ),
    )
}
