//! What every controller is given.

use std::sync::Arc;

use coracle_client::{EventRecorder, Informers};
use kube::Client;

use crate::objects::{Kept, Objects};

/// What the controllers need to know of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The certificate authority of the API server, as PEM: what pods trust it by.
    pub root_ca: String,
}

/// A controller's way to the API. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// Speaks as the controller's own identity.
    pub client: Client,
    /// Shared by the whole process.
    pub informers: Informers,
    pub config: Arc<Config>,
}

impl Context {
    pub fn new(client: Client, informers: Informers, config: Config) -> Self {
        Context {
            client,
            informers,
            config: Arc::new(config),
        }
    }

    /// The same for another controller, which has an identity of its own.
    pub fn with_client(&self, client: Client) -> Self {
        Context {
            client,
            ..self.clone()
        }
    }

    /// Records events whose source is `component`.
    pub(crate) fn recorder(&self, component: &str) -> EventRecorder {
        EventRecorder::new(self.client.clone(), component, "")
    }

    /// The objects of a kind: the process's cache of them, and writes as this controller.
    pub(crate) fn objects<K: Kept>(&self) -> Objects<K> {
        Objects::new(self.client.clone(), self.informers.get())
    }
}
