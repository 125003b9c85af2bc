//! What is wrong with webhooks and with the rules and conditions that they match by, which
//! policies share.

use k8s_openapi::{
    api::admissionregistration::v1::{
        MatchCondition, MutatingWebhook, RuleWithOperations, ValidatingWebhook, WebhookClientConfig,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};

use crate::{
    check,
    field::{ErrorList, Path, value_of},
    formats, names,
    zero::{list, text},
};

const VERSIONS: &[&str] = &["v1", "v1beta1"];
const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SIDE_EFFECTS: &[&str] = &["None", "NoneOnDryRun"];
pub const MATCH_POLICIES: &[&str] = &["Equivalent", "Exact"];
const MAX_CONDITIONS: usize = 64;
const URL_FORM: &str = "; desired format: https://host[/path]";

/// What both kinds of webhooks have.
pub struct Hook<'a> {
    name: &'a str,
    client: &'a WebhookClientConfig,
    rules: &'a [RuleWithOperations],
    failure_policy: Option<&'a str>,
    match_policy: Option<&'a str>,
    selectors: [(&'static str, Option<&'a LabelSelector>); 2],
    side_effects: &'a str,
    timeout_seconds: Option<i32>,
    reinvocation_policy: Option<&'a str>,
    versions: &'a [String],
    conditions: &'a [MatchCondition],
}

macro_rules! hook_from {
    ($webhook:ty, $reinvocation_policy:expr) => {
        impl<'a> From<&'a $webhook> for Hook<'a> {
            fn from(hook: &'a $webhook) -> Self {
                Hook {
                    name: &hook.name,
                    client: &hook.client_config,
                    rules: list(&hook.rules),
                    failure_policy: hook.failure_policy.as_deref(),
                    match_policy: hook.match_policy.as_deref(),
                    selectors: [
                        ("namespaceSelector", hook.namespace_selector.as_ref()),
                        ("objectSelector", hook.object_selector.as_ref()),
                    ],
                    side_effects: &hook.side_effects,
                    timeout_seconds: hook.timeout_seconds,
                    reinvocation_policy: $reinvocation_policy(hook),
                    versions: &hook.admission_review_versions,
                    conditions: list(&hook.match_conditions),
                }
            }
        }
    };
}

hook_from!(ValidatingWebhook, |_| None);
hook_from!(MutatingWebhook, |hook: &'a MutatingWebhook| hook
    .reinvocation_policy
    .as_deref());

/// All webhooks of a configuration.
pub fn webhooks<'a, T: 'a>(hooks: &'a [T]) -> ErrorList
where
    Hook<'a>: From<&'a T>,
{
    let mut errors = ErrorList::new();
    let mut earlier: Vec<&str> = Vec::new();
    for (index, hook) in hooks.iter().enumerate() {
        let hook = Hook::from(hook);
        let path = Path::new("webhooks").index(index);
        webhook(&hook, &path, &mut errors);
        review_versions(
            hook.versions,
            &format!("must specify one of {}", VERSIONS.join(", ")),
            &path.child("admissionReviewVersions"),
            &mut errors,
        );
        if !hook.name.is_empty() && earlier.contains(&hook.name) {
            errors.push(path.child("name").duplicate(hook.name));
        }
        earlier.push(hook.name);
    }
    errors
}

fn webhook(hook: &Hook<'_>, path: &Path, errors: &mut ErrorList) {
    qualified_domain(hook.name, &path.child("name"), errors);
    for (index, of) in hook.rules.iter().enumerate() {
        rule(of, &path.child("rules").index(index), errors);
    }
    for (field, value, supported) in [
        (
            "failurePolicy",
            hook.failure_policy,
            &["Fail", "Ignore"][..],
        ),
        ("matchPolicy", hook.match_policy, MATCH_POLICIES),
    ] {
        if let Some(value) = value {
            check::one_of(value, supported, &path.child(field), errors);
        }
    }
    let effects_path = path.child("sideEffects");
    if hook.side_effects.is_empty() {
        let detail = format!("must specify one of {}", SIDE_EFFECTS.join(", "));
        errors.push(effects_path.required(detail));
    } else {
        check::one_of(hook.side_effects, SIDE_EFFECTS, &effects_path, errors);
    }
    if let Some(seconds) = hook.timeout_seconds.filter(|s| !(1..=30).contains(s)) {
        errors.push(path.child("timeoutSeconds").invalid(
            seconds,
            "the timeout value must be between 1 and 30 seconds",
        ));
    }
    for (field, selector) in hook.selectors {
        check::label_selector(selector, &path.child(field), errors);
    }
    if let Some(policy) = hook.reinvocation_policy {
        let path = path.child("reinvocationPolicy");
        check::one_of(policy, &["IfNeeded", "Never"], &path, errors);
    }
    client(hook.client, &path.child("clientConfig"), errors);
    conditions(hook.conditions, &path.child("matchConditions"), errors);
}

fn qualified_domain(name: &str, path: &Path, errors: &mut ErrorList) {
    if name.is_empty() {
        errors.push(path.required(""));
        return;
    }
    let messages = names::dns1123_subdomain(name);
    if !messages.is_empty() {
        errors.push(path.invalid(name, messages.join(",")));
    } else if name.split('.').count() < 3 {
        errors.push(path.invalid(
            name,
            "should be a domain with at least three segments separated by dots",
        ));
    }
}

fn client(client: &WebhookClientConfig, path: &Path, errors: &mut ErrorList) {
    match (&client.url, &client.service) {
        (Some(address), None) => url(address, &path.child("url"), errors),
        (None, Some(service)) => {
            // Upstream takes the one for the other, and clients see it.
            let address = Address {
                namespace: &service.name,
                name: &service.namespace,
                path: text(&service.path),
                port: service.port.unwrap_or_default(),
            };
            address.check(&path.child("service"), errors);
        }
        _ => errors.push(path.required("exactly one of url or service is required")),
    }
}

/// The address of a webhook, for which only the path is free.
pub fn url(url: &str, path: &Path, errors: &mut ErrorList) {
    let (rest, fragment) = url.split_once('#').unwrap_or((url, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let is_scheme = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    };
    let (scheme, rest) = rest
        .split_once(':')
        .filter(|(scheme, _)| is_scheme(scheme))
        .unwrap_or(("", rest));
    let authority = rest.strip_prefix("//").unwrap_or("");
    let authority = authority.split('/').next().unwrap_or("");
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    let scheme = scheme.to_ascii_lowercase();
    if scheme != "https" {
        let detail = format!("'https' is the only allowed URL scheme{URL_FORM}");
        errors.push(path.invalid(scheme, detail));
    }
    if host.is_empty() {
        errors.push(path.invalid("", format!("host must be specified{URL_FORM}")));
    }
    if let Some(user) = user {
        errors.push(path.invalid(user, "user information is not permitted in the URL"));
    }
    if !fragment.is_empty() {
        errors.push(path.invalid(fragment, "fragments are not permitted in the URL"));
    }
    if !query.is_empty() {
        errors.push(path.invalid(query, "query parameters are not permitted in the URL"));
    }
}

/// A Service that serves a webhook.
pub struct Address<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    /// Empty for none.
    pub path: &'a str,
    pub port: i32,
}

impl Address<'_> {
    pub fn check(&self, path: &Path, errors: &mut ErrorList) {
        check::required(self.name, &path.child("name"), errors);
        check::required(self.namespace, &path.child("namespace"), errors);
        let port = self.port;
        let messages = formats::port_number(port);
        if !messages.is_empty() {
            let detail = format!("port is not valid: {}", messages.join(", "));
            errors.push(path.child("port").invalid(port, detail));
        }
        let path = path.child("path");
        let called = self.path;
        match called {
            "" | "/" => return,
            "//" => {
                errors.push(path.invalid(called, "segment[0] may not be empty"));
                return;
            }
            _ => {}
        }
        if !called.starts_with('/') {
            errors.push(path.invalid(called, "must start with a '/'"));
        }
        let mut characters = called.chars();
        characters.next();
        let steps = characters.as_str();
        let steps = steps.strip_suffix('/').unwrap_or(steps);
        for (index, step) in steps.split('/').enumerate() {
            if step.is_empty() {
                let detail = format!("segment[{index}] may not be empty");
                errors.push(path.invalid(called, detail));
                continue;
            }
            for message in names::dns1123_subdomain(step) {
                errors.push(path.invalid(called, format!("segment[{index}]: {message}")));
            }
        }
    }
}

/// The versions of reviews that a webhook understands; `none` says what is missing when there is
/// none.
pub fn review_versions(versions: &[String], none: &str, path: &Path, errors: &mut ErrorList) {
    let known = VERSIONS.join(", ");
    if versions.is_empty() {
        errors.push(path.required(none));
        return;
    }
    for (index, version) in versions.iter().enumerate() {
        let path = path.index(index);
        if versions[..index].contains(version) {
            errors.push(path.invalid(version.as_str(), "duplicate version"));
        } else {
            let messages = names::dns1035_label(version);
            check::each(&path, version.as_str(), messages, errors);
        }
    }
    if !versions
        .iter()
        .any(|version| VERSIONS.contains(&version.as_str()))
    {
        let detail = format!("must include at least one of {known}");
        errors.push(path.invalid(value_of(&versions), detail));
    }
}

/// Conditions under which a webhook or a policy is asked at all.
pub fn conditions(conditions: &[MatchCondition], path: &Path, errors: &mut ErrorList) {
    if conditions.len() > MAX_CONDITIONS {
        errors.push(path.too_many(conditions.len(), MAX_CONDITIONS));
    }
    for (index, condition) in conditions.iter().enumerate() {
        let path = path.index(index);
        check::required(
            condition.expression.trim(),
            &path.child("expression"),
            errors,
        );
        let name_path = path.child("name");
        if condition.name.is_empty() {
            errors.push(name_path.required(""));
            continue;
        }
        check::qualified_name(&condition.name, &name_path, errors);
        if conditions[..index]
            .iter()
            .any(|other| other.name == condition.name)
        {
            errors.push(name_path.duplicate(condition.name.as_str()));
        }
    }
}

/// What a webhook or a policy is asked about.
pub fn rule(rule: &RuleWithOperations, path: &Path, errors: &mut ErrorList) {
    let has_wildcard = |values: &[String]| values.len() > 1 && values.iter().any(|v| v == "*");
    let operations = list(&rule.operations);
    let operations_path = path.child("operations");
    if operations.is_empty() {
        errors.push(operations_path.required(""));
    }
    if has_wildcard(operations) {
        errors.push(operations_path.invalid(
            value_of(&operations),
            "if '*' is present, must not specify other operations",
        ));
    }
    for (index, operation) in operations.iter().enumerate() {
        check::one_of(operation, OPERATIONS, &operations_path.index(index), errors);
    }
    for (field, values, what) in [
        ("apiGroups", list(&rule.api_groups), "API groups"),
        ("apiVersions", list(&rule.api_versions), "API versions"),
    ] {
        let path = path.child(field);
        if values.is_empty() {
            errors.push(path.required(""));
        }
        if has_wildcard(values) {
            let detail = format!("if '*' is present, must not specify other {what}");
            errors.push(path.invalid(value_of(&values), detail));
        }
        if field == "apiVersions" {
            for (index, version) in values.iter().enumerate() {
                check::required(version, &path.index(index), errors);
            }
        }
    }
    resources(list(&rule.resources), &path.child("resources"), errors);
    if let Some(scope) = &rule.scope {
        let scopes = &["*", "Cluster", "Namespaced"];
        check::one_of(scope, scopes, &path.child("scope"), errors);
    }
}

/// Resources and their subresources: what is covered by a wildcard is not named again.
fn resources(resources: &[String], path: &Path, errors: &mut ErrorList) {
    if resources.is_empty() {
        errors.push(path.required(""));
    }
    let mut all_subresources_of = Vec::new();
    let mut subresource_of_all = Vec::new();
    let mut has_whole_resource = false;
    for (index, resource) in resources.iter().enumerate() {
        let path = path.index(index);
        if resource.is_empty() {
            errors.push(path.required(""));
            continue;
        }
        let Some((name, subresource)) = resource.split_once('/') else {
            has_whole_resource = resource != "*";
            continue;
        };
        if all_subresources_of.contains(&name) {
            let detail = format!("if '{name}/*' is present, must not specify {resource}");
            errors.push(path.invalid(resource.as_str(), detail));
        }
        if subresource_of_all.contains(&subresource) {
            let detail = format!("if '*/{subresource}' is present, must not specify {resource}");
            errors.push(path.invalid(resource.as_str(), detail));
        }
        if subresource == "*" {
            all_subresources_of.push(name);
        }
        if name == "*" {
            subresource_of_all.push(subresource);
        }
    }
    let has = |name: &str| resources.iter().any(|resource| resource == name);
    if resources.len() > 1 && has("*/*") {
        errors.push(path.invalid(
            value_of(&resources),
            "if '*/*' is present, must not specify other resources",
        ));
    }
    if has("*") && has_whole_resource {
        errors.push(path.invalid(
            value_of(&resources),
            "if '*' is present, must not specify other resources without subresources",
        ));
    }
}
