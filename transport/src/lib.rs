//! HTTPS both ways, for every component that listens or forwards: the API server and the
//! kubelet.
//!
//! Enter at [`serve`], the listener; [`ServerCertificate`], a certificate that is renewed
//! without a restart; [`ClientCertificates`], which judges what a peer presented; and
//! [`Forwarder`], which passes a request on, protocol upgrades (SPDY, WebSocket) included.
//! Nothing here knows Kubernetes.

mod forward;
mod peer;
mod serve;
mod subject;
mod tls;

pub use forward::{Backend, ForwardError, Forwarder, Stream, is_upgrade, pipe};
pub use peer::Peer;
pub use serve::{ServeOptions, serve};
pub use subject::{Subject, subject};
pub use tls::{
    ClientCertificates, ClientIdentity, ServerCertificate, TlsError, Trust, certified_key,
    client_config, parse_certificates, parse_private_key, server_config,
};
