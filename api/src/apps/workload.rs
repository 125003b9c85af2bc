//! What the kinds that run Pods from a template have in common.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{PodSpec, PodTemplateSpec},
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};

use crate::{
    check,
    core::pod::{validation, warnings},
    field::{BadValue, ErrorList, Path, value_of},
    names, selector,
    zero::text,
};

/// A selector and the template whose Pods it is to find.
pub struct Selected<'a> {
    pub selector: &'a LabelSelector,
    pub template: &'a PodTemplateSpec,
}

impl Selected<'_> {
    /// The selector is valid and not empty. An absent selector reads as an empty one, and is
    /// far more often what is wrong.
    pub fn check_selector(&self, path: &Path, errors: &mut ErrorList) {
        if check::is_empty_selector(self.selector) {
            errors.push(path.child("selector").required(""));
        }
        check::label_selector(Some(self.selector), &path.child("selector"), errors);
    }

    /// The template is valid, and the selector finds its Pods. `kind` is for the message.
    pub fn check_template(&self, kind: &str, path: &Path, errors: &mut ErrorList) {
        let selector_path = path.child("selector");
        let template_path = path.child("template");
        match selector::LabelSelector::from_object(Some(self.selector)) {
            Err(_) => errors
                .push(selector_path.invalid(value_of(self.selector), "invalid label selector")),
            Ok(selector) => {
                self.check_labels(&selector, &template_path, errors);
                validation::pod_template(self.template, &template_path, errors);
                runs_for_ever(self.template, kind, &template_path, errors);
            }
        }
    }

    /// The selector finds the template's Pods.
    pub fn check_labels(
        &self,
        selector: &selector::LabelSelector,
        path: &Path,
        errors: &mut ErrorList,
    ) {
        let labels = labels(self.template);
        if selector.is_empty() || !selector.matches_labels(labels) {
            errors.push(path.child("metadata.labels").invalid(
                value_of(&labels),
                "`selector` does not match template `labels`",
            ));
        }
    }
}

/// The labels of a template's Pods.
pub fn labels(template: &PodTemplateSpec) -> Option<&BTreeMap<String, String>> {
    template.metadata.as_ref()?.labels.as_ref()
}

/// Pods of these kinds are always replaced, so they cannot be let end.
pub fn runs_for_ever(template: &PodTemplateSpec, kind: &str, path: &Path, errors: &mut ErrorList) {
    let no_spec = PodSpec::default();
    let spec = template.spec.as_ref().unwrap_or(&no_spec);
    let policy = text(&spec.restart_policy);
    if policy != "Always" {
        errors.push(
            path.child("spec.restartPolicy")
                .not_supported(policy, &["Always"]),
        );
    }
    if spec.active_deadline_seconds.is_some() {
        errors.push(
            path.child("spec.activeDeadlineSeconds")
                .forbidden(format!("activeDeadlineSeconds in {kind} is not Supported")),
        );
    }
}

/// Counts of a spec or status, none negative.
pub fn counts(counts: &[(&str, Option<i64>)], path: &Path, errors: &mut ErrorList) {
    for (field, count) in counts {
        if let Some(count) = count {
            check::not_negative(*count, &path.child(field), errors);
        }
    }
}

/// Counts of a status that are parts of `status.replicas`.
pub fn at_most_replicas(
    replicas: i32,
    counts: &[(&str, Option<i32>)],
    path: &Path,
    errors: &mut ErrorList,
) {
    for (field, count) in counts {
        if let Some(count) = count.filter(|&count| count > replicas) {
            errors.push(
                path.child(field)
                    .invalid(count, "cannot be greater than status.replicas"),
            );
        }
    }
}

/// The number of hash collisions only grows.
pub fn collision_count(new: Option<i32>, old: Option<i32>, path: &Path, errors: &mut ErrorList) {
    if old.is_some_and(|old| new.unwrap_or(0) < old) {
        errors.push(
            path.child("collisionCount")
                .invalid(new.unwrap_or(0), "cannot be decremented"),
        );
    }
}

/// The number or the percentage.
pub fn number(value: Option<&IntOrString>) -> i64 {
    match value {
        None => 0,
        Some(IntOrString::Int(number)) => (*number).into(),
        Some(value @ IntOrString::String(text)) => check::percentage(value)
            .or_else(|| text.parse().ok())
            .unwrap_or(0),
    }
}

/// Warnings about a new object, whose name goes into host names, and its template.
pub fn warnings_on_create(metadata: &ObjectMeta, template: &PodTemplateSpec) -> Vec<String> {
    let mut warnings = name_warning(metadata);
    warnings.extend(template_warnings(template));
    warnings
}

pub fn name_warning(metadata: &ObjectMeta) -> Vec<String> {
    let messages = names::dns1123_label(text(&metadata.name));
    if messages.is_empty() {
        return Vec::new();
    }
    vec![format!(
        "metadata.name: this is used in Pod names and hostnames, which can result in surprising \
         behavior; a DNS label is recommended: [{}]",
        messages.join(" ")
    )]
}

/// Warnings about a template in `spec.template`.
pub fn template_warnings(template: &PodTemplateSpec) -> Vec<String> {
    warnings::pod_template(template, &Path::new("spec.template"))
}

/// Warnings about a change: only where the generation changed.
pub fn warnings_on_update(
    new: &ObjectMeta,
    old: &ObjectMeta,
    template: &PodTemplateSpec,
) -> Vec<String> {
    if new.generation == old.generation {
        return Vec::new();
    }
    template_warnings(template)
}
/// A rolling update as errors show it. Upstream holds both numbers even where none is given.
pub fn shown(max_unavailable: &Option<IntOrString>, max_surge: &Option<IntOrString>) -> BadValue {
    let number = |number: &Option<IntOrString>| match number {
        Some(number) => value_of(number).into(),
        None => 0.into(),
    };
    BadValue::Struct(vec![
        ("MaxUnavailable", number(max_unavailable)),
        ("MaxSurge", number(max_surge)),
    ])
}
