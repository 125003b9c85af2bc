//! The plugin at work in network namespaces: a node, pods, and a host outside. Needs root, `ip`
//! and `nft`.

use std::{
    collections::HashSet,
    fs::File,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    process::Command,
    time::{Duration, Instant},
};

use coracle_cni::{Config, cleanup, conflist, run};
use nix::sched::{CloneFlags, setns, unshare};
use serde_json::{Value, json};

/// Long enough for a first packet to be sent again after a second.
const PATIENCE: Duration = Duration::from_secs(3);

/// A network namespace that lives as long as this value.
struct Netns(File);

impl Netns {
    fn new() -> Self {
        let netns = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("root");
            Netns(File::open("/proc/thread-self/ns/net").expect("a namespace"))
        });
        netns.join().expect("made")
    }

    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Runs `act` in the namespace. What it opens stays there.
    fn run<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET).expect("entered");
                act()
            });
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    fn sh(&self, command: &str) -> String {
        self.run(|| {
            let output = Command::new("sh").args(["-ec", command]).output();
            let output = output.expect("sh runs");
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{command}: {error}");
            String::from_utf8_lossy(&output.stdout).into_owned()
        })
    }
}

/// A node at 192.168.7.1 with the plugin's configuration, and a host outside at 192.168.7.2.
struct Node {
    netns: Netns,
    outside: Netns,
    config: Config,
    _state: tempfile::TempDir,
}

impl Node {
    fn new(subnets: &[&str]) -> Self {
        let (netns, outside) = (Netns::new(), Netns::new());
        netns.sh(&format!(
            "ip link set lo up
             ip link add up0 mtu 1450 type veth peer name up0 netns {}
             ip addr add 192.168.7.1/24 dev up0
             ip link set up0 up
             ip route add default via 192.168.7.2",
            outside.path()
        ));
        outside.sh("ip link set lo up; ip addr add 192.168.7.2/24 dev up0; ip link set up0 up");
        let state = tempfile::tempdir().expect("a directory");
        let subnets = subnets.iter().map(|text| text.parse().expect("a subnet"));
        let cluster = ["10.42.0.0/16", "fd00:42::/48"].map(|text| text.parse().expect("a CIDR"));
        Node {
            netns,
            outside,
            config: Config::new(state.path(), subnets.collect(), cluster.to_vec()),
            _state: state,
        }
    }

    fn call(&self, verb: &str, id: &str, netns: &str, more: Value) -> Result<Value, Value> {
        let list: Value = serde_json::from_str(&conflist(&self.config)).expect("JSON");
        let mut input = list["plugins"][0].clone();
        input["cniVersion"] = "1.0.0".into();
        input["name"] = list["name"].clone();
        if let (Some(input), Value::Object(more)) = (input.as_object_mut(), more) {
            input.extend(more);
        }
        let variable = |name: &str| {
            let value = match name {
                "CNI_COMMAND" => verb,
                "CNI_CONTAINERID" => id,
                "CNI_NETNS" => netns,
                "CNI_IFNAME" => "eth0",
                _ => return None,
            };
            Some(value.to_owned())
        };
        let read = |text: String| match text.as_str() {
            "" => Value::Null,
            text => serde_json::from_str(text).expect("JSON"),
        };
        run(variable, input.to_string().as_bytes())
            .map(read)
            .map_err(read)
    }

    fn add(&self, id: &str, ports: &Value) -> Pod {
        let netns = Netns::new();
        let more = json!({ "runtimeConfig": { "portMappings": ports } });
        let report = self
            .netns
            .run(|| self.call("ADD", id, &netns.path(), more))
            .expect("added");
        Pod { netns, report }
    }

    fn del(&self, id: &str) {
        let deleted = self.netns.run(|| self.call("DEL", id, "", Value::Null));
        assert_eq!(deleted, Ok(Value::Null));
    }
}

struct Pod {
    netns: Netns,
    report: Value,
}

impl Pod {
    fn address(&self, index: usize) -> IpAddr {
        let address = self.report["ips"][index]["address"].as_str();
        let (address, _) = address.and_then(|text| text.split_once('/')).expect("one");
        address.parse().expect("an address")
    }
}

/// Answers each connection with the address that it comes from.
fn serve(netns: &Netns, port: u16) {
    let listener = netns.run(|| TcpListener::bind(("::", port)).expect("bound"));
    std::thread::spawn(move || {
        while let Ok((mut stream, from)) = listener.accept() {
            let _ = write!(stream, "{}", from.ip().to_canonical());
        }
    });
}

/// What the server at `to` says, `None` when it cannot be reached.
fn fetch(netns: &Netns, to: (IpAddr, u16)) -> Option<String> {
    netns.run(|| {
        let mut stream = TcpStream::connect_timeout(&to.into(), PATIENCE).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    })
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn pods_reach_each_other_the_node_and_what_is_outside() {
    let node = Node::new(&["10.42.3.0/24", "fd00:42:0:3::/64"]);
    let (a, b) = (node.add("a", &json!([])), node.add("b", &json!([])));
    assert_eq!(a.address(0), ip("10.42.3.2"));
    assert_eq!(b.address(0), ip("10.42.3.3"));
    assert_eq!(a.report["interfaces"][2]["name"], "eth0");
    assert_eq!(a.report["ips"][0]["interface"], 2);
    serve(&b.netns, 80);
    serve(&node.netns, 81);
    serve(&node.outside, 82);
    for family in [0, 1] {
        let (from, to) = (a.address(family), b.address(family));
        assert_eq!(
            fetch(&a.netns, (to, 80)),
            Some(from.to_string()),
            "pods see pods"
        );
        assert!(fetch(&node.netns, (to, 80)).is_some(), "the node sees pods");
    }
    let pod = a.address(0).to_string();
    assert_eq!(fetch(&a.netns, (ip("10.42.3.1"), 81)), Some(pod.clone()));
    assert_eq!(fetch(&a.netns, (ip("192.168.7.1"), 81)), Some(pod));
    assert_eq!(
        fetch(&a.netns, (ip("192.168.7.2"), 82)).as_deref(),
        Some("192.168.7.1"),
        "what leaves the cluster is masqueraded"
    );
    assert!(a.netns.sh("ip link show lo").contains("state UNKNOWN"));
    assert!(
        a.netns.sh("ip link show eth0").contains("mtu 1450"),
        "as the way out"
    );
    assert!(!node.netns.sh("nft list tables").is_empty());

    let check = |more: Value| {
        let path = a.netns.path();
        node.netns.run(|| node.call("CHECK", "a", &path, more))
    };
    let previous = json!({ "prevResult": a.report });
    assert_eq!(check(previous.clone()), Ok(Value::Null));
    assert_eq!(check(Value::Null).expect_err("needs it")["code"], 7);
    a.netns.sh("ip addr flush dev eth0");
    assert_eq!(check(previous).expect_err("it is gone")["code"], 104);
}

#[test]
fn host_ports_lead_to_the_pod_from_everywhere() {
    host_ports(&Node::new(&["10.42.3.0/24"]));
}

#[test]
fn host_ports_need_no_bridge_netfilter() {
    let node = Node::new(&["10.42.3.0/24"]);
    node.netns
        .sh("sysctl -qw net.bridge.bridge-nf-call-iptables=0 2>/dev/null || true");
    host_ports(&node);
}

fn host_ports(node: &Node) {
    let port = |host: u16, protocol: &str, host_ip: &str| {
        let container = 8080;
        json!({ "hostPort": host, "containerPort": container, "protocol": protocol,
            "hostIP": host_ip })
    };
    let a = node.add(
        "a",
        &json!([
            port(80, "tcp", ""),
            port(53, "udp", ""),
            port(81, "tcp", "127.0.0.1")
        ]),
    );
    let b = node.add("b", &json!([port(81, "tcp", "192.168.7.1")]));
    serve(&a.netns, 8080);
    serve(&b.netns, 8080);
    let (here, outside) = (ip("192.168.7.1"), Some("192.168.7.2".to_owned()));
    assert_eq!(
        fetch(&node.outside, (here, 80)),
        outside,
        "the source is kept"
    );
    assert_eq!(
        fetch(&node.netns, (here, 80)).as_deref(),
        Some("192.168.7.1")
    );
    assert!(fetch(&node.netns, (ip("127.0.0.1"), 80)).is_some());
    assert!(fetch(&a.netns, (here, 80)).is_some(), "from the pod itself");
    assert!(fetch(&b.netns, (here, 80)).is_some(), "from another pod");

    // One port on two addresses of the node leads to two pods.
    let reached = |to: IpAddr| {
        let count = || {
            node.netns
                .sh("conntrack -L -p tcp --dport 81 2>/dev/null || true")
        };
        assert!(fetch(&node.netns, (to, 81)).is_some());
        count()
    };
    assert!(reached(ip("127.0.0.1")).contains("src=10.42.3.2"));
    assert!(reached(here).contains("src=10.42.3.3"));

    let query = || {
        let server = a
            .netns
            .run(|| UdpSocket::bind("0.0.0.0:8080").expect("bound"));
        let client = node
            .outside
            .run(|| UdpSocket::bind("0.0.0.0:0").expect("bound"));
        server.set_read_timeout(Some(PATIENCE)).expect("set");
        client.send_to(b"x", (here, 53)).expect("sent");
        server.recv(&mut [0]).expect("received")
    };
    assert_eq!(query(), 1);

    // A pod may not use the way that is open for host ports at loopback addresses.
    let secret = node
        .netns
        .run(|| UdpSocket::bind("127.0.0.1:999").expect("bound"));
    secret.set_nonblocking(true).expect("set");
    a.netns
        .sh("ip route add 127.0.0.5 via 10.42.3.1 2>/dev/null || true");
    a.netns.run(|| {
        let socket = UdpSocket::bind("10.42.3.2:0").expect("bound");
        let _ = socket.send_to(b"x", "127.0.0.1:999");
    });
    assert!(secret.recv(&mut [0]).is_err());

    node.del("a");
    assert_eq!(fetch(&node.outside, (here, 80)), None);
    assert!(
        fetch(&node.netns, (here, 81)).is_some(),
        "the other pod's stays"
    );
}

/// Everything of a node that the plugin could leave behind.
fn traces(node: &Node) -> String {
    let listed = node.netns.sh(
        "ip -o link | cut -d: -f2 | sort; ip route; ip -6 route | grep -v up0 || true
         nft list ruleset",
    );
    let files = std::fs::read_dir(&node.config.data_dir).expect("readable");
    format!("{listed}{}", files.count())
}

#[test]
fn deleting_and_cleaning_up_leave_nothing() {
    let node = Node::new(&["10.42.3.0/24", "fd00:42:0:3::/64"]);
    let before = traces(&node);
    let ports = json!([{ "hostPort": 80, "containerPort": 80, "protocol": "tcp" }]);
    let pods = ["a", "b", "c"].map(|id| node.add(id, &ports));
    node.del("a");
    node.del("a");
    let links = node.netns.sh("ip -o link show master cni0 | wc -l");
    assert_eq!(links.trim(), "2");
    // The runtime says that `b` is all there is.
    let valid = json!({ "cniVersion": "1.1.0",
        "cni.dev/valid-attachments": [{ "containerID": "b", "ifname": "eth0" }] });
    let collected = node.netns.run(|| node.call("GC", "", "", valid));
    assert_eq!(collected, Ok(Value::Null));
    let links = node.netns.sh("ip -o link show master cni0 | wc -l");
    assert_eq!(links.trim(), "1");
    let again = node.add("d", &ports);
    assert_eq!(again.address(0), ip("10.42.3.5"), "addresses go round");
    drop(pods);

    let errors = node.netns.run(|| cleanup(&node.config));
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(traces(&node), before);
    let errors = node.netns.run(|| cleanup(&node.config));
    assert!(errors.is_empty(), "again: {errors:?}");
}

#[test]
fn a_pod_that_cannot_be_connected_leaves_nothing() {
    let node = Node::new(&["10.42.3.0/24"]);
    let first = node.add("a", &json!([]));
    let before = node
        .netns
        .sh("ip -o link | cut -d: -f2 | sort; nft list ruleset");
    // Its default route is in the way.
    let pod = Netns::new();
    pod.sh(
        "ip link set lo up; ip link add x type veth peer name y; ip link set x up
         ip link set y up; ip route add default dev x",
    );
    let ports = json!([{ "hostPort": 80, "containerPort": 80, "protocol": "tcp" }]);
    let more = json!({ "runtimeConfig": { "portMappings": ports } });
    let refused = node.netns.run(|| node.call("ADD", "b", &pod.path(), more));
    let error = refused.expect_err("refused");
    assert_eq!(error["code"], 102, "{error}");
    assert_eq!(
        node.netns
            .sh("ip -o link | cut -d: -f2 | sort; nft list ruleset"),
        before
    );
    assert!(!pod.sh("ip -o link").contains("eth0"));
    let refused = node
        .netns
        .run(|| node.call("ADD", "c", &first.netns.path(), Value::Null));
    assert_eq!(refused.expect_err("eth0 is there")["code"], 101);
    let state = node.config.data_dir.join("coracle/addresses");
    assert!(state.join("10.42.3.2").exists() && !state.join("10.42.3.3").exists());
    let refused = node
        .netns
        .run(|| node.call("ADD", "c", "/nowhere", Value::Null));
    assert_eq!(refused.expect_err("no namespace")["code"], 5);
}

#[test]
fn many_pods_at_once_get_an_address_each() {
    let node = Node::new(&["10.42.3.0/24"]);
    let start = Instant::now();
    let pods: Vec<Pod> = std::thread::scope(|scope| {
        let node = &node;
        let add = |number: usize| move || node.add(&format!("pod-{number}"), &json!([]));
        let threads: Vec<_> = (0..100).map(|number| scope.spawn(add(number))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("added"))
            .collect()
    });
    println!("100 pods at once: {:?}", start.elapsed());
    let addresses: HashSet<IpAddr> = pods.iter().map(|pod| pod.address(0)).collect();
    assert_eq!(addresses.len(), 100);
    serve(&pods[99].netns, 80);
    let to: SocketAddr = (pods[99].address(0), 80).into();
    assert!(fetch(&pods[0].netns, (to.ip(), to.port())).is_some());
    let start = Instant::now();
    let one_more = node.add("one-more", &json!([]));
    println!("one more pod: {:?}", start.elapsed());
    assert!(!addresses.contains(&one_more.address(0)));
}

#[test]
fn the_second_plugin_brings_up_loopback() {
    let pod = Netns::new();
    let variable = |name: &str| {
        let value = match name {
            "CNI_COMMAND" => "ADD".to_owned(),
            "CNI_CONTAINERID" => "a".to_owned(),
            "CNI_NETNS" => pod.path(),
            "CNI_IFNAME" => "lo".to_owned(),
            _ => return None,
        };
        Some(value)
    };
    let config = br#"{"cniVersion":"0.3.1","name":"cni-loopback","type":"loopback"}"#;
    let report: Value = serde_json::from_str(&run(variable, config).expect("added")).expect("JSON");
    assert_eq!(report["ips"][0]["version"], "4");
    assert!(pod.sh("ip link show lo").contains("LOOPBACK,UP"));
}
