//! `/exec`, `/attach`, `/portForward` and `/run`: finds the container, asks the runtime for a
//! session and hands the client over to it.

use axum::body::Body;
use http::{Request, Response, StatusCode};
use k8s_cri::v1::{AttachRequest, ExecRequest, ExecSyncRequest, PortForwardRequest};

use super::{
    Endpoints,
    containers::PodId,
    query::Query,
    respond,
    routes::ContainerPath,
    streaming::{Channels, Process, Runtime, is_translated, is_tunnel},
};

impl Endpoints {
    pub(super) async fn exec(
        &self,
        request: Request<Body>,
        path: &ContainerPath,
        query: &Query<'_>,
    ) -> Response<Body> {
        self.try_exec(request, path, query)
            .await
            .unwrap_or_else(|response| *response)
    }

    async fn try_exec(
        &self,
        request: Request<Body>,
        path: &ContainerPath,
        query: &Query<'_>,
    ) -> Result<Response<Body>, Box<Response<Body>>> {
        let channels = channels(query)?;
        let pod = self.known_pod(path)?;
        let container = &path.container;
        let id = self.running(&pod, container).await?.ok_or_else(|| {
            let message = format!("container not found ({container:?})");
            Box::new(respond::text(StatusCode::INTERNAL_SERVER_ERROR, message))
        })?;
        let exec = ExecRequest {
            container_id: id,
            cmd: query.all("command").map(str::to_owned).collect(),
            tty: channels.tty,
            stdin: channels.stdin,
            stdout: channels.stdout,
            stderr: channels.stderr,
        };
        let mut client = self.containers.cri().runtime.clone();
        let response = client.exec(exec).await.map_err(runtime_failed)?;
        let runtime = self.session(&response.into_inner().url)?;
        let process = Process {
            tty: channels.tty,
            stdin_once: true,
        };
        Ok(runtime.remote_command(request, channels, process).await)
    }

    pub(super) async fn attach(
        &self,
        request: Request<Body>,
        path: &ContainerPath,
        query: &Query<'_>,
    ) -> Response<Body> {
        self.try_attach(request, path, query)
            .await
            .unwrap_or_else(|response| *response)
    }

    async fn try_attach(
        &self,
        request: Request<Body>,
        path: &ContainerPath,
        query: &Query<'_>,
    ) -> Result<Response<Body>, Box<Response<Body>>> {
        let channels = channels(query)?;
        let pod = self.known_pod(path)?;
        let container = &path.container;
        let not_found = || {
            let (pod, namespace) = (&path.pod, &path.namespace);
            let message = format!("container {container} not found in pod {pod}_{namespace}");
            Box::new(respond::text(StatusCode::INTERNAL_SERVER_ERROR, message))
        };
        let id = self.running(&pod, container).await?.ok_or_else(not_found)?;
        let spec = self.host.pod(&path.namespace, &path.pod);
        let process = spec
            .and_then(|pod| Process::of(&pod, container))
            .ok_or_else(not_found)?;
        // The runtime refuses a terminal with stderr. Where its streams are not the client's own
        // they are those that fit; else the client is told, as upstream does.
        let stderr = channels.stderr && !(process.tty && is_translated(&request));
        let attach = AttachRequest {
            container_id: id,
            stdin: channels.stdin,
            tty: process.tty,
            stdout: channels.stdout,
            stderr,
        };
        let mut client = self.containers.cri().runtime.clone();
        let response = client.attach(attach).await.map_err(runtime_failed)?;
        let runtime = self.session(&response.into_inner().url)?;
        Ok(runtime.remote_command(request, channels, process).await)
    }

    pub(super) async fn port_forward(
        &self,
        request: Request<Body>,
        path: &ContainerPath,
        query: &Query<'_>,
    ) -> Response<Body> {
        self.try_port_forward(request, path, query)
            .await
            .unwrap_or_else(|response| *response)
    }

    async fn try_port_forward(
        &self,
        request: Request<Body>,
        path: &ContainerPath,
        query: &Query<'_>,
    ) -> Result<Response<Body>, Box<Response<Body>>> {
        let is_websocket = request
            .headers()
            .contains_key(http::header::SEC_WEBSOCKET_KEY);
        let port = if is_websocket && !is_tunnel(&request) {
            ports(query)
                .map_err(|message| Box::new(respond::text(StatusCode::BAD_REQUEST, message)))?
        } else {
            Vec::new()
        };
        let pod = self.known_pod(path)?;
        let sandbox = self
            .containers
            .sandbox(&pod)
            .await
            .map_err(runtime_failed)?;
        let pod_sandbox_id = sandbox.ok_or_else(|| {
            let full_name = format!("{}_{}", path.pod, path.namespace);
            let message = format!("pod not found ({full_name:?})");
            Box::new(respond::text(StatusCode::INTERNAL_SERVER_ERROR, message))
        })?;
        let forward = PortForwardRequest {
            pod_sandbox_id,
            port,
        };
        let mut client = self.containers.cri().runtime.clone();
        let response = client.port_forward(forward).await.map_err(runtime_failed)?;
        let runtime = self.session(&response.into_inner().url)?;
        Ok(runtime.port_forward(request).await)
    }

    /// Runs a command and answers with what it wrote.
    pub(super) async fn run(&self, path: &ContainerPath, query: &Query<'_>) -> Response<Body> {
        self.try_run(path, query)
            .await
            .unwrap_or_else(|response| *response)
    }

    async fn try_run(
        &self,
        path: &ContainerPath,
        query: &Query<'_>,
    ) -> Result<Response<Body>, Box<Response<Body>>> {
        let pod = self.known_pod(path)?;
        let container = &path.container;
        let failed =
            |message: String| Box::new(respond::text(StatusCode::INTERNAL_SERVER_ERROR, message));
        let id = self
            .running(&pod, container)
            .await?
            .ok_or_else(|| failed(format!("container not found ({container:?})")))?;
        let command = query.get("cmd").unwrap_or_default();
        let exec = ExecSyncRequest {
            container_id: id,
            cmd: command.split(' ').map(str::to_owned).collect(),
            timeout: 0,
        };
        let mut client = self.containers.cri().runtime.clone();
        let response = client.exec_sync(exec).await;
        let output = response
            .map_err(|status| failed(status.message().to_owned()))?
            .into_inner();
        if output.exit_code != 0 {
            let (code, stderr) = (output.exit_code, String::from_utf8_lossy(&output.stderr));
            return Err(failed(format!(
                "command '{command}' exited with {code}: {stderr}"
            )));
        }
        let body = Body::from([output.stdout, output.stderr].concat());
        let json = "application/json";
        Ok(respond::with_type(StatusCode::OK, json, body))
    }

    /// The pod, if the kubelet has it and its UID is the one in the path.
    fn known_pod(&self, path: &ContainerPath) -> Result<PodId, Box<Response<Body>>> {
        let not_found = |message: &str| Box::new(respond::text(StatusCode::NOT_FOUND, message));
        let pod = self
            .host
            .pod(&path.namespace, &path.pod)
            .ok_or_else(|| not_found("pod does not exist"))?;
        if path.uid.is_some() && path.uid != pod.metadata.uid {
            return Err(not_found("pod not found"));
        }
        // A static pod runs under another UID than its mirror in the API has.
        Ok(PodId {
            uid: None,
            ..path.pod_id()
        })
    }

    async fn running(
        &self,
        pod: &PodId,
        container: &str,
    ) -> Result<Option<String>, Box<Response<Body>>> {
        let running = self.containers.running(pod, container).await;
        running.map_err(runtime_failed)
    }

    fn session(&self, url: &str) -> Result<Runtime, Box<Response<Body>>> {
        Runtime::new(self.forwarder.clone(), url).map_err(|error| {
            let message = error.to_string();
            Box::new(respond::text(StatusCode::INTERNAL_SERVER_ERROR, message))
        })
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is given to map_err")]
fn runtime_failed(status: tonic::Status) -> Box<Response<Body>> {
    Box::new(respond::runtime_error(&status))
}

fn channels(query: &Query<'_>) -> Result<Channels, Box<Response<Body>>> {
    let asked = |name: &str| query.get(name) == Some("1");
    let tty = asked("tty");
    let channels = Channels {
        stdin: asked("input"),
        stdout: asked("output"),
        // A terminal has one output for both.
        stderr: asked("error") && !tty,
        tty,
    };
    if channels.stdin || channels.stdout || channels.stderr {
        Ok(channels)
    } else {
        let message = "you must specify at least 1 of stdin, stdout, stderr";
        Err(Box::new(respond::text(StatusCode::BAD_REQUEST, message)))
    }
}

/// The ports of a port-forward over a WebSocket that has a pair of channels for each.
fn ports(query: &Query<'_>) -> Result<Vec<i32>, String> {
    let mut ports = Vec::new();
    for value in query.all("port") {
        if value.is_empty() {
            return Err("query parameter \"port\" cannot be empty".to_owned());
        }
        for port in value.split(',') {
            let number: u16 = port
                .parse()
                .map_err(|_| format!("unable to parse {value:?} as a port"))?;
            if number == 0 {
                return Err(format!("port {value:?} must be > 0"));
            }
            ports.push(i32::from(number));
        }
    }
    if ports.is_empty() {
        return Err("query parameter \"port\" is required".to_owned());
    }
    Ok(ports)
}
