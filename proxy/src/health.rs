//! The ports on which load balancers ask whether this node has endpoints of a Service
//! (`spec.healthCheckNodePort`).

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use axum::{Router, response::IntoResponse, routing::any};
use coracle_client::{EventRecorder, EventType, InvolvedObject};
use http::{StatusCode, header};
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{model::HealthCheck, world::ServiceName};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

struct Answer {
    name: ServiceName,
    endpoints: AtomicUsize,
    healthy: Arc<AtomicBool>,
}

struct Open {
    port: u16,
    answers: [Option<Arc<Answer>>; 2],
    closed: CancellationToken,
}

/// The open health check ports of this node.
pub struct HealthChecks {
    node: String,
    recorder: EventRecorder,
    open: HashMap<ServiceName, Open>,
    /// Whether the rules in the kernel are up to date.
    healthy: Arc<AtomicBool>,
    tasks: TaskTracker,
}

impl HealthChecks {
    pub fn new(node: &str, recorder: EventRecorder) -> Self {
        HealthChecks {
            node: node.to_owned(),
            recorder,
            open: HashMap::new(),
            healthy: Arc::default(),
            tasks: TaskTracker::new(),
        }
    }

    pub fn set_healthy(&self, healthy: bool) {
        self.healthy.store(healthy, Ordering::Relaxed);
    }

    /// Opens, closes or updates the Service's port.
    pub fn set(&mut self, name: &ServiceName, check: Option<HealthCheck>) {
        if let Some(open) = self.open.get(name) {
            match check {
                Some(check) if open.is_for(&check) => return open.update(&check),
                _ => open.closed.cancel(),
            }
            self.open.remove(name);
        }
        if let Some(check) = check
            && let Err(error) = self.serve(name, check)
        {
            self.report(name, check.port, &error);
        }
    }

    /// Each family of the Service is counted and answered for by itself.
    fn serve(&mut self, name: &ServiceName, check: HealthCheck) -> std::io::Result<()> {
        let mut open = Open {
            port: check.port,
            answers: [None, None],
            closed: CancellationToken::new(),
        };
        let addresses: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        for (family, address) in addresses.into_iter().enumerate() {
            let Some(endpoints) = check.endpoints[family] else {
                continue;
            };
            let answer = Arc::new(Answer {
                name: name.clone(),
                endpoints: AtomicUsize::new(endpoints),
                healthy: self.healthy.clone(),
            });
            open.answers[family] = Some(answer.clone());
            let app = Router::new().fallback(any(move || async move { respond(&answer) }));
            let listener = match bind((address, check.port).into()) {
                Ok(listener) => listener,
                Err(error) => {
                    open.closed.cancel();
                    return Err(error);
                }
            };
            let shutdown = open.closed.clone().cancelled_owned();
            let served = axum::serve(listener, app).with_graceful_shutdown(shutdown);
            self.tasks.spawn(async move {
                if let Err(error) = served.await {
                    tracing::warn!(%error, "a health check port ended");
                }
            });
        }
        self.open.insert(name.clone(), open);
        Ok(())
    }

    fn report(&self, (namespace, name): &ServiceName, port: u16, error: &std::io::Error) {
        let message = format!(
            "node {} failed to start healthcheck \"{namespace}/{name}\" on port {port}: {error}",
            self.node
        );
        tracing::warn!("{message}");
        let service = InvolvedObject {
            api_version: Some("v1".to_owned()),
            kind: Some("Service".to_owned()),
            namespace: Some(namespace.clone()),
            name: Some(name.clone()),
            ..InvolvedObject::default()
        };
        let reason = "FailedToStartServiceHealthcheck";
        self.recorder
            .event(service, EventType::Warning, reason, message);
    }

    /// Closes all ports and waits for their tasks.
    pub async fn close(self) {
        for open in self.open.values() {
            open.closed.cancel();
        }
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Open {
    fn is_for(&self, check: &HealthCheck) -> bool {
        let families = |of: &HealthCheck| of.endpoints.map(|count| count.is_some());
        let answered = self.answers.each_ref().map(Option::is_some);
        self.port == check.port && answered == families(check)
    }

    fn update(&self, check: &HealthCheck) {
        for (answer, endpoints) in self.answers.iter().zip(check.endpoints) {
            if let (Some(answer), Some(endpoints)) = (answer, endpoints) {
                answer.endpoints.store(endpoints, Ordering::Relaxed);
            }
        }
    }
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn respond(answer: &Answer) -> impl IntoResponse + use<> {
    let endpoints = answer.endpoints.load(Ordering::Relaxed);
    let healthy = answer.healthy.load(Ordering::Relaxed);
    let (namespace, name) = &answer.name;
    let status = if endpoints > 0 && healthy {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = format!(
        r#"{{
	"service": {{
		"namespace": "{namespace}",
		"name": "{name}"
	}},
	"localEndpoints": {endpoints},
	"serviceProxyHealthy": {healthy}
}}
"#
    );
    let headers = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (
            header::HeaderName::from_static("x-load-balancing-endpoint-weight"),
            endpoints.to_string(),
        ),
    ];
    (status, headers, body)
}
