//! The connection to the container runtime: CRI v1 over a Unix socket.

use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use k8s_cri::v1::{
    image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient,
};
use tonic::transport::{Channel, Endpoint, Uri};

/// Both services of one runtime. Cheap to clone; connects at first use and again when broken.
#[derive(Clone, Debug)]
pub struct Cri {
    pub runtime: RuntimeServiceClient<Channel>,
    pub image: ImageServiceClient<Channel>,
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
            runtime: RuntimeServiceClient::new(channel.clone())
                .max_decoding_message_size(LARGEST_MESSAGE),
            image: ImageServiceClient::new(channel.clone())
                .max_decoding_message_size(LARGEST_MESSAGE),
            channel,
        }
    }

    /// The channel that both services use, for what the runtime serves beside CRI.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }
}
