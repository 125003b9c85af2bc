//! Cases of the pure decisions: what of a Service and its endpoints ends up in the kernel.

use std::collections::BTreeSet;

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use serde_json::{Value as Json, json};

use crate::{
    Config, desired::desired, endpoints::Place, model::Desired, script::Scripts, world::World,
};

fn service(spec: Json) -> Service {
    let mut whole = json!({
        "type": "ClusterIP", "clusterIP": "10.43.0.1", "clusterIPs": ["10.43.0.1"],
        "ports": [{ "name": "http", "port": 80, "protocol": "TCP" }],
    });
    merge(&mut whole, spec);
    let is_balanced = whole["type"] == "LoadBalancer";
    let mut service = json!({ "metadata": { "namespace": "ns", "name": "web" }, "spec": whole });
    if is_balanced {
        let ingress = json!([{ "ip": "10.99.0.1" }, { "ip": "10.99.0.2", "ipMode": "Proxy" }]);
        service["status"] = json!({ "loadBalancer": { "ingress": ingress } });
    }
    serde_json::from_value(service).expect("a Service")
}

fn merge(into: &mut Json, more: Json) {
    if let (Some(into), Json::Object(more)) = (into.as_object_mut(), more) {
        into.extend(more);
    }
}

/// Endpoints by the last number of their address and letters: `r`eady, `s`erving, `t`erminating,
/// on this node (`h`ere); hints for this (`z`) or another (`y`) zone, this (`n`) or another (`m`)
/// node.
fn slice(endpoints: &[(u8, &str)]) -> EndpointSlice {
    let endpoints: Vec<Json> = endpoints
        .iter()
        .map(|(number, letters)| {
            let has = |letter: char| letters.contains(letter);
            let hint = |this: char, other: char, names: [&str; 2]| -> Vec<Json> {
                let named = [(this, names[0]), (other, names[1])];
                let given = named.iter().filter(|(letter, _)| has(*letter));
                given.map(|(_, name)| json!({ "name": name })).collect()
            };
            json!({
                "addresses": [format!("10.42.0.{number}"), "10.42.9.9"],
                "nodeName": if has('h') { "here" } else { "there" },
                "conditions": { "ready": has('r'), "serving": has('r') || has('s'),
                    "terminating": has('t') },
                "hints": { "forZones": hint('z', 'y', ["east", "west"]),
                    "forNodes": hint('n', 'm', ["here", "there"]) },
            })
        })
        .collect();
    let slice = json!({ "metadata": { "namespace": "ns", "name": "web-1" },
        "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" },
            { "name": "other", "port": 9090, "protocol": "TCP" }] });
    serde_json::from_value(slice).expect("a slice")
}

fn place() -> Place {
    Place {
        node: "here".to_owned(),
        zone: "east".to_owned(),
        addresses: vec![[192, 168, 7, 1].into()],
    }
}

fn config() -> Config {
    let net = |text: &str| text.parse().expect("a network");
    Config::new("here", vec![net("10.42.0.0/16")], vec![net("10.43.0.0/16")])
}

fn decide(spec: Json, endpoints: &[(u8, &str)]) -> Desired {
    desired(&service(spec), &[&slice(endpoints)], &place())
}

/// The elements as they stand in a transaction, in the order of the sets' names.
fn elements(desired: Desired) -> Vec<String> {
    let mut world = World::default();
    world.set(&("ns".to_owned(), "web".to_owned()), desired);
    let config = config();
    let script = Scripts::new(&config).update(&world.changes()).script;
    script
        .lines()
        .filter_map(|line| line.strip_prefix("add element inet coracle-proxy "))
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_service_becomes_elements() {
    let expected = [
        "cluster-ips-4 { 10.43.0.1 }",
        "endpoints-tcp-4 { 10.43.0.1 . tcp . 80 . 0 : 10.42.0.1 . 8080, \
         10.43.0.1 . tcp . 80 . 1 : 10.42.0.2 . 8080 }",
        "hairpin-4 { 10.42.0.2 . 10.42.0.2 }",
        "services-4 { 10.43.0.1 . tcp . 80 : goto internal-pick-tcp-4-2 }",
    ];
    assert_eq!(
        elements(decide(json!({}), &[(1, "r"), (2, "rh")])),
        expected
    );
}

#[test]
fn without_endpoints_traffic_is_refused_or_dropped() {
    let reject = "refused-4 { 10.43.0.1 . tcp . 80 : goto reject-it }";
    let drop = "refused-4 { 10.43.0.1 . tcp . 80 : drop }";
    let local = json!({ "internalTrafficPolicy": "Local" });
    for (spec, endpoints, expected) in [
        (json!({}), &[][..], reject),
        (json!({}), &[(1, "s"), (2, "")], reject),
        (local.clone(), &[(1, "")], reject),
        (local.clone(), &[(1, "r")], drop),
        (local, &[(1, "st")], drop),
    ] {
        let found = elements(decide(spec.clone(), endpoints));
        assert!(
            found.contains(&expected.to_owned()),
            "{spec} {endpoints:?}: {found:?}"
        );
        assert!(
            !found.iter().any(|of| of.starts_with("services-4")),
            "{found:?}"
        );
    }
}

/// The numbers of the endpoints that take a frontend's traffic.
fn taken(desired: &Desired, local: bool, port: u16) -> BTreeSet<u8> {
    let lists = desired
        .lists
        .iter()
        .filter(|(list, _)| list.local == local && list.frontend.port == port);
    lists
        .flat_map(|(_, endpoints)| endpoints)
        .map(|endpoint| match endpoint.ip() {
            std::net::IpAddr::V4(address) => address.octets()[3],
            std::net::IpAddr::V6(_) => 0,
        })
        .collect()
}

#[test]
fn endpoints_are_chosen_as_upstream_does() {
    for (endpoints, expected) in [
        (&[(1, "r"), (2, "r"), (3, "")][..], &[1, 2][..]),
        // Terminating ones are the last resort.
        (&[(1, "r"), (2, "st")], &[1]),
        (&[(1, ""), (2, "st"), (3, "sth")], &[2, 3]),
        // Hints are followed when every ready endpoint has them and one is for here.
        (&[(1, "rz"), (2, "ry")], &[1]),
        (&[(1, "rz"), (2, "r")], &[1, 2]),
        (&[(1, "ry"), (2, "ry")], &[1, 2]),
        (&[(1, "rz"), (2, "ry"), (3, "")], &[1]),
        (&[(1, "rnz"), (2, "rmz"), (3, "rmy")], &[1]),
        (&[(1, "rmz"), (2, "rmy")], &[1]),
        (&[(1, "rnz"), (2, "rz"), (3, "ry")], &[1, 2]),
        // No ready endpoint: hints of the others do not matter.
        (&[(1, "stz"), (2, "sty")], &[1, 2]),
    ] {
        let taken = taken(&decide(json!({}), endpoints), false, 80);
        assert_eq!(taken, expected.iter().copied().collect(), "{endpoints:?}");
    }
}

#[test]
fn local_traffic_stays_on_the_node() {
    let spec = json!({ "type": "NodePort", "externalTrafficPolicy": "Local",
        "ports": [{ "name": "http", "port": 80, "nodePort": 30080 }] });
    for (endpoints, local, all) in [
        (&[(1, "rh"), (2, "r")][..], &[1][..], &[1, 2][..]),
        (&[(1, "sth"), (2, "r")], &[1], &[2]),
        (&[(1, "rh"), (2, "sth")], &[1], &[1]),
        (&[(1, "r"), (2, "h")], &[], &[1]),
    ] {
        let desired = decide(spec.clone(), endpoints);
        let numbers = |of: &[u8]| of.iter().copied().collect::<BTreeSet<u8>>();
        assert_eq!(
            taken(&desired, true, 30080),
            numbers(local),
            "{endpoints:?}"
        );
        assert_eq!(taken(&desired, false, 30080), numbers(all), "{endpoints:?}");
        let found = elements(desired);
        let dropped = "refused-node-ports-4 { tcp . 30080 : drop }".to_owned();
        assert_eq!(found.contains(&dropped), local.is_empty(), "{found:?}");
        let split = found
            .iter()
            .any(|of| of.contains("tcp . 30080 : goto split-pick-node-tcp-4-"));
        assert!(split, "{found:?}");
    }
}

#[test]
fn a_balancer_is_open_to_its_sources_only() {
    let spec = json!({ "type": "LoadBalancer",
        "loadBalancerSourceRanges": ["192.168.0.0/16", "192.168.7.0/24", " 10.1.2.3/8", "fd00::/8"],
        "ports": [{ "name": "http", "port": 80, "nodePort": 30080 }] });
    let found = elements(decide(spec, &[(1, "r")]));
    // The node is among the sources, so the balancer's own address is, too. The address of a
    // balancer that is a proxy itself is not ours.
    let expected = "allowed-4 { 10.99.0.1 . tcp . 80 . 10.0.0.0/8, \
                    10.99.0.1 . tcp . 80 . 192.168.0.0/16 }";
    assert!(found.contains(&expected.to_owned()), "{found:?}");
    assert!(found.contains(&"firewalled-4 { 10.99.0.1 . tcp . 80 }".to_owned()));
    assert!(
        !found.iter().any(|of| of.contains("10.99.0.2")),
        "{found:?}"
    );
}

#[test]
fn what_is_not_for_this_proxy_is_left_alone() {
    for spec in [
        json!({ "clusterIP": "None", "clusterIPs": ["None"] }),
        json!({ "type": "ExternalName", "clusterIP": null, "clusterIPs": null }),
        json!({ "clusterIP": "", "clusterIPs": null }),
    ] {
        assert_eq!(
            decide(spec.clone(), &[(1, "r")]),
            Desired::default(),
            "{spec}"
        );
    }
    for label in [
        "service.kubernetes.io/service-proxy-name",
        "service.kubernetes.io/headless",
    ] {
        let mut labelled = service(json!({}));
        labelled.metadata.labels = Some([(label.to_owned(), String::new())].into());
        let found = desired(&labelled, &[&slice(&[(1, "r")])], &place());
        assert_eq!(found, Desired::default(), "{label}");
    }
}

#[test]
fn affinity_has_chains_and_sets_of_its_own() {
    let spec = json!({ "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": 7 } } });
    let name = ("ns".to_owned(), "web".to_owned());
    let config = config();
    let (mut world, mut scripts) = (World::default(), Scripts::new(&config));
    let mut tell = |world: &mut World| {
        let transaction = scripts.update(&world.changes());
        let script = transaction.script.clone();
        scripts.done(transaction);
        world.told();
        script
    };
    world.set(&name, decide(spec.clone(), &[(1, "r"), (2, "r")]));
    let script = tell(&mut world);
    assert_eq!(
        script
            .matches("add set inet coracle-proxy clients-")
            .count(),
        2
    );
    assert_eq!(script.matches("timeout 7s").count(), 2);
    assert!(script.contains("goto internal-sticky-"), "{script}");
    // Only what concerns the third endpoint is new, and the chain that chooses.
    world.set(&name, decide(spec, &[(1, "r"), (2, "r"), (3, "r")]));
    let script = tell(&mut world);
    assert_eq!(script.matches("dnat ip to 10.42.0.").count(), 1, "{script}");
    assert_eq!(
        script
            .matches("flush chain inet coracle-proxy sticky-")
            .count(),
        1
    );
    assert!(!script.contains("element"), "{script}");
    world.set(&name, Desired::default());
    let script = tell(&mut world);
    assert_eq!(
        script
            .matches("delete set inet coracle-proxy clients-")
            .count(),
        3
    );
    assert!(
        !script.contains("delete chain"),
        "not in this transaction: {script}"
    );
    let swept = scripts.sweep().expect("there is something to sweep");
    assert_eq!(swept.lines().count(), 5, "{swept}");
}

#[test]
fn a_change_is_told_once_and_only_what_changed() {
    let name = ("ns".to_owned(), "web".to_owned());
    let config = config();
    let (mut world, mut scripts) = (World::default(), Scripts::new(&config));
    world.set(&name, decide(json!({}), &[(1, "r"), (2, "r"), (3, "r")]));
    let transaction = scripts.update(&world.changes());
    scripts.done(transaction);
    world.told();
    world.set(&name, decide(json!({}), &[(1, "r"), (3, "r"), (4, "r")]));
    let script = scripts.update(&world.changes()).script;
    assert_eq!(
        script,
        "delete element inet coracle-proxy endpoints-tcp-4 { 10.43.0.1 . tcp . 80 . 1 }\n\
         add element inet coracle-proxy endpoints-tcp-4 { 10.43.0.1 . tcp . 80 . 1 : 10.42.0.4 . 8080 }\n"
    );
}

#[test]
fn health_checks_count_the_endpoints_of_this_node() {
    let spec = json!({ "type": "LoadBalancer", "externalTrafficPolicy": "Local",
        "healthCheckNodePort": 30999 });
    let check =
        |spec: Json| decide(spec, &[(1, "rh"), (2, "rh"), (3, "r"), (4, "sth")]).health_check;
    let found = check(spec).expect("a check");
    assert_eq!((found.port, found.endpoints), (30999, [Some(2), None]));
    let other = json!({ "type": "LoadBalancer", "healthCheckNodePort": 30999 });
    assert_eq!(check(other), None);
}
