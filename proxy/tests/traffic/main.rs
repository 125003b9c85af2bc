//! Traffic through Services on a node made of network namespaces, with pods connected by the CNI
//! plugin. Needs root, `ip` and `nft`.

mod api;
mod node;

use std::{
    collections::BTreeSet,
    io::{ErrorKind, Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use node::{NODE, Netns, Node, OUTSIDE, PATIENCE, put_endpoints, ready, service, slice_of};
use serde_json::{Value, json};

const WEB: &str = "10.43.0.10:80";

/// The names of the pods that answer.
fn answering(from: &Netns, to: &str) -> BTreeSet<String> {
    let fetch = |_| from.fetch(to).ok();
    let answers = (0..24).filter_map(fetch);
    let name = |answer: String| answer.split(' ').next().map(str::to_owned);
    answers.filter_map(name).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_cluster_ip_leads_to_the_endpoints_from_everywhere() {
    let node = Node::new();
    let (a, b, client) = (node.pod("a"), node.pod("b"), node.pod("client"));
    let _proxy = node.proxy();
    node.api.put(service(&json!({})));
    node.wait("a refusal", || {
        client.netns.fetch(WEB) == Err(ErrorKind::ConnectionRefused)
    });
    assert_eq!(node.netns.fetch(WEB), Err(ErrorKind::ConnectionRefused));

    put_endpoints(&node.api, &[&a, &b]);
    node.wait("endpoints", || client.netns.fetch(WEB).is_ok());
    let v6 = "[fd00:43::10]:80";
    node.wait("IPv6 endpoints", || client.netns.fetch(v6).is_ok());
    for from in [&client.netns, &node.netns, &node.outside, &a.netns] {
        assert_eq!(answering(from, WEB), set(&["a", "b"]));
    }
    assert_eq!(answering(&client.netns, v6), set(&["a", "b"]));
    assert_eq!(answering(&a.netns, v6), set(&["a", "b"]), "itself, too");
    let seen = client.netns.fetch(WEB).expect("an answer");
    let source = client.addresses[0].to_string();
    assert!(
        seen.ends_with(&format!(" {source}")),
        "pods see their clients: {seen}"
    );
    let seen = node.outside.fetch(WEB).expect("an answer");
    assert!(
        seen.ends_with(" 10.42.0.1"),
        "from outside it is masqueraded: {seen}"
    );

    // What is not served is refused, or nowhere.
    assert_eq!(
        client.netns.fetch("10.43.0.10:81"),
        Err(ErrorKind::ConnectionRefused)
    );
    let nobody = client
        .netns
        .fetch_within("10.43.9.9:80", Duration::from_millis(200));
    assert_eq!(nobody, Err(ErrorKind::TimedOut));

    put_endpoints(&node.api, &[&b]);
    node.wait("one endpoint", || {
        answering(&client.netns, WEB) == set(&["b"])
    });
    node.api.delete(service(&json!({})));
    node.wait("the end", || {
        client.netns.fetch_within(WEB, Duration::from_millis(200)) == Err(ErrorKind::TimedOut)
    });
}

#[test]
fn node_ports_and_external_addresses_lead_in_from_outside() {
    let node = Node::new();
    let (a, client) = (node.pod("a"), node.pod("client"));
    let _proxy = node.proxy();
    let (node_port, external) = (format!("{NODE}:30080"), "10.99.0.1:80");
    let exposed = |policy: &str, more: Value| {
        let mut service = service(&json!({
            "type": "LoadBalancer", "externalTrafficPolicy": policy,
            "healthCheckNodePort": 30999, "externalIPs": ["10.99.0.2"],
            "ports": [{ "name": "tcp", "protocol": "TCP", "port": 80, "nodePort": 30080 }],
        }));
        service["status"] = json!({ "loadBalancer": { "ingress": [{ "ip": "10.99.0.1" }] } });
        for (field, value) in more.as_object().expect("an object") {
            service["spec"][field] = value.clone();
        }
        service
    };
    node.api.put(exposed("Cluster", json!({})));
    put_endpoints(&node.api, &[&a]);
    node.wait("the node port", || node.outside.fetch(&node_port).is_ok());
    for from in [&node.outside, &client.netns, &node.netns, &a.netns] {
        for to in [&node_port, external, "10.99.0.2:80"] {
            let seen = from.fetch(to);
            assert_eq!(
                seen.as_deref(),
                Ok("a 10.42.0.1"),
                "to {to} it is masqueraded"
            );
        }
    }

    node.api.put(exposed("Local", json!({})));
    let kept = format!("a {OUTSIDE}");
    node.wait("the source", || {
        node.outside.fetch(&node_port).as_deref() == Ok(&kept)
    });
    assert_eq!(node.outside.fetch(external).as_deref(), Ok(kept.as_str()));
    assert!(client.netns.fetch(&node_port).is_ok() && node.netns.fetch(&node_port).is_ok());
    let health = || ask(&node.outside, &format!("{NODE}:30999"));
    node.wait("health", || health().starts_with("HTTP/1.1 200 OK"));
    assert!(health().contains("\"localEndpoints\": 1"));

    // The only endpoint is elsewhere: outside clients must ask there, pods still get through.
    let mut elsewhere = ready(&a, 0);
    elsewhere["nodeName"] = "elsewhere".into();
    node.api.put(slice_of(0, &[elsewhere]));
    node.wait("no health", || health().starts_with("HTTP/1.1 503"));
    let dropped = node
        .outside
        .fetch_within(&node_port, Duration::from_millis(200));
    assert_eq!(dropped, Err(ErrorKind::TimedOut));
    assert!(client.netns.fetch(&node_port).is_ok() && node.netns.fetch(external).is_ok());

    let ranges = |range: &str| json!({ "loadBalancerSourceRanges": [range, "10.0.0.0/8"] });
    node.api.put(exposed("Cluster", ranges("172.16.0.0/12")));
    let short = Duration::from_millis(200);
    node.wait("the firewall", || {
        node.outside.fetch_within(external, short).is_err()
    });
    node.wait("the port", || {
        node.outside.fetch_within(&node_port, short).is_ok()
    });
    assert!(client.netns.fetch(external).is_ok(), "10/8 is allowed");
    node.api.put(exposed("Cluster", ranges("192.168.0.0/16")));
    node.wait("a way in", || {
        node.outside.fetch_within(external, short).is_ok()
    });
}

/// Asks over HTTP.
fn ask(from: &Netns, to: &str) -> String {
    from.run(|| {
        let Ok(mut stream) = TcpStream::connect(to) else {
            return String::new();
        };
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        write!(
            stream,
            "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        )
        .expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("received");
        text
    })
}

#[test]
fn clients_with_affinity_stay_where_they_are() {
    let node = Node::new();
    let pods = ["a", "b", "c"].map(|name| node.pod(name));
    let client = node.pod("client");
    let sticky = || {
        service(&json!({ "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": 100 } } }))
    };
    let proxy = node.proxy();
    node.api.put(sticky());
    put_endpoints(&node.api, &[&pods[0], &pods[1], &pods[2]]);
    for address in [WEB, "[fd00:43::10]:80"] {
        node.wait("endpoints", || client.netns.fetch(address).is_ok());
        let first = answering(&client.netns, address);
        assert_eq!(first.len(), 1);
    }
    let first = answering(&client.netns, WEB);
    drop(proxy);
    let proxy = node.proxy();
    assert_eq!(
        answering(&client.netns, WEB),
        first,
        "after a restart as well"
    );

    // It goes elsewhere when its endpoint is gone, and nobody else moves.
    let rest: Vec<_> = pods
        .iter()
        .filter(|pod| !first.contains(&pod.name))
        .collect();
    let other = answering(&node.outside, WEB);
    put_endpoints(&node.api, &rest);
    node.wait("a move", || answering(&client.netns, WEB) != first);
    let second = answering(&client.netns, WEB);
    assert_eq!(second.len(), 1);
    if other != first {
        assert_eq!(answering(&node.outside, WEB), other);
    }
    put_endpoints(&node.api, &[&pods[0], &pods[1], &pods[2]]);
    node.wait("all three", || {
        node.netns
            .sh("nft list ruleset")
            .matches("goto endpoint-")
            .count()
            > 10
    });
    assert_eq!(answering(&client.netns, WEB), second, "and stays there");

    node.api.put(service(&json!({})));
    node.wait("no affinity", || answering(&client.netns, WEB).len() == 3);
    let left = || node.netns.sh("nft list ruleset").contains("clients-");
    node.wait("the sets to go", || !left());
    drop(proxy);
}

#[test]
fn a_rolling_update_under_load_loses_no_request() {
    let node = Node::new();
    let pods: Vec<_> = (0..6)
        .map(|number| node.pod(&format!("pod-{number}")))
        .collect();
    let client = node.pod("client");
    let _proxy = node.proxy();
    node.api.put(service(&json!({})));
    put_endpoints(&node.api, &[&pods[0], &pods[1], &pods[2]]);
    node.wait("endpoints", || client.netns.fetch(WEB).is_ok());

    let (done, lost, served) = (
        AtomicBool::new(false),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );
    std::thread::scope(|scope| {
        for from in [&client.netns, &client.netns, &node.netns] {
            let (done, lost, served) = (&done, &lost, &served);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    // A packet that is lost is sent again after a second: that counts as lost.
                    match from.fetch_within(WEB, Duration::from_millis(900)) {
                        Ok(_) => served.fetch_add(1, Ordering::Relaxed),
                        Err(_) => lost.fetch_add(1, Ordering::Relaxed),
                    };
                }
            });
        }
        for round in 0..40 {
            let on: Vec<_> = (0..3 + round % 2)
                .map(|at| &pods[(round + at) % 6])
                .collect();
            put_endpoints(&node.api, &on);
            // Other Services come and go meanwhile.
            let mut other =
                service(&json!({ "clusterIP": "10.43.1.1", "clusterIPs": ["10.43.1.1"] }));
            other["metadata"]["name"] = "other".into();
            match round % 2 {
                0 => node.api.put(other),
                _ => node.api.delete(other),
            }
            let before = served.load(Ordering::Relaxed);
            node.wait("requests", || served.load(Ordering::Relaxed) > before + 2);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(
        lost.load(Ordering::Relaxed),
        0,
        "of {}",
        served.load(Ordering::Relaxed)
    );
}

#[test]
fn connections_and_flows_outlive_what_does_not_concern_them() {
    let node = Node::new();
    let (a, b, client) = (node.pod("a"), node.pod("b"), node.pod("client"));
    let _proxy = node.proxy();
    let echo = a
        .netns
        .run(|| TcpListener::bind("0.0.0.0:9090").expect("bound"));
    node.api.put(service(&json!({
        "ports": [{ "name": "tcp", "protocol": "TCP", "port": 80 },
            { "name": "udp", "protocol": "UDP", "port": 80 }],
    })));
    let mut slice = slice_of(0, &[ready(&a, 0)]);
    slice["ports"][0]["port"] = 9090.into();
    node.api.put(slice);
    node.wait("rules", || {
        node.netns.sh("nft list ruleset").contains("9090")
    });
    let mut stream = client
        .netns
        .run(|| TcpStream::connect(WEB).expect("connected"));
    let (mut accepted, _) = echo.accept().expect("accepted");

    let flow = client
        .netns
        .run(|| UdpSocket::bind("0.0.0.0:0").expect("bound"));
    flow.set_read_timeout(Some(Duration::from_secs(2)))
        .expect("set");
    let query = || {
        let mut buffer = [0; 16];
        flow.send_to(b"?", WEB).expect("sent");
        let (length, from) = flow.recv_from(&mut buffer).ok()?;
        // When a flow is cut between question and answer, the answer comes as from the pod.
        let answered = from.to_string() == WEB;
        answered.then(|| String::from_utf8_lossy(&buffer[..length]).into_owned())
    };
    assert_eq!(query().as_deref(), Some("a"));

    // An endpoint that terminates keeps its flows while it serves…
    let mut leaving = ready(&a, 0);
    leaving["conditions"] = json!({ "ready": false, "serving": true, "terminating": true });
    let mut slice = slice_of(0, &[leaving, ready(&b, 0)]);
    slice["ports"][0]["port"] = 9090.into();
    node.api.put(slice);
    node.wait("the other endpoint", || {
        let rules = node
            .netns
            .sh("nft list map inet coracle-proxy endpoints-tcp-4");
        rules.contains(&b.addresses[0].to_string())
            && !rules.contains(&format!("{} ", a.addresses[0]))
    });
    assert_eq!(query().as_deref(), Some("a"));
    // …and then they go on with another. A connection goes on as long as its ends do.
    node.api.put(slice_of(0, &[ready(&b, 0)]));
    node.wait("the flow to move", || query().as_deref() == Some("b"));
    stream.write_all(b"still there").expect("sent");
    let mut buffer = [0; 11];
    accepted.read_exact(&mut buffer).expect("received");
    assert_eq!(&buffer, b"still there");
}

#[test]
fn the_last_terminating_endpoints_serve_to_the_end() {
    let node = Node::new();
    let (a, client) = (node.pod("a"), node.pod("client"));
    let _proxy = node.proxy();
    node.api.put(service(&json!({})));
    let mut leaving = ready(&a, 0);
    leaving["conditions"] = json!({ "ready": false, "serving": true, "terminating": true });
    node.api.put(slice_of(0, &[leaving.clone()]));
    node.wait("the last endpoint", || client.netns.fetch(WEB).is_ok());
    leaving["conditions"]["serving"] = false.into();
    node.api.put(slice_of(0, &[leaving]));
    node.wait("a refusal", || {
        client.netns.fetch(WEB) == Err(ErrorKind::ConnectionRefused)
    });
}

#[test]
fn the_cost_of_a_change_does_not_grow_with_the_number_of_services() {
    let node = Node::new();
    let (a, client) = (node.pod("a"), node.pod("client"));
    for number in 0..2000 {
        let address = format!("10.43.{}.{}", 100 + number / 250, number % 250);
        let mut other = service(&json!({ "clusterIP": address, "clusterIPs": [address] }));
        let name = format!("other-{number}");
        let mut slice = slice_of(0, &[ready(&a, 0)]);
        slice["metadata"]["name"] = name.clone().into();
        slice["metadata"]["labels"]["kubernetes.io/service-name"] = name.clone().into();
        other["metadata"]["name"] = name.into();
        node.api.put(other);
        node.api.put(slice);
    }
    let start = Instant::now();
    let _proxy = node.proxy();
    node.wait("the last", || {
        client
            .netns
            .fetch_within("10.43.107.249:80", PATIENCE)
            .is_ok()
    });
    println!("2000 Services in force after {:?}", start.elapsed());
    let short = Duration::from_millis(20);
    for number in 1..4 {
        let start = Instant::now();
        let (name, address) = (format!("more-{number}"), format!("10.43.200.{number}"));
        let mut more = service(&json!({ "clusterIP": address, "clusterIPs": [address] }));
        let mut slice = slice_of(0, &[ready(&a, 0)]);
        more["metadata"]["name"] = name.clone().into();
        slice["metadata"]["name"] = name.clone().into();
        slice["metadata"]["labels"]["kubernetes.io/service-name"] = name.into();
        node.api.put(more);
        node.api.put(slice);
        let to = format!("{address}:80");
        node.wait("one more", || client.netns.fetch_within(&to, short).is_ok());
        println!("one more after {:?}", start.elapsed());
    }
    let chains = node
        .netns
        .sh("nft -t list ruleset")
        .matches("chain ")
        .count();
    assert!(chains < 60, "{chains} chains for 2000 Services");

    // Somebody else's table stays, ours goes.
    node.netns.sh("nft add table inet other");
    node.netns
        .run(|| coracle_proxy::cleanup(&node.config))
        .expect("removed");
    let tables = node.netns.sh("nft list tables");
    assert!(
        tables.contains("other") && !tables.contains("coracle-proxy"),
        "{tables}"
    );
}
