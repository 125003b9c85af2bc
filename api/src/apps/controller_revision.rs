//! ControllerRevision.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ControllerRevision;
use serde_json::Value;

use crate::{
    check,
    field::{ErrorList, Path, value_of},
    strategy::{Behaviour, Column},
    table::{AGE, NAME, age, column, name},
};

impl Behaviour for ControllerRevision {
    fn validate(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        check::not_negative(self.revision, &Path::new("revision"), &mut errors);
        let path = Path::new("data");
        match &self.data {
            None => errors.push(path.required("data is mandatory")),
            Some(data) if data.0.is_null() => errors.push(path.required("data is mandatory")),
            Some(data) if !data.0.is_object() => {
                errors.push(path.required("data must be a valid JSON object"));
            }
            Some(_) => {}
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> ErrorList {
        let mut errors = ErrorList::new();
        check::not_negative(self.revision, &Path::new("revision"), &mut errors);
        if self.data != old.data {
            let path = Path::new("data");
            errors.push(path.invalid(value_of(&self.data), check::IMMUTABLE));
        }
        errors
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column("Controller", "string", "Controller of the object"),
            column(
                "Revision",
                "string",
                "Revision indicates the revision of the state represented by Data.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let owners = self.metadata.owner_references.as_ref();
        let controller = owners
            .into_iter()
            .flatten()
            .find(|owner| owner.controller == Some(true));
        let controller = controller.map_or_else(
            || "<none>".to_owned(),
            |owner| {
                let kind = match owner.api_version.split_once('/') {
                    Some((group, _)) => format!("{}.{group}", owner.kind),
                    None => owner.kind.clone(),
                };
                format!("{}/{}", kind.to_lowercase(), owner.name)
            },
        );
        vec![
            name(&self.metadata),
            Value::from(controller),
            Value::from(self.revision),
            age(&self.metadata, now),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controller_revisions() {
        crate::testing::run::<ControllerRevision>(include_str!(
            "../../testdata/controller_revision.yaml"
        ));
    }
}
