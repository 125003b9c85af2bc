//! Conditions in statuses, which every kind has with a type of its own.

use jiff::Timestamp;

/// The time in the precision in which the API keeps it.
pub(crate) fn to_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// A condition of some kind's status.
pub(crate) trait Condition {
    fn type_(&self) -> &str;
}

macro_rules! conditions {
    ($($kind:ty),* $(,)?) => {$(
        impl Condition for $kind {
            fn type_(&self) -> &str {
                &self.type_
            }
        }
    )*};
}

conditions!(
    k8s_openapi::api::apps::v1::ReplicaSetCondition,
    k8s_openapi::api::apps::v1::DeploymentCondition,
    k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerCondition,
    k8s_openapi::api::batch::v1::JobCondition,
    k8s_openapi::api::core::v1::PodCondition,
    k8s_openapi::api::core::v1::NodeCondition,
    k8s_openapi::api::core::v1::NamespaceCondition,
    k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition,
);

pub(crate) fn find<'a, C: Condition>(conditions: Option<&'a Vec<C>>, type_: &str) -> Option<&'a C> {
    conditions
        .into_iter()
        .flatten()
        .find(|condition| condition.type_() == type_)
}

/// Takes the condition of that type away. A list that becomes empty becomes absent.
pub(crate) fn remove<C: Condition>(conditions: &mut Option<Vec<C>>, type_: &str) {
    if let Some(list) = conditions {
        list.retain(|condition| condition.type_() != type_);
        if list.is_empty() {
            *conditions = None;
        }
    }
}

/// Puts the condition last, in place of one of its type.
pub(crate) fn put<C: Condition>(conditions: &mut Option<Vec<C>>, condition: C) {
    let list = conditions.get_or_insert_default();
    list.retain(|known| known.type_() != condition.type_());
    list.push(condition);
}
