//! Keeps the flow schemas and priority levels of `manifests/flowcontrol/` in place, and says of
//! every flow schema whether its priority level exists.
//!
//! Enter at [`run`]. The rules are upstream's: what is missing is made again. A specification that
//! differs is put back, unless the object's annotation `apf.kubernetes.io/autoupdate-spec` is
//! `false`, or is absent from an object that was changed; of the mandatory objects, which are named
//! `exempt` and `catch-all`, always. An annotated object that is none of these is removed.

use std::{collections::BTreeMap, fmt::Debug, sync::Arc, time::Duration};

use anyhow::Context as _;
use coracle_client::{Cached, Informer, Informers};
use jiff::Timestamp;
use k8s_openapi::api::flowcontrol::v1::{
    FlowSchema, FlowSchemaCondition, PriorityLevelConfiguration,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use tokio_util::sync::CancellationToken;

const LEVELS: &str = include_str!("../manifests/flowcontrol/priority-levels.yaml");
const SCHEMAS: &str = include_str!("../manifests/flowcontrol/flow-schemas.yaml");
const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
const MANDATORY: [&str; 2] = ["exempt", "catch-all"];
/// Who writes the objects, and who their conditions: upstream's names.
const MANAGER: &str = "api-priority-and-fairness-config-producer-v1";
const STATUS_MANAGER: &str = "api-priority-and-fairness-config-consumer-v1";
/// Changes that come together are looked at together.
const SETTLE: Duration = Duration::from_millis(100);

/// A kind of configuration.
trait Configuration: Cached + Serialize + DeserializeOwned + Debug {
    /// Takes the specification of `wanted`. Whether that changed anything.
    fn take_spec(&mut self, wanted: &Self) -> bool;
}

impl Configuration for FlowSchema {
    fn take_spec(&mut self, wanted: &Self) -> bool {
        let differs = self.spec != wanted.spec;
        self.spec.clone_from(&wanted.spec);
        differs
    }
}

impl Configuration for PriorityLevelConfiguration {
    fn take_spec(&mut self, wanted: &Self) -> bool {
        let differs = self.spec != wanted.spec;
        self.spec.clone_from(&wanted.spec);
        differs
    }
}

/// Runs until the shutdown.
///
/// # Errors
/// A write failed for another reason than that somebody else wrote too.
pub async fn run(
    client: Client,
    informers: Informers,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let keeper = Keeper {
        levels: Kept::new(&client, &informers, LEVELS)?,
        schemas: Kept::new(&client, &informers, SCHEMAS)?,
    };
    tokio::select! {
        ended = keeper.keep() => ended,
        () = shutdown.cancelled() => Ok(()),
    }
}

struct Keeper {
    levels: Kept<PriorityLevelConfiguration>,
    schemas: Kept<FlowSchema>,
}

impl Keeper {
    async fn keep(&self) -> anyhow::Result<()> {
        let mut levels = self.levels.cache.subscribe();
        let mut schemas = self.schemas.cache.subscribe();
        self.levels.cache.synced().await;
        self.schemas.cache.synced().await;
        loop {
            self.levels.ensure().await?;
            self.schemas.ensure().await?;
            self.say_what_dangles().await?;
            tokio::select! {
                change = levels.next() => change.map(drop),
                change = schemas.next() => change.map(drop),
            }
            .context("the caches have ended")?;
            tokio::time::sleep(SETTLE).await;
        }
    }

    async fn say_what_dangles(&self) -> anyhow::Result<()> {
        for schema in self.schemas.cache.list() {
            let level = schema
                .spec
                .as_ref()
                .map_or("", |spec| spec.priority_level_configuration.name.as_str());
            let exists = self.levels.cache.get("", level).is_some();
            let Some(condition) = dangling(&schema, level, exists, Timestamp::now()) else {
                continue;
            };
            let name = schema.name_any();
            let patch = json!({
                "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
                "kind": "FlowSchema",
                "metadata": {"name": name},
                "status": {"conditions": [condition]},
            });
            let params = PatchParams::apply(STATUS_MANAGER).force();
            let api = &self.schemas.api;
            settled(api.patch_status(&name, &params, &Patch::Apply(patch)).await)
                .with_context(|| format!("cannot say whether flow schema {name} dangles"))?;
        }
        Ok(())
    }
}

/// The objects of a kind: those there are, and those there must be.
struct Kept<K> {
    api: Api<K>,
    cache: Informer<K>,
    wanted: BTreeMap<String, K>,
}

impl<K: Configuration> Kept<K> {
    fn new(client: &Client, informers: &Informers, manifest: &str) -> anyhow::Result<Self> {
        Ok(Kept {
            api: Api::all(client.clone()),
            cache: informers.get(),
            wanted: wanted(manifest)?,
        })
    }

    async fn ensure(&self) -> anyhow::Result<()> {
        let params = PostParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PostParams::default()
        };
        let mut written = None;
        for (name, wanted) in &self.wanted {
            let outcome = match self.cache.get("", name) {
                None => self.api.create(&params, wanted).await,
                Some(found) => match revised(&found, wanted) {
                    Some(object) => self.api.replace(name, &params, &object).await,
                    None => continue,
                },
            };
            let object = settled(outcome).with_context(|| format!("cannot write {name}"))?;
            written = object
                .and_then(|object| object.resource_version())
                .or(written);
        }
        for unwanted in self.cache.list() {
            let name = unwanted.name_any();
            if self.wanted.contains_key(&name) || automatic(&*unwanted) != Some(true) {
                continue;
            }
            let params = DeleteParams::default().preconditions(Preconditions {
                uid: unwanted.uid(),
                resource_version: unwanted.resource_version(),
            });
            settled(self.api.delete(&name, &params).await)
                .with_context(|| format!("cannot remove {name}"))?;
        }
        if let Some(version) = written {
            self.cache.reached(&version).await;
        }
        Ok(())
    }
}

/// The objects of a manifest, each with the annotation that lets it be put back.
fn wanted<K: Configuration>(manifest: &str) -> anyhow::Result<BTreeMap<String, K>> {
    let documents = serde_yaml_ng::Deserializer::from_str(manifest);
    let objects = documents.map(|document| {
        let mut object = K::deserialize(document).context("in a built-in manifest")?;
        annotate(&mut object, true);
        Ok((object.name_any(), object))
    });
    objects.collect()
}

/// What the annotation says; `None` when there is none, or none that can be read.
fn automatic<K: Configuration>(object: &K) -> Option<bool> {
    match object.annotations().get(AUTO_UPDATE)?.as_str() {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn annotate<K: Configuration>(object: &mut K, automatic: bool) {
    let annotations = object.annotations_mut();
    annotations.insert(AUTO_UPDATE.to_owned(), automatic.to_string());
}

/// What has to be written for an object that exists; `None`: nothing.
fn revised<K: Configuration>(found: &Arc<K>, wanted: &K) -> Option<K> {
    let said = automatic(&**found);
    let untouched = found.meta().generation == Some(1);
    let update = MANDATORY.contains(&&*found.name_any()) || said.unwrap_or(untouched);
    let mut object = K::clone(found);
    let changed = update && object.take_spec(wanted);
    if said == Some(update) && !changed {
        return None;
    }
    annotate(&mut object, update);
    Some(object)
}

/// The condition to write; `None` when the flow schema has it.
fn dangling(
    schema: &FlowSchema,
    level: &str,
    exists: bool,
    now: Timestamp,
) -> Option<serde_json::Value> {
    let (status, reason, end) = if exists {
        ("False", "Found", "it exists")
    } else {
        ("True", "NotFound", "there is no such object")
    };
    let but = if exists { "and" } else { "but" };
    let message = format!(
        "This FlowSchema references the PriorityLevelConfiguration object named \"{level}\" {but} {end}"
    );
    let known = schema.status.iter().flat_map(|status| &status.conditions);
    let same = |condition: &FlowSchemaCondition| {
        condition.type_.as_deref() == Some("Dangling")
            && condition.status.as_deref() == Some(status)
            && condition.reason.as_deref() == Some(reason)
            && condition.message.as_deref() == Some(&message)
    };
    if known.flatten().any(same) {
        return None;
    }
    Some(json!({
        "type": "Dangling",
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    }))
}

/// What was written; `None` when somebody else was quicker, whose write the caches will show.
fn settled<T>(written: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    match written {
        Err(kube::Error::Api(status))
            if status.is_already_exists() || status.is_conflict() || status.is_not_found() =>
        {
            Ok(None)
        }
        other => other.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(
        annotation: Option<&str>,
        generation: i64,
        shares: i32,
    ) -> Arc<PriorityLevelConfiguration> {
        let mut level = wanted::<PriorityLevelConfiguration>(LEVELS)
            .unwrap()
            .remove("system")
            .unwrap();
        level.metadata.generation = Some(generation);
        level.metadata.annotations =
            annotation.map(|value| BTreeMap::from([(AUTO_UPDATE.to_owned(), value.to_owned())]));
        let limited = level.spec.as_mut().unwrap().limited.as_mut().unwrap();
        limited.nominal_concurrency_shares = Some(shares);
        Arc::new(level)
    }

    /// What becomes of the annotation and the shares; `None`: nothing is written.
    fn becomes(found: &Arc<PriorityLevelConfiguration>) -> Option<(String, i32)> {
        let all = wanted::<PriorityLevelConfiguration>(LEVELS).unwrap();
        let revised = revised(found, &all["system"])?;
        let limited = revised.spec.as_ref()?.limited.clone()?;
        Some((
            revised.annotations()[AUTO_UPDATE].clone(),
            limited.nominal_concurrency_shares?,
        ))
    }

    #[test]
    fn specifications_come_back_unless_somebody_keeps_them() {
        let written = |annotation: &str, shares| Some((annotation.to_owned(), shares));
        assert_eq!(becomes(&level(Some("true"), 5, 30)), None);
        assert_eq!(becomes(&level(Some("true"), 5, 31)), written("true", 30));
        assert_eq!(becomes(&level(Some("false"), 5, 31)), None);
        assert_eq!(becomes(&level(None, 1, 31)), written("true", 30));
        assert_eq!(becomes(&level(None, 2, 31)), written("false", 31));
        assert_eq!(
            becomes(&level(Some("perhaps"), 2, 30)),
            written("false", 30)
        );
        let mut mandatory = PriorityLevelConfiguration::clone(&level(Some("false"), 5, 31));
        mandatory.metadata.name = Some("catch-all".to_owned());
        assert_eq!(becomes(&Arc::new(mandatory)), written("true", 30));
    }

    #[test]
    fn every_schema_of_the_manifests_names_a_level_of_the_manifests() {
        let levels = wanted::<PriorityLevelConfiguration>(LEVELS).unwrap();
        let schemas = wanted::<FlowSchema>(SCHEMAS).unwrap();
        assert_eq!((levels.len(), schemas.len()), (8, 11));
        for (name, schema) in schemas {
            let level = schema.spec.unwrap().priority_level_configuration.name;
            assert!(levels.contains_key(&level), "{name}: {level}");
        }
    }

    #[test]
    fn a_schema_dangles_without_its_level() {
        let schema = wanted::<FlowSchema>(SCHEMAS)
            .unwrap()
            .remove("probes")
            .unwrap();
        let now = Timestamp::UNIX_EPOCH;
        let condition = dangling(&schema, "exempt", false, now).unwrap();
        assert_eq!(condition["status"], "True");
        assert_eq!(
            condition["message"],
            "This FlowSchema references the PriorityLevelConfiguration object named \"exempt\" but there is no such object"
        );
        let mut told = schema;
        let found = dangling(&told, "exempt", true, now).unwrap();
        assert_eq!(found["lastTransitionTime"], "1970-01-01T00:00:00Z");
        told.status = serde_json::from_value(json!({"conditions": [found]})).unwrap();
        assert_eq!(dangling(&told, "exempt", true, now), None);
    }
}
