//! Checks of the devices of a ResourceSlice and of the counters that they share. Enter at
//! [`device`] and [`counters`].
//!
//! Upstream: `validateDevice` of `pkg/apis/resource/validation`.

use std::collections::BTreeMap;

use k8s_openapi::api::resource::v1::{
    Counter, Device, DeviceAttribute, DeviceCounterConsumption, DeviceTaint,
};
use serde_json::Value;

use super::{
    capacity_validation,
    validation::{is_short, qualified_name, unique},
};
use crate::{
    check,
    field::{BadValue, ErrorList, Path, value_of},
    formats, names,
    zero::{list, text},
};

const MAX_ATTRIBUTES_AND_CAPACITIES: usize = 32;
/// A domain of 63, a slash and a name of 32 characters.
const MAX_SHOWN_KEY: usize = 96;
const MAX_ATTRIBUTE_VALUE: usize = 64;
const MAX_TAINTS: usize = 16;
const MAX_CONSUMED_SETS: usize = 2;
const MAX_COUNTERS: usize = 32;
const MAX_BINDING_CONDITIONS: usize = 4;
const ONE_NODE_CHOICE: &str = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is \
                               required when `perDeviceNodeSelection` is set to true in the \
                               ResourceSlice spec";

/// Checks one device. `selects_node`: whether each device says for itself on which nodes it is.
pub fn device(
    device: &Device,
    old: Option<&Device>,
    selects_node: bool,
    path: &Path,
    errors: &mut ErrorList,
) {
    check::dns_label(&device.name, &path.child("name"), errors);
    attributes_and_capacities(device, path, errors);
    if old.is_none_or(|old| old.taints != device.taints) {
        let (taints, path) = (list(&device.taints), path.child("taints"));
        if is_short(taints, MAX_TAINTS, &path, errors) {
            for (index, item) in taints.iter().enumerate() {
                taint(item, &path.index(index), errors);
            }
        }
    }
    consumed(
        list(&device.consumes_counters),
        &path.child("consumesCounters"),
        errors,
    );
    let names_nodes =
        device.node_name.is_some() || device.node_selector.is_some() || device.all_nodes.is_some();
    if selects_node {
        nodes(device, path, errors);
    } else if names_nodes {
        errors.push(path.invalid(
            Value::Null,
            "`nodeName`, `nodeSelector` and `allNodes` can only be set if \
             `perDeviceNodeSelection` is set to true in the ResourceSlice spec",
        ));
    }
    binding_conditions(
        &device.binding_conditions,
        &device.binding_failure_conditions,
        path,
        errors,
    );
}

fn attributes_and_capacities(device: &Device, path: &Path, errors: &mut ErrorList) {
    let attributes = device.attributes.as_ref();
    let capacities = device.capacity.as_ref();
    let total = attributes.map_or(0, BTreeMap::len) + capacities.map_or(0, BTreeMap::len);
    if total > MAX_ATTRIBUTES_AND_CAPACITIES {
        let detail = format!(
            "the total number of attributes and capacities must not exceed \
             {MAX_ATTRIBUTES_AND_CAPACITIES}"
        );
        errors.push(path.invalid(total, detail));
    }
    let attributes_path = path.child("attributes");
    for (name, value) in attributes.into_iter().flatten() {
        qualified_name(name, &attributes_path, errors);
        attribute(value, &attributes_path.key(&shown(name)), errors);
    }
    let is_shared = device.allow_multiple_allocations == Some(true);
    let capacity_path = path.child("capacity");
    for (name, capacity) in capacities.into_iter().flatten() {
        qualified_name(name, &capacity_path, errors);
        let path = capacity_path.key(&shown(name)).child("requestPolicy");
        match &capacity.request_policy {
            Some(policy) if is_shared => {
                capacity_validation::request_policy(policy, &capacity.value, &path, errors);
            }
            Some(_) => errors.push(path.forbidden("allowMultipleAllocations must be true")),
            None => {}
        }
    }
}

/// A key as a path shows it: what is too long loses its middle.
fn shown(key: &str) -> String {
    const ELLIPSIS: &str = "...";
    if key.len() <= MAX_SHOWN_KEY {
        return key.to_owned();
    }
    let kept = MAX_SHOWN_KEY - ELLIPSIS.len();
    let head = key.floor_char_boundary(kept.div_ceil(2));
    let tail = key.ceil_char_boundary(key.len() - kept / 2);
    format!("{}{ELLIPSIS}{}", &key[..head], &key[tail..])
}

fn attribute(attribute: &DeviceAttribute, path: &Path, errors: &mut ErrorList) {
    let check_length = |value: &str, path: &Path, errors: &mut ErrorList| {
        if value.len() > MAX_ATTRIBUTE_VALUE {
            errors.push(path.too_long(MAX_ATTRIBUTE_VALUE));
        }
    };
    if let Some(value) = &attribute.string {
        check_length(value, &path.child("string"), errors);
    }
    if let Some(value) = &attribute.version {
        let path = path.child("version");
        if !formats::is_semantic_version(value) {
            let detail = "must be a string compatible with semver.org spec 2.0.0";
            errors.push(path.invalid(value.as_str(), detail));
        }
        check_length(value, &path, errors);
    }
    let given = [
        attribute.int.is_some(),
        attribute.bool.is_some(),
        attribute.string.is_some(),
        attribute.version.is_some(),
    ];
    let value = match given.into_iter().filter(|is_given| *is_given).count() {
        0 => "".into(),
        1 => return,
        _ => BadValue::Struct(vec![
            ("IntValue", value_of(&attribute.int).into()),
            ("BoolValue", value_of(&attribute.bool).into()),
            ("StringValue", value_of(&attribute.string).into()),
            ("VersionValue", value_of(&attribute.version).into()),
            ("IntValues", Value::Null.into()),
            ("BoolValues", Value::Null.into()),
            ("StringValues", Value::Null.into()),
            ("VersionValues", Value::Null.into()),
        ]),
    };
    errors.push(path.invalid(value, "exactly one value must be specified"));
}

fn taint(taint: &DeviceTaint, path: &Path, errors: &mut ErrorList) {
    check::label_name(&taint.key, &path.child("key"), errors);
    let value = text(&taint.value);
    check::each(
        &path.child("value"),
        value,
        names::label_value(value),
        errors,
    );
    check::required_one_of(
        &taint.effect,
        &["NoExecute", "NoSchedule", "None"],
        &path.child("effect"),
        errors,
    );
}

fn consumed(consumptions: &[DeviceCounterConsumption], path: &Path, errors: &mut ErrorList) {
    if !is_short(consumptions, MAX_CONSUMED_SETS, path, errors) {
        return;
    }
    for (index, item) in consumptions.iter().enumerate() {
        let path = path.index(index);
        counters(
            "counterSet",
            &item.counter_set,
            &item.counters,
            &path,
            errors,
        );
    }
    let names: Vec<&str> = consumptions
        .iter()
        .map(|item| item.counter_set.as_str())
        .collect();
    unique(&names, path, errors);
}

/// Checks a set of counters, whose name is in `field`.
pub fn counters(
    field: &str,
    name: &str,
    counters: &BTreeMap<String, Counter>,
    path: &Path,
    errors: &mut ErrorList,
) {
    let name_path = path.child(field);
    if name.is_empty() {
        errors.push(name_path.required(""));
    } else {
        check::dns_label(name, &name_path, errors);
    }
    let path = path.child("counters");
    match counters.len() {
        0 => errors.push(path.required("")),
        1..=MAX_COUNTERS => {
            for name in counters.keys() {
                check::dns_label(name, &path, errors);
            }
        }
        count => errors.push(path.too_many(count, MAX_COUNTERS)),
    }
}

fn nodes(device: &Device, path: &Path, errors: &mut ErrorList) {
    let mut set = Vec::new();
    if let Some(name) = &device.node_name {
        let path = path.child("nodeName");
        if name.is_empty() {
            errors.push(path.invalid("", "must not be empty"));
        } else {
            set.push("`nodeName`");
            check::subdomain(name, &path, errors);
        }
    }
    if let Some(selector) = &device.node_selector {
        set.push("`nodeSelector`");
        check::node_selector(selector, &path.child("nodeSelector"), errors);
    }
    match device.all_nodes {
        Some(true) => set.push("`allNodes`"),
        Some(false) => {
            let detail = "must be either unset or set to true";
            errors.push(path.child("allNodes").invalid(false, detail));
        }
        None => {}
    }
    match set.len() {
        0 => errors.push(path.required(ONE_NODE_CHOICE)),
        1 => {}
        _ => errors.push(path.invalid(format!("{{{}}}", set.join(", ")), ONE_NODE_CHOICE)),
    }
}

/// What a Pod waits for before it is bound, and what ends the wait: both or neither.
pub fn binding_conditions(
    awaited: &Option<Vec<String>>,
    failures: &Option<Vec<String>>,
    path: &Path,
    errors: &mut ErrorList,
) {
    let awaited_path = path.child("bindingConditions");
    let failures_path = path.child("bindingFailureConditions");
    for (conditions, path) in [(awaited, &awaited_path), (failures, &failures_path)] {
        let conditions = list(conditions);
        if is_short(conditions, MAX_BINDING_CONDITIONS, path, errors) {
            for (index, name) in conditions.iter().enumerate() {
                check::label_name(name, &path.index(index), errors);
            }
        }
    }
    let awaited_names: Vec<&str> = list(awaited).iter().map(String::as_str).collect();
    unique(&awaited_names, &awaited_path, errors);
    let failure_names: Vec<&str> = list(failures).iter().map(String::as_str).collect();
    for (index, name) in failure_names.iter().enumerate() {
        let path = failures_path.index(index);
        if failure_names[..index].contains(name) {
            errors.push(path.duplicate(*name));
        }
        if awaited_names.contains(name) {
            let detail = "bindingFailureConditions must not overlap with bindingConditions";
            errors.push(path.invalid(*name, detail));
        }
    }
    if awaited_names.is_empty() && !failure_names.is_empty() {
        let detail = "bindingConditions are required to use bindingFailureConditions";
        errors.push(awaited_path.invalid(value_of(awaited), detail));
    }
    if failure_names.is_empty() && !awaited_names.is_empty() {
        let detail = "bindingFailureConditions are required to use bindingConditions";
        errors.push(failures_path.invalid(value_of(failures), detail));
    }
}
