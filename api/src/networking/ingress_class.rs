//! IngressClass.

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::IngressClass;
use serde_json::Value;

use crate::{
    shape,
    strategy::{Behaviour, Shape},
};
use crate::{
    strategy::Column,
    table::{AGE, NAME, age, column},
    zero::text,
};

impl Behaviour for IngressClass {
    const SHAPE: Shape<Self> = shape!(generation: spec);

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "Controller",
                "string",
                "Controller that is responsible for handling this class",
            ),
            column(
                "Parameters",
                "string",
                "A reference to a resource with additional parameters",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let annotations = self.metadata.annotations.as_ref();
        let is_default = annotations
            .and_then(|annotations| annotations.get("ingressclass.kubernetes.io/is-default-class"))
            .is_some_and(|value| value == "true");
        let suffix = if is_default { " (default)" } else { "" };
        let spec = self.spec.as_ref();
        let parameters = spec.and_then(|spec| spec.parameters.as_ref()).map_or_else(
            || "<none>".to_owned(),
            |parameters| {
                let group = parameters
                    .api_group
                    .as_ref()
                    .map_or_else(String::new, |group| format!(".{group}"));
                format!("{}{group}/{}", parameters.kind, parameters.name)
            },
        );
        vec![
            Value::from(format!("{}{suffix}", text(&self.metadata.name))),
            Value::from(spec.map_or("", |spec| text(&spec.controller))),
            Value::from(parameters),
            age(&self.metadata, now),
        ]
    }
}
