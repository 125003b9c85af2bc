//! A class of volume attributes that a claim or a volume names stays until none does any more.
//!
//! Enter at [`run`]. Upstream: `pkg/controller/volume/vacprotection`.

use coracle_client::{Informer, Queue};
use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim},
    storage::v1::VolumeAttributesClass,
};
use tokio_util::sync::CancellationToken;

use super::protection::{Need, need, write};
use crate::{
    Context, Error,
    changes::{self, Seen},
    objects::Objects,
    work::{self, Done, Key},
};

const NAME: &str = "volumeattributesclass-protection-controller";
const FINALIZER: &str = "kubernetes.io/vac-protection";

struct Controller {
    classes: Objects<VolumeAttributesClass>,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    queue: Queue<Key>,
}

/// Protects classes.
pub(crate) async fn run(context: Context, shutdown: CancellationToken) -> Result<(), Error> {
    let controller = Controller {
        classes: context.objects(),
        claims: context.informers.get(),
        volumes: context.informers.get(),
        queue: Queue::named("vacprotection"),
    };
    controller.run(shutdown).await
}

/// The classes that the claim has, is to have, or is about to have.
fn of_claim(claim: &PersistentVolumeClaim) -> impl Iterator<Item = &String> {
    let spec = claim.spec.as_ref();
    let status = claim.status.as_ref();
    let current = status.and_then(|it| it.current_volume_attributes_class_name.as_ref());
    let target = status
        .and_then(|status| status.modify_volume_status.as_ref())
        .and_then(|modify| modify.target_volume_attributes_class_name.as_ref());
    let wanted = spec.and_then(|spec| spec.volume_attributes_class_name.as_ref());
    [wanted, current, target].into_iter().flatten()
}

fn of_volume(volume: &PersistentVolume) -> impl Iterator<Item = &String> {
    let spec = volume.spec.as_ref();
    spec.and_then(|spec| spec.volume_attributes_class_name.as_ref())
        .into_iter()
}

impl Controller {
    async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let classes = changes::each(&self.classes.cache, |seen| {
            if let Seen::Applied { new: class, .. } = seen
                && need(&class.metadata, FINALIZER) != Need::Nothing
            {
                self.queue.add(Key::of(&class.metadata));
            }
        });
        let claims = changes::each(&self.claims, |seen| match seen {
            Seen::Applied { old: Some(old), .. } | Seen::Deleted(old) => self.free(of_claim(&old)),
            Seen::Applied { .. } => {}
            Seen::Lagged => self.queue_all(),
        });
        let volumes = changes::each(&self.volumes, |seen| match seen {
            Seen::Applied { old: Some(old), .. } | Seen::Deleted(old) => self.free(of_volume(&old)),
            Seen::Applied { .. } => {}
            Seen::Lagged => self.queue_all(),
        });
        let workers = async {
            self.classes.cache.synced().await;
            self.claims.synced().await;
            self.volumes.synced().await;
            work::work(NAME, &self.queue, 1, &shutdown, |key| self.protect(key)).await;
        };
        tokio::select! {
            () = classes => {}
            () = claims => {}
            () = volumes => {}
            () = workers => {}
            () = shutdown.cancelled() => {}
        }
        Ok(())
    }

    /// Looks at the classes again that something may have stopped to name.
    fn free<'a>(&self, names: impl Iterator<Item = &'a String>) {
        for name in names {
            self.queue.add(Key::new("", name));
        }
    }

    fn queue_all(&self) {
        for class in self.classes.cache.list() {
            self.queue.add(Key::of(&class.metadata));
        }
    }

    fn is_used(&self, name: &str) -> bool {
        let named = |one: &String| one == name;
        let claims = self.claims.list();
        let volumes = self.volumes.list();
        claims.iter().any(|claim| of_claim(claim).any(named))
            || volumes.iter().any(|volume| of_volume(volume).any(named))
    }

    async fn protect(&self, key: Key) -> Result<Done, Error> {
        let Some(class) = self.classes.get("", &key.name) else {
            return Ok(Done::Settled);
        };
        match need(&class.metadata, FINALIZER) {
            Need::Nothing => return Ok(Done::Settled),
            Need::Remove if self.is_used(&key.name) => return Ok(Done::Settled),
            Need::Add | Need::Remove => {}
        }
        write(&self.classes, &*class, FINALIZER).await?;
        Ok(Done::Settled)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_holds_every_class_on_its_way() {
        let claim: PersistentVolumeClaim = serde_json::from_value(json!({
            "spec": {"volumeAttributesClassName": "wanted"},
            "status": {
                "currentVolumeAttributesClassName": "current",
                "modifyVolumeStatus": {
                    "status": "InProgress", "targetVolumeAttributesClassName": "target",
                },
            },
        }))
        .expect("a claim");
        let names: Vec<_> = of_claim(&claim).collect();
        assert_eq!(names, ["wanted", "current", "target"]);
    }
}
