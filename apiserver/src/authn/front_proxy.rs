//! Users that a front proxy vouches for: an aggregator that authenticated them and says who
//! they are in headers. The proxy itself is known by a certificate of an authority of its own.

use std::collections::BTreeMap;

use async_trait::async_trait;
use coracle_api::Identity;
use coracle_transport::{ClientCertificates, Peer, subject};
use http::{HeaderMap, request::Parts};
use percent_encoding::percent_decode_str;

use super::{AuthenticationError, Authenticator};

const USER: &str = "x-remote-user";
const UID: &str = "x-remote-uid";
const GROUP: &str = "x-remote-group";
const EXTRA: &str = "x-remote-extra-";

/// Believes the headers of a proxy with a certificate of the request-header authority.
pub struct FrontProxy {
    authorities: ClientCertificates,
    /// The common names that a proxy's certificate may have; any if empty.
    allowed_names: Vec<String>,
}

impl FrontProxy {
    pub fn new(authorities: ClientCertificates, allowed_names: Vec<String>) -> Self {
        FrontProxy {
            authorities,
            allowed_names,
        }
    }

    fn is_proxy(&self, peer: &Peer) -> bool {
        let name = || subject(peer.certificates.first()?).map(|subject| subject.common_name);
        self.authorities.verify(&peer.certificates).is_ok()
            && (self.allowed_names.is_empty()
                || name().is_some_and(|name| self.allowed_names.contains(&name)))
    }
}

#[async_trait]
impl Authenticator for FrontProxy {
    async fn authenticate(&self, request: &Parts) -> Result<Option<Identity>, AuthenticationError> {
        // Looked at first: most requests have no such header.
        let Some(identity) = identity(&request.headers) else {
            return Ok(None);
        };
        let peer = request.extensions.get::<Peer>();
        let believed = peer.is_some_and(|peer| self.is_proxy(peer));
        Ok(believed.then_some(identity))
    }
}

fn identity(headers: &HeaderMap) -> Option<Identity> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let user = text(USER).filter(|user| !user.is_empty())?;
    let groups = headers.get_all(GROUP).into_iter();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        let Some(key) = name.as_str().strip_prefix(EXTRA) else {
            continue;
        };
        let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
        if let Ok(value) = value.to_str() {
            extra.entry(key).or_default().push(value.to_owned());
        }
    }
    Some(Identity {
        user: user.to_owned(),
        uid: text(UID).unwrap_or_default().to_owned(),
        groups: groups
            .filter_map(|group| group.to_str().ok().map(str::to_owned))
            .collect(),
        extra,
    })
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn headers_name_the_user() {
        let headers: HeaderMap = [
            ("x-remote-user", "jane"),
            ("x-remote-group", "a"),
            ("x-remote-group", "b"),
            ("x-remote-extra-example.com%2fscope", "read"),
        ]
        .into_iter()
        .map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        })
        .collect();
        assert_eq!(
            identity(&headers),
            Some(Identity {
                user: "jane".to_owned(),
                uid: String::new(),
                groups: vec!["a".to_owned(), "b".to_owned()],
                extra: [("example.com/scope".to_owned(), vec!["read".to_owned()])].into(),
            })
        );
        assert_eq!(identity(&HeaderMap::new()), None);
    }
}
