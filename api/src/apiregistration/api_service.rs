//! APIService.

use jiff::Timestamp;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{APIService, APIServiceSpec};
use serde_json::Value;

use crate::{
    check,
    field::{ErrorList, Path},
    formats, names, shape,
    strategy::{Behaviour, Shape, StatusMeta, Subresource},
};
use crate::{
    strategy::Column,
    table::{AGE, NAME, age, column, name},
    zero::{list, text},
};

const HTTPS_PORT: i32 = 443;

impl Behaviour for APIService {
    const SHAPE: Shape<Self> = shape!(status, StatusMeta::Keep);

    fn default_fields(&mut self) {
        let spec = self.spec.as_mut();
        if let Some(service) = spec.and_then(|spec| spec.service.as_mut()) {
            service.port.get_or_insert(HTTPS_PORT);
        }
    }

    fn validate(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        match &self.spec {
            Some(spec) => validate_spec(text(&self.metadata.name), spec, &mut errors),
            None => {
                let name = text(&self.metadata.name);
                validate_spec(name, &APIServiceSpec::default(), &mut errors);
            }
        }
        errors
    }

    fn validate_update(&self, _old: &Self) -> ErrorList {
        self.validate()
    }

    fn validate_subresource(&self, _old: &Self, _subresource: Subresource) -> ErrorList {
        let mut errors = ErrorList::new();
        let conditions = self.status.as_ref().map(|status| list(&status.conditions));
        for (index, condition) in conditions.into_iter().flatten().enumerate() {
            let path = Path::new("status.conditions").index(index).child("status");
            check::one_of(
                &condition.status,
                &["True", "False", "Unknown"],
                &path,
                &mut errors,
            );
        }
        errors
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "Service",
                "string",
                "The reference to the service that hosts this API endpoint.",
            ),
            column("Available", "string", "Whether this service is available."),
            AGE,
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let spec = self.spec.as_ref();
        let service = spec.and_then(|spec| spec.service.as_ref()).map_or_else(
            || "Local".to_owned(),
            |service| format!("{}/{}", text(&service.namespace), text(&service.name)),
        );
        let conditions = self
            .status
            .as_ref()
            .and_then(|status| status.conditions.as_ref());
        let available = conditions
            .into_iter()
            .flatten()
            .find(|condition| condition.type_ == "Available");
        let available = available.map_or_else(
            || "Unknown".to_owned(),
            |condition| match text(&condition.reason) {
                reason if condition.status != "True" && !reason.is_empty() => {
                    format!("{} ({reason})", condition.status)
                }
                _ => condition.status.clone(),
            },
        );
        vec![
            name(&self.metadata),
            Value::from(service),
            Value::from(available),
            age(&self.metadata, now),
        ]
    }
}

fn validate_spec(name: &str, spec: &APIServiceSpec, errors: &mut ErrorList) {
    let path = Path::new("spec");
    let (group, version) = (text(&spec.group), text(&spec.version));
    let expected = format!("{version}.{group}");
    if name != expected && names::path_segment_name(name).is_empty() {
        errors.push(Path::new("metadata.name").invalid(
            name,
            format!("must be `spec.version+\".\"+spec.group`: {expected:?}"),
        ));
    }
    let group_path = path.child("group");
    if !group.is_empty() {
        check::subdomain(group, &group_path, errors);
    } else if version != "v1" {
        errors.push(
            group_path.required("only v1 may have an empty group and it better be legacy kube"),
        );
    }
    let messages = names::dns1035_label(version);
    check::each(&path.child("version"), version, messages, errors);
    for (field, priority, most) in [
        ("groupPriorityMinimum", spec.group_priority_minimum, 20_000),
        ("versionPriority", spec.version_priority, 1000),
    ] {
        if !(1..=most).contains(&priority) {
            let detail = format!("must be positive and less than {most}");
            errors.push(path.child(field).invalid(priority, detail));
        }
    }
    let skips = spec.insecure_skip_tls_verify == Some(true);
    let skips_path = path.child("insecureSkipTLSVerify");
    let bundle = spec.ca_bundle.as_ref().map_or(0, |bundle| bundle.0.len());
    let Some(service) = &spec.service else {
        if bundle > 0 {
            errors.push(path.child("caBundle").invalid(
                format!("{bundle} bytes"),
                "local APIServices may not have a caBundle",
            ));
        }
        if skips {
            let detail = "local APIServices may not have insecureSkipTLSVerify";
            errors.push(skips_path.invalid(true, detail));
        }
        return;
    };
    let path = path.child("service");
    check::required(text(&service.namespace), &path.child("namespace"), errors);
    check::required(text(&service.name), &path.child("name"), errors);
    let port = service.port.unwrap_or_default();
    let messages = formats::port_number(port);
    if !messages.is_empty() {
        let detail = format!("port is not valid: {}", messages.join(", "));
        errors.push(path.child("port").invalid(port, detail));
    }
    if skips && bundle > 0 {
        errors.push(skips_path.invalid(true, "may not be true if caBundle is present"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_services() {
        let yaml = include_str!("../../testdata/api_service.yaml");
        crate::testing::run::<APIService>(yaml);
    }
}
