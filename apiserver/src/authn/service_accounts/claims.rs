//! What a service-account token says.

use serde::{Deserialize, Serialize};

/// Clocks of one cluster may differ by this many seconds.
pub const LEEWAY_SECONDS: i64 = 60;

/// A name that stands for one object only, as the UID is part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// The claims of a token; times are seconds since the epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    #[serde(rename = "aud", default, deserialize_with = "one_or_many")]
    pub audience: Vec<String>,
    #[serde(rename = "exp", default, skip_serializing_if = "Option::is_none")]
    pub expiry: Option<i64>,
    #[serde(rename = "iat", default, skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<i64>,
    #[serde(rename = "iss", default)]
    pub issuer: String,
    #[serde(rename = "jti", default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    #[serde(rename = "kubernetes.io", default)]
    pub kubernetes: Kubernetes,
    #[serde(rename = "nbf", default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<i64>,
    #[serde(rename = "sub", default)]
    pub subject: String,
}

/// Whose token it is, and the object that it lives and dies with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kubernetes {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    #[serde(default)]
    pub serviceaccount: Reference,
    /// When the holder should have fetched a newer one.
    #[serde(rename = "warnafter", default, skip_serializing_if = "Option::is_none")]
    pub warn_after: Option<i64>,
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(audience) => vec![audience],
        OneOrMany::Many(audiences) => audiences,
    })
}

impl Claims {
    /// Whether the token is valid at a time, in seconds since the epoch.
    ///
    /// # Errors
    /// What is wrong, in upstream's words.
    pub fn check_time(&self, now: i64) -> Result<(), &'static str> {
        if self
            .not_before
            .is_some_and(|from| now + LEEWAY_SECONDS < from)
        {
            return Err("service account token is not valid yet");
        }
        if self
            .expiry
            .is_some_and(|until| now - LEEWAY_SECONDS > until)
        {
            return Err("service account token has expired");
        }
        if self.issued_at.is_some_and(|at| now + LEEWAY_SECONDS < at) {
            return Err("service account token is issued in the future");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_leeway() {
        let claims = Claims {
            expiry: Some(1000),
            issued_at: Some(500),
            not_before: Some(500),
            ..Claims::default()
        };
        assert_eq!(claims.check_time(750), Ok(()));
        assert_eq!(claims.check_time(1060), Ok(()));
        assert_eq!(claims.check_time(440), Ok(()));
        assert!(claims.check_time(1061).is_err());
        assert!(claims.check_time(439).is_err());
    }

    #[test]
    fn an_audience_may_be_one_or_several() {
        let audience = |json: &str| serde_json::from_str::<Claims>(json).unwrap().audience;
        assert_eq!(audience(r#"{"aud":"a"}"#), ["a"]);
        assert_eq!(audience(r#"{"aud":["a","b"]}"#), ["a", "b"]);
        assert!(audience("{}").is_empty());
    }
}
