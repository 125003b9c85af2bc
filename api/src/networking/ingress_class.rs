//! IngressClass.

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{IngressClass, IngressClassParametersReference};
use serde_json::Value;

use crate::{
    check,
    field::{ErrorList, Path},
    shape,
    strategy::{Behaviour, Column, Shape},
    table::{AGE, NAME, age, column},
    zero::text,
};

const CLUSTER: &str = "Cluster";
const NAMESPACE: &str = "Namespace";

impl Behaviour for IngressClass {
    const SHAPE: Shape<Self> = shape!(generation: spec);

    fn default_fields(&mut self) {
        let spec = self.spec.as_mut();
        if let Some(parameters) = spec.and_then(|spec| spec.parameters.as_mut()) {
            parameters.scope.get_or_insert_with(|| CLUSTER.to_owned());
        }
    }

    fn validate(&self) -> ErrorList {
        const MAX_CONTROLLER: usize = 250;
        let mut errors = ErrorList::new();
        let Some(spec) = &self.spec else {
            return errors;
        };
        let (controller, path) = (text(&spec.controller), Path::new("spec.controller"));
        if controller.len() > MAX_CONTROLLER {
            errors.push(path.too_long(MAX_CONTROLLER));
        }
        check::domain_prefixed_path(controller, &path, &mut errors);
        if let Some(reference) = &spec.parameters {
            parameters(reference, &Path::new("spec.parameters"), &mut errors);
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> ErrorList {
        let mut errors = ErrorList::new();
        let controller = |class: &Self| {
            let spec = class.spec.as_ref();
            spec.map_or_else(String::new, |spec| text(&spec.controller).to_owned())
        };
        let path = Path::new("spec.controller");
        check::immutable(&controller(self), &controller(old), &path, &mut errors);
        errors.extend(self.validate());
        errors
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "Controller",
                "string",
                "Controller that is responsible for handling this class",
            ),
            column(
                "Parameters",
                "string",
                "A reference to a resource with additional parameters",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let annotations = self.metadata.annotations.as_ref();
        let is_default = annotations
            .and_then(|annotations| annotations.get("ingressclass.kubernetes.io/is-default-class"))
            .is_some_and(|value| value == "true");
        let suffix = if is_default { " (default)" } else { "" };
        let spec = self.spec.as_ref();
        let parameters = spec.and_then(|spec| spec.parameters.as_ref()).map_or_else(
            || "<none>".to_owned(),
            |parameters| {
                let group = parameters
                    .api_group
                    .as_ref()
                    .map_or_else(String::new, |group| format!(".{group}"));
                format!("{}{group}/{}", parameters.kind, parameters.name)
            },
        );
        vec![
            Value::from(format!("{}{suffix}", text(&self.metadata.name))),
            Value::from(spec.map_or("", |spec| text(&spec.controller))),
            Value::from(parameters),
            age(&self.metadata, now),
        ]
    }
}

fn parameters(parameters: &IngressClassParametersReference, path: &Path, errors: &mut ErrorList) {
    if let Some(group) = &parameters.api_group {
        check::subdomain(group, &path.child("apiGroup"), errors);
    }
    check::required_path_segment(&parameters.kind, &path.child("kind"), errors);
    check::required_path_segment(&parameters.name, &path.child("name"), errors);
    let (scope_path, namespace_path) = (path.child("scope"), path.child("namespace"));
    match (parameters.scope.as_deref(), &parameters.namespace) {
        (None, _) => errors.push(scope_path.required("")),
        (Some(NAMESPACE), None) => {
            errors.push(namespace_path.required("`parameters.scope` is set to 'Namespace'"));
        }
        (Some(NAMESPACE), Some(namespace)) => check::dns_label(namespace, &namespace_path, errors),
        (Some(CLUSTER), None) => {}
        (Some(CLUSTER), Some(_)) => {
            errors.push(namespace_path.forbidden("`parameters.scope` is set to 'Cluster'"));
        }
        (Some(scope), _) => errors.push(scope_path.not_supported(scope, &[CLUSTER, NAMESPACE])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects() {
        crate::testing::run::<IngressClass>(include_str!("../../testdata/ingress_class.yaml"));
    }
}
