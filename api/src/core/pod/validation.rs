//! What is wrong with a Pod or a pod template: upstream's
//! `pkg/apis/core/validation/validation.go`, with the features as v1.36 has them by default.
//!
//! Enter at [`pod`], [`pod_template`] and [`pod_spec`]. The modules below check one part each
//! and add to a list of errors, in upstream's order.

pub mod annotations;
pub mod containers;
mod env;
mod probes;
pub mod projected;
pub mod remote_volumes;
pub mod resources;
pub mod scheduling;
mod security;
mod spec;
pub mod volumes;
mod windows;

use k8s_openapi::{
    api::core::v1::{Container, Pod, PodSpec, PodTemplateSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

pub use spec::pod_spec;

use super::container_defaults::into_container;
use crate::{
    check,
    field::{ErrorList, Path},
    zero::{list, text},
};

/// What of a Pod is checked differently in a template.
#[derive(Clone, Copy, Debug)]
pub enum Holder<'a> {
    Pod(&'a ObjectMeta),
    Template,
}

impl<'a> Holder<'a> {
    fn is_pod(self) -> bool {
        matches!(self, Holder::Pod(_))
    }

    /// The Pod's name; empty in a template and before it is generated.
    fn name(self) -> &'a str {
        match self {
            Holder::Pod(metadata) => text(&metadata.name),
            Holder::Template => "",
        }
    }
}

/// What is wrong with a new Pod.
pub fn pod(pod: &Pod) -> ErrorList {
    let mut errors = metadata_and_spec(pod);
    let Some(spec) = &pod.spec else { return errors };
    let path = Path::new("spec");
    if !list(&spec.ephemeral_containers).is_empty() {
        errors.push(
            path.child("ephemeralContainers")
                .forbidden("cannot be set on create"),
        );
    }
    if !text(&spec.node_name).is_empty() && !list(&spec.scheduling_gates).is_empty() {
        errors.push(
            path.child("nodeName")
                .forbidden("cannot be set until all schedulingGates have been cleared"),
        );
    }
    annotations::match_fields(&pod.metadata, spec, &path, &mut errors);
    errors
}

/// What is wrong with a Pod, new or changed.
pub fn metadata_and_spec(pod: &Pod) -> ErrorList {
    let mut errors = ErrorList::new();
    let no_spec = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&no_spec);
    let path = Path::new("spec");
    let annotations_path = Path::new("metadata.annotations");
    annotations::pod_specific(&pod.metadata, spec, &annotations_path, &mut errors);
    pod_spec(spec, Holder::Pod(&pod.metadata), &path, &mut errors);
    if text(&spec.service_account_name).is_empty() {
        projected::forbid_tokens(spec, &path, &mut errors);
    }
    for (field, containers) in [
        ("containers", &spec.containers[..]),
        ("initContainers", list(&spec.init_containers)),
    ] {
        for (index, container) in containers.iter().enumerate() {
            let path = path.child(field).index(index);
            containers::untrimmed_image(container, &path, &mut errors);
        }
    }
    errors
}

/// What is wrong with the template of a workload kind.
pub fn pod_template(template: &PodTemplateSpec, path: &Path, errors: &mut ErrorList) {
    let no_metadata = ObjectMeta::default();
    let metadata = template.metadata.as_ref().unwrap_or(&no_metadata);
    let no_spec = PodSpec::default();
    let spec = template.spec.as_ref().unwrap_or(&no_spec);
    let spec_path = path.child("spec");
    check::labels(metadata.labels.as_ref(), &path.child("labels"), errors);
    let annotations_path = path.child("annotations");
    check::annotations(metadata.annotations.as_ref(), &annotations_path, errors);
    annotations::pod_specific(metadata, spec, &annotations_path, errors);
    pod_spec(spec, Holder::Template, &spec_path, errors);
    annotations::match_fields(metadata, spec, &spec_path, errors);
    if !list(&spec.ephemeral_containers).is_empty() {
        errors.push(
            spec_path
                .child("ephemeralContainers")
                .forbidden("ephemeral containers not allowed in pod template"),
        );
    }
}

/// Visits init, regular and ephemeral containers, with their paths.
pub fn visit_containers(spec: &PodSpec, path: &Path, mut visit: impl FnMut(&Container, Path)) {
    for (index, container) in list(&spec.init_containers).iter().enumerate() {
        visit(container, path.child("initContainers").index(index));
    }
    for (index, container) in spec.containers.iter().enumerate() {
        visit(container, path.child("containers").index(index));
    }
    for (index, container) in list(&spec.ephemeral_containers).iter().enumerate() {
        let container = into_container(container.clone());
        visit(&container, path.child("ephemeralContainers").index(index));
    }
}
