//! `flowcontrol.apiserver.k8s.io`: one file per kind, one line per kind in [`kinds`].

mod flow_schema;
mod priority_level_configuration;

use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};

use crate::{
    check,
    field::{ErrorList, Path},
    kinds::Kind,
};

/// What the group serves.
pub(crate) fn kinds() -> Vec<Kind> {
    vec![
        Kind::cluster::<FlowSchema>("flowschema").status(),
        Kind::cluster::<PriorityLevelConfiguration>("prioritylevelconfiguration").status(),
    ]
}

/// What is wrong with the types of a status's conditions.
fn condition_types(types: &[&str]) -> ErrorList {
    let mut errors = ErrorList::new();
    for (index, of) in types.iter().enumerate() {
        let path = Path::new("status.conditions").index(index).child("type");
        if types[..index].contains(of) {
            errors.push(path.duplicate(*of));
        }
        check::required(of, &path, &mut errors);
    }
    errors
}
