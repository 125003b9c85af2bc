//! LimitRange.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{LimitRange, LimitRangeItem};

use super::pod::{
    resources::{is_overcommit_allowed, round_list},
    validation::resources::{container_resource_name, resource_name},
};
use crate::{
    check,
    field::{ErrorList, Path},
    names,
    quantity::{Amount, ResourceList},
    strategy::Behaviour,
};

impl Behaviour for LimitRange {
    fn default_fields(&mut self) {
        for limit in self.spec.iter_mut().flat_map(|spec| &mut spec.limits) {
            if limit.type_ == "Container" {
                default_container(limit);
            }
            for list in [
                &mut limit.max,
                &mut limit.min,
                &mut limit.default,
                &mut limit.default_request,
                &mut limit.max_limit_request_ratio,
            ] {
                round_list(list);
            }
        }
    }

    fn validate(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        let limits = self.spec.as_ref().map_or(&[][..], |spec| &spec.limits);
        for (index, limit) in limits.iter().enumerate() {
            let path = Path::new("spec.limits").index(index);
            limit_type(&limit.type_, &path.child("type"), &mut errors);
            if limits[..index]
                .iter()
                .any(|other| other.type_ == limit.type_)
            {
                errors.push(path.child("type").duplicate(limit.type_.as_str()));
            }
            validate_item(limit, &path, &mut errors);
        }
        errors
    }
}

/// What has a maximum is limited to it by default; what has a default limit, or else a minimum,
/// is requested as much by default.
fn default_container(limit: &mut LimitRangeItem) {
    let mut fill = |to: fn(&mut LimitRangeItem) -> &mut Option<ResourceList>,
                    from: fn(&LimitRangeItem) -> &Option<ResourceList>| {
        for (name, quantity) in from(limit).clone().into_iter().flatten() {
            let list = to(limit).get_or_insert_default();
            list.entry(name).or_insert(quantity);
        }
    };
    fill(|limit| &mut limit.default, |limit| &limit.max);
    fill(|limit| &mut limit.default_request, |limit| &limit.default);
    fill(|limit| &mut limit.default_request, |limit| &limit.min);
}

fn limit_type(name: &str, path: &Path, errors: &mut ErrorList) {
    let messages = names::qualified_name(name);
    let is_standard = matches!(name, "Pod" | "Container" | "PersistentVolumeClaim");
    if messages.is_empty() && !name.contains('/') && !is_standard {
        let message = "must be a standard limit type or fully qualified";
        errors.push(path.invalid(name, message));
    }
    check::each(path, name, messages, errors);
}

fn validate_item(limit: &LimitRangeItem, item_path: &Path, errors: &mut ErrorList) {
    let is_pod = limit.type_ == "Pod";
    let check_name = match limit.type_.as_str() {
        "Pod" | "Container" => container_resource_name,
        _ => resource_name,
    };
    let mut names = BTreeSet::new();
    for (field, resources) in [
        ("max", &limit.max),
        ("min", &limit.min),
        ("default", &limit.default),
        ("defaultRequest", &limit.default_request),
        ("maxLimitRequestRatio", &limit.max_limit_request_ratio),
    ] {
        let path = item_path.child(field);
        let is_default = matches!(field, "default" | "defaultRequest");
        let resources = resources.iter().flatten();
        if is_pod && is_default {
            if resources.count() > 0 {
                errors.push(path.forbidden("may not be specified when `type` is 'Pod'"));
            }
            continue;
        }
        if field == "maxLimitRequestRatio" {
            claim_has_storage(limit, &item_path.child("limits"), errors);
        }
        for (name, _) in resources {
            check_name(name, &path.key(name), errors);
            names.insert(name.as_str());
        }
    }
    for name in names {
        compare(limit, name, item_path, errors);
    }
}

fn claim_has_storage(limit: &LimitRangeItem, path: &Path, errors: &mut ErrorList) {
    let has =
        |list: &Option<ResourceList>| list.as_ref().is_some_and(|l| l.contains_key("storage"));
    if limit.type_ == "PersistentVolumeClaim" && !has(&limit.min) && !has(&limit.max) {
        errors.push(path.required(
            "either minimum or maximum storage value is required, but neither was provided",
        ));
    }
}

/// The amounts for one resource must be in order: minimum, default request, default, maximum.
fn compare(limit: &LimitRangeItem, name: &str, path: &Path, errors: &mut ErrorList) {
    let get = |list: &Option<ResourceList>| {
        let quantity = list.as_ref().and_then(|list| list.get(name));
        quantity.map(Amount::from)
    };
    let is_pod = limit.type_ == "Pod";
    let (min, max) = (get(&limit.min), get(&limit.max));
    let default = get(&limit.default).filter(|_| !is_pod);
    let request = get(&limit.default_request).filter(|_| !is_pod);
    let mut push = |field: &str, value: Amount, message: String| {
        errors.push(
            path.child(field)
                .key(name)
                .invalid(value.to_string(), message),
        );
    };
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        push(
            "min",
            min,
            format!("min value {min} is greater than max value {max}"),
        );
    }
    if let Some(request) = request {
        let field = "defaultRequest";
        if let Some(min) = min.filter(|&min| min > request) {
            let message =
                format!("min value {min} is greater than default request value {request}");
            push(field, request, message);
        }
        if let Some(max) = max.filter(|&max| request > max) {
            let message =
                format!("default request value {request} is greater than max value {max}");
            push(field, request, message);
        }
        if let Some(default) = default.filter(|&default| request > default) {
            let message = format!(
                "default request value {request} is greater than default limit value {default}"
            );
            push(field, request, message);
        }
    }
    if let Some(default) = default {
        if let Some(min) = min.filter(|&min| min > default) {
            let message = format!("min value {min} is greater than default value {default}");
            push("default", min, message);
        }
        if let Some(max) = max.filter(|&max| default > max) {
            let message = format!("default value {default} is greater than max value {max}");
            push("default", max, message);
        }
    }
    if let Some(ratio) = get(&limit.max_limit_request_ratio) {
        let field = "maxLimitRequestRatio";
        if ratio < Amount::from_integer(1) {
            push(field, ratio, format!("ratio {ratio} is less than 1"));
        }
        if let (Some(min), Some(max)) = (min, max) {
            let highest = max.as_f64() / min.as_f64();
            if ratio.as_f64() > highest {
                let message = format!("ratio {ratio} is greater than max/min = {highest:.6}");
                push(field, ratio, message);
            }
        }
    }
    if let (Some(default), Some(request)) = (default, request)
        && default != request
        && !is_overcommit_allowed(name)
    {
        let message = format!(
            "default value {default} must equal to defaultRequest value {request} in {name}"
        );
        push("defaultRequest", request, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_ranges() {
        crate::testing::run::<LimitRange>(include_str!("../../testdata/limit_range.yaml"));
    }
}
