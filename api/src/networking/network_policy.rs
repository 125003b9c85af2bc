//! NetworkPolicy.

use jiff::Timestamp;
use k8s_openapi::{
    api::networking::v1::NetworkPolicy, apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use serde_json::Value;

use crate::{
    selector,
    strategy::Column,
    table::{AGE, NAME, age, column, name},
};
use crate::{
    shape,
    strategy::{Behaviour, Shape},
};

impl Behaviour for NetworkPolicy {
    const SHAPE: Shape<Self> = shape!(generation: spec);

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "Pod-Selector",
                "string",
                "podSelector selects the pods to which this NetworkPolicy object applies. The array of rules is applied to any pods selected by this field. An empty selector matches all pods in the policy's namespace. Multiple network policies can select the same set of pods. In this case, the ingress rules for each are combined additively. This field is optional. If it is not specified, it defaults to an empty selector.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let selector = self
            .spec
            .as_ref()
            .and_then(|spec| spec.pod_selector.as_ref());
        let everything = LabelSelector::default();
        vec![
            name(&self.metadata),
            Value::from(selector::format_object(Some(
                selector.unwrap_or(&everything),
            ))),
            age(&self.metadata, now),
        ]
    }
}
