//! `policy`: one file per kind, one line per kind in [`kinds`].

mod eviction;
mod pod_disruption_budget;

use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::kinds::{Kind, NameRule};

/// What the group serves.
pub(crate) fn kinds() -> Vec<Kind> {
    vec![
        Kind::namespaced::<PodDisruptionBudget>("poddisruptionbudget")
            .short_names(&["pdb"])
            .name(NameRule::PathSegment)
            .no_unconditional_update()
            .status(),
    ]
}
