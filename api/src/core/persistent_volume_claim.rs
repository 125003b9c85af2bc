//! PersistentVolumeClaim, and the claim's spec in an ephemeral volume.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec};

use crate::{
    core::pod::{defaults::label_selector, resources},
    drop_zero, shape,
    strategy::{Behaviour, Shape},
};

impl Behaviour for PersistentVolumeClaim {
    const SHAPE: Shape<Self> = shape!(status);

    fn default_fields(&mut self) {
        default_spec(self.spec.get_or_insert_default());
    }
}

/// The defaults of a claim, on its own or in an ephemeral volume.
pub(crate) fn default_spec(spec: &mut PersistentVolumeClaimSpec) {
    drop_zero!(spec; access_modes, volume_name);
    spec.volume_mode
        .get_or_insert_with(|| "Filesystem".to_owned());
    let requirements = spec.resources.get_or_insert_default();
    resources::normalize_list(&mut requirements.limits);
    resources::normalize_list(&mut requirements.requests);
    if let Some(selector) = &mut spec.selector {
        label_selector(selector);
    }
}
