//! `DefaultIngressClass`: an Ingress without class gets the default one.

use async_trait::async_trait;
use coracle_api::Object;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};

use super::{Admission, Attributes, Operation, default_class::default_of, typed_mut};
use crate::{Lister, Registry, error::ApiError};

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const DEFAULT_ANNOTATION: &str = "ingressclass.kubernetes.io/is-default-class";

/// The plugin.
pub struct DefaultIngressClass(Lister<IngressClass>);

impl DefaultIngressClass {
    pub fn new(registry: &Registry) -> Self {
        DefaultIngressClass(registry.lister())
    }
}

#[async_trait]
impl Admission for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create && attributes.is("networking.k8s.io", "ingresses")
    }

    async fn admit(
        &self,
        _attributes: &Attributes<'_>,
        object: Option<&mut dyn Object>,
        _old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        let Some(ingress) = typed_mut::<Ingress>(object) else {
            return Ok(());
        };
        let annotations = ingress.metadata.annotations.as_ref();
        let annotated = annotations.is_some_and(|given| given.contains_key(CLASS_ANNOTATION));
        let spec = ingress.spec.get_or_insert_default();
        if annotated || spec.ingress_class_name.is_some() {
            return Ok(());
        }
        if let Some(class) = default_of(&self.0, &[DEFAULT_ANNOTATION]) {
            spec.ingress_class_name.clone_from(&class.metadata.name);
        }
        Ok(())
    }
}
