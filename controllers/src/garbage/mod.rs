//! The garbage collector: objects go when their owners have gone; an owner that is deleted in the
//! foreground goes when its dependents have gone; one that orphans sets them free first.
//!
//! Enter at [`run`]. [`graph`] knows who owns whom, [`watch`] keeps it up to date from watches of
//! the metadata of everything that can be deleted, [`collect`] looks at single objects. Upstream:
//! `pkg/controller/garbagecollector`.

mod collect;
mod graph;
mod node;
mod uid;
mod watch;

use std::{collections::HashMap, sync::Arc};

use coracle_client::{EventRecorder, EventType, Queue};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::{
    graph::{Effect, Graph},
    node::Kind,
    uid::Uid,
};
use crate::{Context, Error, discovery::Served, work};

const NAME: &str = "garbage-collector-controller";
const DELETERS: usize = 10;
const ORPHANERS: usize = 5;

/// Runs the garbage collector.
pub(crate) async fn run(context: Context, shutdown: CancellationToken) -> Result<(), Error> {
    let collector = Arc::new(Collector {
        client: context.client.clone(),
        recorder: context.recorder(NAME),
        graph: Mutex::default(),
        served: Mutex::default(),
        to_delete: Queue::named("garbage_collector_attempt_to_delete"),
        to_orphan: Queue::named("garbage_collector_attempt_to_orphan"),
        rediscover: Notify::new(),
        context,
    });
    let watches = watch::Watches::new(collector.clone());
    let deleters = async {
        watches.synced().await;
        work::work(
            NAME,
            &collector.to_delete,
            DELETERS,
            &shutdown,
            |uid: Uid| {
                let collector = &collector;
                async move { collector.attempt_to_delete(&uid).await }
            },
        )
        .await;
    };
    let orphaners = async {
        watches.synced().await;
        work::work(
            NAME,
            &collector.to_orphan,
            ORPHANERS,
            &shutdown,
            |uid: Uid| {
                let collector = &collector;
                async move { collector.attempt_to_orphan(&uid).await }
            },
        )
        .await;
    };
    tokio::select! {
        () = watches.run() => {}
        () = deleters => {}
        () = orphaners => {}
        () = shutdown.cancelled() => {}
    }
    Ok(())
}

struct Collector {
    context: Context,
    client: Client,
    recorder: EventRecorder,
    graph: Mutex<Graph>,
    /// Every kind that discovery knows, in each version.
    served: Mutex<HashMap<Kind, Served>>,
    to_delete: Queue<Uid>,
    to_orphan: Queue<Uid>,
    /// Something was changed that the API may serve something else for.
    rediscover: Notify,
}

impl Collector {
    fn served(&self, kind: &Kind) -> Option<Served> {
        let found = self.served.lock().get(kind).cloned();
        if found.is_none() {
            self.rediscover.notify_one();
        }
        found
    }

    fn take(&self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Delete(uid) => self.to_delete.add(uid),
                Effect::DeleteLater(uid) => self.to_delete.retry(uid),
                Effect::Orphan(uid) => self.to_orphan.add(uid),
                Effect::Invalid { dependent, owner } => {
                    let message = format!(
                        "ownerRef {owner} does not exist in namespace \"{}\"",
                        dependent.namespace
                    );
                    let reference = ObjectReference {
                        api_version: Some(dependent.kind.api_version.clone()),
                        kind: Some(dependent.kind.kind.clone()),
                        namespace: (!dependent.namespace.is_empty())
                            .then(|| dependent.namespace.to_string()),
                        name: Some(dependent.name.to_string()),
                        uid: Some(dependent.uid.to_string()),
                        ..ObjectReference::default()
                    };
                    self.recorder.event(
                        reference,
                        EventType::Warning,
                        "OwnerRefInvalidNamespace",
                        message,
                    );
                }
            }
        }
    }
}
