//! Plans of EndpointSlices.

use serde_json::{Value, json};

use super::*;

fn service(extra: &Value) -> Service {
    let mut spec = json!({
        "clusterIP": "10.43.0.5", "ipFamilies": ["IPv4"], "selector": { "app": "web" },
        "ports": [{ "name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP" }],
    });
    for (key, value) in extra.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    serde_json::from_value(json!({
        "metadata": { "name": "web", "namespace": "default", "uid": "s",
            "labels": { "app": "web" } },
        "spec": spec,
    }))
    .expect("a service")
}

/// A pod with the address `10.42.x.y` of that number.
fn pod(number: usize, ready: bool) -> Arc<Pod> {
    let ip = format!("10.42.{}.{}", number / 250, number % 250);
    let ready = if ready { "True" } else { "False" };
    Arc::new(
        serde_json::from_value(json!({
            "metadata": { "name": format!("p{number}"), "namespace": "default",
                "uid": format!("u{number}"), "labels": { "app": "web" } },
            "spec": { "nodeName": "n1", "containers": [{ "name": "c", "ports": [
                { "name": "web", "containerPort": 9000 + number % 2, "protocol": "TCP" },
            ]}]},
            "status": { "podIP": ip, "podIPs": [{ "ip": ip }], "phase": "Running",
                "conditions": [{ "type": "Ready", "status": ready }] },
        }))
        .expect("a pod"),
    )
}

fn plan_of(service: &Service, pods: Vec<Arc<Pod>>, slices: &[Arc<EndpointSlice>]) -> Plan {
    plan(&World {
        service,
        pods,
        zone: &|node| (node == "n1").then(|| Some("zone-a".to_owned())),
        slices: slices.to_vec(),
        trigger: None,
        zones: None,
    })
}

/// Carries a plan out; new slices are called `s0`, `s1`, ….
fn apply(plan: Plan, slices: &mut Vec<Arc<EndpointSlice>>) -> Vec<String> {
    let mut told = Vec::new();
    for action in plan.actions {
        match action {
            Action::Create(mut slice) => {
                let name = format!("s{}", slices.len());
                told.push(format!("+{name}={}", slices::endpoints(&slice).len()));
                slice.metadata.name = Some(name);
                slices.push(Arc::new(slice));
            }
            Action::Update(slice) => {
                let name = slice.name_any();
                told.push(format!("{name}={}", slices::endpoints(&slice).len()));
                let place = slices.iter().position(|known| known.name_any() == name);
                slices[place.expect("it exists")] = Arc::new(slice);
            }
            Action::Delete(slice) => {
                let name = slice.name_any();
                told.push(format!("-{name}"));
                slices.retain(|known| known.name_any() != name);
            }
        }
    }
    told
}

fn value(slice: &EndpointSlice) -> Value {
    serde_json::to_value(slice).expect("JSON")
}

#[test]
fn a_service_without_pods_has_one_empty_slice() {
    let service = service(&json!({}));
    let mut slices = Vec::new();
    let told = apply(plan_of(&service, Vec::new(), &slices), &mut slices);
    assert_eq!(told, ["+s0=0"]);
    assert!(plan_of(&service, Vec::new(), &slices).actions.is_empty());
    // The empty one is used for the first endpoint, and is empty again after the last.
    let told = apply(plan_of(&service, vec![pod(1, true)], &slices), &mut slices);
    assert_eq!(told, ["s0=1"]);
    let told = apply(plan_of(&service, Vec::new(), &slices), &mut slices);
    assert_eq!(told, ["s0=0"]);
    assert_eq!(value(&slices[0])["ports"], json!([]));
}

#[test]
fn a_slice_says_all_of_its_endpoints_and_whose_it_is() {
    let service = service(&json!({}));
    let plan = plan(&World {
        service: &service,
        pods: vec![pod(1, true), pod(2, false)],
        zone: &|_| Some(Some("zone-a".to_owned())),
        slices: Vec::new(),
        trigger: "2026-01-01T00:00:00Z".parse().ok(),
        zones: None,
    });
    let [Action::Create(slice)] = &plan.actions[..] else {
        panic!("one slice: {plan:?}");
    };
    let endpoint = |number: usize, ready: bool| {
        json!({
            "addresses": [format!("10.42.0.{number}")],
            "conditions": { "ready": ready, "serving": ready, "terminating": false },
            "nodeName": "n1", "zone": "zone-a",
            "targetRef": { "kind": "Pod", "namespace": "default",
                "name": format!("p{number}"), "uid": format!("u{number}") },
        })
    };
    assert_eq!(
        value(slice),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "generateName": "web-", "namespace": "default",
                "labels": {
                    "app": "web", "kubernetes.io/service-name": "web",
                    "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                },
                "annotations": { "endpoints.kubernetes.io/last-change-trigger-time":
                    "2026-01-01T00:00:00Z" },
                "ownerReferences": [{ "apiVersion": "v1", "kind": "Service", "name": "web",
                    "uid": "s", "controller": true, "blockOwnerDeletion": true }],
            },
            "addressType": "IPv4",
            "endpoints": [endpoint(1, true), endpoint(2, false)],
            "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
        })
    );
}

#[test]
fn conditions_follow_readiness_deletion_and_what_the_service_publishes() {
    let mut leaving = (*pod(1, true)).clone();
    leaving.metadata.deletion_timestamp =
        serde_json::from_value(json!("2026-01-01T00:00:00Z")).expect("a time");
    let leaving = Arc::new(leaving);
    let cases = [
        (json!({}), pod(1, true), (true, true, false)),
        (json!({}), pod(1, false), (false, false, false)),
        (json!({}), leaving.clone(), (false, true, true)),
        (
            json!({ "publishNotReadyAddresses": true }),
            pod(1, false),
            (true, false, false),
        ),
        (
            json!({ "publishNotReadyAddresses": true }),
            leaving,
            (true, true, true),
        ),
    ];
    for (spec, pod, (ready, serving, terminating)) in cases {
        let mut slices = Vec::new();
        apply(plan_of(&service(&spec), vec![pod], &slices), &mut slices);
        assert_eq!(
            value(&slices[0])["endpoints"][0]["conditions"],
            json!({ "ready": ready, "serving": serving, "terminating": terminating })
        );
    }
}

#[test]
fn what_changes_is_changed_in_place_and_nothing_else_is_written() {
    let service = service(&json!({}));
    let mut slices = Vec::new();
    let mut pods: Vec<Arc<Pod>> = (0..230).map(|number| pod(number, true)).collect();
    let told = apply(plan_of(&service, pods.clone(), &slices), &mut slices);
    assert_eq!(told, ["+s0=100", "+s1=100", "+s2=30"]);
    assert!(plan_of(&service, pods.clone(), &slices).actions.is_empty());

    pods[3] = pod(3, false);
    let told = apply(plan_of(&service, pods.clone(), &slices), &mut slices);
    assert_eq!(told.len(), 1, "one slice is written: {told:?}");

    // New endpoints go into the slice with the most room that holds them all.
    pods.extend((230..250).map(|number| pod(number, true)));
    let told = apply(plan_of(&service, pods.clone(), &slices), &mut slices);
    assert_eq!(told, ["s2=50"]);

    // A slice that is written anyway takes what is new.
    pods.remove(0);
    pods.push(pod(400, true));
    let told = apply(plan_of(&service, pods.clone(), &slices), &mut slices);
    assert_eq!(told.len(), 1);
    assert!(told[0].ends_with("=100"), "{told:?}");

    let told = apply(plan_of(&service, pods[..1].to_vec(), &slices), &mut slices);
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!(slices.len(), 1);
}

#[test]
fn named_ports_group_pods_by_what_they_mean() {
    let named = service(&json!({ "ports": [
        { "name": "http", "port": 80, "targetPort": "web", "protocol": "TCP" },
        { "name": "none", "port": 81, "targetPort": "nowhere", "protocol": "TCP" },
    ]}));
    let pods = (0..4).map(|number| pod(number, true)).collect();
    let mut slices = Vec::new();
    let told = apply(plan_of(&named, pods, &slices), &mut slices);
    assert_eq!(told, ["+s0=2", "+s1=2"]);
    let ports: Vec<Value> = slices
        .iter()
        .map(|slice| value(slice)["ports"].clone())
        .collect();
    assert_eq!(
        ports,
        [
            json!([{ "name": "http", "port": 9000, "protocol": "TCP" }]),
            json!([{ "name": "http", "port": 9001, "protocol": "TCP" }]),
        ]
    );
}

#[test]
fn families_headless_services_and_hostnames() {
    let mut dual = (*pod(1, true)).clone();
    if let Some(status) = &mut dual.status {
        status.pod_ips =
            serde_json::from_value(json!([{ "ip": "10.42.0.1" }, { "ip": "fd00:42::1" }]))
                .expect("addresses");
    }
    if let Some(spec) = &mut dual.spec {
        spec.hostname = Some("first".to_owned());
        spec.subdomain = Some("web".to_owned());
    }
    let headless = service(&json!({ "clusterIP": "None", "ipFamilies": ["IPv4", "IPv6"] }));
    let mut slices = Vec::new();
    apply(
        plan_of(&headless, vec![Arc::new(dual)], &slices),
        &mut slices,
    );
    let seen: Vec<(Value, Value, Value)> = slices
        .iter()
        .map(|slice| {
            let slice = value(slice);
            let endpoint = &slice["endpoints"][0];
            (
                slice["addressType"].clone(),
                endpoint["addresses"].clone(),
                endpoint["hostname"].clone(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            (json!("IPv4"), json!(["10.42.0.1"]), json!("first")),
            (json!("IPv6"), json!(["fd00:42::1"]), json!("first")),
        ]
    );
    assert_eq!(slices[0].labels()["service.kubernetes.io/headless"], "");
    // The family that the Service gives up goes.
    let single = service(&json!({ "clusterIP": "None", "ipFamilies": ["IPv4"] }));
    let told = apply(plan_of(&single, vec![pod(1, true)], &slices), &mut slices);
    assert!(told.contains(&"-s1".to_owned()), "{told:?}");
}

#[test]
fn a_pod_on_an_unknown_node_waits() {
    let mut lost = (*pod(1, true)).clone();
    if let Some(spec) = &mut lost.spec {
        spec.node_name = Some("gone".to_owned());
    }
    let plan = plan_of(
        &service(&json!({})),
        vec![Arc::new(lost), pod(2, true)],
        &[],
    );
    assert_eq!(
        plan.skipped,
        ["skipping Pod p1 for Service default/web: Node gone Not Found"]
    );
    assert!(matches!(&plan.actions[..], [Action::Create(slice)]
        if slices::endpoints(slice).len() == 1));
}

#[test]
fn slices_of_a_former_service_of_the_name_are_replaced() {
    let service = service(&json!({}));
    let mut slices = Vec::new();
    apply(plan_of(&service, vec![pod(1, true)], &slices), &mut slices);
    let mut again = service;
    again.metadata.uid = Some("s2".to_owned());
    let told = apply(plan_of(&again, vec![pod(1, true)], &slices), &mut slices);
    assert_eq!(told, ["+s1=1", "-s0"]);
}

#[test]
fn traffic_that_prefers_near_endpoints_gets_hints() {
    let near = service(&json!({ "trafficDistribution": "PreferSameNode" }));
    let mut slices = Vec::new();
    apply(
        plan_of(&near, vec![pod(1, true), pod(2, false)], &slices),
        &mut slices,
    );
    let endpoints = value(&slices[0])["endpoints"].clone();
    assert_eq!(
        endpoints[0]["hints"],
        json!({ "forZones": [{ "name": "zone-a" }], "forNodes": [{ "name": "n1" }] })
    );
    assert_eq!(endpoints[1]["hints"], Value::Null);
    assert!(
        plan_of(&near, vec![pod(1, true), pod(2, false)], &slices)
            .actions
            .is_empty()
    );
    let anywhere = service(&json!({}));
    let told = apply(
        plan_of(&anywhere, vec![pod(1, true), pod(2, false)], &slices),
        &mut slices,
    );
    assert_eq!(told, ["s0=2"]);
    assert_eq!(value(&slices[0])["endpoints"][0]["hints"], Value::Null);
}

#[test]
fn a_service_may_ask_for_its_endpoints_to_be_spread_over_zones() {
    let mut spread = service(&json!({ "trafficDistribution": "PreferSameZone" }));
    let mode = "service.kubernetes.io/topology-mode".to_owned();
    spread.annotations_mut().insert(mode, "Auto".to_owned());
    let plan = plan_of(&spread, vec![pod(1, true)], &[]);
    assert!(plan.spread["IPv4"].is_err());
    let mut slices = Vec::new();
    apply(plan, &mut slices);
    // It counts for more than the other way.
    assert_eq!(value(&slices[0])["endpoints"][0]["hints"], Value::Null);
    let plain = plan_of(&service(&json!({})), vec![pod(1, true)], &[]);
    assert!(plain.spread.is_empty());
}

#[test]
fn labels_of_the_service_are_those_of_its_slices() {
    let mut slices = Vec::new();
    let service = service(&json!({}));
    apply(plan_of(&service, vec![pod(1, true)], &slices), &mut slices);
    let mut labelled = service;
    labelled
        .labels_mut()
        .insert("tier".to_owned(), "front".to_owned());
    let told = apply(plan_of(&labelled, vec![pod(1, true)], &slices), &mut slices);
    assert_eq!(told, ["s0=1"]);
    assert_eq!(slices[0].labels()["tier"], "front");
}
