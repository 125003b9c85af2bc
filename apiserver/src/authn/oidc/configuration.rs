//! Upstream's AuthenticationConfiguration (`apiserver.config.k8s.io`): reading it and finding
//! what is wrong with it, in upstream's words.

use std::collections::BTreeSet;

use coracle_api::field::{ErrorList, Path};
use coracle_cel::Scope;
use http::Uri;
use serde::Deserialize;

use super::expressions::Expression;

const API_VERSIONS: [&str; 3] = [
    "apiserver.config.k8s.io/v1",
    "apiserver.config.k8s.io/v1beta1",
    "apiserver.config.k8s.io/v1alpha1",
];
const KIND: &str = "AuthenticationConfiguration";
const MAX_ISSUERS: usize = 64;

/// What tokens may be signed with. (Upstream also knows ES512.)
pub const SIGNING_ALGORITHMS: [&str; 8] = [
    "ES256", "ES384", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512",
];

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    #[error("error decoding authentication configuration: {0}")]
    Decode(String),
    #[error("{0}")]
    Invalid(String),
}

/// The file that `--authentication-config` names, or what the `--oidc-*` flags stand for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthenticationConfiguration {
    #[serde(default)]
    pub api_version: String,
    #[serde(default)]
    pub kind: String,
    #[serde(default)]
    pub jwt: Vec<JwtAuthenticator>,
    #[serde(default)]
    pub anonymous: Option<Anonymous>,
}

/// Who may come without credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Anonymous {
    pub enabled: bool,
    /// Where; everywhere when it is empty.
    #[serde(default)]
    pub conditions: Vec<AnonymousCondition>,
}

impl Anonymous {
    /// Whether a request for this path may come without credentials.
    pub fn allows(&self, path: &str) -> bool {
        let mut conditions = self.conditions.iter();
        self.enabled
            && (self.conditions.is_empty() || conditions.any(|condition| condition.path == path))
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnonymousCondition {
    pub path: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JwtAuthenticator {
    pub issuer: Issuer,
    #[serde(default)]
    pub claim_validation_rules: Vec<ClaimValidationRule>,
    pub claim_mappings: ClaimMappings,
    #[serde(default)]
    pub user_validation_rules: Vec<UserValidationRule>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Issuer {
    #[serde(default)]
    pub url: String,
    #[serde(default, rename = "discoveryURL")]
    pub discovery_url: String,
    /// PEM; empty: the authorities of the host.
    #[serde(default)]
    pub certificate_authority: String,
    #[serde(default)]
    pub audiences: Vec<String>,
    #[serde(default)]
    pub audience_match_policy: String,
    #[serde(default)]
    pub egress_selector_type: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimValidationRule {
    #[serde(default)]
    pub claim: String,
    #[serde(default)]
    pub required_value: String,
    #[serde(default)]
    pub expression: String,
    #[serde(default)]
    pub message: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserValidationRule {
    #[serde(default)]
    pub expression: String,
    #[serde(default)]
    pub message: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimMappings {
    pub username: PrefixedClaimOrExpression,
    #[serde(default)]
    pub groups: PrefixedClaimOrExpression,
    #[serde(default)]
    pub uid: ClaimOrExpression,
    #[serde(default)]
    pub extra: Vec<ExtraMapping>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrefixedClaimOrExpression {
    #[serde(default)]
    pub claim: String,
    #[serde(default)]
    pub prefix: Option<String>,
    #[serde(default)]
    pub expression: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimOrExpression {
    #[serde(default)]
    pub claim: String,
    #[serde(default)]
    pub expression: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExtraMapping {
    #[serde(default)]
    pub key: String,
    #[serde(default)]
    pub value_expression: String,
}

impl AuthenticationConfiguration {
    /// Reads YAML or JSON. It is not validated.
    pub fn parse(text: &str) -> Result<Self, ConfigurationError> {
        let read: AuthenticationConfiguration = serde_yaml_ng::from_str(text)
            .map_err(|error| ConfigurationError::Decode(error.to_string()))?;
        if !API_VERSIONS.contains(&read.api_version.as_str()) || read.kind != KIND {
            return Err(ConfigurationError::Decode(format!(
                "no kind {:?} is registered for version {:?}",
                read.kind, read.api_version
            )));
        }
        Ok(read)
    }

    /// # Errors
    /// Everything that is wrong. `own_issuer` is that of ServiceAccount tokens.
    pub fn validate(&self, own_issuer: &str) -> Result<(), ConfigurationError> {
        let errors = self.errors(own_issuer);
        if errors.is_empty() {
            return Ok(());
        }
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Err(ConfigurationError::Invalid(match errors.as_slice() {
            [one] => one.clone(),
            several => format!("[{}]", several.join(", ")),
        }))
    }

    fn errors(&self, own_issuer: &str) -> ErrorList {
        let mut errors = ErrorList::new();
        let root = Path::new("jwt");
        if self.jwt.len() > MAX_ISSUERS {
            errors.push(root.too_many(self.jwt.len(), MAX_ISSUERS));
            return errors;
        }
        let (mut issuers, mut discoveries) = (BTreeSet::new(), BTreeSet::new());
        for (index, jwt) in self.jwt.iter().enumerate() {
            let path = root.index(index);
            jwt.validate(own_issuer, &path, &mut errors);
            let issuer = path.child("issuer");
            if !issuers.insert(&jwt.issuer.url) {
                errors.push(issuer.child("url").duplicate(jwt.issuer.url.as_str()));
            }
            let discovery = &jwt.issuer.discovery_url;
            if !discovery.is_empty() && !discoveries.insert(discovery) {
                errors.push(issuer.child("discoveryURL").duplicate(discovery.as_str()));
            }
        }
        if let Some(anonymous) = &self.anonymous
            && !anonymous.enabled
            && !anonymous.conditions.is_empty()
        {
            let path = Path::new("anonymous").child("conditions");
            errors.push(path.invalid_without_value(
                "enabled should be set to true when conditions are defined",
            ));
        }
        errors
    }
}

impl JwtAuthenticator {
    fn validate(&self, own_issuer: &str, path: &Path, errors: &mut ErrorList) {
        self.issuer
            .validate(own_issuer, &path.child("issuer"), errors);
        self.validate_claim_rules(&path.child("claimValidationRules"), errors);
        self.validate_mappings(&path.child("claimMappings"), errors);
        let path = path.child("userValidationRules");
        let mut seen = BTreeSet::new();
        for (index, rule) in self.user_validation_rules.iter().enumerate() {
            let path = path.index(index).child("expression");
            if rule.expression.is_empty() {
                errors.push(path.required(""));
            } else if !seen.insert(&rule.expression) {
                errors.push(path.duplicate(rule.expression.as_str()));
            } else {
                compile_rule(&rule.expression, Scope::user(), &path, errors);
            }
        }
    }

    fn validate_claim_rules(&self, path: &Path, errors: &mut ErrorList) {
        let (mut claims, mut expressions) = (BTreeSet::new(), BTreeSet::new());
        for (index, rule) in self.claim_validation_rules.iter().enumerate() {
            let path = path.index(index);
            match (rule.claim.is_empty(), rule.expression.is_empty()) {
                (false, false) => errors.push(path.invalid(
                    rule.claim.as_str(),
                    "claim and expression can't both be set",
                )),
                (true, true) => errors.push(path.required("claim or expression is required")),
                (false, true) => {
                    if !rule.message.is_empty() {
                        errors.push(path.child("message").invalid(
                            rule.message.as_str(),
                            "may not be specified when claim is set",
                        ));
                    }
                    if !claims.insert(&rule.claim) {
                        errors.push(path.child("claim").duplicate(rule.claim.as_str()));
                    }
                }
                (true, false) => {
                    if !rule.required_value.is_empty() {
                        errors.push(path.child("requiredValue").invalid(
                            rule.required_value.as_str(),
                            "may not be specified when expression is set",
                        ));
                    }
                    let path = path.child("expression");
                    if expressions.insert(&rule.expression) {
                        compile_rule(&rule.expression, Scope::claims(), &path, errors);
                    } else {
                        errors.push(path.duplicate(rule.expression.as_str()));
                    }
                }
            }
        }
    }

    fn validate_mappings(&self, path: &Path, errors: &mut ErrorList) {
        let mappings = &self.claim_mappings;
        let username = path.child("username");
        validate_source(&mappings.username, true, &username, errors);
        validate_source(&mappings.groups, false, &path.child("groups"), errors);
        let uid = path.child("uid");
        if !mappings.uid.claim.is_empty() && !mappings.uid.expression.is_empty() {
            errors.push(uid.invalid("", "claim and expression can't both be set"));
        } else if !mappings.uid.expression.is_empty() {
            let expression = uid.child("expression");
            compile(&mappings.uid.expression, &expression, errors);
        }
        let mut seen = BTreeSet::new();
        for (index, extra) in mappings.extra.iter().enumerate() {
            let path = path.child("extra").index(index);
            validate_key(&extra.key, &path.child("key"), errors);
            if !seen.insert(&extra.key) {
                errors.push(path.child("key").duplicate(extra.key.as_str()));
                continue;
            }
            let path = path.child("valueExpression");
            if extra.value_expression.is_empty() {
                errors.push(path.required(""));
            } else {
                compile(&extra.value_expression, &path, errors);
            }
        }
        if self.trusts_unverified_email() {
            errors.push(username.child("expression").invalid(
                mappings.username.expression.as_str(),
                "claims.email_verified must be used in claimMappings.username.expression or claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression",
            ));
        }
    }

    fn trusts_unverified_email(&self) -> bool {
        let selects = |source: &str, field| {
            Expression::compile(source, Scope::claims())
                .is_ok_and(|expression| expression.selects(field))
        };
        let username = &self.claim_mappings.username.expression;
        let extra = self.claim_mappings.extra.iter();
        let rules = self.claim_validation_rules.iter();
        let mut all = std::iter::once(username)
            .chain(extra.map(|extra| &extra.value_expression))
            .chain(rules.map(|rule| &rule.expression));
        selects(username, "email") && !all.any(|source| selects(source, "email_verified"))
    }
}

impl Issuer {
    fn validate(&self, own_issuer: &str, path: &Path, errors: &mut ErrorList) {
        let url = path.child("url");
        if self.url.is_empty() {
            errors.push(url.required(""));
        } else {
            if self.url == own_issuer {
                errors.push(url.invalid(
                    self.url.as_str(),
                    format!("URL must not overlap with disallowed issuers: [{own_issuer}]"),
                ));
            }
            validate_url(&self.url, &url, errors);
        }
        if !self.discovery_url.is_empty() {
            let path = path.child("discoveryURL");
            if self.url.trim_end_matches('/') == self.discovery_url.trim_end_matches('/') {
                errors.push(path.invalid(
                    self.discovery_url.as_str(),
                    "discoveryURL must be different from URL",
                ));
            }
            validate_url(&self.discovery_url, &path, errors);
        }
        self.validate_audiences(path, errors);
        if !self.certificate_authority.is_empty() {
            let read = coracle_transport::parse_certificates(self.certificate_authority.as_bytes());
            if !read.is_ok_and(|certificates| !certificates.is_empty()) {
                errors.push(path.child("certificateAuthority").invalid(
                    "<omitted>",
                    "data does not contain any valid RSA or ECDSA certificates",
                ));
            }
        }
        if !self.egress_selector_type.is_empty() {
            errors.push(path.child("egressSelectorType").invalid(
                self.egress_selector_type.as_str(),
                "egress selector is not supported when StructuredAuthenticationConfigurationEgressSelector feature gate is disabled",
            ));
        }
    }

    fn validate_audiences(&self, path: &Path, errors: &mut ErrorList) {
        let policy = self.audience_match_policy.as_str();
        let (audiences, policy_path) = (path.child("audiences"), path.child("audienceMatchPolicy"));
        if self.audiences.is_empty() {
            errors.push(audiences.required(format!("at least one {audiences} is required")));
            return;
        }
        let mut seen = BTreeSet::new();
        for (index, audience) in self.audiences.iter().enumerate() {
            if audience.is_empty() {
                errors.push(audiences.index(index).required(""));
            }
            if !seen.insert(audience) {
                errors.push(audiences.index(index).duplicate(audience.as_str()));
            }
        }
        if self.audiences.len() > 1 && policy != "MatchAny" {
            errors.push(policy_path.invalid(
                policy,
                "audienceMatchPolicy must be MatchAny for multiple audiences",
            ));
        } else if !matches!(policy, "" | "MatchAny") {
            errors.push(policy_path.invalid(
                policy,
                "audienceMatchPolicy must be empty or MatchAny for single audience",
            ));
        }
    }
}

fn validate_url(url: &str, path: &Path, errors: &mut ErrorList) {
    let (rest, fragment) = url.split_once('#').unwrap_or((url, ""));
    let parsed = match rest.parse::<Uri>() {
        Ok(parsed) => parsed,
        Err(error) => {
            errors.push(path.invalid(url, error.to_string()));
            return;
        }
    };
    if parsed.scheme_str() != Some("https") {
        errors.push(path.invalid(url, "URL scheme must be https"));
    }
    if parsed
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'))
    {
        errors.push(path.invalid(url, "URL must not contain a username or password"));
    }
    if parsed.query().is_some_and(|query| !query.is_empty()) {
        errors.push(path.invalid(url, "URL must not contain a query"));
    }
    if !fragment.is_empty() {
        errors.push(path.invalid(url, "URL must not contain a fragment"));
    }
}

fn validate_source(
    source: &PrefixedClaimOrExpression,
    required: bool,
    path: &Path,
    errors: &mut ErrorList,
) {
    match (source.claim.is_empty(), source.expression.is_empty()) {
        (false, false) => errors.push(path.invalid("", "claim and expression can't both be set")),
        (true, true) if required => errors.push(path.required("claim or expression is required")),
        (true, true) => {}
        (true, false) => {
            if let Some(prefix) = &source.prefix {
                errors.push(path.child("prefix").invalid(
                    prefix.as_str(),
                    "may not be specified when expression is set",
                ));
            }
            compile(&source.expression, &path.child("expression"), errors);
        }
        (false, true) if source.prefix.is_none() => errors.push(path.child("prefix").required(
            "prefix is required when claim is set. It can be set to an empty string to disable prefixing",
        )),
        (false, true) => {}
    }
}

fn validate_key(key: &str, path: &Path, errors: &mut ErrorList) {
    if key.is_empty() {
        errors.push(path.required(""));
        return;
    }
    let Some((domain, _)) = key.split_once('/').filter(|(_, rest)| !rest.is_empty()) else {
        errors.push(path.invalid(
            key,
            "must be a domain-prefixed path (such as \"acme.io/foo\")",
        ));
        return;
    };
    if key.chars().any(char::is_uppercase) {
        errors.push(path.invalid(key, "must be lowercase"));
    }
    let ours = |of: &str| domain == of || domain.ends_with(&format!(".{of}"));
    if ours("k8s.io") || ours("kubernetes.io") {
        errors.push(path.invalid(
            key,
            "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use",
        ));
    }
}

fn compile(source: &str, path: &Path, errors: &mut ErrorList) {
    if let Err(error) = Expression::compile(source, Scope::claims()) {
        errors.push(path.invalid(source, error));
    }
}

fn compile_rule(source: &str, scope: Scope, path: &Path, errors: &mut ErrorList) {
    if let Err(error) = Expression::compile_rule(source, scope) {
        errors.push(path.invalid(source, error));
    }
}
