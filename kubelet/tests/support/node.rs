//! A node with an API of its own in memory, for tests of what pods do.

use std::{path::Path, sync::Arc, time::Duration};

use coracle_api::{Identity, kinds};
use coracle_apiserver::{ApiServer, Plugins, Registry};
use coracle_client::Informers;
use coracle_kubelet::{Config, Kubelet};
use coracle_store::{HistoryLimits, MemoryStore};
use k8s_openapi::api::core::v1::{Event, Namespace, Pod};
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{BUSYBOX, DEADLINE, TakenDown, config, import};

/// An API server, a kubelet and a containerd.
pub struct Node {
    pub config: Config,
    pub client: Client,
    kubelet: Option<Running>,
    api_shutdown: CancellationToken,
    _taken_down: TakenDown,
    _directory: tempfile::TempDir,
}

struct Running {
    shutdown: CancellationToken,
    task: JoinHandle<()>,
    informers: Informers,
}

impl Node {
    /// Starts a node whose containers can run [`BUSYBOX`].
    pub async fn start() -> Self {
        // Shown for tests that fail, as RUST_LOG says.
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let directory = tempfile::tempdir().expect("a directory");
        let config = config(directory.path());
        let (client, api_shutdown) = api().await;
        let mut node = Node {
            _taken_down: TakenDown(config.clone()),
            _directory: directory,
            config,
            client,
            kubelet: None,
            api_shutdown,
        };
        node.start_kubelet();
        import(&node.config, BUSYBOX).await;
        node
    }

    pub fn start_kubelet(&mut self) {
        let informers = Informers::new(self.client.clone());
        let kubelet = Kubelet::new(self.config.clone(), self.client.clone(), informers.clone());
        let shutdown = CancellationToken::new();
        let until = shutdown.clone();
        let task = tokio::spawn(async move {
            kubelet.run(until).await.expect("the kubelet runs");
        });
        self.kubelet = Some(Running {
            shutdown,
            task,
            informers,
        });
    }

    /// Ends the kubelet; the pods go on running.
    pub async fn stop_kubelet(&mut self) {
        if let Some(running) = self.kubelet.take() {
            running.shutdown.cancel();
            running.task.await.expect("the kubelet ends well");
            running.informers.stop();
        }
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Creates a pod on the node, in the host's network; `spec` says the rest.
    pub async fn create(&self, name: &str, spec: Value) -> Pod {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default"},
        });
        pod["spec"] = spec;
        pod["spec"]["nodeName"] = json!(self.config.node_name);
        pod["spec"]["hostNetwork"] = json!(true);
        if pod["spec"]["terminationGracePeriodSeconds"].is_null() {
            pod["spec"]["terminationGracePeriodSeconds"] = json!(1);
        }
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        self.pods()
            .create(&PostParams::default(), &pod)
            .await
            .expect("the pod is created")
    }

    /// Waits until the pod is as wanted.
    pub async fn until(&self, name: &str, what: &str, is: impl Fn(&Pod) -> bool) -> Pod {
        let pods = self.pods();
        let mut last = None;
        let wait = async {
            loop {
                let pod = pods.get_opt(name).await.expect("the API answers");
                if let Some(pod) = pod {
                    if is(&pod) {
                        return pod;
                    }
                    last = Some(pod);
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        match tokio::time::timeout(DEADLINE, wait).await {
            Ok(pod) => pod,
            Err(_) => {
                let status = last.and_then(|pod| pod.status);
                let text = serde_json::to_string_pretty(&status).unwrap_or_default();
                let events = self.events(name).await;
                panic!("pod {name} never was {what}: {text}\n{events:#?}");
            }
        }
    }

    pub async fn running(&self, name: &str) -> Pod {
        self.until(name, "ready", |pod| condition(pod, "Ready") == "True")
            .await
    }

    pub async fn phase(&self, name: &str, phase: &str) -> Pod {
        self.until(name, phase, |pod| {
            pod.status.as_ref().and_then(|it| it.phase.as_deref()) == Some(phase)
        })
        .await
    }

    /// Asks for the pod's deletion and waits until it is gone.
    pub async fn delete(&self, name: &str) {
        let pods = self.pods();
        pods.delete(name, &DeleteParams::default())
            .await
            .expect("the deletion is asked for");
        self.gone(name).await;
    }

    pub async fn gone(&self, name: &str) {
        let pods = self.pods();
        let wait = async {
            while pods.get_opt(name).await.expect("the API answers").is_some() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(DEADLINE, wait)
            .await
            .unwrap_or_else(|_| panic!("pod {name} never went"));
    }

    /// The events of a pod: type, reason and message.
    pub async fn events(&self, name: &str) -> Vec<String> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), "default");
        let listed = events.list(&Default::default()).await.expect("events");
        listed
            .items
            .into_iter()
            .filter(|event| event.involved_object.name.as_deref() == Some(name))
            .map(|event| {
                let text = |text: Option<String>| text.unwrap_or_default();
                format!(
                    "{} {} {}",
                    text(event.type_),
                    text(event.reason),
                    text(event.message)
                )
            })
            .collect()
    }

    /// Waits for an event whose text contains this.
    pub async fn event(&self, name: &str, part: &str) {
        let wait = async {
            while !self
                .events(name)
                .await
                .iter()
                .any(|event| event.contains(part))
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(DEADLINE, wait).await.is_err() {
            panic!(
                "no event {part:?} of {name}: {:#?}",
                self.events(name).await
            );
        }
    }

    /// The log of a container's run, without what the runtime puts before each line.
    pub fn log(&self, pod: &Pod, container: &str, run: i32) -> String {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let metadata = &pod.metadata;
        let directory = self.config.pod_log_dir(
            &text(&metadata.namespace),
            &text(&metadata.name),
            &text(&metadata.uid),
        );
        let file = directory.join(container).join(format!("{run}.log"));
        let log = std::fs::read_to_string(file).unwrap_or_default();
        let lines = log.lines();
        let lines: Vec<&str> = lines
            .filter_map(|line| line.splitn(4, ' ').nth(3))
            .collect();
        lines.join("\n")
    }

    /// Ends everything; tells that nothing is left of the pods.
    pub async fn end(mut self) {
        self.stop_kubelet().await;
        self.api_shutdown.cancel();
    }
}

/// An API server in memory in which everybody may do everything.
async fn api() -> (Client, CancellationToken) {
    let store = Arc::new(MemoryStore::new(HistoryLimits::default()));
    let registry = Registry::new(store, kinds::builtin());
    let config = coracle_apiserver::Config::default();
    let server = ApiServer::new(config, registry, Plugins::default());
    let shutdown = CancellationToken::new();
    let (serving, until) = (server.clone(), shutdown.clone());
    tokio::spawn(async move { serving.run(until).await });
    server.registry().ready().await;
    let client = coracle_client::in_process(server, Identity::default());
    let namespaces: Api<Namespace> = Api::all(client.clone());
    for name in ["default", "kube-node-lease"] {
        let namespace: Namespace =
            serde_json::from_value(json!({"metadata": {"name": name}})).expect("a namespace");
        namespaces
            .create(&PostParams::default(), &namespace)
            .await
            .expect("the namespace is created");
    }
    (client, shutdown)
}

/// The status of one of the pod's conditions; empty when it has none.
pub fn condition(pod: &Pod, name: &str) -> String {
    let conditions = pod
        .status
        .iter()
        .flat_map(|it| it.conditions.iter().flatten());
    let mut conditions = conditions.filter(|condition| condition.type_ == name);
    conditions
        .next()
        .map(|it| it.status.clone())
        .unwrap_or_default()
}

/// The status of one of the pod's containers as JSON.
pub fn container(pod: &Pod, name: &str) -> Value {
    let status = serde_json::to_value(&pod.status).expect("it is JSON");
    let lists = [
        "containerStatuses",
        "initContainerStatuses",
        "ephemeralContainerStatuses",
    ];
    let statuses = lists
        .iter()
        .filter_map(|list| status[list].as_array())
        .flatten();
    let mut statuses = statuses.filter(|status| status["name"] == name);
    statuses.next().cloned().unwrap_or_default()
}

/// A container of busybox that runs a shell command.
pub fn shell(name: &str, command: &str) -> Value {
    json!({
        "name": name, "image": BUSYBOX, "imagePullPolicy": "Never",
        "command": ["sh", "-c", command],
    })
}

pub fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
