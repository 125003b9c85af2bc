//! The CEL expressions of an AuthenticationConfiguration.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use cel::{
    Context, Env, Program, Value as CelValue,
    common::ast::{EntryExpr, Expr, IdedExpr},
};
use coracle_api::Identity;
use serde_json::Value;

/// What values' types are called.
const TYPES: [&str; 10] = [
    "bool",
    "bytes",
    "double",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "type",
    "uint",
];

static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut environment = Env::stdlib();
    // They are declared once, so that nothing can be there already.
    let _ = environment.add_extension(cel::extensions::strings);
    let _ = environment.add_extension(cel::extensions::lists);
    Arc::new(environment)
});

/// A compiled expression.
pub(super) struct Expression {
    pub source: String,
    program: Program,
}

impl Expression {
    /// # Errors
    /// It cannot be parsed, or speaks of something else than `variable`.
    pub fn compile(source: &str, variable: &str) -> Result<Self, String> {
        let program = ENVIRONMENT
            .compile(source)
            .map_err(|error| format!("compilation failed: {error}"))?;
        if let Some(other) = undeclared(program.expression(), &mut vec![variable]) {
            return Err(format!(
                "compilation failed: undeclared reference to '{other}' (in container '')"
            ));
        }
        Ok(Expression {
            source: source.to_owned(),
            program,
        })
    }

    /// The value, where `variable` has this one.
    pub fn evaluate(&self, variable: &str, value: &CelValue) -> Result<CelValue, String> {
        let mut context = Context::with_env(ENVIRONMENT.clone());
        context.add_variable_from_value(variable, value.clone());
        self.program
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

/// The first name that is neither declared here nor a type's.
fn undeclared<'e>(expression: &'e IdedExpr, declared: &mut Vec<&'e str>) -> Option<&'e str> {
    let any = |parts: Vec<&'e IdedExpr>, declared: &mut Vec<&'e str>| {
        parts
            .into_iter()
            .find_map(|part| undeclared(part, declared))
    };
    match &expression.expr {
        Expr::Ident(name) => {
            let known = name.starts_with('@')
                || TYPES.contains(&name.as_str())
                || declared.contains(&name.as_str());
            (!known).then_some(name)
        }
        Expr::Call(call) => {
            let target = call.target.iter().map(|target| &**target);
            any(target.chain(&call.args).collect(), declared)
        }
        Expr::List(list) => any(list.elements.iter().collect(), declared),
        Expr::Select(select) => undeclared(&select.operand, declared),
        Expr::Map(map) => {
            let parts = map.entries.iter().flat_map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
                EntryExpr::StructField(field) => vec![&field.value],
            });
            any(parts.collect(), declared)
        }
        Expr::Comprehension(loops) => {
            if let Some(other) = any(vec![&loops.iter_range, &loops.accu_init], declared) {
                return Some(other);
            }
            let before = declared.len();
            declared.extend([loops.iter_var.as_str(), loops.accu_var.as_str()]);
            declared.extend(loops.iter_var2.as_deref());
            let parts = vec![&loops.loop_cond, &loops.loop_step, &loops.result];
            let found = any(parts, declared);
            declared.truncate(before);
            found
        }
        Expr::Struct(_) | Expr::Literal(_) | Expr::Unspecified => None,
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
