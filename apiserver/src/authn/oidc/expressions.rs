//! The CEL expressions of an AuthenticationConfiguration.

use std::collections::HashMap;

use cel::{Context, Value as CelValue};
use coracle_api::Identity;
use coracle_cel::{Compiled, Scope, Type};
use serde_json::Value;

/// A compiled expression.
pub(super) struct Expression {
    pub source: String,
    scope: Scope,
    compiled: Compiled,
}

impl Expression {
    /// # Errors
    /// It is no expression, or speaks of something else than the scope has.
    pub fn compile(source: &str, scope: Scope) -> Result<Self, String> {
        let compiled = coracle_cel::compile(source, &scope).map_err(|error| error.to_string())?;
        Ok(Expression {
            source: source.to_owned(),
            scope,
            compiled,
        })
    }

    /// One that must be true.
    ///
    /// # Errors
    /// Those of [`Expression::compile`], and another type than `bool`.
    pub fn compile_rule(source: &str, scope: Scope) -> Result<Self, String> {
        let rule = Self::compile(source, scope)?;
        match rule.compiled.result {
            Type::Bool => Ok(rule),
            _ => Err("must evaluate to bool".to_owned()),
        }
    }

    /// The value, where `variable` has this one.
    pub fn evaluate(&self, variable: &str, value: &CelValue) -> Result<CelValue, String> {
        let mut context = Context::with_env(self.scope.language().clone());
        context.add_variable_from_value(variable, value.clone());
        self.compiled
            .program
            .execute(&context)
            .map_err(|error| format!("expression '{}' resulted in error: {error}", self.source))
    }

    /// Whether it selects `claims.{field}`.
    pub fn selects(&self, field: &str) -> bool {
        let source: String = self.source.split_whitespace().collect();
        [format!("claims.{field}"), format!("claims.?{field}")]
            .iter()
            .any(|selection| {
                source.match_indices(selection.as_str()).any(|(at, found)| {
                    let next = source[at + found.len()..].chars().next();
                    !next.is_some_and(|next| next.is_alphanumeric() || next == '_')
                })
            })
    }
}

/// JSON as expressions see it. Numbers without a fraction are integers.
pub(super) fn value_of(json: &Value) -> CelValue {
    match json {
        Value::Null => CelValue::Null,
        Value::Bool(value) => CelValue::Bool(*value),
        Value::Number(number) => match number.as_i64() {
            Some(number) => CelValue::Int(number),
            None => CelValue::Float(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => CelValue::from(text.as_str()),
        Value::Array(items) => CelValue::from(items.iter().map(value_of).collect::<Vec<_>>()),
        Value::Object(members) => {
            let members = members
                .iter()
                .map(|(key, value)| (key.clone(), value_of(value)));
            CelValue::from(members.collect::<HashMap<_, _>>())
        }
    }
}

/// A user as the rules about users see it.
pub(super) fn value_of_user(user: &Identity) -> CelValue {
    value_of(&serde_json::json!({
        "username": user.user,
        "uid": user.uid,
        "groups": user.groups,
        "extra": user.extra,
    }))
}

/// A text or a list of them; empty ones are left out.
pub(super) fn texts(value: &CelValue) -> Result<Vec<String>, String> {
    const WRONG: &str = "expression must return a string or a list of strings";
    let found = match value {
        CelValue::String(text) => vec![text.to_string()],
        CelValue::List(items) => items
            .iter()
            .map(|item| match item {
                CelValue::String(text) => Ok(text.to_string()),
                _ => Err(WRONG.to_owned()),
            })
            .collect::<Result<_, _>>()?,
        CelValue::Null => Vec::new(),
        _ => return Err(WRONG.to_owned()),
    };
    Ok(found.into_iter().filter(|text| !text.is_empty()).collect())
}
