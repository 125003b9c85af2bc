//! `flowcontrol.apiserver.k8s.io`: one file per kind, one line per kind in [`kinds`].

mod flow_schema;
mod priority_level_configuration;

use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};

use crate::kinds::Kind;

/// What the group serves.
pub(crate) fn kinds() -> Vec<Kind> {
    vec![
        Kind::cluster::<FlowSchema>("flowschema").status(),
        Kind::cluster::<PriorityLevelConfiguration>("prioritylevelconfiguration").status(),
    ]
}
