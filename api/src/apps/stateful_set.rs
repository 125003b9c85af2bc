//! StatefulSet.

mod validation;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus};
use serde_json::Value;

use super::workload;
use crate::{
    core::{persistent_volume_claim, pod::defaults},
    field::{ErrorList, Path},
    shape,
    strategy::{Behaviour, Column, Shape, Subresource},
    table::{AGE, NAME, age, column, container_cells, name, template_pod, wide},
    zero::{default_text, list, list_mut, text},
};

impl Behaviour for StatefulSet {
    const SHAPE: Shape<Self> = shape!(generation: spec, status);

    fn default_fields(&mut self) {
        let spec = self.spec.get_or_insert_default();
        defaults::pod_template(&mut spec.template);
        default_text(&mut spec.pod_management_policy, "OrderedReady");
        default_strategy(spec);
        let policy = spec
            .persistent_volume_claim_retention_policy
            .get_or_insert_default();
        default_text(&mut policy.when_deleted, "Retain");
        default_text(&mut policy.when_scaled, "Retain");
        spec.replicas.get_or_insert(1);
        spec.revision_history_limit.get_or_insert(10);
        for claim in list_mut(&mut spec.volume_claim_templates) {
            persistent_volume_claim::default_claim(claim);
        }
    }

    fn prepare_for_create(&mut self) {
        drop_max_unavailable(self);
    }

    fn prepare_for_update(&mut self, _old: &Self) {
        drop_max_unavailable(self);
    }

    fn validate(&self) -> ErrorList {
        validation::create(self)
    }

    fn validate_update(&self, old: &Self) -> ErrorList {
        validation::update(self, old)
    }

    fn validate_subresource(&self, old: &Self, subresource: Subresource) -> ErrorList {
        if subresource != Subresource::Status {
            return ErrorList::new();
        }
        let none = StatefulSetStatus::default();
        let (new, old) = (self.status.as_ref(), old.status.as_ref());
        validation::status(new.unwrap_or(&none), old.unwrap_or(&none))
    }

    fn warnings(&self, old: Option<&Self>) -> Vec<String> {
        let Some(spec) = &self.spec else {
            return Vec::new();
        };
        let mut warnings = match old {
            None => workload::template_warnings(&spec.template),
            Some(old) => {
                workload::warnings_on_update(&self.metadata, &old.metadata, &spec.template)
            }
        };
        for (index, claim) in list(&spec.volume_claim_templates).iter().enumerate() {
            let path = Path::new("spec.volumeClaimTemplates").index(index);
            if let Some(spec) = &claim.spec {
                persistent_volume_claim::spec_warnings(spec, &path, &mut warnings);
            }
        }
        if spec.revision_history_limit.is_some_and(|limit| limit < 0) {
            warnings.push(
                "spec.revisionHistoryLimit: a negative value retains all historical revisions; a \
                 value >= 0 is recommended"
                    .to_owned(),
            );
        }
        warnings
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column("Ready", "string", "Number of the pod with ready state"),
            AGE,
            wide("Containers", "Names of each container in the template."),
            wide(
                "Images",
                "Images referenced by each container in the template.",
            ),
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (self.spec.as_ref(), self.status.as_ref());
        let ready = status
            .and_then(|status| status.ready_replicas)
            .unwrap_or_default();
        let desired = spec.and_then(|spec| spec.replicas).unwrap_or_default();
        let [containers, images] = container_cells(template_pod(spec.map(|spec| &spec.template)));
        vec![
            name(&self.metadata),
            Value::from(format!("{ready}/{desired}")),
            age(&self.metadata, now),
            containers,
            images,
        ]
    }
}

fn default_strategy(spec: &mut StatefulSetSpec) {
    let strategy = spec.update_strategy.get_or_insert_default();
    if text(&strategy.type_).is_empty() {
        strategy.type_ = Some("RollingUpdate".to_owned());
        strategy.rolling_update.get_or_insert_default();
    }
    if let ("RollingUpdate", Some(rolling)) = (text(&strategy.type_), &mut strategy.rolling_update)
    {
        rolling.partition.get_or_insert(0);
    }
}

/// The feature MaxUnavailableStatefulSet is off in v1.36.
fn drop_max_unavailable(set: &mut StatefulSet) {
    let strategy = set
        .spec
        .as_mut()
        .and_then(|spec| spec.update_strategy.as_mut());
    if let Some(rolling) = strategy.and_then(|strategy| strategy.rolling_update.as_mut()) {
        rolling.max_unavailable = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stateful_sets() {
        crate::testing::run::<StatefulSet>(include_str!("../../testdata/stateful_set.yaml"));
    }
}
