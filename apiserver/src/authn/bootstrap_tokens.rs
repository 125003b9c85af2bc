//! Bootstrap tokens: what a new node joins with. Each is a Secret of kube-system,
//! `bootstrap-token-<id>`.

use async_trait::async_trait;
use coracle_api::Identity;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;

use super::{AuthenticationError, TokenAuthenticator, TokenUser};
use crate::Lookup;

const NAMESPACE: &str = "kube-system";
const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
const GROUP: &str = "system:bootstrappers";

/// Knows the bootstrap tokens of the cluster.
pub struct BootstrapTokens(Lookup);

impl BootstrapTokens {
    pub fn new(lookup: Lookup) -> Self {
        BootstrapTokens(lookup)
    }
}

#[async_trait]
impl TokenAuthenticator for BootstrapTokens {
    async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<TokenUser>, AuthenticationError> {
        let Some((id, secret_part)) = parse(token) else {
            return Ok(None);
        };
        let name = format!("bootstrap-token-{id}");
        let Some(secret) = self.0.get::<Secret>(NAMESPACE, &name).await? else {
            return Ok(None);
        };
        let identity = identity(&secret, id, secret_part, Timestamp::now());
        if identity.is_none() {
            tracing::debug!(secret = name, "the bootstrap token is not valid");
        }
        Ok(identity.map(|identity| TokenUser {
            identity,
            audiences: audiences.to_vec(),
            ..TokenUser::default()
        }))
    }
}

/// `abcdef.0123456789abcdef`
fn parse(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let well_formed = |text: &str, length| {
        let mut bytes = text.bytes();
        text.len() == length && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    (well_formed(id, 6) && well_formed(secret, 16)).then_some((id, secret))
}

fn identity(secret: &Secret, id: &str, given: &str, now: Timestamp) -> Option<Identity> {
    let data = |key: &str| {
        let value = secret.data.as_ref()?.get(key)?;
        std::str::from_utf8(&value.0).ok()
    };
    let expected = data("token-secret").unwrap_or_default().as_bytes();
    let same = expected.len() == given.len()
        && expected
            .iter()
            .zip(given.as_bytes())
            .fold(0, |difference, (a, b)| difference | (a ^ b))
            == 0;
    let usable = secret.metadata.deletion_timestamp.is_none()
        && secret.type_.as_deref() == Some(SECRET_TYPE)
        && same
        && data("token-id") == Some(id)
        && data("usage-bootstrap-authentication") == Some("true");
    if !usable || has_expired(data("expiration"), now) {
        return None;
    }
    let extra = data("auth-extra-groups").unwrap_or_default();
    let mut groups = vec![GROUP.to_owned()];
    for group in extra.split(',').filter(|group| !group.is_empty()) {
        if !is_bootstrap_group(group) {
            return None;
        }
        groups.push(group.to_owned());
    }
    groups.sort();
    groups.dedup();
    Some(Identity {
        user: format!("system:bootstrap:{id}"),
        groups,
        ..Identity::default()
    })
}

fn has_expired(expiration: Option<&str>, now: Timestamp) -> bool {
    match expiration {
        None | Some("") => false,
        Some(text) => text.parse().map_or(true, |until: Timestamp| now > until),
    }
}

/// `system:bootstrappers:` and up to 256 characters that end in a letter or digit.
fn is_bootstrap_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix("system:bootstrappers:") else {
        return false;
    };
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    !rest.is_empty()
        && rest.len() <= 256
        && rest
            .bytes()
            .all(|byte| alphanumeric(byte) || matches!(byte, b':' | b'-'))
        && rest.bytes().last().is_some_and(alphanumeric)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::ByteString;

    use super::*;

    fn secret(changes: &[(&str, &str)]) -> Secret {
        let mut data: BTreeMap<&str, &str> = BTreeMap::from([
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-authentication", "true"),
        ]);
        data.extend(changes.iter().copied());
        Secret {
            type_: Some(SECRET_TYPE.to_owned()),
            data: Some(
                data.into_iter()
                    .map(|(key, value)| (key.to_owned(), ByteString(value.as_bytes().to_vec())))
                    .collect(),
            ),
            ..Secret::default()
        }
    }

    #[test]
    fn a_token_names_its_groups_until_it_expires() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let groups = |changes: &[(&str, &str)]| {
            let (id, given) = parse("abcdef.0123456789abcdef").unwrap();
            identity(&secret(changes), id, given, now).map(|identity| identity.groups.join(" "))
        };
        assert_eq!(groups(&[]).as_deref(), Some("system:bootstrappers"));
        assert_eq!(
            groups(&[("auth-extra-groups", "system:bootstrappers:node")]).as_deref(),
            Some("system:bootstrappers system:bootstrappers:node")
        );
        assert!(groups(&[("expiration", "2026-01-02T00:00:00Z")]).is_some());
        for refused in [
            ("auth-extra-groups", "system:masters"),
            ("expiration", "2025-01-01T00:00:00Z"),
            ("expiration", "soon"),
            ("token-secret", "0123456789abcdee"),
            ("token-id", "abcdeg"),
            ("usage-bootstrap-authentication", "false"),
        ] {
            assert_eq!(groups(&[refused]), None, "{refused:?}");
        }
        assert_eq!(parse("abcdef"), None);
        assert_eq!(parse("ABCDEF.0123456789abcdef"), None);
    }
}
