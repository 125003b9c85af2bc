//! `DefaultStorageClass`: a claim without class gets the default one.

use async_trait::async_trait;
use coracle_api::Object;
use k8s_openapi::api::{core::v1::PersistentVolumeClaim, storage::v1::StorageClass};

use super::{Admission, Attributes, Operation, default_class::default_of, typed_mut};
use crate::{Lister, Registry, error::ApiError};

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const DEFAULT_ANNOTATIONS: [&str; 2] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];

/// The plugin.
pub struct DefaultStorageClass(Lister<StorageClass>);

impl DefaultStorageClass {
    pub fn new(registry: &Registry) -> Self {
        DefaultStorageClass(registry.lister())
    }
}

#[async_trait]
impl Admission for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create && attributes.is("", "persistentvolumeclaims")
    }

    async fn admit(
        &self,
        _attributes: &Attributes<'_>,
        object: Option<&mut dyn Object>,
        _old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        let Some(claim) = typed_mut::<PersistentVolumeClaim>(object) else {
            return Ok(());
        };
        let annotations = claim.metadata.annotations.as_ref();
        let annotated = annotations.is_some_and(|given| given.contains_key(CLASS_ANNOTATION));
        let spec = claim.spec.get_or_insert_default();
        if annotated || spec.storage_class_name.is_some() {
            return Ok(());
        }
        if let Some(class) = default_of(&self.0, &DEFAULT_ANNOTATIONS) {
            spec.storage_class_name.clone_from(&class.metadata.name);
        }
        Ok(())
    }
}
