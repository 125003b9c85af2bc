//! Scale: the body of the `scale` subresource of what has replicas.

use k8s_openapi::api::autoscaling::v1::Scale;

use crate::{
    field::{ErrorList, Path},
    strategy::Behaviour,
};

impl Behaviour for Scale {
    fn validate(&self) -> ErrorList {
        let replicas = self.spec.as_ref().and_then(|spec| spec.replicas);
        replicas
            .filter(|replicas| *replicas < 0)
            .map(|replicas| {
                Path::new("spec")
                    .child("replicas")
                    .invalid(replicas, "must be greater than or equal to 0")
            })
            .into_iter()
            .collect()
    }

    fn validate_update(&self, _old: &Self) -> ErrorList {
        self.validate()
    }
}
