//! Upstream's audit policy (`audit.k8s.io/v1` Policy): which requests are told of, and how much.

use coracle_api::field::{ErrorList, Path};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::authz::Attributes;

/// What is wrong with a policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("failed decoding: {0}")]
    Decode(String),
    #[error("loaded illegal policy with 0 rules")]
    NoRules,
    #[error("{0}")]
    Invalid(String),
}

/// How much of a request is told, from little to much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Level {
    #[default]
    None,
    Metadata,
    Request,
    RequestResponse,
}

impl Level {
    /// As the policy file has it.
    pub fn name(self) -> &'static str {
        match self {
            Level::None => "None",
            Level::Metadata => "Metadata",
            Level::Request => "Request",
            Level::RequestResponse => "RequestResponse",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

impl Level {
    const NAMES: [&str; 4] = ["None", "Metadata", "Request", "RequestResponse"];

    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "None" => Level::None,
            "Metadata" => Level::Metadata,
            "Request" => Level::Request,
            "RequestResponse" => Level::RequestResponse,
            _ => return None,
        })
    }
}

impl Stage {
    const ALL: [Stage; 4] = [
        Stage::RequestReceived,
        Stage::ResponseStarted,
        Stage::ResponseComplete,
        Stage::Panic,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Stage::RequestReceived => "RequestReceived",
            Stage::ResponseStarted => "ResponseStarted",
            Stage::ResponseComplete => "ResponseComplete",
            Stage::Panic => "Panic",
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default, rename = "metadata")]
    _metadata: serde_json::Value,
    #[serde(default)]
    rules: Vec<RuleFile>,
    #[serde(default)]
    omit_stages: Vec<String>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RuleFile {
    #[serde(default)]
    level: String,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<Resources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<String>,
    #[serde(default)]
    omit_managed_fields: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Resources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

/// What a policy says of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub level: Level,
    pub omit_stages: Vec<Stage>,
    pub omit_managed_fields: bool,
}

/// A policy. The first rule that fits a request counts; without one it is not told of.
#[derive(Debug)]
pub struct Policy(Vec<(RuleFile, Verdict)>);

impl Policy {
    /// Reads YAML or JSON.
    ///
    /// # Errors
    /// Upstream's, in its words.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let file: File = serde_yaml_ng::from_str(text)
            .map_err(|error| PolicyError::Decode(error.to_string()))?;
        if file.api_version != "audit.k8s.io/v1" || file.kind != "Policy" {
            return Err(PolicyError::Decode(format!(
                "no kind {:?} is registered for version {:?}",
                file.kind, file.api_version
            )));
        }
        if file.rules.is_empty() {
            return Err(PolicyError::NoRules);
        }
        let errors = validate(&file);
        if !errors.is_empty() {
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            return Err(PolicyError::Invalid(match errors.as_slice() {
                [one] => one.clone(),
                several => format!("[{}]", several.join(", ")),
            }));
        }
        let rules = file.rules.into_iter().map(|rule| {
            let omitted = |stage: &Stage| {
                let mut named = file.omit_stages.iter().chain(&rule.omit_stages);
                named.any(|name| name == stage.name())
            };
            let verdict = Verdict {
                level: Level::parse(&rule.level).unwrap_or_default(),
                omit_stages: Stage::ALL.into_iter().filter(omitted).collect(),
                omit_managed_fields: rule.omit_managed_fields.unwrap_or(file.omit_managed_fields),
            };
            (rule, verdict)
        });
        Ok(Policy(rules.collect()))
    }

    pub(super) fn rule(&self, attributes: &Attributes<'_>) -> Verdict {
        let found = self.0.iter().find(|(rule, _)| rule.fits(attributes));
        found
            .map(|(_, verdict)| verdict.clone())
            .unwrap_or_default()
    }
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == wanted)
}

impl RuleFile {
    fn fits(&self, attributes: &Attributes<'_>) -> bool {
        let user = attributes.user;
        if !self.users.is_empty() && !has(&self.users, &user.user) {
            return false;
        }
        if !self.user_groups.is_empty()
            && !user
                .groups
                .iter()
                .any(|group| has(&self.user_groups, group))
        {
            return false;
        }
        if !self.verbs.is_empty() && !has(&self.verbs, attributes.verb) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return attributes.is_resource
                && (self.namespaces.is_empty() || has(&self.namespaces, attributes.namespace))
                && (self.resources.is_empty()
                    || self.resources.iter().any(|named| named.fit(attributes)));
        }
        if !self.non_resource_urls.is_empty() {
            return !attributes.is_resource
                && self.non_resource_urls.iter().any(|url| {
                    url == "*"
                        || url == attributes.path
                        || url.strip_suffix('*').is_some_and(|start| {
                            attributes.path.starts_with(start.trim_end_matches('*'))
                        })
                });
        }
        true
    }
}

impl Resources {
    fn fit(&self, attributes: &Attributes<'_>) -> bool {
        if self.group != attributes.group && self.group != "*" {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        if !self.resource_names.is_empty() && !has(&self.resource_names, attributes.name) {
            return false;
        }
        let (resource, subresource) = (attributes.resource, attributes.subresource);
        self.resources.iter().any(|named| {
            let same = match named.split_once('/') {
                None => subresource.is_empty() && named == resource,
                Some((of, part)) => {
                    !subresource.is_empty() && of == resource && part == subresource
                }
            };
            same || named == "*"
                || !subresource.is_empty() && named.strip_prefix("*/") == Some(subresource)
                || named.strip_suffix("/*") == Some(resource)
        })
    }
}

fn validate(file: &File) -> ErrorList {
    let mut errors = ErrorList::new();
    check_stages(&file.omit_stages, &Path::new("omitStages"), &mut errors);
    for (index, rule) in file.rules.iter().enumerate() {
        let path = Path::new("rules").index(index);
        if rule.level.is_empty() {
            errors.push(path.child("level").required(""));
        } else if Level::parse(&rule.level).is_none() {
            let level = path.child("level");
            errors.push(level.not_supported(rule.level.as_str(), &Level::NAMES));
        }
        let urls = path.child("nonResourceURLs");
        for (index, url) in rule.non_resource_urls.iter().enumerate() {
            if url != "*" && !url.starts_with('/') {
                errors.push(urls.index(index).invalid(
                    url.as_str(),
                    "non-resource URL rules must begin with a '/' character",
                ));
            }
            if url.find('*').is_some_and(|at| at + 1 < url.len()) {
                errors.push(urls.index(index).invalid(
                    url.as_str(),
                    "non-resource URL wildcards '*' must be the final character of the rule",
                ));
            }
        }
        let resources = path.child("resources");
        for named in &rule.resources {
            if !named.resource_names.is_empty() && named.resources.is_empty() {
                errors.push(resources.child("resourceNames").invalid(
                    json!(named.resource_names),
                    "using resourceNames requires at least one resource",
                ));
            }
            if named.group.contains('/') || named.group.chars().any(char::is_uppercase) {
                errors.push(resources.child("group").invalid(
                    named.group.as_str(),
                    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
                ));
            }
        }
        check_stages(&rule.omit_stages, &path.child("omitStages"), &mut errors);
        let named = !rule.resources.is_empty() || !rule.namespaces.is_empty();
        if named && !rule.non_resource_urls.is_empty() {
            errors.push(urls.invalid(
                json!(rule.non_resource_urls),
                "rules cannot apply to both regular resources and non-resource URLs",
            ));
        }
    }
    errors
}

fn check_stages(stages: &[String], path: &Path, errors: &mut ErrorList) {
    let known = Stage::ALL.map(Stage::name);
    for (index, stage) in stages.iter().enumerate() {
        if !known.contains(&stage.as_str()) {
            errors.push(path.index(index).invalid(
                stage.as_str(),
                format!("allowed stages are {}", known.join(",")),
            ));
        }
    }
}
