//! The node's HTTPS endpoints (port 10250): logs, exec, attach and port-forward for the API
//! server, metrics and statistics for what scrapes them.
//!
//! Enter at [`Server`]; [`routes`] is the table of paths. Containers are found in the runtime
//! by their labels, so that the endpoints work while the rest of the kubelet starts or is
//! stuck.

mod auth;
mod container_logs;
mod containers;
mod exec;
mod host;
mod logs;
mod query;
mod resource_metrics;
mod respond;
mod routes;
mod spdy;
mod streaming;
pub mod summary;
mod system_logs;

use std::{convert::Infallible, path::PathBuf, sync::Arc, time::Instant};

use axum::body::Body;
use bytes::Bytes;
use coracle_transport::{Forwarder, ServeOptions, serve};
use futures::stream;
use http::{Request, Response, StatusCode};
use jiff::Timestamp;
use k8s_openapi::{
    List,
    api::core::v1::{Container, Pod, PodSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;
use tower::service_fn;

pub use auth::Auth;
pub use host::{Host, MetricsPage};

use crate::{cri::Cri, metrics};
use containers::{Containers, Followed, PodId};
use query::Query;
use routes::{ContainerPath, Route};

/// What the server needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// What `/logs/` shows: `/var/log`.
    pub system_logs: PathBuf,
}

/// Serves the node's endpoints.
pub struct Server {
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    auth: Auth,
    config: Config,
    containers: Containers,
    host: Arc<dyn Host>,
}

impl Server {
    /// `tls` should ask for client certificates ([`coracle_transport::server_config`]).
    pub fn new(
        config: Config,
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
        auth: Auth,
        cri: Cri,
        host: Arc<dyn Host>,
    ) -> Self {
        Server {
            listener,
            tls,
            auth,
            config,
            containers: Containers::new(cri),
            host,
        }
    }

    /// Serves until `shutdown`; exec and port-forward sessions are ended then.
    pub async fn run(self, shutdown: CancellationToken) {
        let forwarder = Forwarder::new(shutdown.clone());
        let endpoints = Arc::new(Endpoints {
            auth: self.auth,
            config: self.config,
            containers: self.containers,
            host: self.host,
            forwarder: forwarder.clone(),
        });
        let service = service_fn(move |request: Request<Body>| {
            let endpoints = endpoints.clone();
            async move { Ok::<_, Infallible>(endpoints.handle(request).await) }
        });
        let options = ServeOptions::default();
        serve(self.listener, self.tls, service, options, shutdown).await;
        forwarder.drained().await;
    }
}

struct Endpoints {
    auth: Auth,
    config: Config,
    containers: Containers,
    host: Arc<dyn Host>,
    forwarder: Forwarder,
}

impl Endpoints {
    async fn handle(&self, request: Request<Body>) -> Response<Body> {
        let since = Instant::now();
        let method = request.method().clone();
        let first = routes::first(request.uri().path());
        let response = self.answer(request).await;
        let long_running = matches!(first, "exec" | "attach" | "portForward" | "containerLogs");
        metrics::answered(method.as_str(), first, long_running, since.elapsed());
        response
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        if let Err(refusal) = self.auth.check(&parts).await {
            return respond::text(refusal.status, refusal.message);
        }
        let route = match routes::parse(&parts.method, parts.uri.path()) {
            Ok(route) => route,
            Err(routes::NoRoute::NotFound) => return respond::not_found(),
            Err(routes::NoRoute::Method) => return respond::method_not_allowed(),
        };
        let request = Request::from_parts(parts, body);
        let query = request.uri().query().unwrap_or_default().to_owned();
        let query = Query::parse(&query);
        match route {
            Route::ContainerLogs(path) => self.container_logs(&path, &query).await,
            Route::Exec(path) => self.exec(request, &path, &query).await,
            Route::Attach(path) => self.attach(request, &path, &query).await,
            Route::PortForward(path) => self.port_forward(request, &path, &query).await,
            Route::Run(path) => self.run(&path, &query).await,
            Route::Pods => respond::json(&pod_list(self.host.pods())),
            Route::RunningPods => self.running_pods().await,
            Route::Healthz(check) => self.healthz(&check, query.get("verbose").is_some()),
            Route::Metrics(page) => metrics_page(self.host.metrics(page).await),
            Route::ResourceMetrics => {
                let summary = self.host.summary(true).await.ok();
                metrics_page(resource_metrics::render(summary.as_ref()))
            }
            Route::Summary => self.summary(&query).await,
            Route::Configz => respond::json(&serde_json::json!({
                "kubeletconfig": self.host.configuration(),
            })),
            Route::SystemLogs(path) => {
                system_logs::serve(&self.config.system_logs, &path, request.uri().path()).await
            }
        }
    }

    async fn container_logs(&self, path: &ContainerPath, query: &Query<'_>) -> Response<Body> {
        let options = match logs::parse_options(query, Timestamp::now()) {
            Ok(options) => options,
            Err(logs::OptionsError::Undecodable) => {
                let message = r#"{"message": "Unable to decode query."}"#;
                return respond::text(StatusCode::BAD_REQUEST, message);
            }
            Err(logs::OptionsError::Invalid) => {
                let message = r#"{"message": "Invalid request."}"#;
                return respond::text(StatusCode::UNPROCESSABLE_ENTITY, message);
            }
        };
        let (pod_name, container) = (&path.pod, &path.container);
        let Some(pod) = self.host.pod(&path.namespace, pod_name) else {
            let message = format!("pod {pod_name:?} does not exist");
            return respond::text(StatusCode::NOT_FOUND, message);
        };
        if !container_logs::has_container(&pod, container) {
            let message = format!("container {container:?} not found in pod {pod_name:?}");
            return respond::text(StatusCode::NOT_FOUND, message);
        }
        let id = match container_logs::container_id(&pod, container, options.previous) {
            Ok(id) => id,
            Err(message) => match self.just_started(&pod, path, options.previous).await {
                Some(id) => id,
                None => return respond::text(StatusCode::BAD_REQUEST, message),
            },
        };
        let log_path = match self.containers.status(&id).await {
            Ok(status) => PathBuf::from(status.log_path),
            Err(error) => {
                tracing::debug!(id, %error, "cannot get the container's status for its log");
                // Upstream has sent the head of a good answer by now.
                let message = format!("unable to retrieve container logs for containerd://{id}");
                return respond::text(StatusCode::OK, message);
            }
        };
        let (sender, receiver) = mpsc::channel(logs::CHUNKS_AHEAD);
        let containers = self.containers.clone();
        let followed = Followed { containers, id };
        self.forwarder
            .spawn(logs::stream(log_path, options, followed, sender));
        respond::with_type(StatusCode::OK, "text/plain", log_body(receiver))
    }

    /// A container that the runtime has, but the pod's status not yet.
    async fn just_started(
        &self,
        pod: &Pod,
        path: &ContainerPath,
        previous: bool,
    ) -> Option<String> {
        if previous {
            return None;
        }
        let pod = PodId {
            uid: pod.metadata.uid.clone(),
            ..path.pod_id()
        };
        self.containers.latest(&pod, &path.container).await.ok()?
    }

    async fn running_pods(&self) -> Response<Body> {
        let running = match self.containers.running_pods().await {
            Ok(running) => running,
            Err(error) => {
                let message = error.message().to_owned();
                return respond::text(StatusCode::INTERNAL_SERVER_ERROR, message);
            }
        };
        let pods = running.into_iter().map(|(sandbox, containers)| {
            let metadata = sandbox.metadata.unwrap_or_default();
            let containers = containers.into_iter().map(|container| Container {
                name: container.metadata.unwrap_or_default().name,
                image: container.image.map(|image| image.image),
                ..Container::default()
            });
            Arc::new(Pod {
                metadata: ObjectMeta {
                    name: Some(metadata.name),
                    namespace: Some(metadata.namespace),
                    uid: Some(metadata.uid),
                    ..ObjectMeta::default()
                },
                spec: Some(PodSpec {
                    containers: containers.collect(),
                    ..PodSpec::default()
                }),
                status: None,
            })
        });
        respond::json(&pod_list(pods.collect()))
    }

    async fn summary(&self, query: &Query<'_>) -> Response<Body> {
        let only_cpu_and_memory = query.get("only_cpu_and_memory") == Some("true");
        match self.host.summary(only_cpu_and_memory).await {
            Ok(summary) => respond::json(&summary),
            Err(error) => respond::text(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("Internal Error: {error}"),
            ),
        }
    }

    fn healthz(&self, check: &str, verbose: bool) -> Response<Body> {
        let sync_loop = self.host.sync_loop();
        let checks = [("ping", Ok(())), ("log", Ok(())), ("syncloop", sync_loop)];
        if !check.is_empty() {
            return match checks.into_iter().find(|(name, _)| *name == check) {
                Some((_, Ok(()))) => respond::text(StatusCode::OK, "ok"),
                Some((_, Err(error))) => {
                    let message = format!("internal server error: {error}\n");
                    respond::text(StatusCode::INTERNAL_SERVER_ERROR, message)
                }
                None => respond::not_found(),
            };
        }
        let healthy = checks.iter().all(|(_, result)| result.is_ok());
        if healthy && !verbose {
            return respond::text(StatusCode::OK, "ok");
        }
        let mut page = String::new();
        for (name, result) in checks {
            page.push_str(&match result {
                Ok(()) => format!("[+]{name} ok\n"),
                Err(_) => format!("[-]{name} failed: reason withheld\n"),
            });
        }
        if healthy {
            page.push_str("healthz check passed\n");
            respond::text(StatusCode::OK, page)
        } else {
            page.push_str("healthz check failed\n");
            respond::text(StatusCode::INTERNAL_SERVER_ERROR, page)
        }
    }
}

fn log_body(receiver: mpsc::Receiver<std::io::Result<Bytes>>) -> Body {
    let chunks = stream::unfold(receiver, |mut receiver| async move {
        let chunk = receiver.recv().await?;
        Some((chunk, receiver))
    });
    Body::from_stream(chunks)
}

fn pod_list(pods: Vec<Arc<Pod>>) -> List<Pod> {
    List {
        items: pods.into_iter().map(Arc::unwrap_or_clone).collect(),
        ..List::default()
    }
}

fn metrics_page(page: String) -> Response<Body> {
    let content_type = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";
    respond::with_type(StatusCode::OK, content_type, Body::from(page))
}
