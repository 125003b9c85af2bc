//! Label selectors: `app=web,tier in (front, back),!canary`.
//!
//! Upstream: `k8s.io/apimachinery/pkg/labels`.

mod parse;

use std::{collections::BTreeMap, fmt, str::FromStr};

use k8s_openapi::apimachinery::pkg::apis::meta::v1;

use super::SelectorError;
use crate::{
    field::{FieldError, Path},
    names,
};

/// How a label is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    In,
    NotIn,
    Equals,
    DoubleEquals,
    NotEquals,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// What one label must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

/// Which labels an object must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelSelector {
    /// Selects no object: the selector that is absent.
    Nothing,
    /// Selects the objects for which all hold; sorted by key.
    All(Vec<Requirement>),
}

impl Requirement {
    /// # Errors
    /// When key, operator and values do not go together. `path` is where the requirement stands.
    pub fn new(
        key: &str,
        operator: Operator,
        values: Vec<String>,
        path: Option<&Path>,
    ) -> Result<Self, SelectorError> {
        let mut errors = Vec::new();
        let (key_path, values_path) = match path {
            Some(path) => (path.child("key"), path.child("values")),
            None => (Path::new("key"), Path::new("values")),
        };
        errors.extend(label_key_error(key, &key_path));
        let wrong_count = match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                Some("for 'in', 'notin' operators, values set can't be empty")
            }
            Operator::Equals | Operator::DoubleEquals | Operator::NotEquals
                if values.len() != 1 =>
            {
                Some("exact-match compatibility requires one single value")
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                Some("values set must be empty for exists and does not exist")
            }
            Operator::GreaterThan | Operator::LessThan if values.len() != 1 => {
                Some("for 'Gt', 'Lt' operators, exactly one value is required")
            }
            _ => None,
        };
        errors.extend(wrong_count.map(|detail| values_path.invalid(values.clone(), detail)));
        if matches!(operator, Operator::GreaterThan | Operator::LessThan) {
            let not_integer = |value: &&String| value.parse::<i64>().is_err();
            for (index, value) in values.iter().enumerate().filter(|(_, v)| not_integer(v)) {
                errors.push(values_path.index(index).invalid(
                    value.clone(),
                    "for 'Gt', 'Lt' operators, the value must be an integer",
                ));
            }
        }
        for (index, value) in values.iter().enumerate() {
            let messages = names::label_value(value);
            if !messages.is_empty() {
                errors.push(
                    values_path
                        .index(index)
                        .key(key)
                        .invalid(value.clone(), messages.join("; ")),
                );
            }
        }
        match aggregate(&errors) {
            Some(message) => Err(SelectorError(message)),
            None => Ok(Requirement {
                key: key.to_owned(),
                operator,
                values,
            }),
        }
    }

    pub fn key(&self) -> &str {
        &self.key
    }

    pub fn operator(&self) -> Operator {
        self.operator
    }

    pub fn values(&self) -> &[String] {
        &self.values
    }

    fn matches(&self, value: Option<&str>) -> bool {
        let has = |value: &str| self.values.iter().any(|allowed| allowed == value);
        let integer = |value: &str| value.parse::<i64>().ok();
        match self.operator {
            Operator::In | Operator::Equals | Operator::DoubleEquals => value.is_some_and(has),
            Operator::NotIn | Operator::NotEquals => !value.is_some_and(has),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan | Operator::LessThan => {
                let bound = self.values.first().and_then(|value| integer(value));
                match (value.and_then(integer), bound) {
                    (Some(value), Some(bound)) if self.operator == Operator::GreaterThan => {
                        value > bound
                    }
                    (Some(value), Some(bound)) => value < bound,
                    _ => false,
                }
            }
        }
    }
}

fn label_key_error(key: &str, path: &Path) -> Option<FieldError> {
    let messages = names::qualified_name(key);
    (!messages.is_empty()).then(|| path.invalid(key, messages.join("; ")))
}

/// One error as it is, several in brackets, as upstream's aggregate prints them.
fn aggregate(errors: &[FieldError]) -> Option<String> {
    match errors {
        [] => None,
        [error] => Some(error.to_string()),
        errors => {
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            Some(format!("[{}]", errors.join(", ")))
        }
    }
}

impl LabelSelector {
    /// Selects every object.
    pub const EVERYTHING: LabelSelector = LabelSelector::All(Vec::new());

    /// The selector of an API object. None selects nothing, an empty one everything.
    pub fn from_object(selector: Option<&v1::LabelSelector>) -> Result<Self, SelectorError> {
        let Some(selector) = selector else {
            return Ok(LabelSelector::Nothing);
        };
        let mut requirements = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            requirements.push(Requirement::new(
                key,
                Operator::Equals,
                vec![value.clone()],
                None,
            )?);
        }
        for expression in selector.match_expressions.iter().flatten() {
            let operator = match expression.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(SelectorError(format!(
                        "{other:?} is not a valid label selector operator"
                    )));
                }
            };
            let values = expression.values.clone().unwrap_or_default();
            requirements.push(Requirement::new(&expression.key, operator, values, None)?);
        }
        Ok(LabelSelector::sorted(requirements))
    }

    /// Selects objects that have all these labels. The labels are taken as valid.
    pub fn from_labels(labels: &BTreeMap<String, String>) -> Self {
        LabelSelector::All(
            labels
                .iter()
                .map(|(key, value)| Requirement {
                    key: key.clone(),
                    operator: Operator::Equals,
                    values: vec![value.clone()],
                })
                .collect(),
        )
    }

    fn sorted(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|left, right| left.key.cmp(&right.key));
        LabelSelector::All(requirements)
    }

    /// Whether it selects every object.
    pub fn is_empty(&self) -> bool {
        matches!(self, LabelSelector::All(requirements) if requirements.is_empty())
    }

    /// Whether it selects an object; `lookup` gives its labels.
    pub fn matches<'a>(&self, lookup: impl Fn(&str) -> Option<&'a str>) -> bool {
        match self {
            LabelSelector::Nothing => false,
            LabelSelector::All(requirements) => requirements
                .iter()
                .all(|requirement| requirement.matches(lookup(&requirement.key))),
        }
    }

    /// Whether it selects an object with these labels.
    pub fn matches_labels(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        self.matches(|key| labels?.get(key).map(String::as_str))
    }
}

impl FromStr for LabelSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        parse::requirements(text).map(LabelSelector::sorted)
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut values: Vec<&str> = self.values.iter().map(String::as_str).collect();
        values.sort_unstable();
        let (key, values) = (&self.key, values.join(","));
        match self.operator {
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::DoubleEquals => write!(f, "{key}=={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LabelSelector::All(requirements) = self else {
            return Ok(());
        };
        for (index, requirement) in requirements.iter().enumerate() {
            let separator = if index > 0 { "," } else { "" };
            write!(f, "{separator}{requirement}")?;
        }
        Ok(())
    }
}

/// A selector as tables print it: `<none>` when it is empty.
pub fn format_object(selector: Option<&v1::LabelSelector>) -> String {
    match LabelSelector::from_object(selector) {
        Err(_) => "<error>".to_owned(),
        Ok(selector) => match selector.to_string() {
            text if text.is_empty() => "<none>".to_owned(),
            text => text,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn selectors_print_canonically() {
        for (given, printed) in [
            ("", ""),
            ("x=a,y=b,z=c", "x=a,y=b,z=c"),
            ("x!=a,y", "x!=a,y"),
            ("x=", "x="),
            ("x= ,z= ", "x=,z="),
            ("!x", "!x"),
            (" x , !y ", "x,!y"),
            ("x>1", "x>1"),
            ("x<1,z", "x<1,z"),
            ("b in (z,a),a", "a,b in (a,z)"),
            ("x notin ()", "x notin ()"),
            ("x in (,a)", "x in (,a)"),
            ("in=in", "in=in"),
        ] {
            let selector: LabelSelector = given.parse().unwrap_or_else(|e| panic!("{given}: {e}"));
            assert_eq!(selector.to_string(), printed, "{given}");
        }
    }

    #[test]
    fn selectors_match() {
        let own = labels(&[("app", "web"), ("replicas", "3")]);
        for (selector, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web,replicas", true),
            ("app!=web", false),
            ("tier!=front", true),
            ("tier notin (front)", true),
            ("app in (db, web)", true),
            ("!app", false),
            ("!tier", true),
            ("replicas>2", true),
            ("replicas<3", false),
            ("app>2", false),
        ] {
            let selector: LabelSelector = selector.parse().unwrap();
            assert_eq!(selector.matches_labels(Some(&own)), expected, "{selector}");
        }
        assert!(!LabelSelector::Nothing.matches_labels(Some(&own)));
    }

    #[test]
    fn errors_are_upstreams() {
        let error = |text: &str| text.parse::<LabelSelector>().unwrap_err().0;
        assert_eq!(
            error("x=a||y=b"),
            "unable to parse requirement: values[0][x]: Invalid value: \"a||y\": a valid label \
             must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and \
             must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  \
             or '12345', regex used for validation is \
             '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
        );
        assert_eq!(error("x,,"), "found ',', expected: identifier after ','");
        assert_eq!(
            error("x in (a,b"),
            "unable to parse requirement: found '', expected: ',' or ')'"
        );
        assert_eq!(
            error("=a"),
            "found '=', expected: !, identifier, or 'end of string'"
        );
        assert_eq!(
            error("x y"),
            "unable to parse requirement: found 'y', expected: in, notin, =, ==, !=, gt, lt"
        );
        assert!(error("a b/c=d").starts_with("unable to parse requirement: "));
    }

    #[test]
    fn an_absent_selector_selects_nothing_and_an_empty_one_everything() {
        assert_eq!(LabelSelector::from_object(None), Ok(LabelSelector::Nothing));
        let empty = LabelSelector::from_object(Some(&v1::LabelSelector::default())).unwrap();
        assert!(empty.is_empty());
        assert!(empty.matches_labels(None));
    }
}
