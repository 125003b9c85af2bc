//! `pods/binding` and the older `bindings`: a pod is given its node.

use axum::body::Body;
use coracle_api::{Object, object, strategy::Behaviour as _};
use http::{Response, StatusCode};
use k8s_openapi::api::core::v1::{Binding, Pod, PodCondition};

use super::{read_foreign, rewrite::rewrite, success, update::not_the_one};
use crate::{
    admission::Operation,
    error::{ApiError, GroupResource},
    options::WriteOptions,
    query::Query,
    registry::Resource,
    respond::Output,
    server::{ApiServer, Context},
    strategy,
};

/// Binds the pod that the URL or, for `bindings`, the body names.
pub async fn create(
    server: &ApiServer,
    context: &Context,
    resource: &Resource,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let query = Query::parse(context.query());
    let output = Output::negotiate_plain(context.headers(), &query)?;
    let options = WriteOptions::parse(&query, "CreateOptions", None)?;
    let kind = ("", "v1", "Binding");
    let mut object = read_foreign(context, kind, &options, body).await?;
    let namespace = &context.info.namespace;
    strategy::match_namespace(object.meta_mut(), true, namespace)?;
    let pods = server
        .registry()
        .find("", "v1", "pods")
        .ok_or_else(ApiError::unknown_resource)?;
    let name = match context.info.name.as_str() {
        "" => {
            // Only what names its pod in the URL may say which one of that name it means.
            object.meta_mut().uid = None;
            object.meta().name.clone().unwrap_or_default()
        }
        name => name.to_owned(),
    };
    let attributes = context.attributes(resource, Operation::Create, &name, options.dry_run);
    let admission = server.admission();
    admission
        .admit(&attributes, Some(&mut *object), None)
        .await?;
    if object.meta().name.as_deref().unwrap_or_default() != name {
        return Err(ApiError::bad_request(
            "name in URL does not match name in Binding object",
        ));
    }
    let errors = object::expect::<Binding>(&*object).validate();
    if !errors.is_empty() {
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        return Err(ApiError::unclassified(match texts.as_slice() {
            [one] => one.clone(),
            several => format!("[{}]", several.join(", ")),
        }));
    }
    admission
        .validate(&attributes, Some(&*object), None)
        .await?;
    let binding: &Binding = object::expect(&*object);
    let registry = server.registry();
    rewrite(registry, &pods, namespace, &name, options.dry_run, |pod| {
        bind(pod, binding)
    })
    .await?;
    success(&output, StatusCode::CREATED)
}

/// Gives the pod its node, once.
fn bind(pod: &mut dyn Object, binding: &Binding) -> Result<(), ApiError> {
    let Some(pod) = pod.as_any_mut().downcast_mut::<Pod>() else {
        return Err(ApiError::internal("only pods can be bound"));
    };
    let name = pod.metadata.name.clone().unwrap_or_default();
    check_preconditions(pod, binding, &name)?;
    let spec = pod.spec.get_or_insert_default();
    let refused = if pod.metadata.deletion_timestamp.is_some() {
        format!("pod {name} is being deleted, cannot be assigned to a host")
    } else if let Some(node) = spec.node_name.as_ref().filter(|node| !node.is_empty()) {
        format!("pod {name} is already assigned to node {node:?}")
    } else if spec
        .scheduling_gates
        .as_ref()
        .is_some_and(|gates| !gates.is_empty())
    {
        format!("pod {name} has non-empty .spec.schedulingGates")
    } else {
        String::new()
    };
    if !refused.is_empty() {
        return Err(ApiError::conflict(PODS_BINDING, &name, refused));
    }
    spec.node_name.clone_from(&binding.target.name);
    let status = pod.status.get_or_insert_default();
    status.nominated_node_name = None;
    set_condition(status.conditions.get_or_insert_default(), scheduled());
    for (from, into) in [
        (&binding.metadata.annotations, &mut pod.metadata.annotations),
        (&binding.metadata.labels, &mut pod.metadata.labels),
    ] {
        if let Some(from) = from.as_ref().filter(|from| !from.is_empty()) {
            into.get_or_insert_default()
                .extend(from.iter().map(|(k, v)| (k.clone(), v.clone())));
        }
    }
    Ok(())
}

const PODS_BINDING: GroupResource<'_> = GroupResource {
    group: "",
    resource: "pods/binding",
};

fn check_preconditions(pod: &Pod, binding: &Binding, name: &str) -> Result<(), ApiError> {
    for (what, wanted, has) in [
        ("UID", &binding.metadata.uid, &pod.metadata.uid),
        (
            "ResourceVersion",
            &binding.metadata.resource_version,
            &pod.metadata.resource_version,
        ),
    ] {
        if let Some(wanted) = wanted.as_ref().filter(|wanted| !wanted.is_empty())
            && Some(wanted) != has.as_ref()
        {
            let has = has.as_deref().unwrap_or_default();
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let key = format!("/pods/{namespace}/{name}");
            let why = not_the_one(&key, what, wanted, has);
            return Err(ApiError::conflict(
                GroupResource {
                    group: "",
                    resource: "pods",
                },
                name,
                why,
            ));
        }
    }
    Ok(())
}

fn scheduled() -> PodCondition {
    PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "True".to_owned(),
        ..PodCondition::default()
    }
}

/// Puts a condition in place of that of the same type. Its transition time changes only with
/// its status.
pub fn set_condition(conditions: &mut Vec<PodCondition>, mut condition: PodCondition) {
    condition.last_transition_time = Some(strategy::now());
    match conditions
        .iter_mut()
        .find(|old| old.type_ == condition.type_)
    {
        Some(old) => {
            if old.status == condition.status {
                condition
                    .last_transition_time
                    .clone_from(&old.last_transition_time);
            }
            *old = condition;
        }
        None => conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodSpec;

    use super::*;

    fn binding(node: &str) -> Binding {
        let mut binding = Binding::default();
        binding.target.name = Some(node.to_owned());
        binding
    }

    #[test]
    fn a_pod_is_bound_once() {
        let mut pod = Pod {
            spec: Some(PodSpec::default()),
            ..Pod::default()
        };
        bind(&mut pod, &binding("a")).unwrap();
        assert_eq!(pod.spec.as_ref().unwrap().node_name.as_deref(), Some("a"));
        let conditions = pod.status.as_ref().unwrap().conditions.as_ref().unwrap();
        assert_eq!(
            (conditions[0].type_.as_str(), conditions[0].status.as_str()),
            ("PodScheduled", "True")
        );
        let again = bind(&mut pod, &binding("b")).unwrap_err();
        assert!(
            again
                .to_string()
                .ends_with(r#"is already assigned to node "a""#)
        );
        assert!(again.is_conflict());
    }
}
