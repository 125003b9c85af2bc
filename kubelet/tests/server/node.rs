//! The node that is tested: a containerd of its own, the endpoints, and one pod.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::Arc,
};

use axum::Router;
use coracle_kubelet::{
    Config,
    cri::Cri,
    runtime::Supervisor,
    server::{self, Auth, Server},
};
use coracle_transport::{Backend, Forwarder};
use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, CreateContainerRequest, ImageSpec, LinuxPodSandboxConfig,
    LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption, PodSandboxConfig,
    PodSandboxMetadata, RunPodSandboxRequest, StartContainerRequest,
};
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::{io::AsyncWriteExt as _, net::TcpListener, process::Command, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    PATIENCE,
    api::{Api, OnePod, certificates},
    support::{BUSYBOX, import},
};

/// A node with one pod of two containers, `c` that serves HTTP and `shell` that reads its input.
pub struct Node {
    pub cri: Cri,
    pub host: Arc<OnePod>,
    pub backend: Backend,
    pub stranger: Backend,
    pub api: SocketAddr,
    pub shutdown: CancellationToken,
    pub sandbox: String,
    pub sandbox_config: PodSandboxConfig,
    pub port: u16,
    pub directory: PathBuf,
}

impl Node {
    pub async fn start(config: &Config, directory: &Path) -> Self {
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

    pub fn kubectl(&self, spdy: bool, arguments: &[&str]) -> Command {
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

    pub async fn output(&self, spdy: bool, arguments: &[&str], input: Option<&[u8]>) -> Output {
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
