//! `scale`: the replicas of any workload, seen and changed as one kind.

use axum::body::Body;
use coracle_api::{
    Kind, Object, check, field::Path, kinds::NameRule, meta, object, selector,
    strategy::Behaviour as _,
};
use http::{Response, StatusCode};
use k8s_openapi::{
    api::autoscaling::v1::{Scale, ScaleSpec, ScaleStatus},
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ManagedFieldsEntry, ObjectMeta},
};
use serde_json::{Value, json};

use super::{
    get::{cache_of, current},
    patch::PatchRequest,
    read_foreign,
    update::{Change, Owners, change_object, check_name, other_version},
};
use crate::{
    decode::Expected,
    error::{ApiError, GroupResource},
    options::WriteOptions,
    ownership::{Ownership, unconvertible},
    query::Query,
    registry::Resource,
    respond::{self, Output},
    server::{ApiServer, Context},
    strategy,
};

/// Where the parts of a scale are in the objects of a kind.
struct Paths {
    replicas: &'static str,
    status_replicas: &'static str,
    selector: &'static str,
}

const PATHS: Paths = Paths {
    replicas: "/spec/replicas",
    status_replicas: "/status/replicas",
    selector: "/spec/selector",
};

/// Answers with the scale as it stands.
pub async fn get(
    server: &ApiServer,
    context: &Context,
    resource: &Resource,
) -> Result<Response<Body>, ApiError> {
    let query = Query::parse(context.query());
    let output = Output::negotiate_plain(context.headers(), &query)?;
    server.registry().fresh().await?;
    let cache = cache_of(resource)?;
    let info = &context.info;
    let key = cache.key(&info.namespace, &info.name);
    let entry = current(server.registry(), cache, &key)?
        .ok_or_else(|| ApiError::not_found(&*resource.kind, &info.name))?;
    let scale = scale_of(&*resource.decode(&entry)?, resource);
    respond::loose_object(&output, StatusCode::OK, &scale)
}

/// Sets the replicas from a scale.
pub async fn update(
    server: &ApiServer,
    context: &Context,
    resource: &Resource,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let query = Query::parse(context.query());
    let output = Output::negotiate_plain(context.headers(), &query)?;
    let options = WriteOptions::parse(&query, "UpdateOptions", None)?;
    let sent = read_foreign(context, ("autoscaling", "v1", "Scale"), &options, body).await?;
    let sent: &Scale = object::expect(&*sent);
    let written = Written {
        output: &output,
        options: &options,
        uid: sent.metadata.uid.clone(),
    };
    set(server, context, resource, &written, &|_| {
        Ok(sent.clone().into())
    })
    .await
}

/// Sets the replicas by a patch of the scale.
pub async fn patch(
    server: &ApiServer,
    context: &Context,
    resource: &Resource,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let kind = &Expected::body("autoscaling", "v1", "Scale")?;
    let request = PatchRequest::read(context, kind, body).await?;
    let options = &request.options;
    let ownership = Ownership::new(server.registry(), context, resource, &options.field_manager);
    let written = Written {
        output: &request.output,
        options,
        uid: None,
    };
    set(server, context, resource, &written, &|before| {
        let Some(configuration) = request.configuration() else {
            let patched = request.apply(context, kind, before.scale.to_value())?;
            return Ok(object::expect::<Scale>(&*patched).clone().into());
        };
        let live = before.workload.meta().managed_fields.as_deref();
        let applied = ownership.apply_scale(live, &before.scale.to_value(), &configuration)?;
        let decoded = kind
            .strategy
            .decode_value(&applied.scale, &mut Vec::new())
            .map_err(|why| unconvertible(configuration.config, &why))?;
        Ok(After {
            scale: object::expect::<Scale>(&*decoded).clone(),
            owners: Some(applied.entries),
        })
    })
    .await
}

/// A workload as it stands.
struct Before<'b> {
    workload: &'b dyn Object,
    scale: Scale,
}

/// The scale that is wanted.
struct After {
    scale: Scale,
    /// Who then owns what of the workload; `None`: whoever makes the request owns what it
    /// changes.
    owners: Option<Option<Vec<ManagedFieldsEntry>>>,
}

impl From<Scale> for After {
    fn from(scale: Scale) -> Self {
        After {
            scale,
            owners: None,
        }
    }
}

/// How a scale is written.
struct Written<'w> {
    output: &'w Output,
    options: &'w WriteOptions,
    /// That the workload must have.
    uid: Option<String>,
}

type MakeScale<'a> = &'a (dyn Fn(&Before<'_>) -> Result<After, ApiError> + Send + Sync);

async fn set(
    server: &ApiServer,
    context: &Context,
    resource: &Resource,
    how: &Written<'_>,
    make: MakeScale<'_>,
) -> Result<Response<Body>, ApiError> {
    let options = how.options;
    let kind = &resource.kind;
    let ownership = Ownership::new(server.registry(), context, resource, &options.field_manager);
    let make = |old: Option<&dyn Object>| {
        let old = old.ok_or_else(|| ApiError::not_found(&**kind, &context.info.name))?;
        let before = Before {
            workload: old,
            scale: scale_of(old, resource),
        };
        let after = make(&before)?;
        check_scale(&before.scale, &after.scale, resource, is_patch(context))?;
        let replicas = |scale: &Scale| scale.spec.as_ref().and_then(|spec| spec.replicas);
        let (from, to) = (replicas(&before.scale), replicas(&after.scale));
        let mut new = with_replicas(old, kind, to)?;
        new.meta_mut().managed_fields = match after.owners {
            Some(owners) => owners,
            None => ownership.of_scaled(old.meta().managed_fields.clone(), from, to),
        };
        Ok(new)
    };
    let change = Change {
        subresource: None,
        options,
        create: false,
        uid: how.uid.clone(),
        owners: Owners::Made,
        make: &make,
    };
    let (written, _) = change_object(server, context, resource, &change).await?;
    let scale = scale_of(&*written.object(resource)?, resource);
    respond::loose_object(how.output, StatusCode::OK, &scale)
}

fn check_scale(
    before: &Scale,
    after: &Scale,
    resource: &Resource,
    is_patch: bool,
) -> Result<(), ApiError> {
    let kind = &*resource.kind;
    let name = before.metadata.name.clone().unwrap_or_default();
    check_name(&after.metadata, &name)?;
    let namespace = before.metadata.namespace.as_deref().unwrap_or_default();
    let mut meta = after.metadata.clone();
    strategy::match_namespace(&mut meta, true, namespace)?;
    let path = Path::new("metadata");
    // Who owns what is said anew by every write.
    meta.managed_fields = None;
    let mut errors = meta::validate(&meta, true, NameRule::Subdomain, &path);
    check::finalizers(&meta, &mut errors);
    errors.extend(after.validate());
    if !errors.is_empty() {
        return Err(ApiError::invalid("autoscaling", "Scale", &name, &errors));
    }
    let uid = before.metadata.uid.as_deref().unwrap_or_default();
    let wanted = after.metadata.uid.as_deref().unwrap_or_default();
    if is_patch && !wanted.is_empty() && wanted != uid {
        let why = format!(
            "Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}"
        );
        let subject = GroupResource {
            group: &kind.group,
            resource: &format!("{}/scale", kind.resource),
        };
        return Err(ApiError::conflict(subject, &name, why));
    }
    let version = after
        .metadata
        .resource_version
        .as_deref()
        .unwrap_or_default();
    let is_same = Some(version) == before.metadata.resource_version.as_deref();
    if !is_same && !matches!(version, "" | "0") {
        return Err(other_version(kind, &name, version));
    }
    Ok(())
}

fn is_patch(context: &Context) -> bool {
    context.info.verb == "patch"
}

fn with_replicas(
    old: &dyn Object,
    kind: &Kind,
    replicas: Option<i32>,
) -> Result<Box<dyn Object>, ApiError> {
    let mut value = old.to_value();
    let spec = PATHS
        .replicas
        .rsplit_once('/')
        .map_or("", |(parent, _)| parent);
    if let Some(Value::Object(spec)) = value.pointer_mut(spec) {
        spec.insert("replicas".to_owned(), json!(replicas.unwrap_or(0)));
    }
    let json = serde_json::to_vec(&value).map_err(ApiError::internal)?;
    kind.strategy
        .decode(&json, &mut Vec::new())
        .map_err(ApiError::internal)
}

/// The scale of a workload.
fn scale_of(object: &dyn Object, resource: &Resource) -> Scale {
    let value = object.to_value();
    let number = |path: &str| {
        let number = value.pointer(path).and_then(Value::as_i64);
        number
            .and_then(|number| i32::try_from(number).ok())
            .unwrap_or(0)
    };
    let meta = object.meta();
    let replicas = number(PATHS.replicas);
    Scale {
        metadata: ObjectMeta {
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            creation_timestamp: meta.creation_timestamp.clone(),
            ..ObjectMeta::default()
        },
        spec: Some(ScaleSpec {
            replicas: Some(replicas).filter(|replicas| *replicas != 0),
        }),
        status: Some(ScaleStatus {
            replicas: number(PATHS.status_replicas),
            selector: selector_text(value.pointer(PATHS.selector), resource),
        }),
    }
}

/// The selector as a client of the scale would write it in a query.
fn selector_text(selector: Option<&Value>, resource: &Resource) -> Option<String> {
    let selector = selector?;
    let selector = if resource.kind.resource == "replicationcontrollers" {
        json!({"matchLabels": selector})
    } else {
        selector.clone()
    };
    let selector: LabelSelector = serde_json::from_value(selector).ok()?;
    Some(selector::format_object(Some(&selector))).filter(|text| !text.is_empty())
}
