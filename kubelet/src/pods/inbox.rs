//! What a pod's task is told. Only the latest of each kind is kept, so that the inbox is never
//! larger than the pod, however slow its task is.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{probe_results::ProbeKind, resize::Pending, status::Failure};
use crate::volumes::Interested;

/// Everything that happened since the last look.
#[derive(Debug, Default)]
pub struct Letters {
    /// The pod as it is in the API now, with the resources that are allocated to it.
    pub pod: Option<Arc<Pod>>,
    /// Whether `pod` asks for resources that are not allocated to it.
    pub pending_resize: Option<Pending>,
    /// The pod is gone from the API.
    pub deleted: bool,
    /// Containers and sandboxes worth a look, and whether they have ended.
    pub hints: BTreeMap<String, bool>,
    /// Anything may have happened to the containers.
    pub look_at_all: bool,
    pub probes: BTreeMap<(String, ProbeKind), bool>,
    /// A ConfigMap or Secret that the pod refers to has changed.
    pub objects_changed: bool,
    /// The pod is evicted.
    pub failure: Option<Eviction>,
}

/// The node cannot keep the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    pub failure: Failure,
    /// Seconds that the containers have to end; the pod's own when `None`.
    pub grace: Option<i64>,
}

/// The inbox of one pod.
#[derive(Debug, Default)]
pub struct Inbox {
    letters: Mutex<Letters>,
    filled: Notify,
}

impl Inbox {
    /// Puts something in.
    pub fn put(&self, put: impl FnOnce(&mut Letters)) {
        put(&mut self.letters.lock());
        self.filled.notify_one();
    }

    /// Returns once something was put in.
    pub async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Empties the inbox.
    pub fn take(&self) -> Letters {
        std::mem::take(&mut self.letters.lock())
    }
}

impl Interested for Inbox {
    fn objects_changed(&self) {
        self.put(|letters| letters.objects_changed = true);
    }
}
