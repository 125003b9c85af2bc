//! A node with pods, a host outside, and the proxy at work, all in network namespaces.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    process::Command,
    time::{Duration, Instant},
};

use coracle_client::{EventRecorder, Informers};
use coracle_metrics::Page;
use coracle_proxy::{Config, Proxy};
use nix::sched::{CloneFlags, setns, unshare};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::api::FakeApi;

/// For whatever a test waits for.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// The node's address on the wire to the host outside.
pub const NODE: &str = "192.168.7.1";
pub const OUTSIDE: &str = "192.168.7.2";

/// A network namespace that lives as long as this value.
pub struct Netns(File);

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
    pub fn run<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
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

    pub fn sh(&self, command: &str) -> String {
        self.run(|| {
            let output = Command::new("sh").args(["-ec", command]).output();
            let output = output.expect("sh runs");
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{command}: {error}");
            String::from_utf8_lossy(&output.stdout).into_owned()
        })
    }

    /// What the server says first, or why it cannot be reached.
    pub fn fetch(&self, to: &str) -> Result<String, std::io::ErrorKind> {
        self.fetch_within(to, PATIENCE)
    }

    pub fn fetch_within(&self, to: &str, limit: Duration) -> Result<String, std::io::ErrorKind> {
        let to: SocketAddr = to.parse().expect("an address");
        self.run(|| {
            let mut stream =
                TcpStream::connect_timeout(&to, limit).map_err(|error| error.kind())?;
            stream.set_read_timeout(Some(PATIENCE)).expect("set");
            let mut text = String::new();
            stream
                .read_to_string(&mut text)
                .map_err(|error| error.kind())?;
            Ok(text)
        })
    }
}

/// A pod that answers each TCP connection to port 8080 with its name and the client's address, and
/// each UDP packet with its name.
pub struct Pod {
    pub name: String,
    pub netns: Netns,
    pub addresses: Vec<IpAddr>,
}

/// The node. The proxy runs until this is dropped.
pub struct Node {
    pub netns: Netns,
    pub outside: Netns,
    pub api: FakeApi,
    pub config: Config,
    network: coracle_cni::Config,
    _state: tempfile::TempDir,
}

impl Node {
    pub fn new() -> Self {
        let (netns, outside) = (Netns::new(), Netns::new());
        netns.sh(&format!(
            "ip link set lo up
             ip link add up0 type veth peer name up0 netns {}
             ip addr add {NODE}/24 dev up0
             ip link set up0 up
             ip route add default via {OUTSIDE}",
            outside.path()
        ));
        outside.sh(&format!(
            "ip link set lo up; ip addr add {OUTSIDE}/24 dev up0; ip link set up0 up
             ip route add 10.43.0.0/16 via {NODE}; ip route add 10.99.0.0/16 via {NODE}"
        ));
        let net = |text: &str| text.parse().expect("a network");
        let state = tempfile::tempdir().expect("a directory");
        let subnets = vec![net("10.42.0.0/24"), net("fd00:42::/64")];
        let cluster = vec![net("10.42.0.0/16"), net("fd00:42::/48")];
        let services = vec![net("10.43.0.0/16"), net("fd00:43::/112")];
        Node {
            netns,
            outside,
            api: FakeApi::default(),
            config: Config {
                node_addresses: vec![NODE.parse().expect("an address")],
                ..Config::new("here", cluster.clone(), services)
            },
            network: coracle_cni::Config::new(state.path(), subnets, cluster),
            _state: state,
        }
    }

    /// Adds a pod that answers.
    pub fn pod(&self, name: &str) -> Pod {
        let netns = Netns::new();
        let list: Value =
            serde_json::from_str(&coracle_cni::conflist(&self.network)).expect("JSON");
        let mut input = list["plugins"][0].clone();
        input["cniVersion"] = "1.0.0".into();
        input["name"] = list["name"].clone();
        let path = netns.path();
        let variable = |variable: &str| {
            let value = match variable {
                "CNI_COMMAND" => "ADD",
                "CNI_CONTAINERID" => name,
                "CNI_NETNS" => &path,
                "CNI_IFNAME" => "eth0",
                _ => return None,
            };
            Some(value.to_owned())
        };
        let report = self
            .netns
            .run(|| coracle_cni::run(variable, input.to_string().as_bytes()))
            .expect("added");
        let report: Value = serde_json::from_str(&report).expect("JSON");
        let address = |ip: &Value| {
            let address = ip["address"].as_str().and_then(|text| text.split_once('/'));
            address.expect("one").0.parse().expect("an address")
        };
        let ips = report["ips"].as_array().expect("a list");
        let pod = Pod {
            name: name.to_owned(),
            addresses: ips.iter().map(address).collect(),
            netns,
        };
        serve(&pod);
        pod
    }

    /// Starts the proxy; it ends when what is returned is dropped.
    pub fn proxy(&self) -> Running {
        let shutdown = CancellationToken::new();
        let (config, api) = (self.config.clone(), self.api.clone());
        let stopped = shutdown.clone();
        // The runtime's threads come from this one, and so are in its namespace.
        let thread = self.netns.run(|| {
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime");
                runtime.block_on(async {
                    let client = api.client();
                    let informers = Informers::new(client.clone());
                    let recorder = EventRecorder::new(client, "kube-proxy", "here");
                    let proxy = Proxy::new(config, informers, recorder);
                    proxy
                        .run(stopped)
                        .await
                        .expect("it runs until it is stopped");
                });
            })
        });
        let running = Running {
            shutdown,
            thread: Some(thread),
        };
        self.wait("the table", || {
            self.netns.sh("nft list tables").contains("coracle-proxy")
        });
        running
    }

    /// Waits until `holds`.
    pub fn wait(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            assert!(
                Instant::now() < deadline,
                "waited for {what}:\n{}",
                self.netns
                    .sh("nft list ruleset; conntrack -L 2>/dev/null || true")
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

pub struct Running {
    shutdown: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.cancel();
        let ended = self.thread.take().map(std::thread::JoinHandle::join);
        if !std::thread::panicking() {
            assert!(matches!(ended, Some(Ok(()))));
            let mut page = Page::default();
            page.add(coracle_proxy::metrics());
            let shown = page.render();
            assert!(
                shown.contains("sync_failures_total{ip_family=\"IPv4\"} 0\n"),
                "the kernel refused a change:\n{shown}"
            );
        }
    }
}

fn serve(pod: &Pod) {
    let listener = pod
        .netns
        .run(|| TcpListener::bind("[::]:8080").expect("bound"));
    let socket = pod
        .netns
        .run(|| UdpSocket::bind("[::]:8080").expect("bound"));
    let name = pod.name.clone();
    std::thread::spawn(move || {
        while let Ok((mut stream, from)) = listener.accept() {
            let _ = write!(stream, "{name} {}", from.ip().to_canonical());
        }
    });
    let name = pod.name.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(name.as_bytes(), from);
        }
    });
}

/// A Service `web` at 10.43.0.10 and fd00:43::10, port 80 of TCP and UDP; `more` is merged into
/// its spec.
pub fn service(more: &Value) -> Value {
    let port = |protocol: &str| {
        json!({ "name": protocol.to_lowercase(), "protocol": protocol, "port": 80,
            "targetPort": 8080 })
    };
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "namespace": "default", "name": "web" },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "10.43.0.10", "clusterIPs": ["10.43.0.10", "fd00:43::10"],
            "ipFamilies": ["IPv4", "IPv6"],
            "sessionAffinity": "None",
            "internalTrafficPolicy": "Cluster",
            "ports": [port("TCP"), port("UDP")],
        },
    });
    for (field, value) in more.as_object().expect("an object") {
        service["spec"][field] = value.clone();
    }
    service
}

/// The slice of that Service in one family, with the endpoints as they stand there.
pub fn slice_of(family: usize, endpoints: &[Value]) -> Value {
    let (address_type, suffix) = [("IPv4", "4"), ("IPv6", "6")][family];
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": { "namespace": "default", "name": format!("web-{suffix}"),
            "labels": { "kubernetes.io/service-name": "web" } },
        "addressType": address_type,
        "ports": [{ "name": "tcp", "protocol": "TCP", "port": 8080 },
            { "name": "udp", "protocol": "UDP", "port": 8080 }],
        "endpoints": endpoints,
    })
}

/// A ready endpoint on this node.
pub fn ready(pod: &Pod, family: usize) -> Value {
    json!({ "addresses": [pod.addresses[family]], "nodeName": "here",
        "conditions": { "ready": true, "serving": true, "terminating": false } })
}

/// Both families' slices with these pods ready.
pub fn put_endpoints(api: &FakeApi, pods: &[&Pod]) {
    for family in [0, 1] {
        let endpoints: Vec<Value> = pods.iter().map(|pod| ready(pod, family)).collect();
        api.put(slice_of(family, &endpoints));
    }
}
