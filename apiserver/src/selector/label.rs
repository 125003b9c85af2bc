//! Label selectors: `app=web,tier in (a,b),!canary`.

use coracle_api::names;

use super::SelectorError;

/// All requirements must hold; none: everything matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

impl LabelSelector {
    /// Reads upstream's syntax; the empty text selects everything.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        Parser {
            tokens: tokens(text),
            at: 0,
        }
        .selector()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `label` looks a label up.
    pub fn matches<'l>(&self, label: impl Fn(&str) -> Option<&'l str>) -> bool {
        self.0.iter().all(|requirement| {
            let value = label(&requirement.key);
            let listed = |value| requirement.values.iter().any(|listed| listed == value);
            let number = || {
                value?
                    .parse::<i64>()
                    .ok()
                    .zip(requirement.values[0].parse().ok())
            };
            match requirement.operator {
                Operator::In => value.is_some_and(listed),
                Operator::NotIn => !value.is_some_and(listed),
                Operator::Exists => value.is_some(),
                Operator::DoesNotExist => value.is_none(),
                Operator::GreaterThan => number().is_some_and(|(has, bound)| has > bound),
                Operator::LessThan => number().is_some_and(|(has, bound)| has < bound),
            }
        })
    }
}

const WHITE: [char; 4] = [' ', '\t', '\r', '\n'];
const SPECIAL: [char; 7] = ['=', '!', '(', ')', ',', '>', '<'];

/// Words and the symbols `= == != ! ( ) , < >`.
fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start_matches(WHITE);
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("==") || rest.starts_with("!=") {
            2
        } else if SPECIAL.contains(&first) {
            1
        } else {
            rest.find(|c| WHITE.contains(&c) || SPECIAL.contains(&c))
                .unwrap_or(rest.len())
        };
        let (token, after) = rest.split_at(length);
        tokens.push(token);
        rest = after.trim_start_matches(WHITE);
    }
    tokens
}

struct Parser<'a> {
    tokens: Vec<&'a str>,
    at: usize,
}

/// The empty token stands for the end of the text.
impl<'a> Parser<'a> {
    fn peek(&self) -> &'a str {
        self.tokens.get(self.at).copied().unwrap_or_default()
    }

    fn next(&mut self) -> &'a str {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn selector(&mut self) -> Result<LabelSelector, SelectorError> {
        let mut requirements = Vec::new();
        loop {
            let token = self.peek();
            if token.is_empty() {
                break;
            }
            if !is_word(token) && token != "!" {
                return Err(found(token, "expected: !, identifier, or 'end of string'"));
            }
            let requirement = self
                .requirement()
                .map_err(|error| SelectorError(format!("unable to parse requirement: {error}")))?;
            requirements.push(requirement);
            match self.next() {
                "" => break,
                "," => {
                    let next = self.peek();
                    if !is_word(next) && next != "!" {
                        return Err(found(next, "expected: identifier after ','"));
                    }
                }
                other => return Err(found(other, "expected: ',' or 'end of string'")),
            }
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(LabelSelector(requirements))
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let mut token = self.next();
        let negated = token == "!";
        if negated {
            token = self.next();
        }
        if !is_word(token) {
            return Err(found(token, "expected: identifier"));
        }
        let errors = names::qualified_name(token);
        if !errors.is_empty() {
            return Err(invalid("<nil>", token, &errors));
        }
        let mut requirement = Requirement {
            key: token.to_owned(),
            operator: Operator::DoesNotExist,
            values: Vec::new(),
        };
        if negated {
            return Ok(requirement);
        }
        if matches!(self.peek(), "" | ",") {
            requirement.operator = Operator::Exists;
            return Ok(requirement);
        }
        (requirement.operator, requirement.values) = match self.next() {
            "in" => (Operator::In, self.values()?),
            "notin" => (Operator::NotIn, self.values()?),
            "=" | "==" => (Operator::In, vec![self.value()?]),
            "!=" => (Operator::NotIn, vec![self.value()?]),
            ">" => (Operator::GreaterThan, vec![self.value()?]),
            "<" => (Operator::LessThan, vec![self.value()?]),
            other => return Err(found(other, "expected: in, notin, =, ==, !=, gt, lt")),
        };
        check_values(&requirement)?;
        Ok(requirement)
    }

    fn value(&mut self) -> Result<String, SelectorError> {
        if matches!(self.peek(), "" | ",") {
            return Ok(String::new());
        }
        match self.next() {
            word if is_word(word) => Ok(word.to_owned()),
            other => Err(found(other, "expected: identifier")),
        }
    }

    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        let open = self.next();
        if open != "(" {
            return Err(SelectorError(format!("found '{open}' expected: '('")));
        }
        match self.peek() {
            ")" | "," => {}
            word if is_word(word) => {}
            other => return Err(found(other, "expected: ',', ')' or identifier")),
        }
        let mut values = Vec::new();
        loop {
            // A value is missing where a comma or the end stands in its place.
            match self.peek() {
                "," | ")" => values.push(String::new()),
                word if is_word(word) => {
                    values.push(word.to_owned());
                    self.at += 1;
                }
                other => return Err(found(other, "expected: ',', or identifier")),
            }
            match self.next() {
                "," => {}
                ")" => break,
                other => return Err(found(other, "expected: ',' or ')'")),
            }
        }
        values.sort();
        values.dedup();
        Ok(values)
    }
}

fn is_word(token: &str) -> bool {
    !token.is_empty() && !token.starts_with(SPECIAL)
}

fn found(token: &str, expected: &str) -> SelectorError {
    SelectorError(format!("found '{token}', {expected}"))
}

fn invalid(path: &str, value: &str, errors: &[String]) -> SelectorError {
    SelectorError(format!(
        "{path}: Invalid value: {value:?}: {}",
        errors.join("; ")
    ))
}

fn check_values(requirement: &Requirement) -> Result<(), SelectorError> {
    for (index, value) in requirement.values.iter().enumerate() {
        let numeric = matches!(
            requirement.operator,
            Operator::GreaterThan | Operator::LessThan
        );
        if numeric && value.parse::<i64>().is_err() {
            let rule = "for 'Gt', 'Lt' operators, the value must be an integer".to_owned();
            return Err(invalid(&format!("values[{index}]"), value, &[rule]));
        }
        let errors = names::label_value(value);
        if !errors.is_empty() {
            let path = format!("values[{index}][{}]", requirement.key);
            return Err(invalid(&path, value, &errors));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_as_upstream() {
        let labels = [("app", "web"), ("tier", "front"), ("weight", "7")];
        let label = |key: &str| labels.iter().find(|(k, _)| *k == key).map(|(_, v)| *v);
        for (text, expected) in [
            ("", true),
            ("app", true),
            ("!app", false),
            ("app=web", true),
            ("app==web,tier!=back", true),
            ("other!=x", true),
            ("app in (web, api)", true),
            ("app notin (web,api)", false),
            ("other notin (a)", true),
            ("app in (a,)", false),
            ("weight>5", true),
            ("weight<5", false),
            ("in in (x)", false),
            ("app=", false),
        ] {
            let selector = LabelSelector::parse(text).unwrap();
            assert_eq!(selector.matches(label), expected, "{text}");
        }
    }

    #[test]
    fn errors_as_upstream() {
        for (text, message) in [
            (
                "=a",
                "found '=', expected: !, identifier, or 'end of string'",
            ),
            ("a,,b", "found ',', expected: identifier after ','"),
            (
                "a b",
                "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt",
            ),
            (
                "a in b",
                "unable to parse requirement: found 'b' expected: '('",
            ),
            (
                "a=(",
                "unable to parse requirement: found '(', expected: identifier",
            ),
        ] {
            assert_eq!(LabelSelector::parse(text).unwrap_err().to_string(), message);
        }
    }
}
