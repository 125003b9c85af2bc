//! Resource requests and limits of containers and of a Pod as a whole.

use k8s_openapi::{
    api::core::v1::{PodSpec, ResourceClaim, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};

use super::spec::claim_names;
use crate::{
    check,
    core::pod::resources::{
        Part, aggregate, is_huge_page, is_native, is_overcommit_allowed, is_pod_level,
    },
    field::{ErrorList, Path},
    names,
    quantity::{Amount, ResourceList},
    zero::{list, text},
};

type NameCheck = fn(&str, &Path, &mut ErrorList);

/// Requests and limits of a container.
pub fn container(
    requirements: &ResourceRequirements,
    pod_claims: &[&str],
    path: &Path,
    errors: &mut ErrorList,
) {
    all(
        requirements,
        container_resource_name,
        pod_claims,
        path,
        errors,
    );
}

/// What the runtime of a Pod takes for itself; checked as limits.
pub fn overhead(overhead: &ResourceList, path: &Path, errors: &mut ErrorList) {
    let requirements = ResourceRequirements {
        limits: Some(overhead.clone()),
        ..ResourceRequirements::default()
    };
    container(&requirements, &[], path, errors);
}

/// `resources` of a spec: only of some kinds, and no less than its containers have.
pub fn pod_level(spec: &PodSpec, path: &Path, errors: &mut ErrorList) {
    let Some(resources) = &spec.resources else {
        return;
    };
    let path = path.child("resources");
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        errors.push(path.forbidden("may not be set for a windows pod"));
        return;
    }
    if resources.claims.is_some() {
        errors.push(
            path.child("claims")
                .forbidden("claims may not be set for Resources at pod-level"),
        );
    }
    all(
        resources,
        pod_resource_name,
        &claim_names(spec),
        &path,
        errors,
    );
    consistent(spec, resources, &path, errors);
}

fn all(
    requirements: &ResourceRequirements,
    check_name: NameCheck,
    pod_claims: &[&str],
    path: &Path,
    errors: &mut ErrorList,
) {
    let (limits_path, requests_path) = (path.child("limits"), path.child("requests"));
    let limits = requirements.limits.iter().flatten();
    let requests = requirements.requests.iter().flatten();
    for (name, quantity) in limits.clone() {
        one(name, quantity, check_name, &limits_path.key(name), errors);
    }
    for (name, quantity) in requests.clone() {
        let path = requests_path.key(name);
        check_name(name, &path, errors);
        let request = quantity_value(name, quantity, &path, errors);
        let limit = requirements
            .limits
            .as_ref()
            .and_then(|limits| limits.get(name));
        match limit.map(Amount::from) {
            Some(limit) if request != limit && !is_overcommit_allowed(name) => {
                errors.push(requests_path.invalid(
                    request.to_string(),
                    format!("must be equal to {name} limit of {limit}"),
                ));
            }
            Some(limit) if request > limit => errors.push(requests_path.invalid(
                request.to_string(),
                format!("must be less than or equal to {name} limit of {limit}"),
            )),
            None if !is_overcommit_allowed(name) => errors
                .push(limits_path.required("Limit must be set for non overcommitable resources")),
            _ => {}
        }
        huge_page_multiple(name, request, &path, errors);
    }
    let names = || {
        limits
            .clone()
            .chain(requests.clone())
            .map(|(name, _)| name.as_str())
    };
    if names().any(is_huge_page) && !names().any(|name| matches!(name, "cpu" | "memory")) {
        errors.push(path.forbidden("HugePages require cpu or memory"));
    }
    claims(
        list(&requirements.claims),
        pod_claims,
        &path.child("claims"),
        errors,
    );
}

fn one(
    name: &str,
    quantity: &Quantity,
    check_name: NameCheck,
    path: &Path,
    errors: &mut ErrorList,
) {
    check_name(name, path, errors);
    let amount = quantity_value(name, quantity, path, errors);
    huge_page_multiple(name, amount, path, errors);
}

/// A quantity of a resource: not negative, and whole where the resource cannot be divided.
pub fn quantity_value(
    name: &str,
    quantity: &Quantity,
    path: &Path,
    errors: &mut ErrorList,
) -> Amount {
    let amount = check::not_negative_quantity(quantity, path, errors);
    if is_integer_resource(name) && !amount.is_integer() {
        errors.push(path.invalid(amount.to_string(), "must be an integer"));
    }
    amount
}

/// Objects are counted, and what is no resource of Kubernetes itself cannot be divided.
fn is_integer_resource(name: &str) -> bool {
    const COUNTED: [&str; 9] = [
        "pods",
        "services",
        "replicationcontrollers",
        "resourcequotas",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
        "services.nodeports",
        "services.loadbalancers",
    ];
    COUNTED.contains(&name) || is_extended(name)
}

fn huge_page_multiple(name: &str, amount: Amount, path: &Path, errors: &mut ErrorList) {
    let Some(size) = name.strip_prefix("hugepages-") else {
        return;
    };
    let is_multiple = Amount::parse(size).is_ok_and(|size| {
        size.is_positive() && size.is_whole_milli() && amount.value() % size.value() == 0
    });
    if !is_multiple {
        errors.push(path.invalid(
            amount.to_string(),
            format!("{amount} is not positive integer multiple of {name}"),
        ));
    }
}

/// A resource that is not Kubernetes' own: `example.com/gpu`.
pub fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && names::qualified_name(&format!("requests.{name}")).is_empty()
}

/// Resources that may be named without a prefix somewhere.
fn is_standard(name: &str) -> bool {
    const STANDARD: [&str; 20] = [
        "cpu",
        "memory",
        "ephemeral-storage",
        "requests.cpu",
        "requests.memory",
        "requests.ephemeral-storage",
        "limits.cpu",
        "limits.memory",
        "limits.ephemeral-storage",
        "pods",
        "resourcequotas",
        "services",
        "replicationcontrollers",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
        "storage",
        "requests.storage",
        "services.nodeports",
        "services.loadbalancers",
    ];
    STANDARD.contains(&name) || is_huge_page(name) || name.starts_with("requests.hugepages-")
}

/// A resource's name in a place that takes any.
pub fn resource_name(name: &str, path: &Path, errors: &mut ErrorList) {
    let messages = names::qualified_name(name);
    if !messages.is_empty() {
        check::each(path, name, messages, errors);
    } else if !name.contains('/') && !is_standard(name) {
        errors.push(path.invalid(name, "must be a standard resource type or fully qualified"));
    }
}

/// A resource that a container can have.
pub fn container_resource_name(name: &str, path: &Path, errors: &mut ErrorList) {
    resource_name(name, path, errors);
    if !name.contains('/') {
        let is_for_containers =
            matches!(name, "cpu" | "memory" | "ephemeral-storage") || is_huge_page(name);
        if !is_for_containers {
            errors.push(path.invalid(name, "must be a standard resource for containers"));
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.push(path.invalid(name, "doesn't follow extended resource name standard"));
    }
}

fn pod_resource_name(name: &str, path: &Path, errors: &mut ErrorList) {
    let before = errors.len();
    resource_name(name, path, errors);
    if errors.len() == before && !is_pod_level(name) {
        errors.push(path.not_supported(name, &["cpu", "hugepages-", "memory"]));
    }
}

fn claims(claims: &[ResourceClaim], pod_claims: &[&str], path: &Path, errors: &mut ErrorList) {
    let mut taken: Vec<String> = Vec::new();
    for (index, claim) in claims.iter().enumerate() {
        let path = path.index(index);
        let name = claim.name.as_str();
        if name.is_empty() {
            errors.push(path.required(""));
        } else {
            claim_request(claim, &mut taken, &path, errors);
        }
        if !pod_claims.contains(&name) {
            let mut known = pod_claims.to_vec();
            known.sort_unstable();
            let among = if known.is_empty() {
                " which is empty".to_owned()
            } else {
                format!(": {}", known.join(", "))
            };
            errors.push(path.not_found(name).with_detail(format!(
                "must be one of the names in pod.spec.resourceClaims{among}"
            )));
        }
    }
}

/// A claim is used whole or request by request, each once.
fn claim_request(
    claim: &ResourceClaim,
    taken: &mut Vec<String>,
    path: &Path,
    errors: &mut ErrorList,
) {
    let name = claim.name.as_str();
    if taken.iter().any(|key| key == name) {
        errors.push(path.duplicate(name));
        return;
    }
    let request = text(&claim.request);
    let key = if request.is_empty() {
        name.to_owned()
    } else {
        check::dns_label(request, &path.child("request"), errors);
        format!("{name}/{request}")
    };
    if taken.contains(&key) {
        errors.push(path.duplicate(key.as_str()));
    } else if request.is_empty() {
        let part_of_it = format!("{name}/");
        for _ in taken.iter().filter(|key| key.starts_with(&part_of_it)) {
            errors.push(path.duplicate(name));
        }
    }
    taken.push(key);
}

/// What the Pod has as a whole must suffice for its containers.
fn consistent(
    spec: &PodSpec,
    resources: &ResourceRequirements,
    path: &Path,
    errors: &mut ErrorList,
) {
    let pod = |part: Part, name: &str| {
        part.of(Some(resources))
            .and_then(|list| list.get(name))
            .map(Amount::from)
    };
    for (name, sum) in aggregate(spec, Part::Requests) {
        if let Some(requests) = pod(Part::Requests, &name)
            && sum > requests
        {
            errors.push(path.child("requests").key(&name).invalid(
                requests.to_string(),
                format!("must be greater than or equal to aggregate container requests of {sum}"),
            ));
        }
    }
    for (name, sum) in aggregate(spec, Part::Limits) {
        if let Some(limit) = pod(Part::Limits, &name)
            && is_huge_page(&name)
            && sum > limit
        {
            errors.push(path.child("limits").key(&name).invalid(
                limit.to_string(),
                format!("must be greater than or equal to aggregate container limits of {sum}"),
            ));
        }
    }
    for (index, container) in spec.containers.iter().enumerate() {
        for (name, quantity) in Part::Limits
            .of(container.resources.as_ref())
            .into_iter()
            .flatten()
        {
            let own = Amount::from(quantity);
            if let Some(limit) = pod(Part::Limits, name)
                && own > limit
            {
                let path = path
                    .child("containers")
                    .index(index)
                    .key(name)
                    .child("limits");
                errors.push(path.invalid(
                    own.to_string(),
                    format!("must be less than or equal to pod limits of {limit}"),
                ));
            }
        }
    }
}
