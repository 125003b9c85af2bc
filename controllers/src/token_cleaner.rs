//! Bootstrap tokens go when they expire.
//!
//! Enter at [`run`]. Upstream: `pkg/controller/bootstrap`.

use std::time::Duration;

use coracle_client::Queue;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::api::DeleteParams;
use tokio_util::sync::CancellationToken;

use crate::{
    Context, Error,
    changes::{self, Pace, Seen},
    objects::Objects,
    work::{Done, Key},
};

const NAME: &str = "token-cleaner-controller";
const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";
const EXPIRATION: &str = "expiration";

/// Runs the cleaner.
pub(crate) async fn run(context: Context, shutdown: CancellationToken) -> Result<(), Error> {
    // Only these: the other Secrets are nobody's business here.
    let cache = context.informers.matching(&format!("type={TYPE}"));
    let secrets: Objects<Secret> = Objects::new(context.client.clone(), cache);
    let pace = Pace {
        name: NAME,
        queue: "token_cleaner",
        workers: 1,
    };
    let ours = |queue: &Queue<Key>, seen: Seen<Secret>| {
        if let Seen::Applied { new: secret, .. } = seen
            && secret.metadata.namespace.as_deref() == Some(NAMESPACE)
        {
            queue.add(Key::of(&secret.metadata));
        }
    };
    let sync = |key| sync(&secrets, key);
    changes::follow(pace, &secrets.cache, &shutdown, ours, sync).await;
    Ok(())
}

async fn sync(secrets: &Objects<Secret>, key: Key) -> Result<Done, Error> {
    let Some(secret) = secrets.get(&key.namespace, &key.name) else {
        return Ok(Done::Settled);
    };
    match left(&secret, Timestamp::now()) {
        None => Ok(Done::Settled),
        Some(left) if !left.is_zero() => Ok(Done::Again(left)),
        Some(_) => {
            secrets.delete(&secret, DeleteParams::default()).await?;
            Ok(Done::Settled)
        }
    }
}

/// How long the token is still good for; `None` when it is for ever. One that does not say when in
/// a way that can be read is good no more.
fn left(secret: &Secret, now: Timestamp) -> Option<Duration> {
    let text = &secret.data.as_ref()?.get(EXPIRATION)?.0;
    if text.is_empty() {
        return None;
    }
    let end = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse::<Timestamp>().ok());
    let left = end.map(|end| end.duration_since(now));
    Some(
        left.and_then(|left| Duration::try_from(left).ok())
            .unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    #[test]
    fn a_token_is_good_until_it_expires() {
        let now = "2026-01-01T00:00:00Z".parse().expect("a time");
        let of = |expiration: Option<&str>| {
            let expiration = expiration.map(|text| ByteString(text.as_bytes().to_vec()));
            let data = expiration
                .map(|text| (EXPIRATION.to_owned(), text))
                .into_iter();
            let secret = Secret {
                data: Some(data.collect()),
                ..Secret::default()
            };
            left(&secret, now)
        };
        assert_eq!(of(None), None);
        assert_eq!(of(Some("")), None);
        assert_eq!(
            of(Some("2026-01-01T00:01:00Z")),
            Some(Duration::from_secs(60))
        );
        assert_eq!(of(Some("2025-12-31T23:00:00Z")), Some(Duration::ZERO));
        assert_eq!(of(Some("tomorrow")), Some(Duration::ZERO));
    }
}
