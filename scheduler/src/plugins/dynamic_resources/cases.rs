//! Pods with claims, the devices that there are, and where they go.

use k8s_openapi::api::resource::v1::{AllocationResult, ResourceClaim};
use serde_json::{Value, json};

use super::*;
use crate::{
    event::PodChanges,
    framework::PostFilter,
    plugins,
    preemption::Preemption,
    schedule::{Outcome, Turn, schedule},
    testing::{World, merge, node, pod},
};

fn claim(name: &str, more: Value) -> Value {
    let mut claim = json!({ "metadata": { "name": name, "namespace": "default", "uid": name },
        "spec": { "devices": { "requests": [{ "name": "r",
            "exactly": { "deviceClassName": "class", "count": 1 } }] } } });
    merge(&mut claim, more);
    claim
}

fn allocated(on: &str, users: &Value) -> Value {
    json!({ "status": { "reservedFor": users, "allocation": {
        "devices": { "results": [
            { "request": "r", "driver": "d", "pool": on, "device": "x" }] },
        "nodeSelector": { "nodeSelectorTerms": [{ "matchFields": [
            { "key": "metadata.name", "operator": "In", "values": [on] }] }] } } } })
}

fn claiming(names: &[&str]) -> Value {
    let claims = names
        .iter()
        .map(|name| json!({ "name": name, "resourceClaimName": name }));
    json!({ "spec": { "resourceClaims": claims.collect::<Vec<_>>() } })
}

/// Two nodes with a device each.
fn world() -> World {
    let mut world = World::new([node("a", json!({})), node("b", json!({}))]);
    let devices = &mut world.surroundings.devices;
    devices.add_class(json!({ "metadata": { "name": "class" }, "spec": {} }));
    for node in ["a", "b"] {
        devices.add_slice(
            json!({ "metadata": { "name": node }, "spec": { "driver": "d",
            "nodeName": node, "devices": [{ "name": "x" }],
            "pool": { "name": node, "generation": 1, "resourceSliceCount": 1 } } }),
        );
    }
    world
}

fn decide(world: &World, value: Value) -> Outcome {
    let (pod, plugins) = (pod(value), plugins::table());
    schedule(&pod, &world.cluster(), &plugins, &mut Turn::new(1))
}

/// The node, the number of new allocations; or the message.
fn told(world: &World, value: Value) -> String {
    match decide(world, value) {
        Outcome::Node { name, devices } => {
            let new = devices.claims.iter().filter(|(_, new)| new.is_some());
            format!("{name} {}", new.count())
        }
        Outcome::Unfit(unfit) => unfit.message,
        other => format!("{other:?}"),
    }
}

#[test]
fn a_pod_goes_where_its_devices_are() {
    let mut world = world();
    let devices = &mut world.surroundings.devices;
    devices.add_claim(claim("new", json!({})));
    devices.add_claim(claim(
        "used",
        allocated(
            "a",
            &json!([{ "resource": "pods", "name": "o", "uid": "o" }]),
        ),
    ));
    assert_eq!(told(&world, claiming(&["used"])), "a 0");
    assert_eq!(told(&world, claiming(&["new"])), "b 1");
    assert_eq!(
        told(&world, claiming(&["new", "used"])),
        "0/2 nodes are available: 1 cannot allocate all claims, 1 resourceclaim not available \
         on the node. still not schedulable, \
         preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
    );
    world
        .surroundings
        .devices
        .pending()
        .promise("new", AllocationResult::default());
    assert_eq!(
        told(&world, claiming(&["new"])),
        "0/2 nodes are available: resource claim default/new is in the process of being \
         allocated. no new claims to deallocate, preemption: 0/2 nodes are available: \
         2 Preemption is not helpful for scheduling."
    );
}

#[test]
fn what_is_on_its_way_is_taken() {
    let mut world = world();
    world
        .surroundings
        .devices
        .add_claim(claim("one", json!({})));
    world
        .surroundings
        .devices
        .add_claim(claim("two", json!({})));
    let Outcome::Node { name, devices } = decide(&world, claiming(&["one"])) else {
        panic!("there are devices");
    };
    let (claim, allocation) = devices.claims[0].clone();
    let pending = world.surroundings.devices.pending();
    pending.promise(devices::uid(&claim), allocation.unwrap());
    let other = if &*name == "a" { "b 1" } else { "a 1" };
    assert_eq!(told(&world, claiming(&["two"])), other);
}

#[test]
fn a_claim_that_is_elsewhere_is_given_up() {
    let mut world = world();
    let ours = json!([{ "resource": "pods", "name": "pod", "uid": "uid" }]);
    let devices = &mut world.surroundings.devices;
    devices.add_claim(claim("c", allocated("a", &ours)));
    let mut value = claiming(&["c"]);
    value["spec"]["nodeSelector"] = json!({ "kubernetes.io/hostname": "b" });
    let Outcome::Unfit(unfit) = decide(&world, value) else {
        panic!("the device is on another node");
    };
    assert_eq!(
        unfit.message,
        "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, \
         1 resourceclaim not available on the node. deallocation of ResourceClaim completed, \
         preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
    );
    assert!(matches!(unfit.claims, PostFilter::Deallocate(claim) if devices::uid(&claim) == "c"));
    assert!(matches!(unfit.preemption, Preemption::Impossible(_)));
}

#[test]
fn errors_are_not_mistaken_for_a_lack_of_devices() {
    let mut world = world();
    let selector = json!([{ "cel": { "expression": "device.attributes['d'].nothing" } }]);
    let mut broken = claim("c", json!({}));
    broken["spec"]["devices"]["requests"][0]["exactly"]["selectors"] = selector;
    world.surroundings.devices.add_claim(broken);
    assert_eq!(
        told(&world, claiming(&["c"])),
        "Error(\"running \\\"DynamicResources\\\" filter plugin: claim default/c: selector #0: \
         CEL runtime error: no such key: nothing\")"
    );
    let mut classless = claim("c", json!({}));
    classless["spec"]["devices"]["requests"][0]["exactly"]["deviceClassName"] = json!("gone");
    world.surroundings.devices.add_claim(classless);
    let message = told(&world, claiming(&["c"]));
    assert!(
        message
            .starts_with("0/2 nodes are available: request r: device class gone does not exist."),
        "{message}"
    );
}

#[test]
fn earlier_alternatives_are_preferred() {
    let mut world = world();
    let devices = &mut world.surroundings.devices;
    let sub = |name: &str, pool: &str| {
        json!({ "name": name, "deviceClassName": "class", "count": 1, "selectors": [
            { "cel": { "expression": format!("device.attributes['d'].pool == '{pool}'") } }] })
    };
    for node in ["a", "b"] {
        devices.add_slice(
            json!({ "metadata": { "name": node }, "spec": { "driver": "d",
            "nodeName": node, "pool": { "name": node, "generation": 1, "resourceSliceCount": 1 },
            "devices": [{ "name": "x", "attributes": { "pool": { "string": node } } }] } }),
        );
    }
    let mut claim = claim("c", json!({}));
    claim["spec"]["devices"]["requests"] =
        json!([{ "name": "r", "firstAvailable": [sub("s", "b"), sub("t", "a")] }]);
    devices.add_claim(claim);
    assert_eq!(told(&world, claiming(&["c"])), "b 1");
}

#[test]
fn a_pod_waits_for_its_claims() {
    let mut world = world();
    let templated = |statuses: Value| {
        pod(
            json!({ "spec": { "resourceClaims": [{ "name": "c", "resourceClaimTemplateName": "t" }] },
            "status": { "resourceClaimStatuses": statuses } }),
        )
    };
    let waits = |world: &World, pod: &PodInfo| {
        devices::claims_of(&pod.pod, &world.surroundings.devices)
            .err()
            .unwrap_or_default()
    };
    let before = templated(json!([]));
    assert_eq!(
        waits(&world, &before),
        "pod \"default/pod\": ResourceClaim not created yet"
    );
    let after = templated(json!([{ "name": "c", "resourceClaimName": "made" }]));
    assert_eq!(
        waits(&world, &after),
        "could not find ResourceClaim \"default/made\""
    );
    world
        .surroundings
        .devices
        .add_claim(claim("made", json!({})));
    assert_eq!(
        waits(&world, &after),
        "ResourceClaim default/made was not created for Pod default/pod (Pod is not owner)"
    );
    let changes = PodChanges::between(&before, &after).expect("a change");
    let event = Event::PodUpdated {
        old: &before,
        new: &after,
        changes,
    };
    assert!(!DynamicResources.may_help(&after, &event, &world.cluster()));
    let owner = json!({ "apiVersion": "v1", "kind": "Pod", "name": "pod", "uid": "uid", "controller": true });
    let owned = json!({ "metadata": { "ownerReferences": [owner] } });
    world.surroundings.devices.add_claim(claim("made", owned));
    assert_eq!(waits(&world, &after), "");
    assert!(DynamicResources.may_help(&after, &event, &world.cluster()));
}

#[test]
fn claims_wake_those_that_they_help() {
    let mut world = world();
    let parse = |value: Value| -> ResourceClaim { serde_json::from_value(value).unwrap() };
    let (plain, busy) = (
        claim("c", json!({})),
        claim("c", allocated("a", &json!([]))),
    );
    world.surroundings.devices.add_claim(plain.clone());
    world
        .surroundings
        .devices
        .add_claim(claim("other", json!({})));
    let helps = |name: &str, old: Option<&Value>, new: &Value| {
        let old = old.map(|old| parse(old.clone()));
        let event = Event::ResourceClaim(Applied {
            old: old.as_ref(),
            new: &parse(new.clone()),
        });
        DynamicResources.may_help(&pod(claiming(&[name])), &event, &world.cluster())
    };
    assert!(helps("c", None, &plain), "its claim was created");
    assert!(!helps("other", None, &plain), "another's was");
    assert!(helps("other", Some(&busy), &plain), "a device is free");
    assert!(helps("c", Some(&plain), &busy), "its claim got devices");
    assert!(!helps("c", Some(&plain), &plain), "nothing changed");
    assert!(!helps("gone", Some(&busy), &plain), "it waits for a claim");
}

#[test]
fn devices_stand_in_for_extended_resources() {
    let mut world = world();
    let offering = json!({ "status": { "allocatable": { "example.com/gpu": "4" } } });
    world.cache.set_node(node("c", offering));
    let devices = &mut world.surroundings.devices;
    devices.add_class(json!({ "metadata": { "name": "class" },
        "spec": { "extendedResourceName": "example.com/gpu" } }));
    let asking = |gpus: &str, on: &str| {
        json!({ "spec": { "nodeSelector": { "kubernetes.io/hostname": on }, "containers": [
            { "name": "c", "resources": { "requests": { "example.com/gpu": gpus } } }] } })
    };
    let made = |world: &World, gpus: &str, on: &str| match decide(world, asking(gpus, on)) {
        Outcome::Node { devices, .. } => Ok(devices.made),
        Outcome::Unfit(unfit) => Err(unfit),
        other => panic!("{other:?}"),
    };
    assert!(
        made(&world, "3", "c").unwrap().is_none(),
        "the node has it itself"
    );
    let made_for_a = made(&world, "1", "a").unwrap().expect("a claim");
    assert_eq!(
        made_for_a.claim.metadata.generate_name.as_deref(),
        Some("pod-extended-resources-")
    );
    let results = made_for_a
        .allocation
        .devices
        .and_then(|devices| devices.results);
    assert_eq!(results.unwrap()[0].request, "container-0-request-0");
    assert_eq!(made_for_a.mappings.len(), 1);
    let message = made(&world, "2", "a").unwrap_err().message;
    assert!(
        message.contains("1 cannot allocate all claims"),
        "{message}"
    );

    let owner = json!([{ "apiVersion": "v1", "kind": "Pod", "name": "pod", "uid": "uid", "controller": true }]);
    world.surroundings.devices.add_claim(claim(
        "left",
        json!({ "metadata": { "ownerReferences": owner,
        "annotations": { "resource.kubernetes.io/extended-resource-claim": "true" } } }),
    ));
    let unfit = made(&world, "1", "a").unwrap_err();
    assert!(
        unfit
            .message
            .contains("1 cannot schedule extended resource claim, ")
            && unfit
                .message
                .contains(". deletion of ResourceClaim completed, preemption: "),
        "{}",
        unfit.message
    );
    assert!(matches!(unfit.claims, PostFilter::Delete(_)));
}
