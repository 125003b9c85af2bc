//! Tokens of service accounts in Secrets, as they were given out before there were bound ones:
//! whoever makes a Secret of that type gets a token in it, for as long as both exist.
//!
//! Enter at [`run`]. Upstream: `pkg/controller/serviceaccount`,
//! `tokens_controller.go`.

use std::sync::Arc;

use coracle_client::{Informer, Queue};
use k8s_openapi::{
    ByteString,
    api::core::v1::{Secret, ServiceAccount},
};
use kube::{Api, Client, ResourceExt as _, api::DeleteParams};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    Context, Error, TokenSigner,
    changes::{self, Seen},
    error,
    objects::Objects,
    work::{self, Done, Key},
};

const NAME: &str = "serviceaccount-token-controller";
const WORKERS: usize = 5;
const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
/// Who issues such tokens, in every cluster.
const ISSUER: &str = "kubernetes/serviceaccount";

/// Runs the controller.
pub(crate) async fn run(context: Context, shutdown: CancellationToken) -> Result<(), Error> {
    // Only these: the other Secrets are nobody's business here.
    let cache = context.informers.matching(&format!("type={TYPE}"));
    let controller = Controller {
        client: context.client.clone(),
        root_ca: context.config.root_ca.clone(),
        signer: context.config.token_signer.clone(),
        secrets: Objects::new(context.client.clone(), cache),
        accounts: context.informers.get(),
        queue: Queue::named("serviceaccount_tokens_service"),
    };
    controller.run(shutdown).await
}

struct Controller {
    client: Client,
    root_ca: String,
    signer: Option<TokenSigner>,
    secrets: Objects<Secret>,
    accounts: Informer<ServiceAccount>,
    queue: Queue<Key>,
}

fn account_name(secret: &Secret) -> &str {
    let annotations = secret.metadata.annotations.as_ref();
    annotations
        .and_then(|annotations| annotations.get(ACCOUNT_NAME))
        .map_or("", String::as_str)
}

/// Whether the Secret is about this account, and not about an earlier one of its name.
fn is_about(secret: &Secret, account: &ServiceAccount) -> bool {
    let uid = secret.annotations().get(ACCOUNT_UID);
    account_name(secret) == account.name_any()
        && uid.is_none_or(|uid| uid.is_empty() || Some(uid) == account.metadata.uid.as_ref())
}

/// The Secret with all but the token; `None` when it has that already.
fn completed(secret: &Secret, account: &ServiceAccount, root_ca: &str) -> Option<Secret> {
    let mut next = secret.clone();
    let uid = account.uid().unwrap_or_default();
    next.annotations_mut().insert(ACCOUNT_UID.to_owned(), uid);
    let namespace = secret.namespace().unwrap_or_default();
    let data = next.data.get_or_insert_default();
    data.entry("namespace".to_owned())
        .or_insert_with(|| ByteString(namespace.into_bytes()));
    if !root_ca.is_empty() {
        data.insert("ca.crt".to_owned(), ByteString(root_ca.as_bytes().to_vec()));
    }
    (next != *secret).then_some(next)
}

fn has_token(secret: &Secret) -> bool {
    let data = secret.data.as_ref();
    data.and_then(|data| data.get("token"))
        .is_some_and(|token| !token.0.is_empty())
}

impl Controller {
    async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let secrets = changes::each(&self.secrets.cache, |seen| {
            if let Seen::Applied { new: secret, .. } = seen {
                self.queue.add(Key::of(&secret.metadata));
            }
        });
        let accounts = changes::each(&self.accounts, |seen| match seen {
            Seen::Applied { old: Some(_), .. } => {}
            Seen::Applied { new: account, .. } | Seen::Deleted(account) => {
                let namespace = account.metadata.namespace.as_deref().unwrap_or_default();
                for secret in self.secrets.cache.list_namespace(namespace) {
                    if account_name(&secret) == account.name_any() {
                        self.queue.add(Key::of(&secret.metadata));
                    }
                }
            }
            Seen::Lagged => {
                for secret in self.secrets.cache.list() {
                    self.queue.add(Key::of(&secret.metadata));
                }
            }
        });
        let workers = async {
            self.secrets.cache.synced().await;
            self.accounts.synced().await;
            work::work(NAME, &self.queue, WORKERS, &shutdown, |key| self.sync(key)).await;
        };
        tokio::select! {
            () = secrets => {}
            () = accounts => {}
            () = workers => {}
            () = shutdown.cancelled() => {}
        }
        Ok(())
    }

    async fn sync(&self, key: Key) -> Result<Done, Error> {
        let Some(secret) = self.secrets.get(&key.namespace, &key.name) else {
            return Ok(Done::Settled);
        };
        if account_name(&secret).is_empty() || secret.metadata.deletion_timestamp.is_some() {
            return Ok(Done::Settled);
        }
        let Some(account) = self.account(&secret, &key.namespace).await? else {
            self.secrets
                .delete(&secret, DeleteParams::default())
                .await?;
            return Ok(Done::Settled);
        };
        let next = completed(&secret, &account, &self.root_ca);
        if next.is_none() && (has_token(&secret) || self.signer.is_none()) {
            return Ok(Done::Settled);
        }
        let mut next = next.unwrap_or_else(|| (*secret).clone());
        if !has_token(&secret)
            && let Some(TokenSigner(sign)) = &self.signer
        {
            let claims = claims(&secret, &account).to_string();
            let token = sign(claims.as_bytes())
                .map_err(|error| Error::Refused(format!("no token for {key}: {error}")))?;
            let data = next.data.get_or_insert_default();
            data.insert("token".to_owned(), ByteString(token.into_bytes()));
        }
        error::optional(self.secrets.replace(&next).await)?;
        Ok(Done::Settled)
    }

    /// The account that the Secret is about. The cache is believed only when it has it.
    async fn account(
        &self,
        secret: &Secret,
        namespace: &str,
    ) -> Result<Option<Arc<ServiceAccount>>, Error> {
        let name = account_name(secret);
        let known = self.accounts.get(namespace, name);
        if let Some(account) = known.filter(|account| is_about(secret, account)) {
            return Ok(Some(account));
        }
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let read = Box::pin(api.get_opt(name)).await?;
        Ok(read
            .filter(|account| is_about(secret, account))
            .map(Arc::new))
    }
}

/// What a token in a Secret says: it does not expire, and names the Secret that it is good with.
fn claims(secret: &Secret, account: &ServiceAccount) -> Value {
    let (namespace, name) = (account.namespace().unwrap_or_default(), account.name_any());
    json!({
        "iss": ISSUER,
        "kubernetes.io/serviceaccount/namespace": namespace,
        "kubernetes.io/serviceaccount/secret.name": secret.name_any(),
        "kubernetes.io/serviceaccount/service-account.name": name,
        "kubernetes.io/serviceaccount/service-account.uid": account.uid(),
        "sub": format!("system:serviceaccount:{namespace}:{name}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(uid: &str) -> ServiceAccount {
        serde_json::from_value(
            json!({ "metadata": { "name": "a", "namespace": "ns", "uid": uid } }),
        )
        .expect("an account")
    }

    fn secret(uid: Option<&str>) -> Secret {
        let mut secret: Secret = serde_json::from_value(json!({
            "metadata": { "name": "s", "namespace": "ns", "annotations": { ACCOUNT_NAME: "a" } },
            "type": TYPE,
        }))
        .expect("a secret");
        if let Some(uid) = uid {
            secret
                .annotations_mut()
                .insert(ACCOUNT_UID.to_owned(), uid.to_owned());
        }
        secret
    }

    #[test]
    fn a_secret_is_completed_once() {
        let made = completed(&secret(None), &account("u"), "PEM").expect("a change");
        assert_eq!(made.annotations()[ACCOUNT_UID], "u");
        let data = made.data.as_ref().expect("data");
        assert_eq!(
            (&data["namespace"].0[..], &data["ca.crt"].0[..]),
            (&b"ns"[..], &b"PEM"[..])
        );
        assert_eq!(completed(&made, &account("u"), "PEM"), None);
        assert!(completed(&made, &account("u"), "NEW").is_some());
        assert!(!has_token(&made));
    }

    #[test]
    fn a_token_names_its_secret_and_account() {
        assert_eq!(
            claims(&secret(None), &account("u")),
            json!({
                "iss": "kubernetes/serviceaccount",
                "kubernetes.io/serviceaccount/namespace": "ns",
                "kubernetes.io/serviceaccount/secret.name": "s",
                "kubernetes.io/serviceaccount/service-account.name": "a",
                "kubernetes.io/serviceaccount/service-account.uid": "u",
                "sub": "system:serviceaccount:ns:a",
            })
        );
    }

    #[test]
    fn a_secret_of_an_earlier_account_is_not_this_ones() {
        assert!(is_about(&secret(None), &account("u")));
        assert!(is_about(&secret(Some("u")), &account("u")));
        assert!(!is_about(&secret(Some("before")), &account("u")));
    }
}
