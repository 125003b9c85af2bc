//! What is wrong with the options of a request.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use serde_json::Value;

use crate::field::{ErrorList, Path};

const MAX_FIELD_MANAGER: usize = 128;

/// What is wrong with the name of a field manager; an empty one is none.
pub fn validate_field_manager(manager: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if manager.len() > MAX_FIELD_MANAGER {
        errors.push(path.too_long(MAX_FIELD_MANAGER));
    }
    for (index, c) in manager.char_indices() {
        if c.is_control() {
            errors.push(path.invalid(
                manager,
                format!(
                    "invalid character U+{:04X} (at position {index})",
                    u32::from(c)
                ),
            ));
        }
    }
    errors
}

fn validate_dry_run(dry_run: &[String]) -> ErrorList {
    if dry_run.iter().all(|value| value == "All") {
        return ErrorList::new();
    }
    vec![Path::new("dryRun").not_supported(dry_run, &["All"])]
}

fn validate_field_validation(field_validation: &str) -> ErrorList {
    if matches!(field_validation, "" | "Ignore" | "Strict" | "Warn") {
        return ErrorList::new();
    }
    vec![
        Path::new("fieldValidation")
            .not_supported(field_validation, &["", "Ignore", "Strict", "Warn"]),
    ]
}

/// What is wrong with the options of a create or an update.
pub fn validate_create_options(
    field_manager: &str,
    dry_run: &[String],
    field_validation: &str,
) -> ErrorList {
    let mut errors = validate_field_manager(field_manager, &Path::new("fieldManager"));
    errors.extend(validate_dry_run(dry_run));
    errors.extend(validate_field_validation(field_validation));
    errors
}

/// What is wrong with the options of a patch. `apply`: the patch is a server-side apply.
pub fn validate_patch_options(
    apply: bool,
    force: Option<bool>,
    field_manager: &str,
    dry_run: &[String],
    field_validation: &str,
) -> ErrorList {
    let mut errors = ErrorList::new();
    if apply && field_manager.is_empty() {
        errors.push(Path::new("fieldManager").required("is required for apply patch"));
    }
    if !apply && force.is_some() {
        errors.push(Path::new("force").forbidden("may not be specified for non-apply patch"));
    }
    errors.extend(validate_create_options(
        field_manager,
        dry_run,
        field_validation,
    ));
    errors
}

/// What is wrong with the options of a delete.
pub fn validate_delete_options(options: &DeleteOptions) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("propagationPolicy");
    if let Some(policy) = &options.propagation_policy {
        if options.orphan_dependents.is_some() {
            errors.push(path.invalid(
                policy.clone(),
                "orphanDependents and deletionPropagation cannot be both set",
            ));
        }
        if !matches!(policy.as_str(), "Foreground" | "Background" | "Orphan") {
            errors.push(path.not_supported(
                policy.clone(),
                &["Foreground", "Background", "Orphan", "nil"],
            ));
        }
    }
    errors.extend(validate_dry_run(
        options.dry_run.as_deref().unwrap_or_default(),
    ));
    errors
}

/// What is wrong with options for the deletion of an object that cannot be read: none may be given
/// that would have to read it.
pub fn validate_forced_delete_options(options: &DeleteOptions) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("ignoreStoreReadErrorWithClusterBreakingPotential");
    for (set, other) in [
        (
            options.dry_run.as_ref().is_some_and(|d| !d.is_empty()),
            "dryRun",
        ),
        (options.propagation_policy.is_some(), "propagationPolicy"),
        (options.orphan_dependents.is_some(), "orphanDependents"),
        (options.grace_period_seconds.is_some(), "gracePeriodSeconds"),
        (options.preconditions.is_some(), "preconditions"),
    ] {
        if set {
            errors.push(path.invalid(
                Value::Bool(true),
                format!("cannot be set together with .{other}"),
            ));
        }
    }
    errors
}
