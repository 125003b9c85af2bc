//! Namespaces that are being deleted: everything in them goes, pods first, and then they do.
//!
//! Enter at [`run`]. What the status says is worked out in [`conditions`]. Upstream:
//! `pkg/controller/namespace`.

mod conditions;

use std::time::Duration;

use coracle_client::{Backoff, Informer, Queue};
use futures::{FutureExt as _, future::BoxFuture};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, DynamicObject, ListParams, PostParams},
};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use self::conditions::Progress;
use crate::{
    Context, Error,
    changes::{self, Seen},
    context::Removed,
    discovery::{self, Served},
    error,
    objects::Objects,
    pods,
    work::{self, Done, Key},
};

const NAME: &str = "namespace-controller";
const WORKERS: usize = 10;
/// Requests that saw the namespace as active may still be creating objects for so long.
const GRACE: Duration = Duration::from_secs(1);
const FINALIZER: &str = "kubernetes";
/// How long a finalizer is given before the namespace is looked at again.
const FINALIZER_SECONDS: i64 = 15;

/// Runs the namespace controller.
pub(crate) async fn run(context: Context, shutdown: CancellationToken) -> Result<(), Error> {
    let controller = Controller {
        namespaces: context.objects(),
        pods: context.informers.get(),
        queue: Queue::new(Backoff {
            base: Duration::from_millis(5),
            max: Duration::from_secs(60),
        })
        .with_name("namespace"),
        client: context.client.clone(),
    };
    controller.run(context.removals(), shutdown).await
}

struct Controller {
    client: Client,
    namespaces: Objects<Namespace>,
    pods: Informer<Pod>,
    queue: Queue<Key>,
}

/// What is left of one resource in the namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Left {
    /// Objects.
    count: usize,
    /// The finalizers of each.
    finalizers: Vec<String>,
    /// Seconds until it is worth looking again.
    estimate: i64,
}

impl Controller {
    async fn run(
        self,
        removals: broadcast::Receiver<Removed>,
        shutdown: CancellationToken,
    ) -> Result<(), Error> {
        let namespaces = changes::each(&self.namespaces.cache, |seen| {
            if let Seen::Applied { new: namespace, .. } = seen
                && let Some(deleted) = &namespace.metadata.deletion_timestamp
            {
                let left = grace_left(deleted.0, Timestamp::now());
                self.queue.add_after(Key::of(&namespace.metadata), left);
            }
        });
        let pods = changes::each(&self.pods, |seen| {
            if let Seen::Deleted(pod) = seen {
                self.queue_terminating(pod.metadata.namespace.as_deref().unwrap_or_default());
            }
        });
        let workers = async {
            self.namespaces.cache.synced().await;
            self.pods.synced().await;
            work::work(NAME, &self.queue, WORKERS, &shutdown, |key| self.sync(key)).await;
        };
        tokio::select! {
            () = namespaces => {}
            () = pods => {}
            () = self.watch_removals(removals) => {}
            () = workers => {}
            () = shutdown.cancelled() => {}
        }
        Ok(())
    }

    /// An object that went may have been the last.
    async fn watch_removals(&self, mut removals: broadcast::Receiver<Removed>) {
        loop {
            match removals.recv().await {
                Ok(removed) => self.queue_terminating(&removed.namespace),
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    for namespace in self.namespaces.cache.list() {
                        self.queue_terminating(&namespace.name_any());
                    }
                }
                // The context holds a sender for as long as anything runs.
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    /// Only one that has been worked on before: the grace is for its first time.
    fn queue_terminating(&self, name: &str) {
        let namespace = self.namespaces.get("", name);
        let started = namespace.is_some_and(|namespace| {
            namespace.metadata.deletion_timestamp.is_some()
                && namespace
                    .status
                    .as_ref()
                    .is_some_and(|status| status.conditions.is_some())
        });
        if started {
            self.queue.add(Key::new("", name));
        }
    }

    async fn sync(&self, key: Key) -> Result<Done, Error> {
        // The cache may not know that it is gone already, or finalized.
        let Some(mut namespace) = self.namespaces.read("", &key.name).await? else {
            return Ok(Done::Settled);
        };
        if namespace.metadata.deletion_timestamp.is_none() {
            return Ok(Done::Settled);
        }
        if phase(&namespace) != Some("Terminating") {
            let status = namespace.status.get_or_insert_default();
            status.phase = Some("Terminating".to_owned());
            match self.namespaces.replace_status(&namespace).await? {
                Some(written) => namespace = written,
                None => return Ok(Done::Settled),
            }
        }
        let finalizers = namespace
            .spec
            .as_ref()
            .and_then(|spec| spec.finalizers.as_ref());
        if finalizers.is_none_or(Vec::is_empty) {
            return Ok(Done::Settled);
        }
        let progress = self.delete_content(&namespace).await;
        if let Some(next) = progress.status_of(&namespace, Timestamp::now()) {
            namespace.status = Some(next);
            match self.namespaces.replace_status(&namespace).await {
                Ok(Some(written)) => namespace = written,
                Ok(None) => return Ok(Done::Settled),
                // What is left to delete matters more than what is said of it.
                Err(error) => tracing::debug!(%key, %error, "cannot write the status"),
            }
        }
        if let Some(failure) = progress.failure() {
            return Err(Error::Refused(failure));
        }
        if progress.estimate > 0 {
            let seconds = u64::try_from(progress.estimate / 2 + 1).unwrap_or(1);
            return Ok(Done::Again(Duration::from_secs(seconds)));
        }
        self.finalize(&namespace).await?;
        Ok(Done::Settled)
    }

    /// Deletes all that is in the namespace: pods first, and the rest once they are gone.
    fn delete_content<'a>(&'a self, namespace: &'a Namespace) -> BoxFuture<'a, Progress> {
        async move {
            let mut progress = Progress::default();
            let found = match discovery::discover(&self.client).await {
                Ok(found) => found,
                Err(error) => {
                    progress.discovery_failed(error::message(&error));
                    return progress;
                }
            };
            if !found.failed.is_empty() {
                progress.groups_failed(&found.failed);
            }
            let mut served = found.served;
            served.retain(|served| served.preferred && served.namespaced && served.can("delete"));
            let pods = served
                .iter()
                .position(|served| {
                    served.resource.group.is_empty() && served.resource.plural == "pods"
                })
                .map(|place| served.remove(place));
            if let Some(pods) = pods {
                let left = self.delete_all(&pods, namespace).await;
                if progress.add(&pods, left) {
                    return progress;
                }
            }
            for served in &served {
                let left = self.delete_all(served, namespace).await;
                progress.add(served, left);
            }
            progress.count();
            progress
        }
        .boxed()
    }

    /// Deletes the resource's objects in the namespace and says what is left.
    async fn delete_all(&self, served: &Served, namespace: &Namespace) -> Result<Left, String> {
        let name = namespace.name_any();
        let api = served.api(&self.client, &name);
        if !served.can("list") {
            return match delete_collection(&api).await {
                Err(error) if !is_unsupported(&error) => Err(error::message(&error)),
                _ => Ok(Left::default()),
            };
        }
        let estimate = self.estimate(served, namespace);
        let Some(found) = list(&api).await? else {
            return Ok(Left::default());
        };
        if found.is_empty() {
            return Ok(Left::default());
        }
        match delete_collection(&api).await {
            Ok(()) => {}
            Err(error) if is_unsupported(&error) => delete_each(&api, &found).await?,
            Err(error) => return Err(error::message(&error)),
        }
        let Some(left) = list(&api).await? else {
            return Ok(Left::default());
        };
        let finalizers: Vec<String> = left
            .iter()
            .flat_map(|item| item.finalizers.clone())
            .collect();
        let estimate = match (left.is_empty(), estimate) {
            (true, _) => 0,
            (false, 0) if !finalizers.is_empty() => FINALIZER_SECONDS,
            (false, 0) => {
                return Err(format!(
                    "unexpected items still remain in namespace: {name} for gvr: {}",
                    served.describe()
                ));
            }
            (false, estimate) => estimate,
        };
        Ok(Left {
            count: left.len(),
            finalizers,
            estimate,
        })
    }

    /// How many seconds the pods of the namespace may take to end; zero once that time is over.
    fn estimate(&self, served: &Served, namespace: &Namespace) -> i64 {
        if !(served.resource.group.is_empty() && served.resource.plural == "pods") {
            return 0;
        }
        let pods = self.pods.list_namespace(&namespace.name_any());
        let graces = pods
            .iter()
            .filter(|pod| !pods::is_terminal(pod))
            .filter_map(|pod| pod.spec.as_ref()?.termination_grace_period_seconds);
        let longest = graces.max().unwrap_or(0);
        let deleted = namespace.metadata.deletion_timestamp.as_ref();
        let since = deleted.map_or(0, |at| Timestamp::now().duration_since(at.0).as_secs());
        if since >= longest { 0 } else { longest }
    }

    /// Takes our finalizer off: the namespace goes when it was the last.
    async fn finalize(&self, namespace: &Namespace) -> Result<(), Error> {
        let mut object = namespace.clone();
        if let Some(finalizers) = object
            .spec
            .as_mut()
            .and_then(|spec| spec.finalizers.as_mut())
        {
            finalizers.retain(|finalizer| finalizer != FINALIZER);
        }
        let api: Api<Namespace> = Api::all(self.client.clone());
        let name = namespace.name_any();
        let params = PostParams::default();
        let request = api.replace_subresource("finalize", &name, &params, &object);
        error::optional(Box::pin(request).await)?;
        Ok(())
    }
}

/// How much of the grace there is left, as far as a time in whole seconds tells. A controller that
/// starts among namespaces that have been going for long waits for none.
fn grace_left(deleted: Timestamp, now: Timestamp) -> Duration {
    let passed = Duration::try_from(now.duration_since(deleted)).unwrap_or_default();
    (GRACE + Duration::from_secs(1))
        .saturating_sub(passed)
        .min(GRACE)
}

fn phase(namespace: &Namespace) -> Option<&str> {
    namespace.status.as_ref()?.phase.as_deref()
}

struct Item {
    name: String,
    finalizers: Vec<String>,
}

/// `None` when the resource cannot be listed after all, as when its kind has just been removed.
async fn list(api: &Api<DynamicObject>) -> Result<Option<Vec<Item>>, String> {
    match discovery::list_metadata(api).await {
        Ok(found) => {
            let items = found.items.into_iter();
            let items = items.map(|item| Item {
                name: item.name_any(),
                finalizers: item.finalizers().to_vec(),
            });
            Ok(Some(items.collect()))
        }
        Err(error) if is_unsupported(&error) => Ok(None),
        Err(error) => Err(error::message(&error)),
    }
}

fn delete_collection(api: &Api<DynamicObject>) -> BoxFuture<'_, Result<(), kube::Error>> {
    async move {
        api.delete_collection(&DeleteParams::background(), &ListParams::default())
            .await?;
        Ok(())
    }
    .boxed()
}

async fn delete_each(api: &Api<DynamicObject>, items: &[Item]) -> Result<(), String> {
    for item in items {
        let deleted = Box::pin(api.delete(&item.name, &DeleteParams::background())).await;
        match deleted {
            Err(error) if !is_unsupported(&error) => return Err(error::message(&error)),
            _ => {}
        }
    }
    Ok(())
}

/// The resource is not there, or does not know this verb.
fn is_unsupported(error: &kube::Error) -> bool {
    error::is_not_found(error) || matches!(error, kube::Error::Api(status) if status.code == 405)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_has_been_going_for_long_is_not_waited_for() {
        let left = |milliseconds: i64| {
            let deleted = Timestamp::from_second(100).expect("a time");
            let now = Timestamp::from_millisecond(100_000 + milliseconds).expect("a time");
            grace_left(deleted, now)
        };
        assert_eq!(left(-5_000), GRACE);
        assert_eq!(left(0), GRACE);
        // It may have been deleted just now: the time says no more than the second.
        assert_eq!(left(999), GRACE);
        assert_eq!(left(1_500), Duration::from_millis(500));
        assert_eq!(left(2_000), Duration::ZERO);
    }
}
