//! The node's endpoints between a real containerd and stock kubectl. Needs root, containerd and
//! kubectl; without them there is nothing to test.
//!
//! kubectl speaks to a stand-in for the API server that knows one pod and passes everything
//! else on to the node.

mod support;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::Response,
};
use coracle_kubelet::{
    Config,
    cri::Cri,
    runtime::Supervisor,
    server::{self, Auth, Host, MetricsPage, Server, summary::Summary},
};
use coracle_transport::{
    Backend, ClientCertificates, Forwarder, ServerCertificate, certified_key, parse_certificates,
    parse_private_key, server_config,
};
use http::Uri;
use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, CreateContainerRequest, ImageSpec, LinuxPodSandboxConfig,
    LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption, PodSandboxConfig,
    PodSandboxMetadata, RunPodSandboxRequest, StartContainerRequest, StopContainerRequest,
};
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName};
use serde_json::{Value, json};
use support::{BUSYBOX, TakenDown, available, config, import};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    process::Command,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);

/// A kubelet that knows one pod.
#[derive(Default)]
struct OnePod(Mutex<Arc<Pod>>);

#[async_trait]
impl Host for OnePod {
    fn pods(&self) -> Vec<Arc<Pod>> {
        vec![self.0.lock().clone()]
    }

    fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        (namespace == "default" && name == "p").then(|| self.0.lock().clone())
    }

    fn sync_loop(&self) -> Result<(), String> {
        Ok(())
    }

    async fn summary(&self, _only_cpu_and_memory: bool) -> Result<Summary, String> {
        Ok(Summary::default())
    }

    async fn metrics(&self, _page: MetricsPage) -> String {
        String::new()
    }

    fn configuration(&self) -> Value {
        json!({})
    }
}

/// What the two ends of the connection between API server and node hold.
struct Certificates {
    server: rustls::ServerConfig,
    client: Arc<ClientConfig>,
    stranger: Arc<ClientConfig>,
    clients: ClientCertificates,
}

fn certificates() -> Certificates {
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = Issuer::new(authority, authority_key);
    let sign = |usage| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, &issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    };
    let (chain, key) = sign(ExtendedKeyUsagePurpose::ServerAuth);
    let serving = certified_key(chain.as_bytes(), key.as_bytes()).unwrap();
    let authorities = parse_certificates(pem.as_bytes()).unwrap();
    let clients = ClientCertificates::new(&authorities).unwrap();
    let server = server_config(Arc::new(ServerCertificate::new(serving)), Some(&clients)).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(authorities[0].clone()).unwrap();
    let client = || {
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone())
    };
    let (chain, key) = sign(ExtendedKeyUsagePurpose::ClientAuth);
    let chain = parse_certificates(chain.as_bytes()).unwrap();
    let key = parse_private_key(key.as_bytes()).unwrap();
    Certificates {
        server,
        client: Arc::new(client().with_client_auth_cert(chain, key).unwrap()),
        stranger: Arc::new(client().with_no_client_auth()),
        clients,
    }
}

/// The API server's stand-in.
#[derive(Clone)]
struct Api {
    forwarder: Forwarder,
    node: Backend,
    host: Arc<OnePod>,
}

impl Api {
    async fn answer(State(api): State<Api>, mut request: Request) -> Response {
        let path = request.uri().path().to_owned();
        let json = |value: Value| {
            Response::builder()
                .header("content-type", "application/json")
                .body(Body::from(value.to_string()))
                .unwrap()
        };
        let pod = "/api/v1/namespaces/default/pods/p";
        if path == "/api" {
            return json(json!({"kind": "APIVersions", "versions": ["v1"]}));
        }
        if path == "/apis" {
            return json(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []}));
        }
        if path == "/api/v1" {
            return json(
                json!({"kind": "APIResourceList", "groupVersion": "v1", "resources": [
                    {"name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod", "verbs": ["get"]},
                ]}),
            );
        }
        if path == pod {
            return json(serde_json::to_value(&**api.host.0.lock()).unwrap());
        }
        let Some(subresource) = path.strip_prefix(pod) else {
            return Response::builder()
                .status(404)
                .body(Body::from(path))
                .unwrap();
        };
        let subresource = subresource.trim_matches('/');
        let query = request.uri().query().unwrap_or_default().to_owned();
        *request.uri_mut() = node_path(subresource, &query);
        api.forwarder.forward(&api.node, request).await.unwrap()
    }
}

/// What the API server makes of a subresource.
fn node_path(subresource: &str, query: &str) -> Uri {
    let container = query
        .split('&')
        .find_map(|parameter| parameter.strip_prefix("container="))
        .unwrap_or("c");
    let query = query
        .replace("=true", "=1")
        .replace("stdin=", "input=")
        .replace("stdout=", "output=")
        .replace("stderr=", "error=");
    let path = match subresource {
        "log" => format!("/containerLogs/default/p/{container}"),
        "portforward" => "/portForward/default/p".to_owned(),
        other => format!("/{other}/default/p/{container}"),
    };
    format!("{path}?{query}").parse().unwrap()
}

struct Node {
    cri: Cri,
    host: Arc<OnePod>,
    backend: Backend,
    stranger: Backend,
    api: SocketAddr,
    shutdown: CancellationToken,
    sandbox: String,
    sandbox_config: PodSandboxConfig,
    port: u16,
    directory: PathBuf,
}

impl Node {
    async fn start(config: &Config, directory: &Path) -> Self {
        let shutdown = CancellationToken::new();
        let cri = Cri::new(&config.runtime_socket());
        let supervisor = Supervisor::new(config, cri.clone());
        let mut health = supervisor.health();
        tokio::spawn(supervisor.run(shutdown.clone()));
        timeout(PATIENCE, health.usable())
            .await
            .expect("containerd gets ready");
        let certificates = certificates();
        let host = Arc::<OnePod>::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let name = ServerName::try_from("localhost").unwrap();
        let server = Server::new(
            server::Config {
                system_logs: "/var/log".into(),
            },
            listener,
            Arc::new(certificates.server),
            Auth::new("node".to_owned(), Some(certificates.clients), None),
            cri.clone(),
            host.clone(),
        );
        tokio::spawn(server.run(shutdown.clone()));
        let backend = |config| Backend {
            address: address.clone(),
            tls: Some((config, name.clone())),
        };
        let api = Api {
            forwarder: Forwarder::new(shutdown.clone()),
            node: backend(certificates.client.clone()),
            host: host.clone(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api_address = listener.local_addr().unwrap();
        let router = Router::new().fallback(Api::answer).with_state(api);
        tokio::spawn(async move { axum::serve(listener, router).await });
        // Somebody else might take the port before the container does; that is unlikely.
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let mut node = Node {
            cri,
            host,
            backend: backend(certificates.client),
            stranger: backend(certificates.stranger),
            api: api_address,
            shutdown,
            sandbox: String::new(),
            sandbox_config: sandbox(directory, config),
            port,
            directory: directory.to_owned(),
        };
        import(config, BUSYBOX).await;
        Box::pin(node.run_pod()).await;
        node
    }

    async fn run_pod(&mut self) {
        let request = RunPodSandboxRequest {
            config: Some(self.sandbox_config.clone()),
            runtime_handler: String::new(),
        };
        let mut runtime = self.cri.runtime.clone();
        // The image is imported a moment after the runtime is ready.
        let started = async {
            loop {
                match runtime.run_pod_sandbox(request.clone()).await {
                    Ok(response) => break response.into_inner().pod_sandbox_id,
                    Err(status) if status.message().contains("sandbox image") => {}
                    Err(status) => panic!("{status}"),
                }
            }
        };
        self.sandbox = timeout(PATIENCE, started)
            .await
            .expect("the image is imported");
        let web = format!(
            "echo started; echo warned >&2; exec httpd -f -p 127.0.0.1:{} -h /etc",
            self.port
        );
        let c = self.run_container("c", &["sh", "-c", &web], false).await;
        let shell = self.run_container("shell", &["sh"], true).await;
        let status = |name: &str, id: &str| {
            json!({"name": name, "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "containerID": format!("containerd://{id}"), "state": {"running": {}}})
        };
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "default", "uid": "u"},
            "spec": {"containers": [{"name": "c"}, {"name": "shell", "stdin": true}]},
            "status": {"phase": "Running", "containerStatuses": [status("c", &c), status("shell", &shell)]},
        });
        *self.host.0.lock() = Arc::new(serde_json::from_value(pod).unwrap());
    }

    async fn run_container(&self, name: &str, command: &[&str], stdin: bool) -> String {
        let labels = [
            ("io.kubernetes.pod.namespace", "default"),
            ("io.kubernetes.pod.name", "p"),
            ("io.kubernetes.pod.uid", "u"),
            ("io.kubernetes.container.name", name),
        ];
        let request = CreateContainerRequest {
            pod_sandbox_id: self.sandbox.clone(),
            config: Some(ContainerConfig {
                metadata: Some(ContainerMetadata {
                    name: name.to_owned(),
                    attempt: 0,
                }),
                image: Some(ImageSpec {
                    image: BUSYBOX.to_owned(),
                    ..ImageSpec::default()
                }),
                command: command.iter().map(|&word| word.to_owned()).collect(),
                labels: labels
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .into(),
                log_path: format!("{name}.log"),
                stdin,
                stdin_once: stdin,
                ..ContainerConfig::default()
            }),
            sandbox_config: Some(self.sandbox_config.clone()),
        };
        let mut runtime = self.cri.runtime.clone();
        let response = runtime.create_container(request).await.unwrap();
        let container_id = response.into_inner().container_id;
        let start = StartContainerRequest {
            container_id: container_id.clone(),
        };
        runtime.start_container(start).await.unwrap();
        container_id
    }

    fn kubectl(&self, spdy: bool, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        let websockets = if spdy { "false" } else { "true" };
        command
            .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets)
            .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets)
            .env("KUBECONFIG", "/dev/null")
            .env("HOME", &self.directory)
            .args(["--server", &format!("http://{}", self.api)])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn output(&self, spdy: bool, arguments: &[&str], input: Option<&[u8]>) -> Output {
        let mut command = self.kubectl(spdy, arguments);
        if input.is_some() {
            command.stdin(Stdio::piped());
        }
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take();
        let feed = async {
            if let (Some(mut stdin), Some(input)) = (stdin, input) {
                stdin.write_all(input).await.unwrap();
            }
        };
        let finished = async { tokio::join!(feed, child.wait_with_output()).1 };
        timeout(PATIENCE, finished)
            .await
            .unwrap_or_else(|_| panic!("kubectl {arguments:?} ends"))
            .unwrap()
    }
}

fn sandbox(directory: &Path, config: &Config) -> PodSandboxConfig {
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: "p".to_owned(),
            uid: "u".to_owned(),
            namespace: "default".to_owned(),
            attempt: 0,
        }),
        log_directory: directory.join("log").display().to_string(),
        labels: [
            ("io.kubernetes.pod.namespace", "default"),
            ("io.kubernetes.pod.name", "p"),
            ("io.kubernetes.pod.uid", "u"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into(),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: config.cgroup_root.display().to_string(),
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(NamespaceOption {
                    network: NamespaceMode::Node.into(),
                    pid: NamespaceMode::Container.into(),
                    ..NamespaceOption::default()
                }),
                ..LinuxSandboxSecurityContext::default()
            }),
            ..LinuxPodSandboxConfig::default()
        }),
        ..PodSandboxConfig::default()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_reaches_containers_by_spdy_and_by_websocket() {
    if !available() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let _taken_down = TakenDown(config.clone());
    let node = Box::pin(Node::start(&config, directory.path())).await;
    for spdy in [false, true] {
        exit_codes_and_streams(&node, spdy).await;
        input_ends(&node, spdy).await;
        terminals(&node, spdy).await;
        errors(&node, spdy).await;
        ports(&node, spdy).await;
    }
    attach(&node).await;
    strangers(&node).await;
    logs(&node).await;
    node.shutdown.cancel();
}

async fn exit_codes_and_streams(node: &Node, spdy: bool) {
    let script = "echo out; echo err >&2; exit 7";
    let arguments = ["exec", "p", "-c", "c", "--", "sh", "-c", script];
    let output = node.output(spdy, &arguments, None).await;
    assert_eq!(text(&output.stdout), "out\n", "{}", text(&output.stderr));
    assert_eq!(
        text(&output.stderr),
        "err\ncommand terminated with exit code 7\n"
    );
    assert_eq!(output.status.code(), Some(7));
}

async fn input_ends(node: &Node, spdy: bool) {
    let arguments = ["exec", "-i", "p", "-c", "c", "--", "cat"];
    let input = b"0123456789abcde\n".repeat(100_000);
    let output = node.output(spdy, &arguments, Some(&input)).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(output.stdout == input, "{} bytes", output.stdout.len());
}

/// `script` gives kubectl the terminal that it insists on.
async fn terminals(node: &Node, spdy: bool) {
    let websockets = if spdy { "false" } else { "true" };
    let kubectl = format!(
        "KUBECTL_REMOTE_COMMAND_WEBSOCKETS={websockets} kubectl --server http://{} exec -it p -c c -- sh -c 'until stty size 2>/dev/null | grep 33; do sleep 0.1; done; read line && echo got $line'",
        node.api
    );
    let mut child = Command::new("script")
        .env("KUBECONFIG", "/dev/null")
        .env("HOME", &node.directory)
        .args([
            "-qefc",
            &format!("stty rows 33 cols 77; {kubectl}"),
            "/dev/null",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"line\n").await.unwrap();
    let output = timeout(PATIENCE, child.wait_with_output()).await.unwrap();
    let shown = text(&output.unwrap().stdout);
    assert!(shown.contains("33 77"), "{shown}");
    assert!(shown.contains("got line"), "{shown}");
}

async fn errors(node: &Node, spdy: bool) {
    let arguments = ["exec", "p", "-c", "c", "--", "missing"];
    let output = node.output(spdy, &arguments, None).await;
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains("error executing command in container: failed to exec in container"),
        "{stderr}"
    );
    assert!(
        stderr.contains("\"missing\": executable file not found in $PATH"),
        "{stderr}"
    );
    // From the kubelet itself, before anything is upgraded.
    let arguments = ["exec", "p", "-c", "none", "--", "true"];
    let output = node.output(spdy, &arguments, None).await;
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains("container none not found in pod p")
            || stderr.contains("container not found (\"none\")"),
        "{stderr}"
    );
}

async fn ports(node: &Node, spdy: bool) {
    let remote = format!(":{}", node.port);
    let mut child = node
        .kubectl(spdy, &["port-forward", "p", &remote])
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap();
    let line = line.expect("kubectl says where it listens");
    let local = line
        .strip_prefix("Forwarding from ")
        .and_then(|line| line.split_once(" -> "))
        .unwrap_or_else(|| panic!("{line}"))
        .0;
    for _ in 0..3 {
        let mut stream = TcpStream::connect(local).await.unwrap();
        stream
            .write_all(b"GET /passwd HTTP/1.0\r\n\r\n")
            .await
            .unwrap();
        let mut answer = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut answer))
            .await
            .unwrap()
            .unwrap();
        let answer = text(&answer);
        assert!(
            answer.starts_with("HTTP/1.") && answer.contains("web:x:1000"),
            "{answer}"
        );
    }
    child.kill().await.unwrap();
}

async fn attach(node: &Node) {
    let arguments = ["attach", "-i", "p", "-c", "shell"];
    let input = b"echo attached $((40 + 2))\nexit 3\n";
    let output = node.output(false, &arguments, Some(input)).await;
    let stdout = text(&output.stdout);
    assert!(
        stdout.contains("attached 42"),
        "{stdout} {}",
        text(&output.stderr)
    );
}

async fn strangers(node: &Node) {
    let forwarder = Forwarder::new(CancellationToken::new());
    let get = async |backend: &Backend, path: &str| {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = forwarder.forward(backend, request).await.unwrap();
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await;
        (status, text(&body.unwrap()))
    };
    assert_eq!(
        get(&node.stranger, "/pods").await,
        (401, "Unauthorized".to_owned())
    );
    assert_eq!(get(&node.backend, "/healthz").await, (200, "ok".to_owned()));
    let (status, pods) = get(&node.backend, "/runningpods/").await;
    let pods: Value = serde_json::from_str(&pods).unwrap();
    assert_eq!(status, 200);
    assert_eq!(pods["kind"], "PodList");
    assert_eq!(pods["items"][0]["metadata"]["name"], "p");
    let (status, error) = get(&node.backend, "/containerLogs/default/p/c?previous=true").await;
    let expected = "previous terminated container \"c\" in pod \"p\" not found";
    assert_eq!((status, error.as_str()), (400, expected));
    let (status, error) = get(&node.backend, "/containerLogs/default/gone/c").await;
    assert_eq!(
        (status, error.as_str()),
        (404, "pod \"gone\" does not exist")
    );
    let (status, output) = get(&node.backend, "/exec/default/p/c?output=1&command=true").await;
    assert_eq!((status, output.as_str()), (500, "Upgrade request required"));
}

async fn logs(node: &Node) {
    let output = node.output(false, &["logs", "p", "-c", "c"], None).await;
    let mut lines: Vec<String> = text(&output.stdout).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["started", "warned"]);
    let follow = node.output(false, &["logs", "-f", "--tail=1", "p", "-c", "c"], None);
    let stop = async {
        let container = node.host.0.lock().status.clone().unwrap();
        let container = container.container_statuses.unwrap().remove(0);
        let id = container.container_id.unwrap();
        let request = StopContainerRequest {
            container_id: id.trim_start_matches("containerd://").to_owned(),
            timeout: 0,
        };
        let mut runtime = node.cri.runtime.clone();
        runtime.stop_container(request).await.unwrap();
    };
    let (output, ()) = tokio::join!(follow, stop);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout).lines().count(), 1);
}
