//! Claims that ask for more than they have: whoever is to give it is told.
//!
//! No volume is expanded by the control plane itself any more: the drivers of volumes do that, and
//! for those that were part of Kubernetes once, the drivers that have taken their place. Upstream:
//! `pkg/controller/volume/expand`.

use coracle_api::{claims, quantity::Amount};
use coracle_client::{EventRecorder, EventType, Informer, Queue};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::Patch;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    Context, Error,
    changes::{self, Pace, Seen},
    error,
    objects::Objects,
    work::{Done, Key},
};

const NAME: &str = "volume_expand";
const WORKERS: usize = 10;
/// On a claim: the driver that is to expand its volume.
const RESIZER: &str = "volume.kubernetes.io/storage-resizer";

/// Runs the controller.
pub(crate) async fn run(context: Context, shutdown: CancellationToken) -> Result<(), Error> {
    let expander = Expander {
        claims: context.objects(),
        volumes: context.informers.get(),
        recorder: context.recorder(NAME),
    };
    let pace = Pace {
        name: NAME,
        queue: NAME,
        workers: WORKERS,
    };
    let see = |queue: &Queue<Key>, seen: Seen<PersistentVolumeClaim>| {
        if let Seen::Applied { old, new } = seen
            && wants_more(old.as_deref(), &new)
        {
            queue.add(Key::of(&new.metadata));
        }
    };
    let sync = |key| expander.sync(key);
    changes::follow(pace, &expander.claims.cache, &shutdown, see, sync).await;
    Ok(())
}

struct Expander {
    claims: Objects<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    recorder: EventRecorder,
}

fn given(claim: &PersistentVolumeClaim) -> Amount {
    let status = claim.status.as_ref();
    let capacity = status.and_then(|status| status.capacity.as_ref());
    let storage = capacity.and_then(|capacity| capacity.get("storage"));
    storage.map(Amount::from).unwrap_or_default()
}

/// Whether the claim has come to ask for more, or to have more.
fn wants_more(old: Option<&PersistentVolumeClaim>, new: &PersistentVolumeClaim) -> bool {
    let phase = new
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    phase == Some("Bound")
        && old.is_none_or(|old| {
            claims::requested(new) > claims::requested(old) || given(new) > given(old)
        })
}

/// The plugin that the volume was of before drivers took over, and the driver.
fn taken_over(volume: &PersistentVolume) -> Option<(&'static str, &'static str)> {
    let spec = volume.spec.as_ref()?;
    if spec.aws_elastic_block_store.is_some() {
        Some(("kubernetes.io/aws-ebs", "ebs.csi.aws.com"))
    } else if spec.gce_persistent_disk.is_some() {
        Some(("kubernetes.io/gce-pd", "pd.csi.storage.gke.io"))
    } else if spec.azure_disk.is_some() {
        Some(("kubernetes.io/azure-disk", "disk.csi.azure.com"))
    } else if spec.azure_file.is_some() {
        Some(("kubernetes.io/azure-file", "file.csi.azure.com"))
    } else if spec.cinder.is_some() {
        Some(("kubernetes.io/cinder", "cinder.csi.openstack.org"))
    } else if spec.vsphere_volume.is_some() {
        Some(("kubernetes.io/vsphere-volume", "csi.vsphere.vmware.com"))
    } else if spec.portworx_volume.is_some() {
        Some(("kubernetes.io/portworx-volume", "pxd.portworx.com"))
    } else {
        None
    }
}

impl Expander {
    async fn sync(&self, key: Key) -> Result<Done, Error> {
        let Some(claim) = self.claims.get(&key.namespace, &key.name) else {
            return Ok(Done::Settled);
        };
        let name = claim
            .spec
            .as_ref()
            .and_then(|spec| spec.volume_name.as_deref());
        let name = name.unwrap_or_default();
        let Some(volume) = self.volumes.get("", name) else {
            let message = format!("failed to get PV {name:?}");
            return Err(Error::Refused(message));
        };
        if !claims::is_bound_to(&volume, &claim) {
            let message = format!("persistent Volume is not bound to PVC being updated : {key}");
            return Err(Error::Refused(message));
        }
        if claims::requested(&claim) <= given(&claim) {
            return Ok(Done::Settled);
        }
        let Some((plugin, driver)) = taken_over(&volume) else {
            self.tell(
                &claim,
                "waiting for an external controller to expand this PVC",
            );
            return Ok(Done::Settled);
        };
        let message = format!(
            "CSI migration enabled for {plugin}; waiting for external resizer to expand the pvc"
        );
        self.tell(&claim, &message);
        let patch = json!({ "metadata": { "annotations": { RESIZER: driver } } });
        let patched = self
            .claims
            .patch_status(&key.namespace, &key.name, Patch::Merge(patch));
        error::optional(patched.await)?;
        Ok(Done::Settled)
    }

    fn tell(&self, claim: &PersistentVolumeClaim, message: &str) {
        self.recorder
            .on(claim, EventType::Normal, "ExternalExpanding", message);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::{Config, fakes::FakeApi};

    fn claim(wanted: &str, given: &str, phase: &str) -> PersistentVolumeClaim {
        serde_json::from_value(claim_json(wanted, given, phase)).expect("a claim")
    }

    fn claim_json(wanted: &str, given: &str, phase: &str) -> Value {
        json!({ "metadata": { "name": "c", "namespace": "ns", "uid": "u", "resourceVersion": "1" },
            "spec": { "volumeName": "v", "resources": { "requests": { "storage": wanted } } },
            "status": { "phase": phase, "capacity": { "storage": given } } })
    }

    #[test]
    fn a_claim_matters_when_it_asks_for_or_has_more() {
        let old = claim("1Gi", "1Gi", "Bound");
        for (new, matters) in [
            (claim("2Gi", "1Gi", "Bound"), true),
            (claim("1Gi", "2Gi", "Bound"), true),
            (claim("1Gi", "1Gi", "Bound"), false),
            (claim("2Gi", "1Gi", "Pending"), false),
        ] {
            assert_eq!(wants_more(Some(&old), &new), matters);
        }
        assert!(wants_more(None, &old));
    }

    async fn world(source: &str) -> std::sync::Arc<FakeApi> {
        let api = FakeApi::new();
        let volume = json!({ "metadata": { "name": "v", "resourceVersion": "1" },
            "spec": { "capacity": { "storage": "1Gi" }, source: { "path": "/x", "volumeID": "x",
                "driver": "d", "volumeHandle": "x" },
                "claimRef": { "namespace": "ns", "name": "c", "uid": "u" } } });
        let list = |items: &[Value]| {
            json!({ "metadata": { "resourceVersion": "5" },
            "items": items })
        };
        api.answer("GET /api/v1/persistentvolumes", 200, list(&[volume]));
        let claims = "GET /api/v1/persistentvolumeclaims";
        api.answer(claims, 200, list(&[claim_json("2Gi", "1Gi", "Bound")]));
        let client = api.client();
        let informers = coracle_client::Informers::new(client.clone());
        let context = Context::new(client, informers, Config::default());
        context.informers.get::<PersistentVolume>().synced().await;
        tokio::spawn(run(context, CancellationToken::new()));
        api
    }

    #[tokio::test]
    async fn the_claim_is_told_whom_it_waits_for() {
        for (source, message) in [
            (
                "hostPath",
                "waiting for an external controller to expand this PVC",
            ),
            (
                "csi",
                "waiting for an external controller to expand this PVC",
            ),
            (
                "awsElasticBlockStore",
                "CSI migration enabled for kubernetes.io/aws-ebs; waiting \
                for external resizer to expand the pvc",
            ),
        ] {
            let api = world(source).await;
            let events = "POST /api/v1/namespaces/ns/events";
            let event = api.asked(events, |asked| asked.body["reason"] == "ExternalExpanding");
            assert_eq!(event.await.body["message"], message);
            if source == "awsElasticBlockStore" {
                let patch = "PATCH /api/v1/namespaces/ns/persistentvolumeclaims/c/status";
                let patch = api.asked(patch, |_| true).await.body;
                assert_eq!(patch["metadata"]["annotations"][RESIZER], "ebs.csi.aws.com");
            }
        }
    }
}
