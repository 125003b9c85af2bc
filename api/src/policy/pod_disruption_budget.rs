//! PodDisruptionBudget.

use jiff::Timestamp;
use k8s_openapi::{
    api::policy::v1::PodDisruptionBudget, apimachinery::pkg::util::intstr::IntOrString,
};
use serde_json::Value;

use crate::{
    shape,
    strategy::{Behaviour, Shape},
};
use crate::{
    strategy::Column,
    table::{AGE, NAME, age, column, name},
};

impl Behaviour for PodDisruptionBudget {
    const SHAPE: Shape<Self> = shape!(generation: spec, status);

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "Min Available",
                "string",
                "The minimum number of pods that must be available.",
            ),
            column(
                "Max Unavailable",
                "string",
                "The maximum number of pods that may be unavailable.",
            ),
            column(
                "Allowed Disruptions",
                "integer",
                "Calculated number of pods that may be disrupted at this time.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let spec = self.spec.as_ref();
        let value = |value: Option<&IntOrString>| match value {
            None => Value::from("N/A"),
            Some(IntOrString::Int(number)) => Value::from(number.to_string()),
            Some(IntOrString::String(text)) => Value::from(text.clone()),
        };
        let status = self.status.as_ref();
        vec![
            name(&self.metadata),
            value(spec.and_then(|spec| spec.min_available.as_ref())),
            value(spec.and_then(|spec| spec.max_unavailable.as_ref())),
            Value::from(
                status
                    .and_then(|status| status.disruptions_allowed)
                    .unwrap_or_default(),
            ),
            age(&self.metadata, now),
        ]
    }
}
