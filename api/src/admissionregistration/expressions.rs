//! The expressions of webhooks and of policies, but for blank ones, which are refused as such.

use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MutatingAdmissionPolicySpec, ValidatingAdmissionPolicySpec, Variable,
};

use super::policy_validation::MAX_VALUE_EXPRESSION;
use crate::{
    expression::{Admission, Expression, Result, Scope},
    field::Path,
    zero::{list, text},
};

/// Of each webhook's conditions.
pub fn webhooks<'o>(conditions: impl Iterator<Item = &'o [MatchCondition]>) -> Vec<Expression<'o>> {
    let hooks = conditions.enumerate().flat_map(|(index, conditions)| {
        let path = Path::new("webhooks").index(index);
        of_conditions(conditions, false, &path)
    });
    hooks.collect()
}

fn of_conditions<'o>(
    conditions: &'o [MatchCondition],
    params: bool,
    path: &Path,
) -> impl Iterator<Item = Expression<'o>> + use<'o> {
    let path = path.child("matchConditions");
    let scope = Scope::Admission(Admission {
        params,
        authorizer: true,
        ..Admission::default()
    });
    let conditions = conditions.iter().enumerate();
    conditions.filter_map(move |(index, condition)| {
        let path = path.index(index).child("expression");
        trimmed(path, &condition.expression, scope, Result::Bool)
    })
}

/// An expression that is read, and shown, without the space around it.
fn trimmed<'o>(
    path: Path,
    source: &'o str,
    scope: Scope,
    result: Result<'o>,
) -> Option<Expression<'o>> {
    let source = source.trim();
    (!source.is_empty()).then(|| Expression::new(path, source, scope, result))
}

/// An expression that is read as it was written.
fn whole<'o>(
    path: Path,
    source: &'o str,
    scope: Scope,
    result: Result<'o>,
) -> Option<Expression<'o>> {
    (!source.trim().is_empty()).then(|| Expression::new(path, source, scope, result))
}

fn of_variables<'o>(
    variables: &'o [Variable],
    of: Admission,
    path: &Path,
) -> impl Iterator<Item = Expression<'o>> + use<'o> {
    let path = path.child("variables");
    let variables = variables.iter().enumerate();
    variables.filter_map(move |(index, variable)| {
        let path = path.index(index).child("expression");
        let result = Result::Variable(&variable.name);
        whole(path, &variable.expression, Scope::Admission(of), result)
    })
}

pub fn validating(spec: &ValidatingAdmissionPolicySpec) -> Vec<Expression<'_>> {
    let path = Path::new("spec");
    let params = spec.param_kind.is_some();
    let all = Admission {
        params,
        authorizer: true,
        variables: !list(&spec.variables).is_empty(),
        patches: false,
    };
    let message = Scope::Admission(Admission {
        authorizer: false,
        ..all
    });
    let conditions = list(&spec.match_conditions);
    let mut found: Vec<_> = of_conditions(conditions, params, &path).collect();
    found.extend(of_variables(list(&spec.variables), all, &path));
    let all = Scope::Admission(all);
    for (index, rule) in list(&spec.validations).iter().enumerate() {
        let path = path.child("validations").index(index);
        found.extend(whole(
            path.child("expression"),
            &rule.expression,
            all,
            Result::Bool,
        ));
        found.extend(whole(
            path.child("messageExpression"),
            text(&rule.message_expression),
            message,
            Result::Text,
        ));
    }
    for (index, annotation) in list(&spec.audit_annotations).iter().enumerate() {
        let given = annotation.value_expression.as_str();
        if given.trim().len() > MAX_VALUE_EXPRESSION {
            continue;
        }
        let path = path.child("auditAnnotations").index(index);
        let path = path.child("valueExpression");
        let read = trimmed(path, given, all, Result::TextOrNull);
        found.extend(read.map(|read| Expression { given, ..read }));
    }
    found
}

pub fn mutating(spec: &MutatingAdmissionPolicySpec) -> Vec<Expression<'_>> {
    let path = Path::new("spec");
    let params = spec.param_kind.is_some();
    let all = Admission {
        params,
        authorizer: true,
        variables: true,
        patches: false,
    };
    let conditions = list(&spec.match_conditions);
    let mut found: Vec<_> = of_conditions(conditions, params, &path).collect();
    found.extend(of_variables(list(&spec.variables), all, &path));
    let all = Scope::Admission(Admission {
        patches: true,
        ..all
    });
    for (index, mutation) in list(&spec.mutations).iter().enumerate() {
        let path = path.child("mutations").index(index);
        let (field, source, result) = match mutation.patch_type.as_str() {
            "ApplyConfiguration" => {
                let applied = mutation.apply_configuration.as_ref();
                let source = applied.map(|applied| text(&applied.expression));
                ("applyConfiguration", source, Result::Object)
            }
            "JSONPatch" => {
                let patch = mutation.json_patch.as_ref();
                let source = patch.map(|patch| text(&patch.expression));
                ("jsonPatch", source, Result::Patches)
            }
            _ => continue,
        };
        let path = path.child(field).child("expression");
        found.extend(trimmed(path, source.unwrap_or_default(), all, result));
    }
    found
}
