//! ResourceQuota.

mod validation;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceQuota;
use serde_json::Value;

use crate::{
    core::pod::resources::round_list,
    field::{ErrorList, Path},
    quantity::Amount,
    shape,
    strategy::{Behaviour, Column, Shape, Subresource},
    table::{AGE, NAME, age, column, name},
};

impl Behaviour for ResourceQuota {
    const SHAPE: Shape<Self> = shape!(status);

    fn default_fields(&mut self) {
        if let Some(spec) = &mut self.spec {
            round_list(&mut spec.hard);
        }
        if let Some(status) = &mut self.status {
            round_list(&mut status.hard);
            round_list(&mut status.used);
        }
    }

    fn validate(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        if let Some(spec) = &self.spec {
            validation::spec(spec, &Path::new("spec"), &mut errors);
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> ErrorList {
        let mut errors = self.validate();
        if let (Some(new), Some(old)) = (&self.spec, &old.spec) {
            validation::scopes_change(new, old, &mut errors);
        }
        errors
    }

    fn validate_subresource(&self, _old: &Self, subresource: Subresource) -> ErrorList {
        let mut errors = ErrorList::new();
        if let (Subresource::Status, Some(status)) = (subresource, &self.status) {
            validation::status(status, &Path::new("status"), &mut errors);
        }
        errors
    }

    fn warnings(&self, old: Option<&Self>) -> Vec<String> {
        if old.is_some() {
            return Vec::new();
        }
        requests_above_limits(self)
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "Request",
                "string",
                "Request represents a minimum amount of cpu/memory that a container may consume.",
            ),
            column(
                "Limit",
                "string",
                "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let status = self.status.as_ref();
        let used = status.and_then(|status| status.used.as_ref());
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (resource, hard) in status
            .and_then(|status| status.hard.as_ref())
            .into_iter()
            .flatten()
        {
            let used = used
                .and_then(|used| used.get(resource))
                .map_or("0", |used| &used.0);
            let column = if resource.starts_with("limits.") {
                &mut limits
            } else {
                &mut requests
            };
            column.push(format!("{resource}: {used}/{}", hard.0));
        }
        vec![
            name(&self.metadata),
            Value::from(requests.join(", ")),
            Value::from(limits.join(", ")),
            age(&self.metadata, now),
        ]
    }
}

fn requests_above_limits(quota: &ResourceQuota) -> Vec<String> {
    let hard = quota.spec.as_ref().and_then(|spec| spec.hard.as_ref());
    let get = |name: String| {
        let quantity = hard.and_then(|hard| hard.get(&name));
        quantity.map(|quantity| (name, Amount::from(quantity)))
    };
    let mut warnings = Vec::new();
    for resource in ["cpu", "memory", "storage", "ephemeral-storage"] {
        let short = || get(resource.to_owned()).filter(|_| matches!(resource, "cpu" | "memory"));
        let request = get(format!("requests.{resource}")).or_else(short);
        let limit = get(format!("limits.{resource}"));
        if let (Some((request_name, request)), Some((limit_name, limit))) = (request, limit)
            && request > limit
        {
            warnings.push(format!(
                "ResourceQuota {request_name} ({request}) should be less than {limit_name} ({limit})"
            ));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_quotas() {
        crate::testing::run::<ResourceQuota>(include_str!("../../testdata/resource_quota.yaml"));
    }
}
