//! HorizontalPodAutoscaler.

mod defaults;
mod table;
mod validation;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use serde_json::Value;

use crate::{
    apps::workload,
    field::{ErrorList, Path},
    shape,
    strategy::{Behaviour, Column, Shape, Subresource},
};

impl Behaviour for HorizontalPodAutoscaler {
    const SHAPE: Shape<Self> = shape!(status);

    fn default_fields(&mut self) {
        defaults::spec(&mut self.spec);
    }

    fn validate(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        validation::spec(&self.spec, None, &mut errors);
        errors
    }

    fn validate_update(&self, old: &Self) -> ErrorList {
        let mut errors = ErrorList::new();
        validation::spec(&self.spec, Some(&old.spec), &mut errors);
        errors
    }

    fn validate_subresource(&self, _old: &Self, _subresource: Subresource) -> ErrorList {
        let mut errors = ErrorList::new();
        if let Some(status) = &self.status {
            let counts = [
                ("currentReplicas", status.current_replicas.map(i64::from)),
                ("desiredReplicas", Some(status.desired_replicas.into())),
            ];
            workload::counts(&counts, &Path::new("status"), &mut errors);
        }
        errors
    }

    fn columns() -> &'static [Column] {
        table::COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        table::cells(self, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn horizontal_pod_autoscalers() {
        crate::testing::run::<HorizontalPodAutoscaler>(include_str!(
            "../../testdata/horizontal_pod_autoscaler.yaml"
        ));
    }
}
