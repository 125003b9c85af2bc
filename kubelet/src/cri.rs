//! The connection to the container runtime: CRI v1 over a Unix socket.

use std::{
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use http::{Request, Response};
use hyper_util::rt::TokioIo;
use k8s_cri::v1::{
    image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient,
};
use tonic::{
    body::Body,
    transport::{self, Channel, Endpoint, Uri},
};
use tower::Service;

use crate::metrics;

/// Both services of one runtime. Cheap to clone; connects at first use and again when broken.
#[derive(Clone, Debug)]
pub struct Cri {
    pub runtime: RuntimeServiceClient<Counted>,
    pub image: ImageServiceClient<Counted>,
    channel: Channel,
}

/// The largest message of the runtime that is read, as upstream.
const LARGEST_MESSAGE: usize = 16 << 20;

impl Cri {
    /// `socket` is the path of the runtime's Unix socket, without a scheme.
    pub fn new(socket: &Path) -> Self {
        let socket: PathBuf = socket.to_owned();
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(
            tower::service_fn(move |_: Uri| {
                let socket = socket.clone();
                async move {
                    let stream = tokio::net::UnixStream::connect(socket).await?;
                    Ok::<_, std::io::Error>(TokioIo::new(stream))
                }
            }),
        );
        Cri {
            runtime: RuntimeServiceClient::new(Counted(channel.clone()))
                .max_decoding_message_size(LARGEST_MESSAGE),
            image: ImageServiceClient::new(Counted(channel.clone()))
                .max_decoding_message_size(LARGEST_MESSAGE),
            channel,
        }
    }

    /// The channel that both services use, for what the runtime serves beside CRI.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }
}

/// The channel, with what is asked for counted.
#[derive(Clone, Debug)]
pub struct Counted(Channel);

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, transport::Error>> + Send>>;

impl Service<Request<Body>> for Counted {
    type Response = Response<Body>;
    type Error = transport::Error;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), transport::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        let kind = operation(request.uri().path());
        let since = Instant::now();
        let answer = self.0.call(request);
        Box::pin(async move {
            let answer = answer.await;
            // An error comes at once, with the headers.
            let failed = answer.as_ref().map_or(true, |response| {
                let status = response.headers().get("grpc-status");
                status.is_some_and(|status| status != "0")
            });
            metrics::operation(&kind, since.elapsed(), failed);
            answer
        })
    }
}

/// What upstream calls a method of CRI: `/runtime.v1.RuntimeService/RunPodSandbox` is
/// `run_podsandbox`.
fn operation(path: &str) -> String {
    let method = path.rsplit('/').next().unwrap_or_default();
    let method = method.replace("PodSandbox", "Podsandbox");
    let mut name = String::with_capacity(method.len() + 4);
    for char in method.chars() {
        if char.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(char.to_ascii_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_named_as_upstream_does() {
        for (path, name) in [
            ("/runtime.v1.RuntimeService/RunPodSandbox", "run_podsandbox"),
            (
                "/runtime.v1.RuntimeService/CreateContainer",
                "create_container",
            ),
            (
                "/runtime.v1.RuntimeService/ListContainers",
                "list_containers",
            ),
            ("/runtime.v1.ImageService/PullImage", "pull_image"),
        ] {
            assert_eq!(operation(path), name);
        }
    }
}
