//! All expressions of an object.

use std::collections::HashSet;

use coracle_api::{
    expression::{Expression, Result as Wanted, Scope as Place},
    field::{ErrorList, FieldError},
};

use crate::{Scope, Type, compile, cost};

/// The most that the selector of a device may cost (`CELSelectorExpressionMaxCost`).
const MOST_COST: u64 = 1_000_000;

/// What is wrong with the expressions of an object. What its former state `old` had already is not
/// looked at again, as long as it still may speak of the same.
pub fn check(new: &[Expression<'_>], old: &[Expression<'_>]) -> ErrorList {
    if new.is_empty() {
        return ErrorList::new();
    }
    let same_variables = variables(new).eq(variables(old));
    let known: HashSet<_> = old.iter().map(identity).collect();
    let is_known = |of: &Expression<'_>| same_variables && known.contains(&identity(of));
    if new.iter().all(is_known) {
        return ErrorList::new();
    }
    let mut errors = ErrorList::new();
    let mut declared: Vec<(&str, Type)> = Vec::new();
    for expression in new {
        let variable = match expression.result {
            Wanted::Variable(name) => Some(name),
            _ => None,
        };
        if variable.is_none() && is_known(expression) {
            continue;
        }
        let mut scope = Scope::of(&expression.scope);
        for (name, of) in &declared {
            scope.set_variable(name, of);
        }
        match evaluated(expression, &scope) {
            Ok(found) => declared.extend(variable.map(|name| (name, found))),
            Err(error) => {
                declared.extend(variable.map(|name| (name, Type::Dyn)));
                if !is_known(expression) {
                    errors.push(error);
                }
            }
        }
    }
    errors
}

fn variables<'e>(
    expressions: &'e [Expression<'_>],
) -> impl Iterator<Item = (&'e str, &'e str)> + 'e {
    expressions
        .iter()
        .filter_map(|expression| match expression.result {
            Wanted::Variable(name) => Some((name, expression.source)),
            _ => None,
        })
}

/// What tells an expression from others, wherever it stands.
fn identity<'e>(of: &Expression<'e>) -> (&'e str, Place, Wanted<'e>) {
    (of.source, of.scope, of.result)
}

/// The type of the expression's value.
fn evaluated(expression: &Expression<'_>, scope: &Scope) -> Result<Type, FieldError> {
    let invalid = |detail: String| expression.path.invalid(expression.given, detail);
    let compiled = compile(expression.source, scope);
    let compiled = compiled.map_err(|error| invalid(error.to_string()))?;
    let found = compiled.result;
    let wanted = match expression.result {
        Wanted::Variable(_) => return Ok(found),
        Wanted::Selected => vec![Type::Bool, Type::Any],
        Wanted::Bool => vec![Type::Bool],
        Wanted::Text => vec![Type::String],
        Wanted::TextOrNull => vec![Type::String, Type::Null],
        Wanted::Object => vec![Type::object("Object")],
        Wanted::Patches => vec![Type::list(Type::object("JSONPatch"))],
    };
    if wanted.contains(&found) {
        return if matches!(expression.result, Wanted::Selected)
            && cost::most(compiled.program.expression()) > MOST_COST
        {
            let detail = "too complex, exceeds cost limit";
            Err(expression.path.forbidden(detail))
        } else {
            Ok(found)
        };
    }
    let found = found.declared_name();
    let wanted: Vec<String> = wanted.iter().map(Type::declared_name).collect();
    Err(invalid(match (expression.result, wanted.as_slice()) {
        (Wanted::Selected, _) => {
            format!("must evaluate to bool or the unknown type, not {found}")
        }
        (_, [one]) => format!("must evaluate to {one} but got {found}"),
        (_, several) => format!(
            "must evaluate to one of [{}] but got {found}",
            several.join(" ")
        ),
    }))
}
