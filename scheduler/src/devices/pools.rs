//! The pools of devices that a node can use.
//!
//! Enter at [`gather`]. A pool is all slices of a driver under one name and of the newest
//! generation; while some of them are missing nothing is allocated from it.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use coracle_api::quantity::Amount;
use k8s_openapi::api::{
    core::v1::{Node, NodeSelector},
    resource::v1::{Device, ResourceSlice},
};

use crate::selector;

/// A device that may be allocated, with where it comes from.
#[derive(Clone, Copy)]
pub(super) struct Candidate<'a> {
    pub slice: &'a ResourceSlice,
    pub device: &'a Device,
    /// By index in the list of pools.
    pub pool: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Usable,
    /// Some of its slices are not there yet.
    Incomplete,
    /// Its slices contradict each other.
    Invalid,
}

/// Amounts by counter set and counter.
pub(super) type Counters<'a> = BTreeMap<(&'a str, &'a str), Amount>;

pub(super) struct Pool<'a> {
    pub driver: &'a str,
    pub name: &'a str,
    pub condition: Condition,
    /// The slices with devices that the node can use, by name.
    pub slices: Vec<&'a ResourceSlice>,
    /// Those of other nodes: their devices may use the same counters.
    pub elsewhere: Vec<&'a ResourceSlice>,
    pub counters: Counters<'a>,
}

impl Pool<'_> {
    /// `driver/name`
    pub fn id(&self) -> String {
        format!("{}/{}", self.driver, self.name)
    }
}

pub(super) fn devices(slice: &ResourceSlice) -> &[Device] {
    slice.spec.devices.as_deref().unwrap_or_default()
}

fn has_counters(slice: &ResourceSlice) -> bool {
    let counters = slice.spec.shared_counters.as_ref();
    counters.is_some_and(|counters| !counters.is_empty())
}

/// Whether something that is for one node, for all or for some is for this one.
pub(super) fn is_for(
    node: &Node,
    name: Option<&str>,
    all: Option<bool>,
    selector: Option<&NodeSelector>,
) -> bool {
    match name {
        Some(name) if !name.is_empty() => node.metadata.name.as_deref() == Some(name),
        _ if all == Some(true) => true,
        _ => selector.is_some_and(|selector| selector::selects_node(selector, node)),
    }
}

pub(super) fn device_is_for(node: &Node, device: &Device) -> bool {
    is_for(
        node,
        device.node_name.as_deref(),
        device.all_nodes,
        device.node_selector.as_ref(),
    )
}

fn is_relevant(slice: &ResourceSlice, node: &Node) -> bool {
    let spec = &slice.spec;
    if has_counters(slice) {
        return true;
    }
    let (name, all) = (spec.node_name.as_deref(), spec.all_nodes);
    let selects = name.is_some_and(|name| !name.is_empty())
        || all == Some(true)
        || spec.node_selector.is_some();
    if selects {
        return is_for(node, name, all, spec.node_selector.as_ref());
    }
    spec.per_device_node_selection == Some(true)
        && devices(slice)
            .iter()
            .any(|device| device_is_for(node, device))
}

/// The pools of the node, in the order in which devices are taken from them. `nearby` are the
/// slices that may be for the node, `all` those of the whole cluster.
pub(super) fn gather<'a>(
    node: &Node,
    nearby: impl Iterator<Item = &'a ResourceSlice>,
    all: &'a [Arc<ResourceSlice>],
) -> Vec<Pool<'a>> {
    let mut found: BTreeMap<(&str, &str), Vec<&ResourceSlice>> = BTreeMap::new();
    for slice in nearby.filter(|slice| is_relevant(slice, node)) {
        let pool = &slice.spec.pool;
        let slices = found.entry((&slice.spec.driver, &pool.name)).or_default();
        let known = slices.first().map(|slice| slice.spec.pool.generation);
        match known {
            Some(known) if pool.generation < known => {}
            Some(known) if pool.generation > known => *slices = vec![slice],
            _ => slices.push(slice),
        }
    }
    let (mut pools, mut with_conditions) = (Vec::new(), Vec::new());
    for slices in found.into_values() {
        let Some(pool) = build(slices, all) else {
            continue;
        };
        let mut devices = pool.slices.iter().flat_map(|slice| devices(slice));
        // What has to be made ready first comes last.
        if devices.any(|device| device.binding_conditions.is_some()) {
            with_conditions.push(pool);
        } else {
            pools.push(pool);
        }
    }
    pools.append(&mut with_conditions);
    pools
}

/// `None`: the pool is out of date.
fn build<'a>(
    mut slices: Vec<&'a ResourceSlice>,
    all: &'a [Arc<ResourceSlice>],
) -> Option<Pool<'a>> {
    let spec = &slices.first()?.spec;
    let wanted = usize::try_from(spec.pool.resource_slice_count).unwrap_or(0);
    let mut pool = Pool {
        driver: &spec.driver,
        name: &spec.pool.name,
        condition: Condition::Usable,
        slices: Vec::new(),
        elsewhere: Vec::new(),
        counters: Counters::new(),
    };
    if slices.len() != wanted {
        let others = all.iter().filter(|slice| {
            slice.spec.driver == spec.driver && slice.spec.pool.name == spec.pool.name
        });
        let generation = spec.pool.generation;
        let mut count = 0;
        for other in others {
            if other.spec.pool.generation > generation {
                return None;
            }
            if other.spec.pool.generation == generation {
                count += 1;
                let here = |slice: &&ResourceSlice| slice.metadata.name == other.metadata.name;
                if !slices.iter().any(here) {
                    pool.elsewhere.push(other);
                }
            }
        }
        if count != wanted {
            pool.condition = Condition::Incomplete;
            return Some(pool);
        }
    }
    slices.sort_by(|one, other| one.metadata.name.cmp(&other.metadata.name));
    let (counting, slices): (Vec<_>, Vec<_>) =
        slices.into_iter().partition(|slice| has_counters(slice));
    pool.slices = slices;
    if !collect_counters(&counting, &mut pool.counters) || !is_consistent(&pool) {
        pool.condition = Condition::Invalid;
        pool.slices.clear();
    }
    Some(pool)
}

/// Whether every counter set is there once.
fn collect_counters<'a>(slices: &[&'a ResourceSlice], counters: &mut Counters<'a>) -> bool {
    let mut sets = BTreeSet::new();
    let shared = slices
        .iter()
        .flat_map(|slice| slice.spec.shared_counters.iter().flatten());
    for set in shared {
        if !sets.insert(&set.name) {
            return false;
        }
        for (name, counter) in &set.counters {
            let amount = Amount::from(&counter.value);
            counters.insert((&set.name, name), amount);
        }
    }
    true
}

/// Whether names are unique and counters exist.
fn is_consistent(pool: &Pool<'_>) -> bool {
    let mut names = HashSet::new();
    let mut here = pool.slices.iter().flat_map(|slice| devices(slice));
    if !here.all(|device| names.insert(&device.name)) {
        return false;
    }
    let slices = pool.slices.iter().chain(&pool.elsewhere);
    let mut consumed = slices
        .flat_map(|slice| devices(slice))
        .flat_map(consumption);
    consumed.all(|(counter, _)| pool.counters.contains_key(&counter))
}

/// What the device takes of its pool's counters.
pub(super) fn consumption(device: &Device) -> impl Iterator<Item = ((&str, &str), Amount)> {
    let sets = device.consumes_counters.iter().flatten();
    sets.flat_map(|set| {
        let counters = set.counters.iter();
        counters.map(|(name, counter)| {
            let amount = Amount::from(&counter.value);
            ((set.counter_set.as_str(), name.as_str()), amount)
        })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing;

    fn slice(name: &str, generation: i64, count: i64, more: Value) -> ResourceSlice {
        let mut slice = json!({ "metadata": { "name": name }, "spec": { "driver": "d",
            "pool": { "name": "p", "generation": generation, "resourceSliceCount": count } } });
        testing::merge(&mut slice["spec"], more);
        serde_json::from_value(slice).unwrap()
    }

    fn seen(slices: &[Arc<ResourceSlice>]) -> String {
        let node = testing::node("n", json!({ "metadata": { "labels": { "zone": "z" } } }));
        let pools = gather(&node, slices.iter().map(|slice| &**slice), slices);
        let pools = pools.iter().map(|pool| {
            let devices = pool.slices.iter().flat_map(|slice| devices(slice));
            let devices: Vec<&str> = devices.map(|device| device.name.as_str()).collect();
            format!("{:?} {}", pool.condition, devices.join(","))
        });
        pools.collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn pools_are_whole_new_and_free_of_contradictions() {
        let on =
            |node: &str, device: &str| json!({ "nodeName": node, "devices": [{ "name": device }] });
        let counter = json!({ "value": "1" });
        let takes = |device: &str, counter: &Value| {
            json!({ "allNodes": true, "devices": [{ "name": device, "consumesCounters": [
                { "counterSet": "s", "counters": { "c": counter } }] }] })
        };
        let sets = json!({ "sharedCounters": [{ "name": "s", "counters": { "c": counter } }] });
        for (what, given, expected) in [
            ("its own", vec![("a", 1, 1, on("n", "x"))], "Usable x"),
            ("another's", vec![("a", 1, 1, on("m", "x"))], ""),
            (
                "for all",
                vec![(
                    "a",
                    1,
                    1,
                    json!({ "allNodes": true, "devices": [{ "name": "x" }] }),
                )],
                "Usable x",
            ),
            (
                "by label",
                vec![(
                    "a",
                    1,
                    1,
                    json!({ "devices": [{ "name": "x" }], "nodeSelector": { "nodeSelectorTerms": [
                    { "matchExpressions": [{ "key": "zone", "operator": "In", "values": ["z"] }] }] } }),
                )],
                "Usable x",
            ),
            (
                "device by device",
                vec![(
                    "a",
                    1,
                    1,
                    json!({ "perDeviceNodeSelection": true,
                    "devices": [{ "name": "x", "nodeName": "m" }, { "name": "y", "nodeName": "n" }] }),
                )],
                "Usable x,y",
            ),
            (
                "a missing slice",
                vec![("a", 1, 2, on("n", "x"))],
                "Incomplete ",
            ),
            (
                "the other slice is elsewhere",
                vec![("a", 1, 2, on("n", "x")), ("b", 1, 2, on("m", "y"))],
                "Usable x",
            ),
            (
                "by name",
                vec![("b", 1, 2, on("n", "x")), ("a", 1, 2, on("n", "y"))],
                "Usable y,x",
            ),
            (
                "the newest",
                vec![("a", 1, 1, on("n", "x")), ("b", 2, 1, on("n", "y"))],
                "Usable y",
            ),
            (
                "out of date",
                vec![("a", 1, 2, on("n", "x")), ("b", 2, 1, on("m", "y"))],
                "",
            ),
            (
                "twice the same",
                vec![("a", 1, 2, on("n", "x")), ("b", 1, 2, on("n", "x"))],
                "Invalid ",
            ),
            (
                "counters",
                vec![("a", 1, 2, sets.clone()), ("b", 1, 2, takes("x", &counter))],
                "Usable x",
            ),
            (
                "no such counter",
                vec![("b", 1, 1, takes("x", &counter))],
                "Invalid ",
            ),
            (
                "a set twice",
                vec![("a", 1, 2, sets.clone()), ("b", 1, 2, sets)],
                "Invalid ",
            ),
        ] {
            let slices = given.into_iter().map(|(name, generation, count, more)| {
                Arc::new(slice(name, generation, count, more))
            });
            let slices: Vec<_> = slices.collect();
            assert_eq!(seen(&slices), expected, "{what}");
        }
    }
}
