//! From the claims of a verified token to a user.

use std::collections::BTreeMap;

use cel::Value as CelValue;
use coracle_api::Identity;
use coracle_cel::Scope;
use serde_json::Value;

use super::{
    configuration::{ConfigurationError, JwtAuthenticator, PrefixedClaimOrExpression},
    expressions::{Expression, texts, value_of, value_of_user},
};
use crate::authn::CREDENTIAL_ID;

const CLAIMS: &str = "claims";
const USER: &str = "user";

/// Where a value comes from.
enum Source {
    Claim { name: String, prefix: String },
    Expression(Box<Expression>),
    Nowhere,
}

/// An expression that must be true, and what is said when it is not.
struct Rule {
    expression: Expression,
    message: String,
}

/// The mappings and rules of one issuer.
pub(super) struct Mapping {
    username: Source,
    groups: Source,
    uid: Source,
    extra: Vec<(String, Expression)>,
    required: Vec<(String, String)>,
    claim_rules: Vec<Rule>,
    user_rules: Vec<Rule>,
}

impl Mapping {
    pub fn new(jwt: &JwtAuthenticator) -> Result<Self, ConfigurationError> {
        let compile = |source: &str| {
            Expression::compile(source, Scope::claims()).map_err(ConfigurationError::Invalid)
        };
        let source = |from: &PrefixedClaimOrExpression| -> Result<Source, ConfigurationError> {
            Ok(if !from.expression.is_empty() {
                Source::Expression(Box::new(compile(&from.expression)?))
            } else if !from.claim.is_empty() {
                Source::Claim {
                    name: from.claim.clone(),
                    prefix: from.prefix.clone().unwrap_or_default(),
                }
            } else {
                Source::Nowhere
            })
        };
        let rule = |expression: &str, message: &str, scope| {
            Ok(Rule {
                expression: Expression::compile_rule(expression, scope)
                    .map_err(ConfigurationError::Invalid)?,
                message: message.to_owned(),
            })
        };
        let mappings = &jwt.claim_mappings;
        let claim_rules = jwt.claim_validation_rules.iter();
        Ok(Mapping {
            username: source(&mappings.username)?,
            groups: source(&mappings.groups)?,
            uid: source(&PrefixedClaimOrExpression {
                claim: mappings.uid.claim.clone(),
                expression: mappings.uid.expression.clone(),
                prefix: None,
            })?,
            extra: mappings
                .extra
                .iter()
                .map(|extra| Ok((extra.key.clone(), compile(&extra.value_expression)?)))
                .collect::<Result<_, ConfigurationError>>()?,
            required: claim_rules
                .clone()
                .filter(|rule| !rule.claim.is_empty())
                .map(|rule| (rule.claim.clone(), rule.required_value.clone()))
                .collect(),
            claim_rules: claim_rules
                .filter(|rule| !rule.expression.is_empty())
                .map(|given| rule(&given.expression, &given.message, Scope::claims()))
                .collect::<Result<_, ConfigurationError>>()?,
            user_rules: jwt
                .user_validation_rules
                .iter()
                .map(|given| rule(&given.expression, &given.message, Scope::user()))
                .collect::<Result<_, ConfigurationError>>()?,
        })
    }

    /// The user that the claims are of.
    ///
    /// # Errors
    /// A claim is missing or not of its type, or a rule is not kept.
    pub fn user(&self, claims: &Value) -> Result<Identity, String> {
        let value = value_of(claims);
        let user = Identity {
            user: self.username(claims, &value)?,
            groups: self.groups(claims, &value)?,
            uid: self.uid(claims, &value)?,
            extra: self.extra(claims, &value)?,
        };
        for (name, required) in &self.required {
            let found = claims.get(name);
            let found = found
                .ok_or_else(|| format!("required claim {name} not present in ID token"))?
                .as_str()
                .ok_or_else(|| format!("parse claim {name}: it is no text"))?;
            if found != required {
                return Err(format!(
                    "required claim {name} value does not match. Got = {found}, want = {required}"
                ));
            }
        }
        check(
            &self.claim_rules,
            CLAIMS,
            &value,
            "claim validation expression",
        )?;
        if !self.user_rules.is_empty() {
            let value = value_of_user(&user);
            check(&self.user_rules, USER, &value, "user info validation rule")?;
        }
        Ok(user)
    }

    fn username(&self, claims: &Value, value: &CelValue) -> Result<String, String> {
        match &self.username {
            Source::Claim { name, prefix } => {
                let username = text_claim(claims, name)
                    .map_err(|error| format!("parse username claims {name:?}: {error}"))?;
                // https://openid.net/specs/openid-connect-core-1_0.html#StandardClaims
                if name == "email" {
                    match claims.get("email_verified") {
                        None | Some(Value::Bool(true)) => {}
                        Some(Value::Bool(false)) => return Err("email not verified".to_owned()),
                        Some(_) => return Err("parse 'email_verified' claim".to_owned()),
                    }
                }
                Ok(format!("{prefix}{username}"))
            }
            Source::Expression(expression) => {
                match expression
                    .evaluate(CLAIMS, value)
                    .map_err(in_expression("username"))?
                {
                    CelValue::String(text) if text.is_empty() => {
                        Err("empty username via CEL expression is not allowed".to_owned())
                    }
                    CelValue::String(text) => Ok(text.to_string()),
                    _ => Err(in_expression("username")(
                        "username claim expression must return a string".to_owned(),
                    )),
                }
            }
            Source::Nowhere => Err("no username is mapped".to_owned()),
        }
    }

    fn groups(&self, claims: &Value, value: &CelValue) -> Result<Vec<String>, String> {
        match &self.groups {
            Source::Claim { name, prefix } => {
                let bad =
                    || format!("parse groups claim {name:?}: neither a text nor a list of texts");
                let groups: Vec<&str> = match claims.get(name) {
                    None | Some(Value::Null) => Vec::new(),
                    Some(Value::String(one)) => vec![one],
                    Some(Value::Array(several)) => several
                        .iter()
                        .map(Value::as_str)
                        .collect::<Option<_>>()
                        .ok_or_else(bad)?,
                    Some(_) => return Err(bad()),
                };
                Ok(groups
                    .iter()
                    .map(|group| format!("{prefix}{group}"))
                    .collect())
            }
            Source::Expression(expression) => expression
                .evaluate(CLAIMS, value)
                .and_then(|groups| texts(&groups))
                .map_err(in_expression("group")),
            Source::Nowhere => Ok(Vec::new()),
        }
    }

    fn uid(&self, claims: &Value, value: &CelValue) -> Result<String, String> {
        match &self.uid {
            Source::Claim { name, .. } => text_claim(claims, name)
                .map_err(|error| format!("parse uid claim {name:?}: {error}")),
            Source::Expression(expression) => {
                match expression
                    .evaluate(CLAIMS, value)
                    .map_err(in_expression("uid"))?
                {
                    CelValue::String(text) => Ok(text.to_string()),
                    _ => Err(in_expression("uid")(
                        "uid claim expression must return a string".to_owned(),
                    )),
                }
            }
            Source::Nowhere => Ok(String::new()),
        }
    }

    fn extra(
        &self,
        claims: &Value,
        value: &CelValue,
    ) -> Result<BTreeMap<String, Vec<String>>, String> {
        let mut extra = BTreeMap::new();
        if let Some(id) = claims["jti"].as_str().filter(|id| !id.is_empty()) {
            extra.insert(CREDENTIAL_ID.to_owned(), vec![format!("JTI={id}")]);
        }
        for (key, expression) in &self.extra {
            let values = expression
                .evaluate(CLAIMS, value)
                .and_then(|values| texts(&values))
                .map_err(in_expression("extra"))?;
            if !values.is_empty() {
                extra.insert(key.clone(), values);
            }
        }
        Ok(extra)
    }
}

fn in_expression(what: &'static str) -> impl Fn(String) -> String {
    move |error| format!("error evaluating {what} claim expression: {error}")
}

fn text_claim<'c>(claims: &'c Value, name: &str) -> Result<String, &'c str> {
    match claims.get(name) {
        None => Err("claim not present"),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err("it is no text"),
    }
}

fn check(rules: &[Rule], variable: &str, value: &CelValue, what: &str) -> Result<(), String> {
    for Rule {
        expression,
        message,
    } in rules
    {
        let failed = |why: &str| format!("error evaluating {what}: {why}");
        match expression
            .evaluate(variable, value)
            .map_err(|error| failed(&error))?
        {
            CelValue::Bool(true) => {}
            CelValue::Bool(false) => {
                return Err(failed(&format!(
                    "validation expression '{}' failed: {message}",
                    expression.source
                )));
            }
            _ => return Err(failed("validation expression must return a boolean")),
        }
    }
    Ok(())
}
