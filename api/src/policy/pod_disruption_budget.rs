//! PodDisruptionBudget.

use jiff::Timestamp;
use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};
use serde_json::Value;

use crate::{
    apps::workload,
    check,
    field::{BadValue, ErrorList, Path, value_of},
    shape,
    strategy::{Behaviour, Column, Shape, Subresource},
    table::{AGE, NAME, age, column, name},
    zero::list,
};

impl Behaviour for PodDisruptionBudget {
    const SHAPE: Shape<Self> = shape!(generation: spec, status);

    fn validate(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        if let Some(spec) = &self.spec {
            validate_spec(spec, &mut errors);
        }
        errors
    }

    fn validate_subresource(&self, _old: &Self, _subresource: Subresource) -> ErrorList {
        let mut errors = ErrorList::new();
        if let Some(status) = &self.status {
            let path = Path::new("status");
            let conditions = list(&status.conditions);
            check::conditions(conditions, &path.child("conditions"), &mut errors);
            let counts = [
                ("disruptionsAllowed", status.disruptions_allowed),
                ("currentHealthy", status.current_healthy),
                ("desiredHealthy", status.desired_healthy),
                ("expectedPods", status.expected_pods),
            ]
            .map(|(field, count)| (field, count.map(i64::from)));
            workload::counts(&counts, &path, &mut errors);
        }
        errors
    }

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

fn validate_spec(spec: &PodDisruptionBudgetSpec, errors: &mut ErrorList) {
    let path = Path::new("spec");
    if spec.min_available.is_some() && spec.max_unavailable.is_some() {
        errors.push(path.invalid(
            BadValue::Struct(vec![
                ("MinAvailable", value_of(&spec.min_available).into()),
                ("Selector", value_of(&spec.selector).into()),
                ("MaxUnavailable", value_of(&spec.max_unavailable).into()),
                (
                    "UnhealthyPodEvictionPolicy",
                    value_of(&spec.unhealthy_pod_eviction_policy).into(),
                ),
            ]),
            "minAvailable and maxUnavailable cannot be both set",
        ));
    }
    for (field, value) in [
        ("minAvailable", &spec.min_available),
        ("maxUnavailable", &spec.max_unavailable),
    ] {
        if let Some(value) = value {
            let path = path.child(field);
            check::count_or_percent(value, &path, errors);
            check::at_most_hundred_percent(value, &path, errors);
        }
    }
    check::label_selector(spec.selector.as_ref(), &path.child("selector"), errors);
    if let Some(policy) = &spec.unhealthy_pod_eviction_policy {
        let path = path.child("unhealthyPodEvictionPolicy");
        check::one_of(policy, &["AlwaysAllow", "IfHealthyBudget"], &path, errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pod_disruption_budgets() {
        crate::testing::run::<PodDisruptionBudget>(include_str!(
            "../../testdata/pod_disruption_budget.yaml"
        ));
    }
}
