//! In-place resize: CPU and memory of running containers, and of the Pod as a whole.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};

use super::resources::{QosClass, is_sidecar};
use crate::{
    field::{ErrorList, Path},
    quantity::ResourceList,
    zero::{drop_zero, list, list_mut, text},
};

/// Checks a resize; metadata and spec have been checked by themselves.
pub fn validate(
    new: &Pod,
    new_spec: &PodSpec,
    old: &Pod,
    old_spec: &PodSpec,
    errors: &mut ErrorList,
) {
    let path = Path::new("spec");
    if QosClass::name_of(old) != QosClass::of(new_spec).name() {
        let class = new
            .status
            .as_ref()
            .map_or("", |status| text(&status.qos_class));
        errors.push(path.invalid(
            class,
            "Pod QOS Class may not change as a result of resizing",
        ));
    }
    if !is_supported_by_node(old) {
        errors.push(path.forbidden("Pod running on node without support for resize"));
    }
    let mut rest = new_spec.clone();
    if has_any(old_spec.resources.as_ref()) || has_any(new_spec.resources.as_ref()) {
        pod_level(&mut rest, old_spec, &path, errors);
    }
    let before = errors.len();
    same_containers(
        &new_spec.containers,
        &old_spec.containers,
        "containers",
        errors,
    );
    let (new_init, old_init) = (
        list(&new_spec.init_containers),
        list(&old_spec.init_containers),
    );
    same_containers(new_init, old_init, "initContainers", errors);
    if errors.len() > before {
        return;
    }
    nothing_removed(new_init, old_init, "initContainers", errors);
    nothing_removed(
        &new_spec.containers,
        &old_spec.containers,
        "containers",
        errors,
    );
    regular(&mut rest.containers, &old_spec.containers, &path, errors);
    init(list_mut(&mut rest.init_containers), old_init, &path, errors);
    if errors.is_empty() && rest != *old_spec {
        errors.push(path.forbidden("only cpu and memory resources are mutable"));
    }
}

fn has_any(requirements: Option<&ResourceRequirements>) -> bool {
    requirements.is_some_and(|r| r.limits.is_some() || r.requests.is_some())
}

/// A kubelet that can resize reports the resources of running containers.
fn is_supported_by_node(pod: &Pod) -> bool {
    let statuses = pod
        .status
        .as_ref()
        .map_or(&[][..], |status| list(&status.container_statuses));
    let running = statuses.iter().find(|status| {
        status
            .state
            .as_ref()
            .is_some_and(|state| state.running.is_some())
    });
    running.is_none_or(|status| status.resources.is_some())
}

fn pod_level(rest: &mut PodSpec, old: &PodSpec, path: &Path, errors: &mut ErrorList) {
    let resources_path = path.child("resources");
    if let Some(old_resources) = &old.resources {
        let Some(new_resources) = &rest.resources else {
            errors.push(resources_path.forbidden("pod-level resources cannot be removed"));
            return;
        };
        if is_removed(&new_resources.requests, &old_resources.requests) {
            let message = "pod-level resource requests cannot be removed";
            errors.push(resources_path.child("requests").forbidden(message));
        }
        if is_removed(&new_resources.limits, &old_resources.limits) {
            let message = "pod-level resource limits cannot be removed";
            errors.push(resources_path.child("limits").forbidden(message));
        }
    }
    if let Some(new_resources) = &mut rest.resources {
        let none = ResourceRequirements::default();
        keep_compute(new_resources, old.resources.as_ref().unwrap_or(&none));
        if old.resources.is_none() && *new_resources == none {
            rest.resources = None;
        }
    }
    if rest.resources != old.resources {
        errors.push(path.forbidden("only cpu and memory resources are mutable at pod-level"));
    }
}

fn same_containers(new: &[Container], old: &[Container], field: &str, errors: &mut ErrorList) {
    let path = Path::new("spec").child(field);
    if new.len() != old.len() {
        errors.push(path.forbidden(format!("{field} may not be added or removed on resize")));
        return;
    }
    for (index, (new, old)) in new.iter().zip(old).enumerate() {
        if new.name != old.name {
            errors.push(
                path.index(index)
                    .child("name")
                    .forbidden(format!("{field} may not be renamed or reordered on resize")),
            );
        }
    }
}

fn nothing_removed(new: &[Container], old: &[Container], field: &str, errors: &mut ErrorList) {
    let none = ResourceRequirements::default();
    for (index, (new, old)) in new.iter().zip(old).enumerate() {
        let path = Path::new("spec")
            .child(field)
            .index(index)
            .child("resources");
        let new = new.resources.as_ref().unwrap_or(&none);
        let old = old.resources.as_ref().unwrap_or(&none);
        if is_removed(&new.requests, &old.requests) {
            errors.push(
                path.child("requests")
                    .forbidden("resource requests cannot be removed"),
            );
        }
        if is_removed(&new.limits, &old.limits) {
            errors.push(
                path.child("limits")
                    .forbidden("resource limits cannot be removed"),
            );
        }
    }
}

fn is_removed(new: &Option<ResourceList>, old: &Option<ResourceList>) -> bool {
    old.iter()
        .flat_map(|list| list.keys())
        .any(|name| !new.as_ref().is_some_and(|list| list.contains_key(name)))
}

fn regular(rest: &mut [Container], old: &[Container], path: &Path, errors: &mut ErrorList) {
    for (new, old) in rest.iter_mut().zip(old) {
        keep_container_compute(new, old);
        if new != old {
            errors.push(path.forbidden("only cpu and memory resources are mutable"));
        }
    }
}

fn init(rest: &mut [Container], old: &[Container], path: &Path, errors: &mut ErrorList) {
    for (index, (new, old)) in rest.iter_mut().zip(old).enumerate() {
        let path = path.child("initContainers").index(index);
        let is_modified = new != old;
        keep_container_compute(new, old);
        if new != old {
            errors.push(path.forbidden(
                "only cpu and memory resources for init or sidecar containers are mutable",
            ));
        }
        if is_modified && !is_sidecar(new) {
            let restarts = list(&new.resize_policy)
                .iter()
                .filter(|policy| policy.restart_policy == "RestartContainer");
            for _ in restarts {
                errors.push(path.forbidden(
                    "non-sidecar init containers with a resize policy of RestartContainer cannot \
                     be resized",
                ));
            }
        }
    }
}

/// Takes CPU and memory from the old container, so that what still differs may not.
fn keep_container_compute(new: &mut Container, old: &Container) {
    let none = ResourceRequirements::default();
    let old_resources = old.resources.as_ref().unwrap_or(&none);
    let resources = new.resources.get_or_insert_default();
    keep_compute(resources, old_resources);
}

fn keep_compute(new: &mut ResourceRequirements, old: &ResourceRequirements) {
    for (new, old) in [
        (&mut new.limits, &old.limits),
        (&mut new.requests, &old.requests),
    ] {
        let list = new.get_or_insert_default();
        for name in ["cpu", "memory"] {
            list.remove(name);
            if let Some(quantity) = old.as_ref().and_then(|old| old.get(name)) {
                list.insert(name.to_owned(), quantity.clone());
            }
        }
        drop_zero(new);
    }
}
