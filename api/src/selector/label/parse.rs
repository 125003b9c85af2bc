//! From text to requirements.

use std::collections::BTreeSet;

use super::{Operator, Requirement, label_key_error};
use crate::{field::Path, selector::SelectorError};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Error,
    End,
    Close,
    Comma,
    Not,
    DoubleEquals,
    Equals,
    Greater,
    Identifier,
    In,
    Less,
    NotEquals,
    NotIn,
    Open,
}

struct Item {
    token: Token,
    text: String,
}

fn keyword(text: &str) -> Option<Token> {
    Some(match text {
        ")" => Token::Close,
        "," => Token::Comma,
        "!" => Token::Not,
        "==" => Token::DoubleEquals,
        "=" => Token::Equals,
        ">" => Token::Greater,
        "in" => Token::In,
        "<" => Token::Less,
        "!=" => Token::NotEquals,
        "notin" => Token::NotIn,
        "(" => Token::Open,
        _ => return None,
    })
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn is_special(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

/// The tokens of the text, an [`Token::End`] last.
fn scan(text: &str) -> Vec<Item> {
    let mut items = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while let Some(first) = rest.chars().next().filter(|&c| c != '\0') {
        let (item, length) = if is_special(first) {
            scan_special(rest)
        } else {
            let length = rest
                .find(|c| is_special(c) || is_space(c) || c == '\0')
                .unwrap_or(rest.len());
            let text = rest[..length].to_owned();
            let token = keyword(&text).unwrap_or(Token::Identifier);
            (Item { token, text }, length)
        };
        items.push(item);
        rest = rest[length..].trim_start_matches(is_space);
    }
    items.push(Item {
        token: Token::End,
        text: String::new(),
    });
    items
}

/// The longest operator at the start of the text, and its length.
fn scan_special(text: &str) -> (Item, usize) {
    let specials = text.find(|c| !is_special(c)).unwrap_or(text.len());
    let longest = (1..=specials.min(2)).rev().find_map(|length| {
        let token = keyword(&text[..length])?;
        Some((token, length))
    });
    match longest {
        Some((token, length)) => {
            let text = text[..length].to_owned();
            (Item { token, text }, length)
        }
        None => {
            let text = format!("error expected: keyword found '{}'", &text[..specials]);
            let token = Token::Error;
            (Item { token, text }, specials)
        }
    }
}

struct Parser {
    items: Vec<Item>,
    position: usize,
}

fn error<T>(message: String) -> Result<T, SelectorError> {
    Err(SelectorError(message))
}

/// `in` and `notin` are words like others except where an operator stands.
fn as_value(token: Token) -> Token {
    match token {
        Token::In | Token::NotIn => Token::Identifier,
        other => other,
    }
}

pub(super) fn requirements(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let mut parser = Parser {
        items: scan(text),
        position: 0,
    };
    let mut requirements = Vec::new();
    loop {
        let (token, text) = parser.peek();
        match token {
            Token::Identifier | Token::Not => {
                let requirement = parser.requirement().map_err(|SelectorError(message)| {
                    SelectorError(format!("unable to parse requirement: {message}"))
                })?;
                requirements.push(requirement);
                let (token, text) = parser.next();
                match token {
                    Token::End => return Ok(requirements),
                    Token::Comma => {
                        let (token, text) = parser.peek();
                        if !matches!(token, Token::Identifier | Token::Not) {
                            return error(format!(
                                "found '{text}', expected: identifier after ','"
                            ));
                        }
                    }
                    _ => {
                        return error(format!("found '{text}', expected: ',' or 'end of string'"));
                    }
                }
            }
            Token::End => return Ok(requirements),
            _ => {
                return error(format!(
                    "found '{text}', expected: !, identifier, or 'end of string'"
                ));
            }
        }
    }
}

impl Parser {
    fn peek(&self) -> (Token, &str) {
        let item = &self.items[self.position.min(self.items.len() - 1)];
        (as_value(item.token), &item.text)
    }

    fn next(&mut self) -> (Token, String) {
        let (token, text) = self.peek();
        let text = text.to_owned();
        self.position += 1;
        (token, text)
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let (mut token, mut key) = self.next();
        let negated = token == Token::Not;
        if negated {
            (token, key) = self.next();
        }
        if token != Token::Identifier {
            return error(format!("found '{key}', expected: identifier"));
        }
        if let Some(mut wrong) = label_key_error(&key, &Path::default()) {
            // Upstream prints the path that is not there.
            wrong.field = "<nil>".to_owned();
            return error(wrong.to_string());
        }
        if negated {
            return Requirement::new(&key, Operator::DoesNotExist, Vec::new(), None);
        }
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Requirement::new(&key, Operator::Exists, Vec::new(), None);
        }
        let operator = self.operator()?;
        let values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => self.exact_value()?,
        };
        Requirement::new(&key, operator, values.into_iter().collect(), None)
    }

    fn operator(&mut self) -> Result<Operator, SelectorError> {
        let item = &self.items[self.position.min(self.items.len() - 1)];
        self.position += 1;
        Ok(match item.token {
            Token::In => Operator::In,
            Token::Equals => Operator::Equals,
            Token::DoubleEquals => Operator::DoubleEquals,
            Token::Greater => Operator::GreaterThan,
            Token::Less => Operator::LessThan,
            Token::NotIn => Operator::NotIn,
            Token::NotEquals => Operator::NotEquals,
            _ => {
                return error(format!(
                    "found '{}', expected: in, notin, =, ==, !=, gt, lt",
                    item.text
                ));
            }
        })
    }

    fn values(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        let (token, text) = self.next();
        if token != Token::Open {
            return error(format!("found '{text}' expected: '('"));
        }
        let (token, text) = self.peek();
        match token {
            Token::Identifier | Token::Comma => {
                let text = text.to_owned();
                let values = self.identifiers()?;
                match self.next().0 {
                    Token::Close => Ok(values),
                    _ => error(format!("found '{text}', expected: ')'")),
                }
            }
            Token::Close => {
                self.position += 1;
                Ok(BTreeSet::from([String::new()]))
            }
            _ => error(format!("found '{text}', expected: ',', ')' or identifier")),
        }
    }

    /// Up to the closing parenthesis; nothing between two commas is an empty value.
    fn identifiers(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        let mut values = BTreeSet::new();
        loop {
            let (token, text) = self.next();
            match token {
                Token::Identifier => {
                    values.insert(text);
                    match self.peek() {
                        (Token::Comma, _) => {}
                        (Token::Close, _) => return Ok(values),
                        (_, text) => {
                            return error(format!("found '{text}', expected: ',' or ')'"));
                        }
                    }
                }
                Token::Comma => {
                    if values.is_empty() {
                        values.insert(String::new());
                    }
                    match self.peek().0 {
                        Token::Close => {
                            values.insert(String::new());
                            return Ok(values);
                        }
                        Token::Comma => {
                            values.insert(String::new());
                        }
                        _ => {}
                    }
                }
                _ => return error(format!("found '{text}', expected: ',', or identifier")),
            }
        }
    }

    fn exact_value(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok(BTreeSet::from([String::new()]));
        }
        match self.next() {
            (Token::Identifier, text) => Ok(BTreeSet::from([text])),
            (_, text) => error(format!("found '{text}', expected: identifier")),
        }
    }
}
