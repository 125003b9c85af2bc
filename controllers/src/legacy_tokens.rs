//! Tokens in Secrets that were made for their accounts unasked, as it was once done, go when nobody
//! has used them for a year: first they are marked invalid, and a year later deleted.
//!
//! Enter at [`run`]. It looks once a day, as time alone makes a token unused. Upstream:
//! `pkg/controller/serviceaccount/legacy_serviceaccount_token_cleaner.go`.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use coracle_client::{Informer, Queue};
use jiff::{SignedDuration, Timestamp, ToSpan as _, civil::Date, tz::TimeZone};
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvFromSource, EnvVar, EphemeralContainer, Pod, Secret, ServiceAccount,
    Volume,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, Patch, Preconditions},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    Context, Error, error,
    objects::Objects,
    work::{self, Done, Key},
};

const NAME: &str = "legacy-serviceaccount-token-cleaner-controller";
const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
/// Says since when uses are noted.
const TRACKING: &str = "kube-apiserver-legacy-service-account-token-tracking";
const DAY: Duration = Duration::from_hours(24);
/// How long a token may be left unused, and then invalid.
const UNUSED: SignedDuration = SignedDuration::from_hours(365 * 24);

/// Runs the cleaner.
pub(crate) async fn run(context: Context, shutdown: CancellationToken) -> Result<(), Error> {
    // The same cache as that of the controller that puts the tokens there.
    let secrets = context.informers.matching(&format!("type={TYPE}"));
    let cleaner = Cleaner {
        client: context.client.clone(),
        secrets: Objects::new(context.client.clone(), secrets),
        accounts: context.informers.get(),
        pods: context.informers.get(),
    };
    let queue: Queue<Key> = Queue::named("legacy_service_account_token_cleaner");
    queue.add(Key::new("kube-system", TRACKING));
    let look = async {
        cleaner.secrets.cache.synced().await;
        cleaner.accounts.synced().await;
        cleaner.pods.synced().await;
        work::work(NAME, &queue, 1, &shutdown, |_| cleaner.look()).await;
    };
    tokio::select! {
        () = look => {}
        () = shutdown.cancelled() => {}
    }
    Ok(())
}

struct Cleaner {
    client: Client,
    secrets: Objects<Secret>,
    accounts: Informer<ServiceAccount>,
    pods: Informer<Pod>,
}

impl Cleaner {
    async fn look(&self) -> Result<Done, Error> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), "kube-system");
        let tracking = Box::pin(api.get(TRACKING)).await?;
        let now = Timestamp::now();
        if !is_tracked_for_long(&tracking, now)? {
            return Ok(Done::Again(DAY));
        }
        let bounds = Bounds::at(now);
        let mut mounted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut failure = None;
        for secret in self.secrets.cache.list() {
            let namespace = secret.namespace().unwrap_or_default();
            let account = self.accounts.get(&namespace, account_name(&secret));
            let verdict = judge(&secret, account.as_deref(), &bounds, || {
                let names = mounted.entry(namespace.clone());
                let names = names.or_insert_with(|| self.mounted(&namespace));
                names.contains(&secret.name_any())
            });
            if let Err(error) = self.execute(&secret, verdict, &bounds).await {
                failure = Some(error);
            }
        }
        failure.map_or(Ok(Done::Again(DAY)), Err)
    }

    /// The Secrets that pods of the namespace name.
    fn mounted(&self, namespace: &str) -> BTreeSet<String> {
        let pods = self.pods.list_namespace(namespace);
        pods.iter().flat_map(|pod| secret_names(pod)).collect()
    }

    async fn execute(
        &self,
        secret: &Secret,
        verdict: Verdict,
        bounds: &Bounds,
    ) -> Result<(), Error> {
        let namespace = secret.namespace().unwrap_or_default();
        let name = secret.name_any();
        match verdict {
            Verdict::Keep => {}
            Verdict::Invalidate => {
                let since = bounds.today.to_string();
                tracing::info!(namespace, name, since, "an unused token is marked invalid");
                let patch = json!({"metadata": {
                    "uid": secret.uid(),
                    "labels": {INVALID_SINCE: since},
                }});
                let patched = self
                    .secrets
                    .patch(&namespace, &name, Patch::Merge(patch))
                    .await;
                error::optional(patched)?;
            }
            Verdict::Delete => {
                tracing::info!(namespace, name, "a token that was long invalid is deleted");
                let exactly = DeleteParams::default().preconditions(Preconditions {
                    uid: None,
                    resource_version: secret.resource_version(),
                });
                match self.secrets.delete(secret, exactly).await {
                    // It has been used, or is wanted otherwise.
                    Err(error) if error::is_conflict(&error) => {}
                    deleted => drop(deleted?),
                }
            }
        }
        Ok(())
    }
}

/// Whether uses have been noted for so long that a Secret without one was not used.
fn is_tracked_for_long(tracking: &ConfigMap, now: Timestamp) -> Result<bool, Error> {
    let since = tracking.data.as_ref().and_then(|data| data.get("since"));
    let since = since.and_then(|since| date(since)).ok_or_else(|| {
        Error::Refused(format!(
            "the ConfigMap {TRACKING} does not say since when tokens are tracked"
        ))
    })?;
    // The day on which it began was not whole.
    let begun = since.saturating_add(1.day()).to_zoned(TimeZone::UTC);
    Ok(begun.is_ok_and(|begun| now.duration_since(begun.timestamp()) >= UNUSED))
}

/// A date as the labels have it, and in no other way of writing it.
fn date(text: &str) -> Option<Date> {
    let date: Date = text.parse().ok()?;
    (date.to_string() == text).then_some(date)
}

/// What is long ago.
struct Bounds {
    today: Date,
    created: Timestamp,
    used: Date,
}

impl Bounds {
    fn at(now: Timestamp) -> Self {
        let created = now.checked_sub(UNUSED).unwrap_or(Timestamp::MIN);
        let day = |time: Timestamp| time.to_zoned(TimeZone::UTC).date();
        Bounds {
            today: day(now),
            created,
            used: day(created),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Keep,
    Invalidate,
    Delete,
}

/// What becomes of the token. `account` is the one that the Secret names, `is_mounted` whether a
/// pod has it.
fn judge(
    secret: &Secret,
    account: Option<&ServiceAccount>,
    bounds: &Bounds,
    is_mounted: impl FnOnce() -> bool,
) -> Verdict {
    let created = secret.metadata.creation_timestamp.as_ref();
    let is_new = created.is_some_and(|created| created.0 >= bounds.created);
    if is_new || secret.metadata.deletion_timestamp.is_some() {
        return Verdict::Keep;
    }
    let used = secret.labels().get(LAST_USED).map(|used| date(used));
    // What cannot be read says nothing; no label at all says that it was not used.
    if used.is_some_and(|used| used.is_none_or(|used| used >= bounds.used)) {
        return Verdict::Keep;
    }
    // Who made a Secret by hand wants it.
    let is_generated = account.is_some_and(|account| is_generated_for(secret, account));
    if !is_generated || is_mounted() {
        return Verdict::Keep;
    }
    let since = secret.labels().get(INVALID_SINCE);
    match since.and_then(|since| date(since)) {
        None => Verdict::Invalidate,
        Some(since) if since >= bounds.used => Verdict::Keep,
        Some(_) => Verdict::Delete,
    }
}

fn account_name(secret: &Secret) -> &str {
    let name = secret.annotations().get(ACCOUNT_NAME);
    name.map_or("", String::as_str)
}

/// An account lists the Secrets that were made for it.
fn is_generated_for(secret: &Secret, account: &ServiceAccount) -> bool {
    let uid = secret.annotations().get(ACCOUNT_UID);
    let is_about = uid.is_none_or(|uid| uid.is_empty() || Some(uid) == account.uid().as_ref());
    let listed = account.secrets.iter().flatten();
    is_about
        && listed
            .filter_map(|listed| listed.name.as_ref())
            .any(|name| *name == secret.name_any())
}

/// The Secrets that the pod cannot do without.
fn secret_names(pod: &Pod) -> BTreeSet<String> {
    let Some(spec) = &pod.spec else {
        return BTreeSet::new();
    };
    let containers = spec.init_containers.iter().flatten();
    let containers = containers.chain(&spec.containers);
    let of_containers = containers
        .flat_map(|Container { env_from, env, .. }| of_env(env_from.as_deref(), env.as_deref()));
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    let of_ephemeral = ephemeral.flat_map(|EphemeralContainer { env_from, env, .. }| {
        of_env(env_from.as_deref(), env.as_deref())
    });
    let pulling = spec.image_pull_secrets.iter().flatten();
    pulling
        .map(|reference| reference.name.clone())
        .chain(of_containers)
        .chain(of_ephemeral)
        .chain(spec.volumes.iter().flatten().flat_map(of_volume))
        .filter(|name| !name.is_empty())
        .collect()
}

fn of_env(from: Option<&[EnvFromSource]>, env: Option<&[EnvVar]>) -> Vec<String> {
    let whole = from.unwrap_or_default().iter().filter_map(|from| {
        let secret = from.secret_ref.as_ref()?;
        Some(secret.name.clone())
    });
    let keys = env.unwrap_or_default().iter().filter_map(|variable| {
        let secret = variable.value_from.as_ref()?.secret_key_ref.as_ref()?;
        Some(secret.name.clone())
    });
    whole.chain(keys).collect()
}

fn of_volume(volume: &Volume) -> Vec<String> {
    let local = [
        volume.cephfs.as_ref().and_then(|it| it.secret_ref.as_ref()),
        volume.cinder.as_ref().and_then(|it| it.secret_ref.as_ref()),
        volume
            .flex_volume
            .as_ref()
            .and_then(|it| it.secret_ref.as_ref()),
        volume.rbd.as_ref().and_then(|it| it.secret_ref.as_ref()),
        volume.scale_io.as_ref().map(|it| &it.secret_ref),
        volume.iscsi.as_ref().and_then(|it| it.secret_ref.as_ref()),
        volume
            .storageos
            .as_ref()
            .and_then(|it| it.secret_ref.as_ref()),
        volume
            .csi
            .as_ref()
            .and_then(|it| it.node_publish_secret_ref.as_ref()),
    ];
    let local = local.into_iter().flatten().map(|it| it.name.clone());
    let azure = volume.azure_file.as_ref().map(|it| it.secret_name.clone());
    let secret = volume.secret.as_ref().and_then(|it| it.secret_name.clone());
    let projected = volume.projected.iter().flat_map(|it| it.sources.iter());
    let projected = projected
        .flatten()
        .filter_map(|source| Some(source.secret.as_ref()?.name.clone()));
    local.chain(azure).chain(secret).chain(projected).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn now() -> Timestamp {
        "2026-06-15T12:00:00Z".parse().expect("a time")
    }

    fn secret(changes: &Value) -> Secret {
        let mut secret = json!({
            "metadata": {
                "name": "s", "namespace": "ns", "uid": "1",
                "creationTimestamp": "2020-01-01T00:00:00Z",
                "annotations": {ACCOUNT_NAME: "a", ACCOUNT_UID: "u"},
                "labels": {},
            },
            "type": TYPE,
        });
        let metadata = secret["metadata"].as_object_mut().expect("an object");
        metadata.extend(changes.as_object().expect("an object").clone());
        serde_json::from_value(secret).expect("a secret")
    }

    fn account(uid: &str, listed: &str) -> ServiceAccount {
        serde_json::from_value(json!({
            "metadata": {"name": "a", "namespace": "ns", "uid": uid},
            "secrets": [{"name": listed}],
        }))
        .expect("an account")
    }

    #[test]
    fn only_what_is_generated_and_unused_for_a_year_goes() {
        let labels = |labels: Value| json!({"labels": labels});
        let created = |time: &str| json!({"creationTimestamp": time});
        let table = [
            (json!({}), Verdict::Invalidate),
            (created("2025-06-15T12:00:00Z"), Verdict::Keep),
            (created("2025-06-15T11:59:59Z"), Verdict::Invalidate),
            (
                json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}),
                Verdict::Keep,
            ),
            (labels(json!({LAST_USED: "2025-06-15"})), Verdict::Keep),
            (
                labels(json!({LAST_USED: "2025-06-14"})),
                Verdict::Invalidate,
            ),
            (labels(json!({LAST_USED: "20200101"})), Verdict::Keep),
            (labels(json!({LAST_USED: "long-ago"})), Verdict::Keep),
            (labels(json!({INVALID_SINCE: "once"})), Verdict::Invalidate),
            (labels(json!({INVALID_SINCE: "2025-06-15"})), Verdict::Keep),
            (
                labels(json!({INVALID_SINCE: "2025-06-14"})),
                Verdict::Delete,
            ),
            (
                labels(json!({INVALID_SINCE: "2025-06-14", LAST_USED: "2025-07-01"})),
                Verdict::Keep,
            ),
        ];
        let bounds = Bounds::at(now());
        for (changes, verdict) in table {
            let judged = judge(&secret(&changes), Some(&account("u", "s")), &bounds, || {
                false
            });
            assert_eq!(judged, verdict, "{changes}");
        }
        let plain = secret(&json!({}));
        for (account, mounted) in [
            (None, false),
            (Some(account("u", "other")), false),
            (Some(account("later", "s")), false),
            (Some(account("u", "s")), true),
        ] {
            let judged = judge(&plain, account.as_ref(), &bounds, || mounted);
            assert_eq!(judged, Verdict::Keep);
        }
    }

    #[test]
    fn uses_are_noted_for_a_year_first() {
        let since = |data: Value| {
            let tracking = json!({"data": data});
            let tracking = serde_json::from_value(tracking).expect("a config map");
            is_tracked_for_long(&tracking, now()).ok()
        };
        assert_eq!(since(json!({"since": "2025-06-14"})), Some(true));
        assert_eq!(since(json!({"since": "2025-06-15"})), Some(false));
        assert_eq!(since(json!({"since": "yesterday"})), None);
        assert_eq!(since(json!({})), None);
    }

    #[test]
    fn a_pod_names_secrets_in_many_places() {
        let env = |name: &str| json!([{"name": "E", "valueFrom": {"secretKeyRef": {"name": name, "key": "k"}}}]);
        let pod = serde_json::from_value(json!({"spec": {
            "imagePullSecrets": [{"name": "pull"}, {"name": ""}],
            "initContainers": [{"name": "i", "env": env("init")}],
            "containers": [{"name": "c", "envFrom": [{"secretRef": {"name": "from"}}]}],
            "ephemeralContainers": [{"name": "e", "env": env("ephemeral")}],
            "volumes": [
                {"name": "a", "secret": {"secretName": "volume"}},
                {"name": "b", "projected": {"sources": [{"secret": {"name": "projected"}}]}},
                {"name": "c", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "csi"}}},
                {"name": "d", "azureFile": {"secretName": "azure", "shareName": "s"}},
                {"name": "e", "iscsi": {
                    "targetPortal": "p", "iqn": "q", "lun": 0, "secretRef": {"name": "iscsi"},
                }},
            ],
        }}))
        .expect("a pod");
        let names = secret_names(&pod);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "azure",
                "csi",
                "ephemeral",
                "from",
                "init",
                "iscsi",
                "projected",
                "pull",
                "volume"
            ]
        );
    }
}
