//! Server-side apply of a request.
//!
//! Upstream: `applyPatcher` of `apiserver/pkg/endpoints/handlers/patch.go`, and the managers that
//! `apimachinery/pkg/util/managedfields` stacks around `structured-merge-diff`.

use std::fmt;

use coracle_api::{
    Object,
    apply::{
        self, Applied, ApplyError, Conflict, Duplicates, Model, Owners, Set, ShowPath,
        conflicts_without, still_as_applied,
    },
    meta,
};
use http::StatusCode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::{Ownership, versions};
use crate::error::ApiError;

/// Where `kubectl apply` without `--server-side` records what it applied.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Who may take over what was recorded there.
const KUBECTL: &str = "kubectl";

/// A configuration to be applied.
pub struct ApplyRequest<'r> {
    pub config: &'r Value,
    pub force: bool,
}

impl Ownership<'_> {
    /// The object that `live`, or nothing, becomes, and who owns what of it.
    ///
    /// # Errors
    /// 409 when others own what would change, unless it is forced.
    pub fn apply(
        &self,
        live: Option<&dyn Object>,
        request: &ApplyRequest<'_>,
    ) -> Result<Box<dyn Object>, ApiError> {
        let kind = &self.resource.kind;
        let model = versions::model_of(kind);
        check_config(model, &self.version, &kind.kind, request.config)?;
        let mut live = live.map(Object::clone_object);
        let entries = live
            .as_mut()
            .and_then(|live| live.meta_mut().managed_fields.take());
        let owners = apply::decode(&entries.unwrap_or_default())
            .map_err(|error| failed(format!("failed to decode managed fields: {error}")))?;
        let json = match &live {
            Some(live) => live.to_value(),
            None => self.nothing(),
        };
        let applied = self.apply_values(&json, &owners, live.is_some(), request)?;
        let mut object = match (applied.object, live) {
            (None, Some(live)) => live,
            (made, _) => self.decode(&made.unwrap_or(json), request.config)?,
        };
        if self.manager == KUBECTL {
            record(&mut *object, request.config);
        }
        object.meta_mut().managed_fields = super::non_empty(Some(apply::encode(applied.owners)));
        Ok(object)
    }

    /// The same of JSON values. `exists`: the object is stored already.
    fn apply_values(
        &self,
        live: &Value,
        owners: &Owners,
        exists: bool,
        request: &ApplyRequest<'_>,
    ) -> Result<Applied, ApiError> {
        let served = self.served();
        let writer = self.writer(&served);
        let apply = |force| writer.apply(live, request.config, owners.clone(), exists, force);
        let applied = match apply(request.force) {
            Err(ApplyError::Conflicts(conflicts)) if self.manager == KUBECTL => {
                match self.taken_over(live) {
                    None => Err(ApplyError::Conflicts(conflicts)),
                    Some(allowed) => match conflicts_without(conflicts, &allowed) {
                        left if left.is_empty() => apply(true),
                        left => Err(ApplyError::Conflicts(left)),
                    },
                }
            }
            applied => applied,
        };
        applied.map_err(apply_error)
    }

    /// What an object is merged into that does not exist.
    fn nothing(&self) -> Value {
        serde_json::json!({"apiVersion": self.version, "kind": self.resource.kind.kind, "metadata": {}})
    }

    fn decode(&self, object: &Value, config: &Value) -> Result<Box<dyn Object>, ApiError> {
        let strategy = &self.resource.kind.strategy;
        let decoded = strategy.decode_value(object, &mut Vec::new());
        let mut decoded = decoded.map_err(|error| {
            failed(format!(
                "failed to convert new typed object ({}) to object: {error}",
                named(config)
            ))
        })?;
        strategy.default_fields(&mut *decoded);
        Ok(decoded)
    }

    /// What client-side apply owned and that has not changed since: server-side apply takes it
    /// over. `None`: it recorded nothing that is understood.
    fn taken_over(&self, live: &Value) -> Option<Set> {
        let recorded = live.pointer("/metadata/annotations")?.get(LAST_APPLIED)?;
        let recorded: Value = serde_json::from_str(recorded.as_str()?).ok()?;
        if recorded["apiVersion"].as_str() != Some(self.version.as_str()) {
            return None;
        }
        let model = versions::model_of(&self.resource.kind);
        apply::validate(model, &recorded, Duplicates::Refused).ok()?;
        still_as_applied(model, &recorded, live).ok()
    }
}

/// Checks what a configuration must be: of the version and kind of the request, without managed
/// fields, and fit for the schema.
pub fn check_config(
    model: Model,
    version: &str,
    kind: &str,
    config: &Value,
) -> Result<(), ApiError> {
    let text = |name: &str| config[name].as_str().unwrap_or_default();
    if (text("apiVersion"), text("kind")) != (version, kind) {
        let declared = declared(config);
        return Err(ApiError::bad_request(format!(
            "invalid object type: {declared}"
        )));
    }
    if !config["metadata"]["managedFields"].is_null() {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    apply::validate(model, config, Duplicates::Refused).map_err(|problems| {
        let named = named(config);
        failed(format!(
            "failed to create typed patch object ({named}): {problems}"
        ))
    })
}

/// Why a configuration was not applied, for the client.
pub fn apply_error(error: ApplyError) -> ApiError {
    match error {
        ApplyError::Conflicts(conflicts) => conflict_error(&conflicts),
        ApplyError::Update(error) => failed(error.to_string()),
    }
}

/// Records what was applied where client-side apply would, if it had done so before.
fn record(object: &mut dyn Object, config: &Value) {
    let Some(annotations) = &mut object.meta_mut().annotations else {
        return;
    };
    if annotations.get(LAST_APPLIED).is_none_or(String::is_empty) {
        return;
    }
    let mut config = config.clone();
    if let Some(Value::Object(sent)) = config.pointer_mut("/metadata/annotations") {
        sent.remove(LAST_APPLIED);
    }
    annotations.insert(LAST_APPLIED.to_owned(), format!("{config}\n"));
    if annotations
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum::<usize>()
        > meta::ANNOTATIONS_MAX_BYTES
    {
        annotations.remove(LAST_APPLIED);
    }
}

/// An error that has no reason of its own, as upstream's plain errors.
fn failed(message: String) -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "", message)
}

/// `apps/v1, Kind=Deployment`
fn declared(config: &Value) -> String {
    let text = |name: &str| config[name].as_str().unwrap_or_default();
    let version = text("apiVersion");
    let slash = if version.contains('/') { "" } else { "/" };
    format!("{slash}{version}, Kind={}", text("kind"))
}

/// `default/web; apps/v1, Kind=Deployment`
fn named(config: &Value) -> String {
    let meta = |name: &str| config["metadata"][name].as_str().unwrap_or_default();
    format!(
        "{}/{}; {}",
        meta("namespace"),
        meta("name"),
        declared(config)
    )
}

/// Upstream's message, and a cause for each field.
fn conflict_error(conflicts: &[Conflict]) -> ApiError {
    let causes = conflicts.iter().map(|conflict| StatusCause {
        reason: Some("FieldManagerConflict".to_owned()),
        message: Some(format!("conflict with {}", conflict.manager)),
        field: Some(ShowPath(&conflict.path).to_string()),
    });
    let message = match conflicts {
        [one] => format!(
            "Apply failed with 1 conflict: conflict with {}: {}",
            one.manager,
            ShowPath(&one.path)
        ),
        all => {
            let mut lines = Vec::new();
            let mut last = None;
            for conflict in all {
                if last != Some(&conflict.manager) {
                    lines.push(format!("conflicts with {}:", conflict.manager));
                    last = Some(&conflict.manager);
                }
                lines.push(format!("- {}", ShowPath(&conflict.path)));
            }
            format!(
                "Apply failed with {} conflicts: {}",
                all.len(),
                lines.join("\n")
            )
        }
    };
    ApiError::apply_conflict(causes.collect(), message)
}

/// Reads the configuration of a request, in YAML or JSON, and what is wrong with it that a
/// strict reader refuses.
///
/// # Errors
/// It is no YAML.
pub fn read_config(body: &[u8]) -> Result<(Value, Vec<String>), ApiError> {
    let bad =
        |error: &dyn fmt::Display| ApiError::bad_request(format!("error decoding YAML: {error}"));
    let tolerant: Tolerant = match serde_json::from_slice(body) {
        Ok(value) => value,
        Err(_) => serde_yaml_ng::from_slice(body).map_err(|error| bad(&error))?,
    };
    if !matches!(tolerant.value, Value::Object(_) | Value::Null) {
        return Err(bad(
            &"json: cannot unmarshal into Go value of type map[string]interface {}",
        ));
    }
    let text = String::from_utf8_lossy(body);
    let problems = tolerant.twice.iter().map(|name| {
        format!(
            "  line {}: key {name:?} already set in map",
            line_of_second(&text, name)
        )
    });
    let problems: Vec<String> = problems.collect();
    let problem = (!problems.is_empty()).then(|| {
        format!(
            "error converting YAML to JSON: yaml: unmarshal errors:\n{}",
            problems.join("\n")
        )
    });
    Ok((tolerant.value, problem.into_iter().collect()))
}

/// The line on which a key stands for the second time, from 1.
fn line_of_second(text: &str, name: &str) -> usize {
    let is_key = |line: &str| {
        let line = line.trim_start_matches([' ', '-', '\t']);
        let rest = line.strip_prefix(name).or_else(|| {
            line.strip_prefix(['"', '\''])?
                .strip_prefix(name)?
                .strip_prefix(['"', '\''])
        });
        rest.is_some_and(|rest| rest.trim_start().starts_with(':'))
    };
    let mut lines = text.lines().enumerate().filter(|(_, line)| is_key(line));
    lines.nth(1).map_or(1, |(at, _)| at + 1)
}

/// A value in which a key may stand twice: the last one counts.
struct Tolerant {
    value: Value,
    /// The keys that stand twice.
    twice: Vec<String>,
}

impl<'de> Deserialize<'de> for Tolerant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TolerantVisitor)
    }
}

struct TolerantVisitor;

impl From<Value> for Tolerant {
    fn from(value: Value) -> Self {
        Tolerant {
            value,
            twice: Vec::new(),
        }
    }
}

impl<'de> Visitor<'de> for TolerantVisitor {
    type Value = Tolerant;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tolerant, E> {
        Ok(Value::from(value).into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tolerant, E> {
        Ok(Value::from(value).into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tolerant, E> {
        Ok(Value::from(value).into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tolerant, E> {
        Ok(Value::from(value).into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Tolerant, E> {
        Ok(Value::from(value).into())
    }

    fn visit_string<E>(self, value: String) -> Result<Tolerant, E> {
        Ok(Value::from(value).into())
    }

    fn visit_unit<E>(self) -> Result<Tolerant, E> {
        Ok(Value::Null.into())
    }

    fn visit_none<E>(self) -> Result<Tolerant, E> {
        Ok(Value::Null.into())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tolerant, D::Error> {
        Tolerant::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tolerant, A::Error> {
        let (mut list, mut twice) = (Vec::new(), Vec::new());
        while let Some(item) = items.next_element::<Tolerant>()? {
            list.push(item.value);
            twice.extend(item.twice);
        }
        Ok(Tolerant {
            value: Value::Array(list),
            twice,
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Tolerant, A::Error> {
        let (mut map, mut twice) = (Map::new(), Vec::new());
        while let Some(name) = fields.next_key::<Tolerant>()? {
            let name = match name.value {
                Value::String(name) => name,
                other => other.to_string(),
            };
            let field = fields.next_value::<Tolerant>()?;
            twice.extend(field.twice);
            if map.insert(name.clone(), field.value).is_some() {
                twice.push(name);
            }
        }
        Ok(Tolerant {
            value: Value::Object(map),
            twice,
        })
    }
}
