//! `scheduling.k8s.io`: one file per kind, one line per kind in [`kinds`].

mod priority_class;

use k8s_openapi::api::scheduling::v1::PriorityClass;

use crate::kinds::Kind;

/// What the group serves.
pub(crate) fn kinds() -> Vec<Kind> {
    vec![Kind::cluster::<PriorityClass>("priorityclass").short_names(&["pc"])]
}
