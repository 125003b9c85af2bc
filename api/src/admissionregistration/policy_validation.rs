//! What is wrong with admission policies and their bindings. Of their expressions only that
//! they are there: what they mean is for [`super::expressions`]' readers.
//!
//! Upstream: `pkg/apis/admissionregistration/validation`.

use k8s_openapi::api::admissionregistration::v1::{
    AuditAnnotation, MatchCondition, MatchResources, MutatingAdmissionPolicySpec, Mutation,
    NamedRuleWithOperations, ParamKind, ParamRef, RuleWithOperations,
    ValidatingAdmissionPolicySpec, ValidatingAdmissionPolicyStatus, Validation, Variable,
};

use super::validation::{self, MATCH_POLICIES};
use crate::{
    check,
    field::{ErrorList, Path, value_of},
    formats, names,
    zero::{list, text},
};

const FAILURE_POLICIES: &[&str] = &["Fail", "Ignore"];
const REASONS: &[&str] = &["Forbidden", "Invalid", "RequestEntityTooLarge"];
const MUTATED_OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "UPDATE"];
const MAX_AUDIT_ANNOTATIONS: usize = 20;
pub const MAX_VALUE_EXPRESSION: usize = 5 * 1024;

/// [`Shared`] of either kind's spec.
macro_rules! shared {
    ($spec:expr) => {
        Shared {
            failure_policy: text(&$spec.failure_policy),
            param_kind: $spec.param_kind.as_ref(),
            matched: $spec.match_constraints.as_ref(),
            conditions: list(&$spec.match_conditions),
            variables: list(&$spec.variables),
        }
    };
}

/// Checks the spec of the policy that is called `name`.
pub fn validating(name: &str, spec: &ValidatingAdmissionPolicySpec) -> ErrorList {
    const ONE: &str = "validations or auditAnnotations must contain at least one item";
    let mut errors = ErrorList::new();
    let path = Path::new("spec");
    let shared = shared!(spec);
    shared.check_scope(&path, &mut errors);
    shared.check_expressions(&path, &mut errors);
    let (validations, annotations) = (list(&spec.validations), list(&spec.audit_annotations));
    let annotations_path = path.child("auditAnnotations");
    if validations.is_empty() && annotations.is_empty() {
        errors.push(path.child("validations").required(ONE));
        errors.push(annotations_path.required(ONE));
    }
    for (index, item) in validations.iter().enumerate() {
        validation_rule(item, &path.child("validations").index(index), &mut errors);
    }
    if annotations.len() > MAX_AUDIT_ANNOTATIONS {
        let detail = format!("must not have more than {MAX_AUDIT_ANNOTATIONS} auditAnnotations");
        errors.push(annotations_path.invalid(value_of(&annotations), detail));
    }
    for (index, item) in annotations.iter().enumerate() {
        let path = annotations_path.index(index);
        audit_annotation(name, item, &path, &mut errors);
        if annotations[..index]
            .iter()
            .any(|other| other.key == item.key)
        {
            errors.push(path.child("key").duplicate(item.key.as_str()));
        }
    }
    errors
}

/// Checks what type checking found.
pub fn validating_status(status: Option<&ValidatingAdmissionPolicyStatus>) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("status.typeChecking.expressionWarnings");
    let checking = status.and_then(|status| status.type_checking.as_ref());
    let warnings = checking.map_or(&[][..], |checking| list(&checking.expression_warnings));
    for (index, item) in warnings.iter().enumerate() {
        let path = path.index(index);
        check::required(&item.warning, &path.child("warning"), &mut errors);
        check::required(item.field_ref.trim(), &path.child("fieldRef"), &mut errors);
    }
    let conditions = status.map_or(&[][..], |status| list(&status.conditions));
    check::conditions(conditions, &Path::new("status.conditions"), &mut errors);
    errors
}

/// Checks the spec of a mutating policy.
pub fn mutating(spec: &MutatingAdmissionPolicySpec) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("spec");
    let shared = shared!(spec);
    shared.check_scope(&path, &mut errors);
    let rules = spec.match_constraints.as_ref();
    let rules = rules.map_or(&[][..], |matched| list(&matched.resource_rules));
    for operation in rules.iter().flat_map(|rule| list(&rule.operations)) {
        let path = path.child("matchConstraints.resourceRules.operations");
        check::one_of(operation, MUTATED_OPERATIONS, &path, &mut errors);
    }
    shared.check_expressions(&path, &mut errors);
    let (mutations, mutations_path) = (list(&spec.mutations), path.child("mutations"));
    if mutations.is_empty() {
        errors.push(mutations_path.required("mutations must contain at least one item"));
    }
    for (index, item) in mutations.iter().enumerate() {
        mutation(item, &mutations_path.index(index), &mut errors);
    }
    check::required_one_of(
        text(&spec.reinvocation_policy),
        &["IfNeeded", "Never"],
        &path.child("reinvocationPolicy"),
        &mut errors,
    );
    errors
}

/// What both kinds of policies have.
struct Shared<'p> {
    failure_policy: &'p str,
    param_kind: Option<&'p ParamKind>,
    matched: Option<&'p MatchResources>,
    conditions: &'p [MatchCondition],
    variables: &'p [Variable],
}

impl Shared<'_> {
    /// What the policy is about.
    fn check_scope(&self, path: &Path, errors: &mut ErrorList) {
        let policy_path = path.child("failurePolicy");
        check::one_of(self.failure_policy, FAILURE_POLICIES, &policy_path, errors);
        if let Some(kind) = self.param_kind {
            param_kind(kind, &path.child("paramKind"), errors);
        }
        let path = path.child("matchConstraints");
        match self.matched {
            None => errors.push(path.required("")),
            Some(matched) => {
                match_resources(matched, &path, errors);
                if list(&matched.resource_rules).is_empty() {
                    errors.push(path.child("resourceRules").required(""));
                }
            }
        }
    }

    fn check_expressions(&self, path: &Path, errors: &mut ErrorList) {
        validation::conditions(self.conditions, &path.child("matchConditions"), errors);
        for (index, item) in self.variables.iter().enumerate() {
            let path = path.child("variables").index(index);
            let name_path = path.child("name");
            if item.name.trim().is_empty() {
                errors.push(name_path.required("name is not specified"));
            } else if !is_cel_identifier(&item.name) {
                let detail = "must be a valid CEL identifier";
                errors.push(name_path.invalid(item.name.as_str(), detail));
            }
            expression(&item.expression, &path.child("expression"), errors);
        }
    }
}

fn expression(expression: &str, path: &Path, errors: &mut ErrorList) {
    if expression.trim().is_empty() {
        errors.push(path.required("expression is not specified"));
    }
}

/// A C identifier that is no word of the language.
fn is_cel_identifier(name: &str) -> bool {
    const RESERVED: &[&str] = &[
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ];
    formats::c_identifier(name).is_empty() && !RESERVED.contains(&name)
}

fn param_kind(kind: &ParamKind, path: &Path, errors: &mut ErrorList) {
    let (version, version_path) = (text(&kind.api_version), path.child("apiVersion"));
    match version.split('/').collect::<Vec<_>>()[..] {
        [""] => errors.push(version_path.required("")),
        [version] => group_version("", version, version, &version_path, errors),
        [group, short] => group_version(group, short, version, &version_path, errors),
        _ => {
            let detail = format!("unexpected GroupVersion string: {version}");
            errors.push(version_path.invalid(version, detail));
        }
    }
    let (kind, path) = (text(&kind.kind), path.child("kind"));
    if kind.is_empty() {
        errors.push(path.required(""));
        return;
    }
    let messages = names::dns1035_label(&kind.to_lowercase());
    if !messages.is_empty() {
        let detail = format!(
            "may have mixed case, but should otherwise match: {}",
            messages.join(",")
        );
        errors.push(path.invalid(kind, detail));
    }
}

fn group_version(group: &str, version: &str, whole: &str, path: &Path, errors: &mut ErrorList) {
    if !group.is_empty() {
        let messages = names::dns1123_subdomain(group);
        if !messages.is_empty() {
            errors.push(path.invalid(group, messages.join(",")));
        }
    }
    if version.is_empty() {
        errors.push(path.invalid(whole, "version must be specified"));
        return;
    }
    let messages = names::dns1035_label(version);
    if !messages.is_empty() {
        errors.push(path.invalid(version, messages.join(",")));
    }
}

fn validation_rule(of: &Validation, path: &Path, errors: &mut ErrorList) {
    const NON_EMPTY: &str = "must be non-empty if specified";
    expression(&of.expression, &path.child("expression"), errors);
    let is_blank = |text: &str| !text.is_empty() && text.trim().is_empty();
    let message_expression = text(&of.message_expression);
    if is_blank(message_expression) {
        let path = path.child("messageExpression");
        errors.push(path.invalid(message_expression, NON_EMPTY));
    }
    let (message, message_path) = (text(&of.message), path.child("message"));
    if is_blank(message) {
        errors.push(message_path.invalid(message, NON_EMPTY));
    } else if message.trim().contains(['\n', '\r']) {
        errors.push(message_path.invalid(message, "must not contain line breaks"));
    }
    if let Some(reason) = &of.reason {
        check::one_of(reason, REASONS, &path.child("reason"), errors);
    }
}

fn audit_annotation(policy: &str, of: &AuditAnnotation, path: &Path, errors: &mut ErrorList) {
    let key_path = path.child("key");
    if policy.is_empty() {
        let detail = "requires metadata.name be non-empty";
        errors.push(key_path.invalid(of.key.as_str(), detail));
    } else {
        check::qualified_name(&format!("{policy}/{}", of.key), &key_path, errors);
    }
    let path = path.child("valueExpression");
    match of.value_expression.trim().len() {
        0 => errors.push(path.required("valueExpression is not specified")),
        1..=MAX_VALUE_EXPRESSION => {}
        _ => errors.push(path.required(format!(
            "must not exceed {MAX_VALUE_EXPRESSION} bytes in length"
        ))),
    }
}

fn mutation(mutation: &Mutation, path: &Path, errors: &mut ErrorList) {
    let applied = mutation.apply_configuration.as_ref();
    let patch = mutation.json_patch.as_ref();
    let fields = [
        (
            "JSONPatch",
            "jsonPatch",
            patch.map(|patch| text(&patch.expression)),
        ),
        (
            "ApplyConfiguration",
            "applyConfiguration",
            applied.map(|applied| text(&applied.expression)),
        ),
    ];
    let type_path = path.child("patchType");
    let kind = mutation.patch_type.as_str();
    check::required_one_of(
        kind,
        &["ApplyConfiguration", "JSONPatch"],
        &type_path,
        errors,
    );
    let Some((_, field, given)) = fields.iter().find(|(name, ..)| *name == kind) else {
        return;
    };
    let field_path = path.child(field);
    match given {
        None => {
            errors.push(field_path.required(format!("must be specified when patchType is {kind}")))
        }
        Some(given) => check::required(given.trim(), &field_path.child("expression"), errors),
    }
    for (_, other, given) in fields.iter().filter(|(name, ..)| *name != kind) {
        if given.is_some() {
            errors.push(path.child(other).invalid(
                format!("{{{other}}}"),
                format!("must not be specified when patchType is {kind}"),
            ));
        }
    }
}

/// The part of a binding that those of validating and of mutating policies share.
pub fn binding(
    policy_name: &str,
    parameters: Option<&ParamRef>,
    matched: Option<&MatchResources>,
    errors: &mut ErrorList,
) {
    let path = Path::new("spec");
    let name_path = path.child("policyName");
    if policy_name.is_empty() {
        errors.push(name_path.required(""));
    } else {
        check::subdomain(policy_name, &name_path, errors);
    }
    if let Some(reference) = parameters {
        param_ref(reference, &path.child("paramRef"), errors);
    }
    if let Some(matched) = matched {
        match_resources(matched, &path.child("matchResources"), errors);
    }
}

fn param_ref(reference: &ParamRef, path: &Path, errors: &mut ErrorList) {
    const EXCLUSIVE: &str = "name and selector are mutually exclusive";
    let name = text(&reference.name);
    if !name.is_empty() {
        let path = path.child("name");
        check::each(&path, name, names::path_segment_name(name), errors);
        if reference.selector.is_some() {
            errors.push(path.forbidden(EXCLUSIVE));
        }
    }
    if reference.selector.is_some() {
        let path = path.child("selector");
        check::label_selector(reference.selector.as_ref(), &path, errors);
        if !name.is_empty() {
            errors.push(path.forbidden(EXCLUSIVE));
        }
    } else if name.is_empty() {
        errors.push(path.required("one of name or selector must be specified"));
    }
    let action = text(&reference.parameter_not_found_action);
    let path = path.child("parameterNotFoundAction");
    check::required_one_of(action, &["Deny", "Allow"], &path, errors);
}

fn match_resources(matched: &MatchResources, path: &Path, errors: &mut ErrorList) {
    let policy = text(&matched.match_policy);
    check::required_one_of(policy, MATCH_POLICIES, &path.child("matchPolicy"), errors);
    for (field, selector) in [
        ("namespaceSelector", &matched.namespace_selector),
        ("objectSelector", &matched.object_selector),
    ] {
        check::label_selector(selector.as_ref(), &path.child(field), errors);
    }
    for (field, rules) in [
        ("resourceRules", &matched.resource_rules),
        ("excludeResourceRules", &matched.exclude_resource_rules),
    ] {
        for (index, rule) in list(rules).iter().enumerate() {
            named_rule(rule, &path.child(field).index(index), errors);
        }
    }
}

fn named_rule(named: &NamedRuleWithOperations, path: &Path, errors: &mut ErrorList) {
    let resource_names = list(&named.resource_names);
    for (index, name) in resource_names.iter().enumerate() {
        let path = path.child("resourceNames").index(index);
        check::each(&path, name.as_str(), names::path_segment_name(name), errors);
        if resource_names[..index].contains(name) {
            errors.push(path.duplicate(name.as_str()));
        }
    }
    let unnamed = RuleWithOperations {
        api_groups: named.api_groups.clone(),
        api_versions: named.api_versions.clone(),
        operations: named.operations.clone(),
        resources: named.resources.clone(),
        scope: named.scope.clone(),
    };
    validation::rule(&unnamed, path, errors);
}
