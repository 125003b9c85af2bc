//! ValidatingWebhookConfiguration.

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use serde_json::Value;

use super::{columns, defaults, expressions, validation};
use crate::{
    expression::Expression,
    field::ErrorList,
    shape,
    strategy::{Behaviour, Column, Shape},
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

    fn expressions(&self) -> Vec<Expression<'_>> {
        let hooks = list(&self.webhooks).iter();
        expressions::webhooks(hooks.map(|hook| list(&hook.match_conditions)))
    }

    fn warnings(&self, _old: Option<&Self>) -> Vec<String> {
        super::reserved_name_warnings(&self.metadata)
    }

    fn columns() -> &'static [Column] {
        columns::WEBHOOKS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        columns::webhooks(&self.metadata, list(&self.webhooks).len(), now)
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
