//! Acting as another user, by `Impersonate-…` headers.
//!
//! Upstream's modes are tried in turn (KEP-5284): first those that allow a user to act as
//! another only for some requests (`impersonate-on:<mode>:<verb>` and `impersonate:<mode>`),
//! then the older `impersonate`, which allows it for everything.

use coracle_api::Identity;
use http::{HeaderMap, HeaderName};
use percent_encoding::percent_decode_str;

use super::{ANONYMOUS, AUTHENTICATED, MASTERS, UNAUTHENTICATED};
use crate::{
    authz::{Attributes, Authorizer},
    error::ApiError,
    server::forbidden,
};

const USER: &str = "impersonate-user";
const UID: &str = "impersonate-uid";
const GROUP: &str = "impersonate-group";
const EXTRA: &str = "impersonate-extra-";
const GROUP_OF_USERS: &str = "authentication.k8s.io";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
/// What the requestor's extra is for the checks of the associated-node mode.
const ASSOCIATED_NODE_KEYS: &str = "authentication.kubernetes.io/associated-node-keys";

/// Whom the headers ask to act as; they are removed.
///
/// # Errors
/// They name groups or else, but no user.
pub fn wanted(headers: &mut HeaderMap) -> Result<Option<Identity>, ApiError> {
    let names: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("impersonate-"))
        .cloned()
        .collect();
    if names.is_empty() {
        return Ok(None);
    }
    let first = |name: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let mut identity = Identity {
        user: first(USER),
        uid: first(UID),
        ..Identity::default()
    };
    for name in &names {
        let values = headers
            .get_all(name)
            .into_iter()
            .filter_map(|value| value.to_str().ok().map(str::to_owned));
        if name == GROUP {
            identity.groups.extend(values);
        } else if let Some(key) = name.as_str().strip_prefix(EXTRA) {
            let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
            identity.extra.entry(key).or_default().extend(values);
        }
    }
    if identity.user.is_empty() {
        if identity == Identity::default() {
            return Ok(None);
        }
        let message = "requested groups, a UID or extra without impersonating a user name";
        return Err(ApiError::bad_request(message));
    }
    for name in names {
        headers.remove(name);
    }
    Ok(Some(identity))
}

/// The user that the request goes on as.
///
/// # Errors
/// Forbidden, as the first mode says that could have allowed it.
pub async fn impersonate(
    authorizer: &dyn Authorizer,
    request: &Attributes<'_>,
    wanted: &Identity,
) -> Result<Identity, ApiError> {
    let mut refused = None;
    for mode in Mode::ALL {
        if !mode.applies(request.user, wanted) {
            continue;
        }
        let check = Check {
            authorizer,
            mode,
            request,
            wanted,
        };
        match check.run().await {
            Ok(identity) => return Ok(identity),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    Err(refused.unwrap_or_else(|| ApiError::internal("all impersonation modes failed")))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    AssociatedNode,
    ArbitraryNode,
    ServiceAccount,
    UserInfo,
    Legacy,
}

impl Mode {
    const ALL: [Mode; 5] = [
        Mode::AssociatedNode,
        Mode::ArbitraryNode,
        Mode::ServiceAccount,
        Mode::UserInfo,
        Mode::Legacy,
    ];

    /// The name in verbs; `None` for the mode that has none.
    fn name(self) -> Option<&'static str> {
        match self {
            Mode::AssociatedNode => Some("associated-node"),
            Mode::ArbitraryNode => Some("arbitrary-node"),
            Mode::ServiceAccount => Some("serviceaccount"),
            Mode::UserInfo => Some("user-info"),
            Mode::Legacy => None,
        }
    }

    fn applies(self, requestor: &Identity, wanted: &Identity) -> bool {
        let node = node_name(&wanted.user);
        let account = service_account(&wanted.user);
        let only_name = *wanted
            == Identity {
                user: wanted.user.clone(),
                ..Identity::default()
            };
        match self {
            Mode::AssociatedNode => {
                let own = requestor.extra.get(NODE_NAME).map(Vec::as_slice);
                only_name
                    && service_account(&requestor.user).is_some()
                    && node.is_some_and(|node| own == Some(&[node.to_owned()]))
            }
            Mode::ArbitraryNode => only_name && node.is_some(),
            Mode::ServiceAccount => only_name && account.is_some(),
            Mode::UserInfo => node.is_none() && account.is_none(),
            Mode::Legacy => true,
        }
    }
}

/// One mode's checks of one request.
struct Check<'a> {
    authorizer: &'a dyn Authorizer,
    mode: Mode,
    request: &'a Attributes<'a>,
    wanted: &'a Identity,
}

impl Check<'_> {
    async fn run(&self) -> Result<Identity, ApiError> {
        let Some(mode) = self.mode.name() else {
            return self.identity(self.request.user, "impersonate").await;
        };
        let without_extra;
        let requestor = if self.mode == Mode::AssociatedNode {
            let keys = self.request.user.extra.keys().cloned().collect();
            without_extra = Identity {
                extra: [(ASSOCIATED_NODE_KEYS.to_owned(), keys)].into(),
                ..self.request.user.clone()
            };
            &without_extra
        } else {
            self.request.user
        };
        let on = format!("impersonate-on:{mode}:{}", self.request.verb);
        self.allow(&Attributes {
            user: requestor,
            verb: &on,
            ..*self.request
        })
        .await?;
        self.identity(requestor, &format!("impersonate:{mode}"))
            .await
    }

    async fn identity(&self, requestor: &Identity, verb: &str) -> Result<Identity, ApiError> {
        let wanted = self.wanted;
        let mut identity = wanted.clone();
        self.check_user(requestor, verb, &mut identity).await?;
        let attributes = |group, resource| Attributes {
            version: "v1",
            ..Attributes::of_resource(requestor, verb, group, resource)
        };
        if !wanted.uid.is_empty() {
            self.allow(&Attributes {
                name: &wanted.uid,
                ..attributes(GROUP_OF_USERS, "uids")
            })
            .await?;
        }
        for group in &wanted.groups {
            let attributes = Attributes {
                name: group,
                ..attributes(self.group_of_names(), "groups")
            };
            self.refuse_group(group, &attributes)?;
            self.allow(&attributes).await?;
        }
        for (key, values) in &wanted.extra {
            for value in values {
                let attributes = Attributes {
                    subresource: key,
                    name: value,
                    ..attributes(GROUP_OF_USERS, "userextras")
                };
                self.refuse_extra(key, value, &attributes)?;
                self.allow(&attributes).await?;
            }
        }
        add_implied_group(&mut identity);
        Ok(identity)
    }

    async fn check_user(
        &self,
        requestor: &Identity,
        verb: &str,
        identity: &mut Identity,
    ) -> Result<(), ApiError> {
        let user = &self.wanted.user;
        let mut attributes = Attributes {
            version: "v1",
            name: user,
            ..Attributes::of_resource(requestor, verb, self.group_of_names(), "users")
        };
        if let Some(node) = node_name(user)
            && self.mode != Mode::Legacy
        {
            attributes.resource = "nodes";
            attributes.name = if self.mode == Mode::AssociatedNode {
                "*"
            } else {
                node
            };
            identity.groups = vec!["system:nodes".to_owned()];
        }
        if let Some((namespace, name)) = service_account(user) {
            attributes.resource = "serviceaccounts";
            attributes.namespace = namespace;
            attributes.name = name;
            if self.wanted.groups.is_empty() {
                identity.groups = vec![
                    "system:serviceaccounts".to_owned(),
                    format!("system:serviceaccounts:{namespace}"),
                ];
            }
        }
        self.allow(&attributes).await
    }

    /// The API group of users and groups: the older verb knows them in the core group.
    fn group_of_names(&self) -> &'static str {
        if self.mode == Mode::Legacy {
            ""
        } else {
            GROUP_OF_USERS
        }
    }

    fn refuse_group(&self, group: &str, attributes: &Attributes<'_>) -> Result<(), ApiError> {
        let why = match group {
            "" => "impersonating the empty string group is not allowed",
            MASTERS => "impersonating the system:masters group is not allowed",
            _ => return Ok(()),
        };
        self.refuse(why, attributes)
    }

    fn refuse_extra(
        &self,
        key: &str,
        value: &str,
        attributes: &Attributes<'_>,
    ) -> Result<(), ApiError> {
        if key.is_empty() {
            let why = "impersonating the empty string key in extra is not allowed";
            return self.refuse(why, attributes);
        }
        if value.is_empty() {
            let why = "impersonating the empty string value in extra is not allowed";
            return self.refuse(why, attributes);
        }
        Ok(())
    }

    /// What the older mode allows cannot be taken away from it.
    fn refuse(&self, why: &str, attributes: &Attributes<'_>) -> Result<(), ApiError> {
        if self.mode == Mode::Legacy {
            Ok(())
        } else {
            Err(forbidden(attributes, why))
        }
    }

    async fn allow(&self, attributes: &Attributes<'_>) -> Result<(), ApiError> {
        let decision = self.authorizer.authorize(attributes).await;
        if decision.is_allowed() {
            Ok(())
        } else {
            Err(forbidden(attributes, decision.reason()))
        }
    }
}

fn add_implied_group(identity: &mut Identity) {
    let has = |group: &str| identity.groups.iter().any(|known| known == group);
    let implied = if identity.user == ANONYMOUS {
        UNAUTHENTICATED
    } else if has(UNAUTHENTICATED) {
        return;
    } else {
        AUTHENTICATED
    };
    if !has(implied) {
        identity.groups.push(implied.to_owned());
    }
}

/// The node that the user is.
pub fn node_name(user: &str) -> Option<&str> {
    user.strip_prefix("system:node:")
        .filter(|name| !name.is_empty())
}

/// Namespace and name of the service account that the user is.
pub fn service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user
        .strip_prefix("system:serviceaccount:")?
        .split_once(':')?;
    let valid = !namespace.is_empty() && !name.is_empty() && !name.contains(':');
    valid.then_some((namespace, name))
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use http::HeaderValue;

    use super::*;
    use crate::authz::Decision;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|&(name, value)| {
                let value = HeaderValue::from_static(value);
                (HeaderName::from_static(name), value)
            })
            .collect()
    }

    #[test]
    fn headers_name_a_user_or_are_refused() {
        let mut all = headers(&[
            ("accept", "*/*"),
            ("impersonate-user", "jane"),
            ("impersonate-group", "a"),
            ("impersonate-group", "b"),
            ("impersonate-extra-example.com%2fscope", "read"),
        ]);
        let identity = wanted(&mut all).unwrap().unwrap();
        assert_eq!(identity.user, "jane");
        assert_eq!(identity.groups, ["a", "b"]);
        assert_eq!(identity.extra["example.com/scope"], ["read"]);
        assert_eq!(all, headers(&[("accept", "*/*")]));
        assert_eq!(wanted(&mut headers(&[])).unwrap(), None);
        assert!(wanted(&mut headers(&[("impersonate-group", "a")])).is_err());
    }

    /// Allows these, each `verb group/resource/subresource namespace/name`.
    struct Allows(&'static [&'static str]);

    #[async_trait]
    impl Authorizer for Allows {
        async fn authorize(&self, a: &Attributes<'_>) -> Decision {
            let asked = format!(
                "{} {}/{}/{} {}/{}",
                a.verb, a.group, a.resource, a.subresource, a.namespace, a.name
            );
            if self.0.contains(&asked.as_str()) {
                Decision::Allow(String::new())
            } else {
                Decision::NoOpinion(asked)
            }
        }
    }

    async fn act_as(
        allowed: &'static [&'static str],
        requestor: &Identity,
        as_user: Identity,
    ) -> Result<Vec<String>, String> {
        let request = Attributes {
            namespace: "ns",
            ..Attributes::of_resource(requestor, "list", "", "pods")
        };
        let identity = impersonate(&Allows(allowed), &request, &as_user).await;
        identity
            .map(|identity| identity.groups)
            .map_err(|error| error.to_string())
    }

    fn named(user: &str) -> Identity {
        Identity {
            user: user.to_owned(),
            ..Identity::default()
        }
    }

    #[tokio::test]
    async fn the_older_verb_allows_everything() {
        let admin = named("admin");
        let allowed = &["impersonate /users/ /jane", "impersonate /groups/ /dev"];
        assert_eq!(
            act_as(allowed, &admin, named("jane")).await.unwrap(),
            ["system:authenticated"]
        );
        let dev = Identity {
            groups: vec!["dev".to_owned()],
            ..named("jane")
        };
        assert_eq!(
            act_as(allowed, &admin, dev).await.unwrap(),
            ["dev", "system:authenticated"]
        );
        let ops = Identity {
            groups: vec!["ops".to_owned()],
            ..named("jane")
        };
        let error = act_as(allowed, &admin, ops).await.unwrap_err();
        assert!(
            error.contains("cannot impersonate-on:user-info:list resource \"pods\""),
            "{error}"
        );
    }

    #[tokio::test]
    async fn service_accounts_and_nodes_have_their_groups() {
        let admin = named("admin");
        let allowed = &["impersonate /serviceaccounts/ kube-system/x"];
        let account = named("system:serviceaccount:kube-system:x");
        assert_eq!(
            act_as(allowed, &admin, account).await.unwrap(),
            [
                "system:serviceaccounts",
                "system:serviceaccounts:kube-system",
                "system:authenticated"
            ]
        );
        let allowed = &[
            "impersonate-on:associated-node:list /pods/ ns/",
            "impersonate:associated-node authentication.k8s.io/nodes/ /*",
        ];
        let agent = Identity {
            extra: [(NODE_NAME.to_owned(), vec!["n1".to_owned()])].into(),
            ..named("system:serviceaccount:kube-system:agent")
        };
        assert_eq!(
            act_as(allowed, &agent, named("system:node:n1"))
                .await
                .unwrap(),
            ["system:nodes", "system:authenticated"]
        );
        assert!(
            act_as(allowed, &agent, named("system:node:n2"))
                .await
                .is_err(),
            "not its own node"
        );
    }
}
