//! ResourceSlice.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::{NodeSelectorRequirement, NodeSelectorTerm},
        resource::v1::{Device, ResourcePool, ResourceSlice, ResourceSliceSpec},
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use serde_json::Value;

use super::{device_validation, validation};
use crate::{
    check,
    core::pod::validation::remote_volumes::csi_driver_name,
    field::{BadValue, ErrorList, Path, value_of},
    shape,
    strategy::{Behaviour, Column, Shape},
    table::{AGE, NAME, age, column, name},
    zero::{list, list_mut, text},
};

const MAX_POOL_NAME: usize = 253;
const MAX_DEVICES: usize = 128;
/// When a device has taints or consumes counters.
const MAX_COSTLY_DEVICES: usize = 64;
const MAX_COUNTER_SETS: usize = 8;
const ONE_NODE_CHOICE: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, \
                               `perDeviceNodeSelection` is required";

impl Behaviour for ResourceSlice {
    const SHAPE: Shape<Self> = shape!(generation: spec);

    fn default_fields(&mut self) {
        for device in list_mut(&mut self.spec.devices) {
            for taint in list_mut(&mut device.taints) {
                taint.time_added.get_or_insert_with(now);
            }
        }
    }

    fn prepare_for_create(&mut self) {
        drop_disabled(&mut self.spec);
    }

    fn prepare_for_update(&mut self, _old: &Self) {
        drop_disabled(&mut self.spec);
    }

    fn validate(&self) -> ErrorList {
        validate_spec(&self.spec, None)
    }

    fn validate_update(&self, old: &Self) -> ErrorList {
        validate_spec(&self.spec, Some(&old.spec))
    }

    fn warnings(&self, _old: Option<&Self>) -> Vec<String> {
        let driver = &self.spec.driver;
        if *driver == driver.to_lowercase() {
            return Vec::new();
        }
        vec![format!(
            "spec.driver: driver names should be lowercase; {driver:?} contains uppercase characters"
        )]
    }

    const SELECTABLE_FIELDS: &'static [&'static str] = &["spec.nodeName", "spec.driver"];

    fn selectable_fields(&self) -> Vec<String> {
        vec![
            self.spec.node_name.clone().unwrap_or_default(),
            self.spec.driver.clone(),
        ]
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "Node",
                "string",
                "NodeName identifies the node which provides the resources in this pool. A field selector can be used to list only ResourceSlice objects belonging to a certain node.\n\nThis field can be used to limit access from nodes to ResourceSlices with the same node name. It also indicates to autoscalers that adding new nodes of the same type as some old node might also make new resources available.\n\nExactly one of NodeName, NodeSelector, AllNodes, and PerDeviceNodeSelection must be set. This field is immutable.",
            ),
            column(
                "Driver",
                "string",
                "Driver identifies the DRA driver providing the capacity information. A field selector can be used to list only ResourceSlice objects with a certain driver name.\n\nMust be a DNS subdomain and should end with a DNS domain owned by the vendor of the driver. It should use only lower case characters. This field is immutable.",
            ),
            column(
                "Pool",
                "string",
                "Name is used to identify the pool. For node-local devices, this is often the node name, but this is not required.\n\nIt must not be longer than 253 characters and must consist of one or more DNS sub-domains separated by slashes. This field is immutable.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        vec![
            name(&self.metadata),
            Value::from(text(&self.spec.node_name)),
            Value::from(self.spec.driver.clone()),
            Value::from(self.spec.pool.name.clone()),
            age(&self.metadata, now),
        ]
    }
}

fn now() -> Time {
    let now = Timestamp::now();
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// Drops what upstream has behind gates that are off by default.
fn drop_disabled(spec: &mut ResourceSliceSpec) {
    for device in list_mut(&mut spec.devices) {
        device.node_allocatable_resource_mappings = None;
        for attribute in device.attributes.iter_mut().flat_map(BTreeMap::values_mut) {
            attribute.bools = None;
            attribute.ints = None;
            attribute.strings = None;
            attribute.versions = None;
        }
    }
}

fn validate_spec(spec: &ResourceSliceSpec, old: Option<&ResourceSliceSpec>) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("spec");
    csi_driver_name(&spec.driver, &path.child("driver"), &mut errors);
    pool(&spec.pool, &path.child("pool"), &mut errors);
    if let Some(old) = old {
        let (name, driver) = (path.child("pool.name"), path.child("driver"));
        check::immutable(&spec.pool.name, &old.pool.name, &name, &mut errors);
        check::immutable(&spec.driver, &old.driver, &driver, &mut errors);
        let node = path.child("nodeName");
        check::immutable(&spec.node_name, &old.node_name, &node, &mut errors);
    }
    nodes(spec, &path, &mut errors);
    if spec.shared_counters.is_some() && spec.devices.is_some() {
        let detail = "only one of `sharedCounters` or `devices` is allowed";
        errors.push(path.invalid("", detail));
    }
    devices(spec, old, &path.child("devices"), &mut errors);
    let (sets, path) = (list(&spec.shared_counters), path.child("sharedCounters"));
    if validation::is_short(sets, MAX_COUNTER_SETS, &path, &mut errors) {
        for (index, set) in sets.iter().enumerate() {
            let path = path.index(index);
            device_validation::counters("name", &set.name, &set.counters, &path, &mut errors);
        }
        let names: Vec<&str> = sets.iter().map(|set| set.name.as_str()).collect();
        validation::unique(&names, &path, &mut errors);
    }
    errors
}

fn pool(pool: &ResourcePool, path: &Path, errors: &mut ErrorList) {
    pool_name(&pool.name, &path.child("name"), errors);
    let count = pool.resource_slice_count;
    check::positive(count, &path.child("resourceSliceCount"), errors);
    if pool.generation < 0 {
        let path = path.child("generation");
        errors.push(path.invalid(pool.generation, "must be greater than or equal to zero"));
    }
}

/// The name of a pool: DNS subdomains with slashes between them.
pub(super) fn pool_name(name: &str, path: &Path, errors: &mut ErrorList) {
    if name.is_empty() {
        errors.push(path.required(""));
        return;
    }
    if name.len() > MAX_POOL_NAME {
        errors.push(path.too_long(MAX_POOL_NAME));
    }
    for part in name.split('/') {
        check::subdomain(part, path, errors);
    }
}

/// On which nodes the devices are: said in exactly one way.
fn nodes(spec: &ResourceSliceSpec, path: &Path, errors: &mut ErrorList) {
    let mut set = Vec::new();
    if let Some(name) = &spec.node_name {
        let path = path.child("nodeName");
        if name.is_empty() {
            let detail = "must be either unset or set to a non-empty string";
            errors.push(path.invalid("", detail));
        } else {
            set.push("`nodeName`");
            check::subdomain(name, &path, errors);
        }
    }
    if let Some(selector) = &spec.node_selector {
        set.push("`nodeSelector`");
        let path = path.child("nodeSelector");
        check::node_selector(selector, &path, errors);
        let terms = &selector.node_selector_terms;
        if terms.len() != 1 {
            errors.push(path.child("nodeSelectorTerms").invalid(
                BadValue::List(terms.iter().map(internal_term).collect()),
                "must have exactly one node selector term",
            ));
        }
    }
    for (field, name, value) in [
        ("allNodes", "`allNodes`", spec.all_nodes),
        (
            "perDeviceNodeSelection",
            "`perDeviceNodeSelection`",
            spec.per_device_node_selection,
        ),
    ] {
        match value {
            Some(true) => set.push(name),
            Some(false) => {
                let detail = "must be either unset or set to true";
                errors.push(path.child(field).invalid(false, detail));
            }
            None => {}
        }
    }
    match set.len() {
        0 => errors.push(path.required(ONE_NODE_CHOICE)),
        1 => {}
        _ => errors.push(path.invalid(
            format!("{{{}}}", set.join(", ")),
            format!("{ONE_NODE_CHOICE}, but multiple fields are set"),
        )),
    }
}

fn internal_term(term: &NodeSelectorTerm) -> BadValue {
    let requirements = |of: &Option<Vec<NodeSelectorRequirement>>| match of {
        None => BadValue::Value(Value::Null),
        Some(of) => BadValue::List(of.iter().map(internal_requirement).collect()),
    };
    BadValue::Struct(vec![
        ("MatchExpressions", requirements(&term.match_expressions)),
        ("MatchFields", requirements(&term.match_fields)),
    ])
}

fn internal_requirement(requirement: &NodeSelectorRequirement) -> BadValue {
    BadValue::Struct(vec![
        ("Key", requirement.key.as_str().into()),
        ("Operator", requirement.operator.as_str().into()),
        ("Values", value_of(&requirement.values).into()),
    ])
}

fn devices(
    spec: &ResourceSliceSpec,
    old: Option<&ResourceSliceSpec>,
    path: &Path,
    errors: &mut ErrorList,
) {
    let devices = list(&spec.devices);
    let is_costly = |device: &Device| {
        !list(&device.taints).is_empty() || !list(&device.consumes_counters).is_empty()
    };
    let max = if devices.iter().any(is_costly) {
        MAX_COSTLY_DEVICES
    } else {
        MAX_DEVICES
    };
    if !validation::is_short(devices, max, path, errors) {
        return;
    }
    let selects_per_device = spec.per_device_node_selection == Some(true);
    let old_devices = old.map_or(&[][..], |old| list(&old.devices));
    for (index, device) in devices.iter().enumerate() {
        let old = old_devices.iter().find(|old| old.name == device.name);
        let path = path.index(index);
        device_validation::device(device, old, selects_per_device, &path, errors);
    }
    let names: Vec<&str> = devices.iter().map(|device| device.name.as_str()).collect();
    validation::unique(&names, path, errors);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices() {
        let yaml = include_str!("../../testdata/resource_slice.yaml");
        crate::testing::run::<ResourceSlice>(yaml);
    }
}
