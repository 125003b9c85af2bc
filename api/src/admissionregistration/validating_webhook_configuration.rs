//! ValidatingWebhookConfiguration.

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use serde_json::Value;

use super::{defaults, validation};
use crate::{
    field::ErrorList,
    shape,
    strategy::{Behaviour, Shape},
};
use crate::{
    strategy::Column,
    table::{AGE, NAME, age, column, name},
    zero::{list, list_mut},
};

impl Behaviour for ValidatingWebhookConfiguration {
    const SHAPE: Shape<Self> = shape!(generation: webhooks);

    fn default_fields(&mut self) {
        for hook in list_mut(&mut self.webhooks) {
            defaults::validating(hook);
        }
    }

    fn validate(&self) -> ErrorList {
        validation::webhooks(list(&self.webhooks))
    }

    fn validate_update(&self, _old: &Self) -> ErrorList {
        self.validate()
    }

    fn warnings(&self, _old: Option<&Self>) -> Vec<String> {
        super::reserved_name_warnings(&self.metadata)
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "Webhooks",
                "integer",
                "Webhooks indicates the number of webhooks registered in this configuration",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        vec![
            name(&self.metadata),
            Value::from(list(&self.webhooks).len()),
            age(&self.metadata, now),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations() {
        let yaml = include_str!("../../testdata/validating_webhook_configuration.yaml");
        crate::testing::run::<ValidatingWebhookConfiguration>(yaml);
    }
}
