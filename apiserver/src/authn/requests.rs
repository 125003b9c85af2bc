//! The union of authenticators.

use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use coracle_api::Identity;
use http::request::Parts;

use super::{ANONYMOUS, AuthenticationError, Authenticator, UNAUTHENTICATED, oidc::Anonymous};

/// Asks one authenticator after the other; the first that knows the user decides. A request
/// that has credentials of which none is valid is refused, one without is anonymous if that is
/// allowed.
pub struct Requests {
    authenticators: Vec<Arc<dyn Authenticator>>,
    anonymous: Arc<ArcSwap<Anonymous>>,
}

impl Requests {
    pub fn new(
        authenticators: Vec<Arc<dyn Authenticator>>,
        anonymous: Arc<ArcSwap<Anonymous>>,
    ) -> Self {
        Requests {
            authenticators,
            anonymous,
        }
    }
}

#[async_trait]
impl Authenticator for Requests {
    async fn authenticate(&self, request: &Parts) -> Result<Option<Identity>, AuthenticationError> {
        let mut refused = None;
        for authenticator in &self.authenticators {
            match authenticator.authenticate(request).await {
                Ok(Some(identity)) => return Ok(Some(identity)),
                Ok(None) => {}
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        match refused {
            Some(error) => Err(error),
            None => Ok(self
                .anonymous
                .load()
                .allows(request.uri.path())
                .then(|| Identity {
                    user: ANONYMOUS.to_owned(),
                    groups: vec![UNAUTHENTICATED.to_owned()],
                    ..Identity::default()
                })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::oidc::AnonymousCondition;

    struct Says(Result<Option<&'static str>, &'static str>);

    #[async_trait]
    impl Authenticator for Says {
        async fn authenticate(
            &self,
            _request: &Parts,
        ) -> Result<Option<Identity>, AuthenticationError> {
            let user = self
                .0
                .map_err(|error| AuthenticationError(error.to_owned()))?;
            Ok(user.map(|user| Identity {
                user: user.to_owned(),
                ..Identity::default()
            }))
        }
    }

    #[tokio::test]
    async fn anonymity_is_for_requests_without_credentials() {
        let (parts, ()) = http::Request::new(()).into_parts();
        let all = |enabled| Anonymous {
            enabled,
            ..Anonymous::default()
        };
        let only = |path: &str| Anonymous {
            enabled: true,
            conditions: vec![AnonymousCondition {
                path: path.to_owned(),
            }],
        };
        let ask = async |says: Vec<Says>, anonymous| {
            let authenticators = says
                .into_iter()
                .map(|says| Arc::new(says) as Arc<dyn Authenticator>);
            let anonymous = Arc::new(ArcSwap::from_pointee(anonymous));
            let requests = Requests::new(authenticators.collect(), anonymous);
            let answer = requests.authenticate(&parts).await;
            answer.map(|identity| identity.map(|identity| identity.user))
        };
        let user = |name: &str| Ok(Some(name.to_owned()));
        assert_eq!(ask(vec![Says(Ok(None))], all(true)).await, user(ANONYMOUS));
        assert_eq!(ask(vec![Says(Ok(None))], all(false)).await, Ok(None));
        assert_eq!(ask(vec![Says(Ok(None))], only("/")).await, user(ANONYMOUS));
        assert_eq!(ask(vec![Says(Ok(None))], only("/livez")).await, Ok(None));
        assert_eq!(
            ask(vec![Says(Err("bad")), Says(Ok(Some("a")))], all(true)).await,
            user("a"),
            "another credential is good"
        );
        assert_eq!(
            ask(vec![Says(Ok(None)), Says(Err("bad"))], all(true)).await,
            Err(AuthenticationError("bad".to_owned()))
        );
    }
}
