//! Server-side apply of a request.
//!
//! Upstream: `applyPatcher` of `apiserver/pkg/endpoints/handlers/patch.go`, and the managers that
//! `apimachinery/pkg/util/managedfields` stacks around `structured-merge-diff`.

use coracle_api::{
    Object,
    apply::{
        self, Applied, ApplyError, Conflict, Duplicates, Model, Owners, Set, ShowPath,
        conflicts_without, still_as_applied,
    },
    meta,
    strategy::DecodeError,
};
use http::StatusCode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use serde_json::Value;

use super::{Ownership, versions};
use crate::{decode, error::ApiError, yaml};

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
        let mut decoded = decoded.map_err(|error| unconvertible(config, &error))?;
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
/// What the configuration gives is not of the types of its fields.
pub fn unconvertible(config: &Value, why: &DecodeError) -> ApiError {
    failed(format!(
        "failed to convert new object ({}) to proper version: unable to convert unstructured \
         object to {}: {}",
        named(config),
        declared(config),
        decode::for_maps(why)
    ))
}

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

/// Reads the configuration of a request, in YAML or JSON.
///
/// # Errors
/// It is no YAML, or no map.
pub fn read_config(body: &[u8]) -> Result<yaml::Document, ApiError> {
    let bad = |error: &str| ApiError::bad_request(format!("error decoding YAML: {error}"));
    let document = yaml::read(body)
        .map_err(|error| bad(&format!("error converting YAML to JSON: {error}")))?;
    let of = match &document.value {
        Value::Object(_) | Value::Null => return Ok(document),
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
    };
    Err(bad(&format!(
        "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {of} into Go value \
         of type map[string]interface {{}}"
    )))
}
