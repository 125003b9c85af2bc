//! `TaintNodesByCondition`: a new node takes no pods before it was seen to be ready.

use async_trait::async_trait;
use coracle_api::Object;
use k8s_openapi::api::core::v1::{Node, Taint};

use super::{Admission, Attributes, Operation, typed_mut};
use crate::error::ApiError;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const NO_SCHEDULE: &str = "NoSchedule";

/// The plugin.
pub struct TaintNodesByCondition;

#[async_trait]
impl Admission for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create && attributes.is("", "nodes")
    }

    async fn admit(
        &self,
        _attributes: &Attributes<'_>,
        object: Option<&mut dyn Object>,
        _old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        let Some(node) = typed_mut::<Node>(object) else {
            return Ok(());
        };
        let taints = node
            .spec
            .get_or_insert_default()
            .taints
            .get_or_insert_default();
        let tainted = taints
            .iter()
            .any(|taint| taint.key == NOT_READY && taint.effect == NO_SCHEDULE);
        if !tainted {
            taints.push(Taint {
                key: NOT_READY.to_owned(),
                effect: NO_SCHEDULE.to_owned(),
                ..Taint::default()
            });
        }
        Ok(())
    }
}
