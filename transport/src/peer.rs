//! Who is at the other end of a connection.

use std::{any::Any, fmt, net::SocketAddr, sync::Arc};

use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;

/// The other end of a connection; an extension of each request that came over it.
///
/// A request that has no `Peer` did not come from a socket.
#[derive(Clone)]
pub struct Peer {
    pub address: SocketAddr,
    /// What the peer presented, its own certificate first; empty when it presented none. The
    /// peer has shown that it holds the key, but nothing is known about who signed: ask
    /// [`crate::ClientCertificates`].
    pub certificates: Arc<[CertificateDer<'static>]>,
    memo: Arc<Mutex<Option<Arc<dyn Any + Send + Sync>>>>,
}

impl Peer {
    pub fn new(address: SocketAddr, certificates: Arc<[CertificateDer<'static>]>) -> Self {
        Peer {
            address,
            certificates,
            memo: Arc::default(),
        }
    }

    /// What was remembered about this connection, so that a chain of certificates is not
    /// verified again for each request.
    pub fn recall<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.memo.lock().clone()?.downcast().ok()
    }

    /// Remembers `value` as long as the connection lasts, in place of what was remembered.
    pub fn remember<T: Any + Send + Sync>(&self, value: Arc<T>) {
        *self.memo.lock() = Some(value);
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("address", &self.address)
            .field("certificates", &self.certificates.len())
            .finish_non_exhaustive()
    }
}
