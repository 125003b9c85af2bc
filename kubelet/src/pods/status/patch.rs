//! Writing a status: only what differs from the one in the API goes over the wire.

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::{
    patch::{MergedLists, difference, fields},
    pods::spec::uid,
};

const MERGED: MergedLists = &[("conditions", "type"), ("podIPs", "ip"), ("hostIPs", "ip")];

/// What became of writing a status.
#[derive(Debug)]
pub enum Written {
    /// There was nothing to write.
    Unchanged,
    /// The pod as it is in the API now.
    Changed(Box<Pod>),
    /// The pod is gone, or another one has its name.
    Gone,
}

/// Writes `status` to the API, where `pod` was last seen.
pub async fn patch(client: &Client, pod: &Pod, status: &PodStatus) -> Result<Written, kube::Error> {
    let before = pod.status.clone().unwrap_or_default();
    let Some(patch) = difference(&fields(&before), &fields(status), MERGED) else {
        return Ok(Written::Unchanged);
    };
    let body = json!({ "metadata": { "uid": uid(pod) }, "status": patch });
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let result = api
        .patch_status(
            &pod.name_any(),
            &PatchParams::default(),
            &Patch::Strategic(body),
        )
        .await;
    match result {
        Ok(pod) => Ok(Written::Changed(Box::new(pod))),
        // A conflict tells that the identity in the patch is another's.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(Written::Gone),
        Err(error) => Err(error),
    }
}
