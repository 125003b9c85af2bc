//! Annotations that mean something for a Pod.

use k8s_openapi::{
    api::core::v1::{AppArmorProfile, PodSpec, SeccompProfile, Toleration},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{scheduling, visit_containers, volumes::descending_path};
use crate::field::{ErrorList, FieldError, Path};

pub const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
pub const APP_ARMOR_PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";
const TOLERATIONS: &str = "scheduler.alpha.kubernetes.io/tolerations";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER_PREFIX: &str = "container.seccomp.security.alpha.kubernetes.io/";

/// Checks the values of known annotations.
pub fn pod_specific(metadata: &ObjectMeta, spec: &PodSpec, path: &Path, errors: &mut ErrorList) {
    let Some(annotations) = &metadata.annotations else {
        return;
    };
    if let Some(value) = annotations.get(MIRROR_ANNOTATION)
        && spec.node_name.is_none()
    {
        errors.push(path.key(MIRROR_ANNOTATION).invalid(
            value.as_str(),
            "must set spec.nodeName if mirror pod annotation is set",
        ));
    }
    if let Some(value) = annotations
        .get(TOLERATIONS)
        .filter(|value| !value.is_empty())
    {
        match serde_json::from_str::<Vec<Toleration>>(value) {
            Ok(tolerations) => {
                scheduling::tolerations(&tolerations, &path.child(TOLERATIONS), errors);
            }
            Err(error) => errors.push(path.invalid(TOLERATIONS, error.to_string())),
        }
    }
    if let Some(value) = annotations.get(DELETION_COST)
        && !is_deletion_cost(value)
    {
        errors.push(
            path.key(DELETION_COST)
                .invalid(value.as_str(), "must be a 32bit integer"),
        );
    }
    if let Some(value) = annotations.get(SECCOMP_POD) {
        seccomp(value, &path.child(SECCOMP_POD), errors);
    }
    for (key, value) in annotations {
        if key.starts_with(SECCOMP_CONTAINER_PREFIX) {
            seccomp(value, &path.child(key), errors);
        }
    }
    for (key, value) in annotations {
        if let Some(container) = key.strip_prefix(APP_ARMOR_PREFIX) {
            app_armor(container, value, spec, &path.key(key), errors);
        }
    }
}

/// An integer without plus sign or leading zeros.
fn is_deletion_cost(value: &str) -> bool {
    let digits = value.strip_prefix('-').unwrap_or(value);
    let has_leading_zero = digits.len() > 1 && digits.starts_with('0');
    !value.starts_with('+') && !has_leading_zero && value.parse::<i32>().is_ok()
}

fn seccomp(profile: &str, path: &Path, errors: &mut ErrorList) {
    if matches!(profile, "runtime/default" | "docker/default" | "unconfined") {
        return;
    }
    match profile.strip_prefix("localhost/") {
        Some(file) => descending_path(file, path, errors),
        None => errors.push(path.invalid(profile, "must be a valid seccomp profile")),
    }
}

fn app_armor(container: &str, profile: &str, spec: &PodSpec, path: &Path, errors: &mut ErrorList) {
    let mut is_known = false;
    visit_containers(spec, &Path::default(), |known, _| {
        is_known |= known.name == container;
    });
    if !is_known {
        errors.push(path.invalid(container, "container not found"));
    }
    if !matches!(profile, "" | "runtime/default" | "unconfined")
        && !profile.starts_with("localhost/")
    {
        errors.push(path.invalid(
            profile,
            format!("invalid AppArmor profile name: {profile:?}"),
        ));
    }
}

/// Where annotation and field both set a profile, they set the same.
pub fn match_fields(metadata: &ObjectMeta, spec: &PodSpec, path: &Path, errors: &mut ErrorList) {
    let Some(annotations) = &metadata.annotations else {
        return;
    };
    let for_all = spec.security_context.as_ref();
    if let Some(annotation) = annotations.get(SECCOMP_POD)
        && let Some(profile) = for_all.and_then(|context| context.seccomp_profile.as_ref())
    {
        let path = path.child("securityContext.seccompProfile");
        errors.extend(seccomp_differs(annotation, profile, &path));
    }
    visit_containers(spec, path, |container, path| {
        let own = container.security_context.as_ref();
        let annotation = annotations.get(&format!("{SECCOMP_CONTAINER_PREFIX}{}", container.name));
        if let Some(annotation) = annotation
            && let Some(profile) = own.and_then(|context| context.seccomp_profile.as_ref())
        {
            let path = path.child("securityContext.seccompProfile");
            errors.extend(seccomp_differs(annotation, profile, &path));
        }
    });
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        return;
    }
    visit_containers(spec, path, |container, path| {
        let profile = container
            .security_context
            .as_ref()
            .and_then(|context| context.app_armor_profile.as_ref())
            .or_else(|| for_all.and_then(|context| context.app_armor_profile.as_ref()));
        let annotation = annotations.get(&format!("{APP_ARMOR_PREFIX}{}", container.name));
        if let (Some(profile), Some(annotation)) = (profile, annotation) {
            let path = path.child("securityContext.appArmorProfile");
            errors.extend(app_armor_differs(annotation, profile, &path));
        }
    });
}

fn seccomp_differs(annotation: &str, profile: &SeccompProfile, path: &Path) -> Option<FieldError> {
    let types_match = match profile.type_.as_str() {
        "Unconfined" => annotation == "unconfined",
        "RuntimeDefault" => matches!(annotation, "runtime/default" | "docker/default"),
        "Localhost" => annotation.starts_with("localhost/"),
        _ => true,
    };
    differs(
        types_match,
        annotation,
        (&profile.type_, profile.localhost_profile.as_deref()),
        "seccomp",
        path,
    )
}

fn app_armor_differs(
    annotation: &str,
    profile: &AppArmorProfile,
    path: &Path,
) -> Option<FieldError> {
    let types_match = match profile.type_.as_str() {
        "Unconfined" => annotation == "unconfined",
        "RuntimeDefault" => annotation == "runtime/default",
        "Localhost" => annotation.starts_with("localhost/"),
        _ => true,
    };
    differs(
        types_match,
        annotation,
        (&profile.type_, profile.localhost_profile.as_deref()),
        "apparmor",
        path,
    )
}

fn differs(
    types_match: bool,
    annotation: &str,
    (profile_type, localhost_profile): (&str, Option<&str>),
    module: &str,
    path: &Path,
) -> Option<FieldError> {
    if !types_match {
        return Some(
            path.child("type")
                .forbidden(format!("{module} type in annotation and field must match")),
        );
    }
    let is_same_file = annotation.strip_prefix("localhost/") == localhost_profile;
    (profile_type == "Localhost" && !is_same_file).then(|| {
        path.child("localhostProfile").forbidden(format!(
            "{module} profile in annotation and field must match"
        ))
    })
}
