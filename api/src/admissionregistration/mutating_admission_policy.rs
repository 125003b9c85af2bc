//! MutatingAdmissionPolicy.

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::MutatingAdmissionPolicy;
use serde_json::Value;

use super::defaults;
use crate::{
    shape,
    strategy::{Behaviour, Shape},
};
use crate::{
    strategy::Column,
    table::{AGE, NAME, age, column, name},
    zero::{list, text},
};

impl Behaviour for MutatingAdmissionPolicy {
    const SHAPE: Shape<Self> = shape!(generation: spec);

    fn default_fields(&mut self) {
        let Some(spec) = &mut self.spec else { return };
        defaults::failure_policy(&mut spec.failure_policy);
        if let Some(resources) = &mut spec.match_constraints {
            defaults::match_resources(resources);
        }
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "Mutations",
                "integer",
                "Mutation indicates the number of mutations rules defined in this configuration",
            ),
            column(
                "ParamKind",
                "string",
                "ParamKind specifies the kind of resources used to parameterize this policy",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let spec = self.spec.as_ref();
        let parameters = spec.and_then(|spec| spec.param_kind.as_ref()).map_or_else(
            || "<unset>".to_owned(),
            |kind| format!("{}/{}", text(&kind.api_version), text(&kind.kind)),
        );
        vec![
            name(&self.metadata),
            Value::from(spec.map_or(0, |spec| list(&spec.mutations).len())),
            Value::from(parameters),
            age(&self.metadata, now),
        ]
    }
}
