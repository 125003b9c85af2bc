//! CustomResourceDefinition. What its schemas say is not looked at.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceConversion, CustomResourceDefinition, CustomResourceDefinitionNames,
    CustomResourceDefinitionSpec, CustomResourceDefinitionStatus, CustomResourceDefinitionVersion,
};

use crate::{
    admissionregistration::validation as webhooks,
    check,
    field::{BadValue, ErrorList, Path, value_of},
    names, shape,
    strategy::{Behaviour, Shape, Subresource},
    zero::{default_text, list, text},
};

const NONE: &str = "None";
const WEBHOOK: &str = "Webhook";
const HTTPS_PORT: i32 = 443;
const MAX_WARNING: usize = 256;

impl Behaviour for CustomResourceDefinition {
    const SHAPE: Shape<Self> = shape!(generation: spec, status);

    fn default_fields(&mut self) {
        let names = &mut self.spec.names;
        default_text(&mut names.singular, &names.kind.to_lowercase());
        if !names.kind.is_empty() {
            default_text(&mut names.list_kind, &format!("{}List", names.kind));
        }
        let none = || CustomResourceConversion {
            strategy: NONE.to_owned(),
            webhook: None,
        };
        let conversion = self.spec.conversion.get_or_insert_with(none);
        let webhook = conversion.webhook.as_mut();
        let client = webhook.and_then(|webhook| webhook.client_config.as_mut());
        if let Some(service) = client.and_then(|client| client.service.as_mut()) {
            service.port.get_or_insert(HTTPS_PORT);
        }
        let status = self.status.get_or_insert_default();
        if list(&status.stored_versions).is_empty() {
            add_stored(&self.spec, status);
        }
    }

    fn prepare_for_create(&mut self) {
        add_stored(&self.spec, self.status.get_or_insert_default());
    }

    fn prepare_for_update(&mut self, _old: &Self) {
        add_stored(&self.spec, self.status.get_or_insert_default());
    }

    fn validate(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        let spec = &self.spec;
        let name = text(&self.metadata.name);
        if name != format!("{}.{}", spec.names.plural, spec.group) {
            let detail = "must be spec.names.plural+\".\"+spec.group";
            errors.push(Path::new("metadata.name").invalid(name, detail));
        }
        check_spec(spec, &mut errors);
        check_stored(self, &mut errors);
        errors
    }

    fn validate_update(&self, old: &Self) -> ErrorList {
        let mut errors = ErrorList::new();
        let (new, path) = (&self.spec, Path::new("spec"));
        check_spec(new, &mut errors);
        let old_spec = &old.spec;
        let mut immutable = |new: &String, old: &String, field: &str| {
            check::immutable(new, old, &path.child(field), &mut errors);
        };
        if is_established(old) {
            immutable(&new.scope, &old_spec.scope, "scope");
            immutable(&new.names.kind, &old_spec.names.kind, "names.kind");
        }
        immutable(&new.group, &old_spec.group, "group");
        immutable(&new.names.plural, &old_spec.names.plural, "names.plural");
        check_stored(self, &mut errors);
        errors
    }

    fn validate_subresource(&self, _old: &Self, _subresource: Subresource) -> ErrorList {
        let mut errors = ErrorList::new();
        let status = self.status.as_ref();
        if let Some(names) = status.and_then(|status| status.accepted_names.as_ref()) {
            check_names(names, &Path::new("status.acceptedNames"), &mut errors);
        }
        errors
    }
}

/// The version that objects are stored in from now on is one that objects are stored in.
fn add_stored(spec: &CustomResourceDefinitionSpec, status: &mut CustomResourceDefinitionStatus) {
    let Some(version) = spec.versions.iter().find(|version| version.storage) else {
        return;
    };
    let stored = status.stored_versions.get_or_insert_default();
    if !stored.contains(&version.name) {
        stored.push(version.name.clone());
    }
}

fn is_established(of: &CustomResourceDefinition) -> bool {
    let conditions = of.status.as_ref().map(|status| list(&status.conditions));
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Established" && condition.status == "True")
}

fn check_spec(spec: &CustomResourceDefinitionSpec, errors: &mut ErrorList) {
    let path = Path::new("spec");
    let group_path = path.child("group");
    let messages = names::dns1123_subdomain(&spec.group);
    if spec.group.is_empty() {
        errors.push(group_path.required(""));
    } else if !messages.is_empty() {
        errors.push(group_path.invalid(spec.group.as_str(), messages.join(",")));
    } else if !spec.group.contains('.') {
        let detail = "should be a domain with at least one dot";
        errors.push(group_path.invalid(spec.group.as_str(), detail));
    }
    let scopes = &["Cluster", "Namespaced"];
    check::required_one_of(&spec.scope, scopes, &path.child("scope"), errors);
    check_versions(&spec.versions, &path.child("versions"), errors);
    let names = &spec.names;
    let names_path = path.child("names");
    for (field, name) in [
        ("plural", names.plural.as_str()),
        ("singular", text(&names.singular)),
        ("kind", &names.kind),
        ("listKind", text(&names.list_kind)),
    ] {
        check::required(name, &names_path.child(field), errors);
    }
    check_names(names, &names_path, errors);
    if let Some(conversion) = &spec.conversion {
        check_conversion(conversion, &path.child("conversion"), errors);
    }
}

fn check_versions(
    versions: &[CustomResourceDefinitionVersion],
    path: &Path,
    errors: &mut ErrorList,
) {
    for (index, version) in versions.iter().enumerate() {
        let schema = version.schema.as_ref();
        if schema.is_none_or(|schema| schema.open_api_v3_schema.is_none()) {
            let path = path.index(index).child("schema.openAPIV3Schema");
            errors.push(path.required(""));
        }
    }
    for (index, version) in versions.iter().enumerate() {
        let path = path.index(index);
        let messages = names::dns1035_label(&version.name);
        if !messages.is_empty() {
            let path = path.child("name");
            errors.push(path.invalid(version.name.as_str(), messages.join(",")));
        }
        if let Some(warning) = &version.deprecation_warning {
            let is_deprecated = version.deprecated == Some(true);
            let path = path.child("deprecationWarning");
            check_warning(warning, is_deprecated, &path, errors);
        }
    }
    let is_repeated = |(index, version): (usize, &CustomResourceDefinitionVersion)| {
        versions[..index]
            .iter()
            .any(|other| other.name == version.name)
    };
    let shown = || BadValue::List(versions.iter().map(internal_version).collect());
    if versions.iter().enumerate().any(is_repeated) {
        errors.push(path.invalid(shown(), "must contain unique version names"));
    }
    if versions.iter().filter(|version| version.storage).count() != 1 {
        let detail = "must have exactly one version marked as storage version";
        errors.push(path.invalid(shown(), detail));
    }
}

fn check_warning(warning: &str, is_deprecated: bool, path: &Path, errors: &mut ErrorList) {
    let mut complain = |detail: String| errors.push(path.invalid(warning, detail));
    if !is_deprecated {
        complain("can only be set for deprecated versions".to_owned());
        return;
    }
    if warning.len() > MAX_WARNING {
        complain(format!("must be <= {MAX_WARNING} characters long"));
    }
    if warning.is_empty() {
        complain("must not be an empty string".to_owned());
    }
    if let Some((index, _)) = warning.char_indices().find(|(_, c)| c.is_control()) {
        complain(format!(
            "must only contain printable UTF-8 characters; non-printable character found at index \
             {index}"
        ));
    }
}

/// As upstream shows it, where a schema that all versions have stands elsewhere.
fn internal_version(version: &CustomResourceDefinitionVersion) -> BadValue {
    let null = || BadValue::Value(serde_json::Value::Null);
    BadValue::Struct(vec![
        ("Name", version.name.as_str().into()),
        ("Served", version.served.into()),
        ("Storage", version.storage.into()),
        ("Deprecated", (version.deprecated == Some(true)).into()),
        (
            "DeprecationWarning",
            value_of(&version.deprecation_warning).into(),
        ),
        ("Schema", null()),
        ("Subresources", null()),
        ("AdditionalPrinterColumns", null()),
        ("SelectableFields", null()),
    ])
}

fn check_names(names: &CustomResourceDefinitionNames, path: &Path, errors: &mut ErrorList) {
    let label = |name: &str, path: &Path, errors: &mut ErrorList| {
        let messages = names::dns1035_label(name);
        if !name.is_empty() && !messages.is_empty() {
            errors.push(path.invalid(name, messages.join(",")));
        }
    };
    label(&names.plural, &path.child("plural"), errors);
    label(text(&names.singular), &path.child("singular"), errors);
    let list_kind = text(&names.list_kind);
    let list_path = path.child("listKind");
    for (kind, path) in [
        (names.kind.as_str(), &path.child("kind")),
        (list_kind, &list_path),
    ] {
        let messages = names::dns1035_label(&kind.to_lowercase());
        if !kind.is_empty() && !messages.is_empty() {
            let detail = format!(
                "may have mixed case, but should otherwise match: {}",
                messages.join(",")
            );
            errors.push(path.invalid(kind, detail));
        }
    }
    let each = |words: &[String], path: &Path, errors: &mut ErrorList| {
        for (index, word) in words.iter().enumerate() {
            let messages = names::dns1035_label(word);
            if !messages.is_empty() {
                let path = path.index(index);
                errors.push(path.invalid(word.as_str(), messages.join(",")));
            }
        }
    };
    each(list(&names.short_names), &path.child("shortNames"), errors);
    if !names.kind.is_empty() && names.kind == list_kind {
        errors.push(list_path.invalid(list_kind, "kind and listKind may not be the same"));
    }
    each(list(&names.categories), &path.child("categories"), errors);
}

fn check_conversion(conversion: &CustomResourceConversion, path: &Path, errors: &mut ErrorList) {
    let strategy = conversion.strategy.as_str();
    let strategy_path = path.child("strategy");
    check::required_one_of(strategy, &[NONE, WEBHOOK], &strategy_path, errors);
    let webhook = conversion.webhook.as_ref();
    let client = webhook.and_then(|webhook| webhook.client_config.as_ref());
    let versions = webhook.map_or(&[][..], |webhook| &webhook.conversion_review_versions);
    let client_path = path.child("webhookClientConfig");
    let versions_path = path.child("conversionReviewVersions");
    if strategy != WEBHOOK {
        const ELSEWHERE: &str = "should not be set when strategy is not set to Webhook";
        if client.is_some() {
            errors.push(client_path.forbidden(ELSEWHERE));
        }
        if !versions.is_empty() {
            errors.push(versions_path.forbidden(ELSEWHERE));
        }
        return;
    }
    match client.map(|client| (client.url.as_deref(), client.service.as_ref())) {
        None => {
            errors.push(client_path.required("required when strategy is set to Webhook"));
        }
        Some((Some(url), None)) => webhooks::url(url, &client_path.child("url"), errors),
        Some((None, Some(service))) => {
            let address = webhooks::Address {
                namespace: &service.namespace,
                name: &service.name,
                path: text(&service.path),
                port: service.port.unwrap_or_default(),
            };
            address.check(&client_path.child("service"), errors);
        }
        Some(_) => errors.push(client_path.required("exactly one of url or service is required")),
    }
    webhooks::review_versions(versions, "", &versions_path, errors);
}

fn check_stored(of: &CustomResourceDefinition, errors: &mut ErrorList) {
    let path = Path::new("status.storedVersions");
    let versions = &of.spec.versions;
    let stored = of.status.as_ref();
    let stored = stored.map_or(&[][..], |status| list(&status.stored_versions));
    if stored.is_empty() {
        let shown = serde_json::Value::Null;
        errors.push(path.invalid(shown, "must have at least one stored version"));
        return;
    }
    for (index, version) in versions.iter().enumerate() {
        let is_repeated = versions[..index]
            .iter()
            .any(|other| other.name == version.name);
        if version.storage && (is_repeated || !stored.contains(&version.name)) {
            let detail = format!("must have the storage version {}", version.name);
            errors.push(path.invalid(value_of(&stored), detail));
        }
    }
    for (index, name) in stored.iter().enumerate() {
        if !versions.iter().any(|version| version.name == *name) {
            let detail = format!(
                "missing from spec.versions; {name} was previously a storage version, and must \
                 remain in spec.versions until a storage migration ensures no data remains \
                 persisted in {name} and removes {name} from status.storedVersions"
            );
            errors.push(path.index(index).invalid(name.as_str(), detail));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions() {
        let yaml = include_str!("../../testdata/custom_resource_definition.yaml");
        crate::testing::run::<CustomResourceDefinition>(yaml);
    }
}
