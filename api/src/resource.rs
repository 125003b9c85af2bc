//! `resource.k8s.io` (dynamic resource allocation): one file per kind, one line per kind in [`kinds`].

mod capacity_validation;
mod claim_status;
mod device_class;
mod device_validation;
mod resource_claim;
mod resource_claim_template;
mod resource_slice;
mod validation;

use k8s_openapi::api::resource::v1::{
    DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice,
};

use crate::kinds::Kind;

/// What the group serves.
pub(crate) fn kinds() -> Vec<Kind> {
    vec![
        Kind::cluster::<DeviceClass>("deviceclass"),
        Kind::namespaced::<ResourceClaim>("resourceclaim").status(),
        Kind::namespaced::<ResourceClaimTemplate>("resourceclaimtemplate"),
        Kind::cluster::<ResourceSlice>("resourceslice"),
    ]
}
