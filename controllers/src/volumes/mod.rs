//! Volumes and claims: which belong together, and that none goes while it is used.
//!
//! Enter at [`binder`], [`attach`], [`protection`], [`class_protection`], [`ephemeral`] and
//! [`expand`].

pub(crate) mod attach;
pub(crate) mod binder;
pub(crate) mod class_protection;
pub(crate) mod ephemeral;
pub(crate) mod expand;
pub(crate) mod protection;

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Volume};

/// The claim that the volume of the pod stands for, if it does for any.
fn claim_of<'a>(pod: &Pod, volume: &'a Volume) -> Option<Cow<'a, str>> {
    if let Some(source) = &volume.persistent_volume_claim {
        return Some(Cow::Borrowed(&source.claim_name));
    }
    volume.ephemeral.as_ref()?;
    let pod = pod.metadata.name.as_deref().unwrap_or_default();
    Some(Cow::Owned(format!("{pod}-{}", volume.name)))
}

fn volumes(pod: &Pod) -> &[Volume] {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref());
    volumes.unwrap_or_default()
}

/// Whether the claim was made for a volume of exactly this pod.
fn is_for(claim: &PersistentVolumeClaim, pod: &Pod) -> bool {
    claim.metadata.namespace == pod.metadata.namespace
        && crate::owner::is_controlled_by(&claim.metadata, &pod.metadata)
}
