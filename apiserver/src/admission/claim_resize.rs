//! `PersistentVolumeClaimResize`: only bound claims of a class that allows it grow.

use async_trait::async_trait;
use coracle_api::{Object, quantity::Amount};
use k8s_openapi::api::{core::v1::PersistentVolumeClaim, storage::v1::StorageClass};

use super::{Admission, Attributes, Operation, typed};
use crate::{Lister, Registry, error::ApiError};

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// The plugin.
pub struct PersistentVolumeClaimResize(Lister<StorageClass>);

impl PersistentVolumeClaimResize {
    pub fn new(registry: &Registry) -> Self {
        PersistentVolumeClaimResize(registry.lister())
    }

    fn can_grow(&self, claim: &PersistentVolumeClaim, old: &PersistentVolumeClaim) -> bool {
        let class = class_of(claim);
        if class.is_empty() || class != class_of(old) {
            return false;
        }
        let class = self.0.get("", class);
        class.is_some_and(|class| class.allow_volume_expansion == Some(true))
    }
}

fn class_of(claim: &PersistentVolumeClaim) -> &str {
    let annotations = claim.metadata.annotations.as_ref();
    let annotated = annotations.and_then(|given| given.get(CLASS_ANNOTATION));
    let spec = claim.spec.as_ref();
    annotated
        .or_else(|| spec?.storage_class_name.as_ref())
        .map_or("", String::as_str)
}

fn size_of(claim: &PersistentVolumeClaim) -> Option<Amount> {
    let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    Amount::parse(&requests.get("storage")?.0).ok()
}

#[async_trait]
impl Admission for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Update && attributes.is("", "persistentvolumeclaims")
    }

    async fn validate(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
        old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        let claims = typed::<PersistentVolumeClaim>(object).zip(typed(old));
        let Some((claim, old)) = claims else {
            return Ok(());
        };
        let zero = Amount::from_integer(0);
        if size_of(claim).unwrap_or(zero) <= size_of(old).unwrap_or(zero) {
            return Ok(());
        }
        let phase = old
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        if phase != Some("Bound") {
            let why = "Only bound persistent volume claims can be expanded";
            return Err(attributes.forbidden(object, why));
        }
        if !self.can_grow(claim, old) {
            let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";
            return Err(attributes.forbidden(object, why));
        }
        Ok(())
    }
}
