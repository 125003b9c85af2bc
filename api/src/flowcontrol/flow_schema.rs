//! FlowSchema.

mod validation;

use jiff::Timestamp;
use k8s_openapi::api::flowcontrol::v1::FlowSchema;
use serde_json::Value;

use crate::{
    decode::empty,
    field::ErrorList,
    shape,
    strategy::{Behaviour, Column, Shape, StatusMeta, Subresource},
    table::{AGE, NAME, age, column, name},
    zero::{default_number, text},
};

impl Behaviour for FlowSchema {
    const SHAPE: Shape<Self> = shape!(generation: spec, status, StatusMeta::KeepAll);

    fn default_fields(&mut self) {
        let spec = self.spec.get_or_insert_with(empty);
        default_number(&mut spec.matching_precedence, 1000);
    }

    fn validate(&self) -> ErrorList {
        validation::object(self)
    }

    fn validate_subresource(&self, _old: &Self, _subresource: Subresource) -> ErrorList {
        validation::status(self)
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "PriorityLevel",
                "string",
                "`name` is the name of the priority level configuration being referenced Required.",
            ),
            column(
                "MatchingPrecedence",
                "string",
                "`matchingPrecedence` is used to choose among the FlowSchemas that match a given request. The chosen FlowSchema is among those with the numerically lowest (which we take to be logically highest) MatchingPrecedence.  Each MatchingPrecedence value must be ranged in [1,10000]. Note that if the precedence is not specified, it will be set to 1000 as default.",
            ),
            column(
                "DistinguisherMethod",
                "string",
                "`distinguisherMethod` defines how to compute the flow distinguisher for requests that match this schema. `nil` specifies that the distinguisher is disabled and thus will always be the empty string.",
            ),
            AGE,
            column(
                "MissingPL",
                "string",
                "references a broken or non-existent PriorityLevelConfiguration",
            ),
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let spec = self.spec.clone().unwrap_or_default();
        let conditions = self
            .status
            .as_ref()
            .and_then(|status| status.conditions.as_ref());
        let dangling = conditions
            .into_iter()
            .flatten()
            .find(|condition| condition.type_.as_deref() == Some("Dangling"));
        vec![
            name(&self.metadata),
            Value::from(spec.priority_level_configuration.name),
            Value::from(spec.matching_precedence.unwrap_or_default()),
            Value::from(
                spec.distinguisher_method
                    .map_or_else(|| "<none>".to_owned(), |method| method.type_),
            ),
            age(&self.metadata, now),
            Value::from(dangling.map_or("?", |condition| text(&condition.status))),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects() {
        crate::testing::run::<FlowSchema>(include_str!("../../testdata/flow_schema.yaml"));
    }
}
