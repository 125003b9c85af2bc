//! `StorageObjectInUseProtection`: volumes and claims get a finalizer, so that none goes while
//! it is in use.

use async_trait::async_trait;
use coracle_api::Object;

use super::{Admission, Attributes, Operation};
use crate::error::ApiError;

const FINALIZERS: [(&str, &str, &str); 3] = [
    ("", "persistentvolumes", "kubernetes.io/pv-protection"),
    ("", "persistentvolumeclaims", "kubernetes.io/pvc-protection"),
    (
        "storage.k8s.io",
        "volumeattributesclasses",
        "kubernetes.io/vac-protection",
    ),
];

/// The plugin.
pub struct StorageObjectInUseProtection;

fn finalizer(attributes: &Attributes<'_>) -> Option<&'static str> {
    let mut finalizers = FINALIZERS.into_iter();
    let (_, _, finalizer) =
        finalizers.find(|(group, resource, _)| attributes.is(group, resource))?;
    Some(finalizer)
}

#[async_trait]
impl Admission for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create && finalizer(attributes).is_some()
    }

    async fn admit(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&mut dyn Object>,
        _old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        if let Some((object, finalizer)) = object.zip(finalizer(attributes)) {
            let finalizers = object.meta_mut().finalizers.get_or_insert_default();
            if !finalizers.iter().any(|known| known == finalizer) {
                finalizers.push(finalizer.to_owned());
            }
        }
        Ok(())
    }
}
