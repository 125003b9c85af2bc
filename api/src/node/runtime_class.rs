//! RuntimeClass.

use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::Toleration,
    node::v1::{RuntimeClass, Scheduling},
};
use serde_json::Value;

use crate::{
    check,
    core::pod::{
        validation::{resources, scheduling},
        warnings,
    },
    field::{BadValue, ErrorList, Path},
    strategy::{Behaviour, Column},
    table::{AGE, NAME, age, column, name},
    zero::{list, text},
};

impl Behaviour for RuntimeClass {
    fn validate(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::new("handler");
        if self.handler.is_empty() {
            errors.push(path.required(""));
        } else {
            check::dns_label(&self.handler, &path, &mut errors);
        }
        if let Some(overhead) = &self.overhead {
            let amounts = overhead.pod_fixed.clone().unwrap_or_default();
            resources::overhead(&amounts, &Path::new("overhead"), &mut errors);
        }
        if let Some(scheduling) = &self.scheduling {
            validate_scheduling(scheduling, &mut errors);
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> ErrorList {
        let mut errors = self.validate();
        check::immutable(
            &self.handler,
            &old.handler,
            &Path::new("handler"),
            &mut errors,
        );
        errors
    }

    fn warnings(&self, _old: Option<&Self>) -> Vec<String> {
        let scheduling = self.scheduling.as_ref();
        let selector = scheduling.and_then(|scheduling| scheduling.node_selector.as_ref());
        let keys = selector.into_iter().flat_map(|selector| selector.keys());
        keys.filter_map(|key| warnings::deprecated_node_label(key))
            .map(|message| format!("scheduling.nodeSelector: {message}"))
            .collect()
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[NAME, column("Handler", "string", ""), AGE];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        vec![
            name(&self.metadata),
            Value::from(self.handler.clone()),
            age(&self.metadata, now),
        ]
    }
}

fn validate_scheduling(scheduling: &Scheduling, errors: &mut ErrorList) {
    let path = Path::new("scheduling");
    let selector = scheduling.node_selector.as_ref();
    check::labels(selector, &path.child("nodeSelector"), errors);
    let tolerations = list(&scheduling.tolerations);
    let path = path.child("tolerations");
    scheduling::tolerations(tolerations, &path, errors);
    for (index, toleration) in tolerations.iter().enumerate() {
        let is_same = |other: &Toleration| {
            Toleration {
                toleration_seconds: toleration.toleration_seconds,
                ..other.clone()
            } == *toleration
        };
        if tolerations[..index].iter().any(is_same) {
            errors.push(path.index(index).duplicate(BadValue::Struct(vec![
                ("Key", text(&toleration.key).into()),
                ("Operator", text(&toleration.operator).into()),
                ("Value", text(&toleration.value).into()),
                ("Effect", text(&toleration.effect).into()),
                ("TolerationSeconds", toleration.toleration_seconds.into()),
            ])));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtime_classes() {
        crate::testing::run::<RuntimeClass>(include_str!("../../testdata/runtime_class.yaml"));
    }
}
