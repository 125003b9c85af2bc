//! Claims of persistent volumes: from a claim's name to the volume that is bound to it.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::{Api, Client, ResourceExt as _};

use super::Error;
use crate::pods::spec::uid;

/// The volume behind a claim that the pod may use.
///
/// # Errors
/// In upstream's words, when the claim is not bound or not the pod's to use.
pub async fn resolve(client: &Client, pod: &Pod, name: &str) -> Result<PersistentVolume, Error> {
    let namespace = pod.namespace().unwrap_or_default();
    let refuse =
        |why: String| Error::Source(format!("error processing PVC {namespace}/{name}: {why}"));
    let describe = |error: kube::Error| match error {
        kube::Error::Api(status) => status.message,
        other => other.to_string(),
    };
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace);
    let claim = claims.get(name).await.map_err(|error| {
        refuse(format!(
            "failed to fetch PVC from API server: {}",
            describe(error)
        ))
    })?;
    let volume = bound_volume(&claim).map_err(|why| refuse(why.to_owned()))?;
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let volume = volumes.get(volume).await.map_err(|error| {
        refuse(format!(
            "failed to fetch PV {volume:?} from API server: {}",
            describe(error)
        ))
    })?;
    let bound_to = volume
        .spec
        .as_ref()
        .and_then(|spec| spec.claim_ref.as_ref());
    let claim_uid = claim.metadata.uid.as_deref();
    if bound_to.and_then(|claim| claim.uid.as_deref()) != claim_uid {
        return Err(refuse(format!(
            "unexpected bound claim of PV {:?} for pod {:?}",
            volume.name_any(),
            uid(pod)
        )));
    }
    Ok(volume)
}

fn bound_volume(claim: &PersistentVolumeClaim) -> Result<&str, &'static str> {
    let phase = claim
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    if claim.metadata.deletion_timestamp.is_some() {
        return Err("PVC is being deleted");
    }
    if phase != Some("Bound") {
        return Err("PVC is not bound");
    }
    claim
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_name.as_deref())
        .filter(|name| !name.is_empty())
        .ok_or("PVC has empty pvc.Spec.VolumeName")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_a_bound_claim_has_a_volume() {
        let claim = |phase: &str, volume: &str| -> PersistentVolumeClaim {
            serde_json::from_value(json!({
                "spec": {"volumeName": volume}, "status": {"phase": phase},
            }))
            .expect("a claim")
        };
        assert_eq!(bound_volume(&claim("Bound", "v")), Ok("v"));
        assert_eq!(
            bound_volume(&claim("Pending", "v")),
            Err("PVC is not bound")
        );
        assert_eq!(
            bound_volume(&claim("Bound", "")),
            Err("PVC has empty pvc.Spec.VolumeName")
        );
    }
}
