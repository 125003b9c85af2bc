//! Scale: the body of the `scale` subresource of what has replicas.

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::Scale;
use serde_json::Value;

use crate::{
    field::{ErrorList, Path},
    strategy::Behaviour,
};
use crate::{
    strategy::Column,
    table::{AGE, age, column, name},
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

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            column(
                "Name",
                "string",
                "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names",
            ),
            column(
                "Desired",
                "integer",
                "replicas is the desired number of instances for the scaled object.",
            ),
            column(
                "Available",
                "integer",
                "replicas is the actual number of observed instances of the scaled object.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (self.spec.as_ref(), self.status.as_ref());
        vec![
            name(&self.metadata),
            Value::from(spec.and_then(|spec| spec.replicas).unwrap_or_default()),
            Value::from(status.map_or(0, |status| status.replicas)),
            age(&self.metadata, now),
        ]
    }
}
