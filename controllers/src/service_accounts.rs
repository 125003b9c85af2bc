//! The service account `default` of every namespace, and the ConfigMap by which its pods trust the
//! API server.
//!
//! Enter at [`run`] and [`publish_root_ca`]. Upstream: `pkg/controller/serviceaccount` and
//! `pkg/controller/certificates/rootcacertpublisher`.

use coracle_client::{Informer, Queue};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Namespace, ServiceAccount},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::ResourceExt as _;
use tokio_util::sync::CancellationToken;

use crate::{
    Context, Error,
    changes::{self, Seen},
    error,
    objects::{Kept, Objects},
    work::{self, Done, Key},
};

const WORKERS: usize = 2;
const DEFAULT: &str = "default";
const ROOT_CA: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
const DESCRIBED: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when \
    using internal endpoints such as the internal service IP or kubernetes.default.svc. No other \
    usage is guaranteed across distributions of Kubernetes clusters.";

/// Makes the service account `default` in every active namespace.
pub(crate) async fn run(context: Context, shutdown: CancellationToken) -> Result<(), Error> {
    let accounts: Objects<ServiceAccount> = context.objects();
    let keeper = Keeper {
        name: "serviceaccount-controller",
        object: DEFAULT,
        namespaces: context.informers.get(),
        queue: Queue::named("serviceaccount"),
        objects: accounts,
    };
    keeper
        .run(&shutdown, |namespace, known| {
            known.is_none().then(|| ServiceAccount {
                metadata: named(DEFAULT, namespace),
                ..ServiceAccount::default()
            })
        })
        .await;
    Ok(())
}

/// Keeps the ConfigMap `kube-root-ca.crt` in every active namespace.
pub(crate) async fn publish_root_ca(
    context: Context,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    // Only these: the other ConfigMaps of the cluster are nobody's business here.
    let cache = context
        .informers
        .matching(&format!("metadata.name={ROOT_CA}"));
    let keeper = Keeper {
        name: "root-ca-certificate-publisher-controller",
        object: ROOT_CA,
        namespaces: context.informers.get(),
        queue: Queue::named("root_ca_cert_publisher"),
        objects: Objects::new(context.client.clone(), cache),
    };
    let root_ca = &context.config.root_ca;
    keeper
        .run(&shutdown, |namespace, known| {
            published(root_ca, namespace, known)
        })
        .await;
    Ok(())
}

fn named(name: &str, namespace: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        ..ObjectMeta::default()
    }
}

/// The ConfigMap to write; `None` when it stands already.
fn published(root_ca: &str, namespace: &str, known: Option<&ConfigMap>) -> Option<ConfigMap> {
    let data = [("ca.crt".to_owned(), root_ca.to_owned())].into();
    let described = known.is_some_and(|known| {
        let description = known.annotations().get(DESCRIPTION);
        description.is_some_and(|text| !text.is_empty())
    });
    if described && known.is_some_and(|known| known.data.as_ref() == Some(&data)) {
        return None;
    }
    let mut next = known.cloned().unwrap_or_else(|| ConfigMap {
        metadata: named(ROOT_CA, namespace),
        ..ConfigMap::default()
    });
    next.data = Some(data);
    next.annotations_mut()
        .insert(DESCRIPTION.to_owned(), DESCRIBED.to_owned());
    Some(next)
}

/// Keeps one object in each namespace.
struct Keeper<K> {
    name: &'static str,
    namespaces: Informer<Namespace>,
    /// Its name.
    object: &'static str,
    objects: Objects<K>,
    queue: Queue<Key>,
}

impl<K: Kept> Keeper<K> {
    /// `next` says what to write in the namespace, given the object that is there.
    async fn run(
        &self,
        shutdown: &CancellationToken,
        next: impl Fn(&str, Option<&K>) -> Option<K> + Copy,
    ) {
        let namespaces = changes::each(&self.namespaces, |seen| {
            if let Seen::Applied { new: namespace, .. } = seen {
                self.queue.add(Key::of(&namespace.metadata));
            }
        });
        let objects = changes::each(&self.objects.cache, |seen| match seen {
            Seen::Applied { old: None, .. } => {}
            Seen::Applied { new: object, .. } | Seen::Deleted(object) => {
                self.queue
                    .add(Key::new("", object.namespace().unwrap_or_default()));
            }
            Seen::Lagged => {
                for namespace in self.namespaces.list() {
                    self.queue.add(Key::of(&namespace.metadata));
                }
            }
        });
        let workers = async {
            self.namespaces.synced().await;
            self.objects.cache.synced().await;
            work::work(self.name, &self.queue, WORKERS, shutdown, |key| {
                self.sync(key, next)
            })
            .await;
        };
        tokio::select! {
            () = namespaces => {}
            () = objects => {}
            () = workers => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn sync(
        &self,
        key: Key,
        next: impl Fn(&str, Option<&K>) -> Option<K>,
    ) -> Result<Done, Error> {
        let Some(namespace) = self.namespaces.get("", &key.name) else {
            return Ok(Done::Settled);
        };
        let phase = namespace
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        if namespace.metadata.deletion_timestamp.is_some() || phase == Some("Terminating") {
            return Ok(Done::Settled);
        }
        let known = self.objects.get(&key.name, self.object);
        let Some(object) = next(&key.name, known.as_deref()) else {
            return Ok(Done::Settled);
        };
        let written = if known.is_some() {
            self.objects.replace(&object).await
        } else {
            self.objects.create(&object).await
        };
        match written {
            Ok(_) => Ok(Done::Settled),
            Err(error)
                if error::is_namespace_terminating(&error)
                    || error::is_not_found(&error)
                    || error::is_already_exists(&error) =>
            {
                Ok(Done::Settled)
            }
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundle_is_written_until_it_stands() {
        let made = published("PEM", "default", None).expect("a new one");
        assert_eq!(made.name_any(), ROOT_CA);
        assert_eq!(published("PEM", "default", Some(&made)), None);
        let renewed = published("NEW", "default", Some(&made)).expect("a change");
        assert_eq!(renewed.data.expect("data")["ca.crt"], "NEW");
        let mut bare = made;
        bare.metadata.annotations = None;
        assert!(published("PEM", "default", Some(&bare)).is_some());
    }
}
