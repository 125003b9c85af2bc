//! Short ways to write devices and claims, and to read what is given, in tests.

use serde_json::{Value, json};

use super::{allocator::Failure, *};
use crate::testing;

fn set(mut object: Value, key: &str, value: Value) -> Value {
    object[key] = value;
    object
}

/// A device `name` with more fields.
pub(super) fn device(name: &str, more: Value) -> Value {
    let mut device = json!({ "name": name });
    testing::merge(&mut device, more);
    device
}

pub(super) fn plain(names: &[&str]) -> Value {
    names.iter().map(|name| json!({ "name": name })).collect()
}

/// Devices of the driver `a` in the pool `p` that node `n` can use.
pub(super) fn local(devices: Value) -> Value {
    let on = json!({ "nodeName": "n" });
    slice("s", "a", "p", 1, set(on, "devices", devices))
}

pub(super) fn slice(name: &str, driver: &str, pool: &str, count: i64, more: Value) -> Value {
    let mut spec = json!({ "driver": driver,
        "pool": { "name": pool, "generation": 1, "resourceSliceCount": count } });
    testing::merge(&mut spec, more);
    json!({ "metadata": { "name": name }, "spec": spec })
}

pub(super) fn exactly(name: &str, more: Value) -> Value {
    let mut exactly = json!({ "deviceClassName": "a", "count": 1, "allocationMode": "ExactCount" });
    testing::merge(&mut exactly, more);
    json!({ "name": name, "exactly": exactly })
}

pub(super) fn count(name: &str, count: i64) -> Value {
    exactly(name, json!({ "count": count }))
}

pub(super) fn all(name: &str) -> Value {
    exactly(name, json!({ "allocationMode": "All", "count": null }))
}

pub(super) fn admin(name: &str, more: Value) -> Value {
    let mut request = exactly(name, more);
    request["exactly"]["adminAccess"] = json!(true);
    request
}

/// A request that wants the first of these alternatives: name, class, and more.
pub(super) fn first(name: &str, subs: &[(&str, &str, Value)]) -> Value {
    let subs = subs.iter().map(|(name, class, more)| {
        let mut sub = json!({ "name": name, "deviceClassName": class, "count": 1 });
        testing::merge(&mut sub, more.clone());
        sub
    });
    json!({ "name": name, "firstAvailable": subs.collect::<Vec<_>>() })
}

pub(super) fn cel(expression: &str) -> Value {
    json!({ "selectors": [{ "cel": { "expression": expression } }] })
}

/// At least this much memory.
pub(super) fn memory(least: &str) -> Value {
    let expression = format!("device.capacity['a'].memory.compareTo(quantity('{least}')) >= 0");
    cel(&expression)
}

pub(super) fn claim(requests: Value) -> Value {
    set(json!({}), "requests", requests)
}

pub(super) fn constrained(constraints: Value, requests: Value) -> Value {
    set(claim(requests), "constraints", constraints)
}

pub(super) fn with_memory(name: &str, memory: &str) -> Value {
    device(
        name,
        json!({ "capacity": { "memory": { "value": memory } } }),
    )
}

pub(super) fn with_attributes(name: &str, attributes: Value) -> Value {
    set(json!({ "name": name }), "attributes", attributes)
}

/// Takes amounts of the counters of a set.
pub(super) fn counting(name: &str, set: &str, counters: &Value) -> Value {
    let counters: serde_json::Map<String, Value> = counters
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, amount)| (name.clone(), json!({ "value": amount })))
        .collect();
    device(
        name,
        json!({ "consumesCounters": [{ "counterSet": set, "counters": counters }] }),
    )
}

pub(super) fn counters(name: &str, pool: &str, count: i64, set: &str, memory: &str) -> Value {
    let set = json!([{ "name": set, "counters": { "memory": { "value": memory } } }]);
    slice(
        name,
        "a",
        pool,
        count,
        json!({ "nodeName": "n", "sharedCounters": set }),
    )
}

/// A device that several may share, with a capacity `c` of this much.
pub(super) fn shared(name: &str, capacity: &str) -> Value {
    device(
        name,
        json!({ "allowMultipleAllocations": true,
        "capacity": { "c": { "value": capacity } } }),
    )
}

pub(super) fn taking(name: &str, capacity: &str) -> Value {
    exactly(
        name,
        json!({ "capacity": { "requests": { "c": capacity } } }),
    )
}

/// What is taken already: `driver/pool/device`, or `driver/pool/device=amount` of `c`.
pub(super) fn taken(devices: &[&str]) -> Taken {
    let results = devices.iter().map(|device| {
        let (device, amount) = device.split_once('=').unwrap_or((device, ""));
        let parts: Vec<&str> = device.split('/').collect();
        let mut result = json!({ "request": "r", "driver": parts[0], "pool": parts[1],
            "device": parts[2] });
        if !amount.is_empty() {
            result["shareID"] = json!("share");
            result["consumedCapacity"] = json!({ "c": amount });
        }
        result
    });
    let results: Vec<Value> = results.collect();
    let allocation = json!({ "devices": { "results": results } });
    let mut taken = Taken::default();
    taken.add(&serde_json::from_value(allocation).unwrap());
    taken
}

fn inventory_of(slices: &[Value], taken: Taken) -> Inventory {
    let classes = ["a", "b"].map(|name| {
        let class = json!({ "metadata": { "name": name }, "spec": {
            "selectors": [{ "cel": { "expression": format!("device.driver == '{name}'") } }],
            "config": [{ "opaque": { "driver": name, "parameters": {} } }] } });
        Arc::new(serde_json::from_value(class).unwrap())
    });
    let slices = slices
        .iter()
        .map(|slice| Arc::new(serde_json::from_value(slice.clone()).unwrap()))
        .collect();
    Inventory::new(slices, classes, taken, Arc::default())
}

pub(super) fn allocate(
    claims: &[Value],
    slices: &[Value],
    taken: Taken,
) -> Result<Option<Vec<AllocationResult>>, Failure> {
    let claims: Vec<ResourceClaim> = claims
        .iter()
        .map(|devices| {
            serde_json::from_value(json!({ "metadata": { "name": "c", "namespace": "ns" },
                "spec": { "devices": devices } }))
            .unwrap()
        })
        .collect();
    let claims: Vec<&ResourceClaim> = claims.iter().collect();
    let node = testing::node("n", json!({ "metadata": { "labels": { "region": "r" } } }));
    inventory_of(slices, taken).allocate(&node, &claims)
}

/// `request:device` of driver `a` and pool `p`, otherwise `request:driver/pool/device`; claims are
/// separated by semicolons, and followed by where they can be used unless that is node `n` only.
pub(super) fn given(claims: &[Value], slices: &[Value], taken: Taken) -> String {
    let allocations = match allocate(claims, slices, taken) {
        Ok(Some(allocations)) => allocations,
        Ok(None) => return "none".to_owned(),
        Err(Failure::Node(why) | Failure::Fatal(why)) => return why,
    };
    let claims = allocations.into_iter().map(|allocation| {
        let devices = allocation.devices.unwrap_or_default();
        let results = devices
            .results
            .unwrap_or_default()
            .into_iter()
            .map(|result| {
                let name = format!("{}/{}/{}", result.driver, result.pool, result.device);
                let name = name.strip_prefix("a/p/").unwrap_or(&name);
                let consumed = result.consumed_capacity.unwrap_or_default();
                let consumed: Vec<String> = consumed
                    .iter()
                    .map(|(name, amount)| format!("{name}={}", amount.0))
                    .collect();
                let admin = if result.admin_access == Some(true) {
                    "!"
                } else {
                    ""
                };
                let consumed = match consumed.is_empty() {
                    true => String::new(),
                    false => format!("({})", consumed.join(",")),
                };
                assert_eq!(
                    result.share_id.is_some(),
                    name.starts_with("shared"),
                    "{name}"
                );
                format!("{}:{name}{admin}{consumed}", result.request)
            });
        let mut text: Vec<String> = results.collect();
        match allocation.node_selector {
            None => text.push("@all".to_owned()),
            Some(selector) => {
                let term = &selector.node_selector_terms[0];
                let labels = term.match_expressions.iter().flatten();
                let labels: Vec<String> = labels.map(|it| format!("@{}", it.key)).collect();
                text.extend(labels);
                let fields = term.match_fields.iter().flatten();
                for field in fields {
                    assert_eq!(field.values.as_deref(), Some(&["n".to_owned()][..]));
                }
            }
        }
        text.join(" ")
    });
    claims.collect::<Vec<_>>().join("; ")
}
