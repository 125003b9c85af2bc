//! Whether an object fits its schema, in the words that clients of server-side apply know.

use std::{collections::BTreeSet, fmt};

use serde_json::Value;

use super::{
    element::PathElement,
    model::{Form, Model, Scalar},
};
use crate::go_print;

/// Where an object does not fit its schema, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `.spec.replicas`; empty for the object itself.
    pub path: String,
    pub message: String,
}

/// All that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.message),
            path => write!(f, "{path}: {}", self.message),
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [one] = &self.0[..] {
            return one.fmt(f);
        }
        f.write_str("errors:")?;
        self.0
            .iter()
            .try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

/// Whether items of a list may be the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duplicates {
    Allowed,
    Refused,
}

/// Checks an object against its schema: fields that there are, kinds of scalars, and lists
/// whose items can be told apart.
///
/// # Errors
/// All that does not fit.
pub fn validate(model: Model, object: &Value, duplicates: Duplicates) -> Result<(), Problems> {
    let mut walk = Walk {
        duplicates,
        path: String::new(),
        problems: Vec::new(),
    };
    walk.value(model, object);
    if walk.problems.is_empty() {
        Ok(())
    } else {
        Err(Problems(walk.problems))
    }
}

struct Walk {
    duplicates: Duplicates,
    path: String,
    problems: Vec<Problem>,
}

impl Walk {
    fn problem(&mut self, message: impl Into<String>) {
        self.problems.push(Problem {
            path: self.path.clone(),
            message: message.into(),
        });
    }

    fn below(&mut self, element: &PathElement, model: Model, value: &Value) {
        let length = self.path.len();
        self.path.push_str(&element.to_string());
        self.value(model, value);
        self.path.truncate(length);
    }

    fn value(&mut self, model: Model, value: &Value) {
        match (model.form(), value) {
            (Form::Any | Form::Deduced, _) | (_, Value::Null) => {}
            (Form::Scalar(scalar), _) => self.scalar(scalar, value),
            (Form::Record(_) | Form::Map(_), Value::Object(map)) => {
                for (name, value) in map {
                    let Some((name, of)) = model.field(name) else {
                        let length = self.path.len();
                        self.path.push_str(&format!(".{name}"));
                        self.problem("field not declared in schema");
                        self.path.truncate(length);
                        return;
                    };
                    self.below(&PathElement::Field(name), of, value);
                }
            }
            (Form::Record(_) | Form::Map(_), other) => {
                self.problem(format!("expected map, got {}", wrapped(other)));
            }
            (Form::List(_), Value::Array(list)) => self.list(model, list),
            (Form::List(_), other) => {
                self.problem(format!("expected list, got {}", wrapped(other)));
            }
        }
    }

    fn list(&mut self, model: Model, list: &[Value]) {
        let mut seen = BTreeSet::new();
        for (at, item) in list.iter().enumerate() {
            let element = match model.items() {
                None => PathElement::Index(i64::try_from(at).unwrap_or(i64::MAX)),
                Some(items) => match model.element_of(items, item) {
                    Ok(element) => element,
                    Err(error) => return self.problem(format!("element {at}: {error}")),
                },
            };
            self.below(&element, model.item(), item);
            if self.duplicates == Duplicates::Refused && seen.contains(&element) {
                self.problem(format!("duplicate entries for key {element}"));
            }
            seen.insert(element);
        }
    }

    fn scalar(&mut self, scalar: Scalar, value: &Value) {
        match (scalar, value) {
            (Scalar::Numeric, Value::Number(_))
            | (Scalar::String, Value::String(_))
            | (Scalar::Boolean, Value::Bool(_))
            | (Scalar::Untyped, Value::Number(_) | Value::String(_) | Value::Bool(_)) => {}
            (Scalar::Numeric, value) => self.problem(format!(
                "expected numeric (int or float), got {}",
                go_print::type_name(value)
            )),
            (Scalar::String, value) => {
                self.problem(format!(
                    "expected string, got &value.valueUnstructured{{Value:{}}}",
                    go_print::syntax(value)
                ));
            }
            (Scalar::Boolean, value) => {
                self.problem(format!("expected boolean, got {}", wrapped(value)));
            }
            (Scalar::Untyped, value) => {
                self.problem(format!("expected any scalar, got {}", wrapped(value)));
            }
        }
    }
}

/// Go's `%v` of a value that wraps another.
fn wrapped(value: &Value) -> String {
    format!("&{{{}}}", go_print::plain(value))
}
