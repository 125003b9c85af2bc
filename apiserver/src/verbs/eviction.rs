//! `pods/eviction`: a pod is deleted if its disruption budget agrees.

use axum::body::Body;
use coracle_api::{Object, field::Path, object::expect, selector::LabelSelector};
use http::{Response, StatusCode};
use k8s_openapi::{
    api::{
        core::v1::{Pod, PodCondition},
        policy::v1::{Eviction, PodDisruptionBudget},
    },
    apimachinery::pkg::apis::meta::v1::{Condition, DeleteOptions, StatusCause},
};

use super::{
    binding::set_condition,
    delete::delete_object,
    get::{cache_of, current},
    read_foreign,
    rewrite::rewrite,
    success,
};
use crate::{
    admission::Operation,
    error::{ApiError, GroupResource},
    options::{self, WriteOptions},
    query::Query,
    registry::Resource,
    respond::{self, Output},
    server::{ApiServer, Context},
    strategy,
};

/// Pods that a budget may wait for at once.
const MAX_DISRUPTED_PODS: usize = 2000;
/// Conflicts that are tried again, as upstream.
const ATTEMPTS: usize = 20;
const VIOLATES: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

/// Evicts the pod that the URL names.
pub async fn create(
    server: &ApiServer,
    context: &Context,
    resource: &Resource,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let query = Query::parse(context.query());
    let output = Output::negotiate_plain(context.headers(), &query)?;
    let options = WriteOptions::parse(&query, "CreateOptions", None)?;
    let kind = ("policy", "v1", "Eviction");
    let mut eviction = read_foreign(context, kind, &options, body).await?;
    strategy::match_namespace(eviction.meta_mut(), true, &context.info.namespace)?;
    let name = &context.info.name;
    if eviction.meta().name.as_deref() != Some(name) {
        return Err(ApiError::bad_request(
            "name in URL does not match name in Eviction object",
        ));
    }
    let attributes = context.attributes(resource, Operation::Create, name, options.dry_run);
    let admission = server.admission();
    admission
        .admit(&attributes, Some(&mut *eviction), None)
        .await?;
    let delete = delete_options(expect(&*eviction), &options)?;
    admission
        .validate(&attributes, Some(&*eviction), None)
        .await?;
    let evicting = Evicting {
        server,
        context,
        resource,
        options: delete,
    };
    evicting.evict(&output).await
}

/// The eviction's options for the deletion, with the dry run of either.
fn delete_options(eviction: &Eviction, options: &WriteOptions) -> Result<DeleteOptions, ApiError> {
    let mut delete = eviction.delete_options.clone().unwrap_or_default();
    if delete.ignore_store_read_error_with_cluster_breaking_potential == Some(true) {
        let path =
            Path::new("deleteOptions").child("ignoreStoreReadErrorWithClusterBreakingPotential");
        let why = "can not be set for pod eviction, try after removing the option";
        let name = eviction.metadata.name.as_deref().unwrap_or_default();
        let errors = vec![path.invalid(true, why)];
        return Err(ApiError::invalid("policy", "Eviction", name, &errors));
    }
    if !options.dry_run {
        return Ok(delete);
    }
    match delete.dry_run.as_deref() {
        None | Some([]) => delete.dry_run = Some(vec!["All".to_owned()]),
        Some([one]) if one == "All" => {}
        Some(other) => {
            return Err(ApiError::unclassified(format!(
                "Non-matching dry-run options in request and content: [All] and [{}]",
                other.join(" ")
            )));
        }
    }
    Ok(delete)
}

struct Evicting<'a> {
    server: &'a ApiServer,
    context: &'a Context,
    resource: &'a Resource,
    options: DeleteOptions,
}

impl Evicting<'_> {
    async fn evict(&self, output: &Output) -> Result<Response<Body>, ApiError> {
        let mut attempt = 0;
        let pod = loop {
            let pod = self.pod().await?;
            let pod: &Pod = expect(&*pod);
            if !needs_no_budget(pod) {
                break pod.clone();
            }
            let races = phase(pod) == "Pending" && pod.metadata.deletion_timestamp.is_none();
            let version = pod.metadata.resource_version.as_ref().filter(|_| races);
            match self.delete(version).await {
                Ok(()) => return success(output, StatusCode::CREATED),
                Err(error) if error.is_conflict() && self.retries(&mut attempt) => {}
                Err(error) => return Err(error),
            }
        };
        let budget = match self.budgets(&pod).as_slice() {
            [] => None,
            [one] => Some(one.clone()),
            _ => {
                let error = ApiError::unclassified(
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
                );
                return Ok(respond::error(output, &error));
            }
        };
        let Some(budget) = budget else {
            self.delete(None).await?;
            return success(output, StatusCode::CREATED);
        };
        let name = budget.metadata.name.clone().unwrap_or_default();
        if ignores_unhealthy(&budget, &pod) {
            // As long as nobody has made it healthy since.
            let version = pod.metadata.resource_version.as_ref();
            return match self.delete(version).await {
                Ok(()) => success(output, StatusCode::CREATED),
                Err(error) if error.is_conflict() && !self.has_version() => {
                    Err(still_processing(&name))
                }
                Err(error) => Err(error),
            };
        }
        self.spend(&name).await?;
        self.delete(None).await?;
        success(output, StatusCode::CREATED)
    }

    fn has_version(&self) -> bool {
        let preconditions = self.options.preconditions.as_ref();
        preconditions.is_some_and(|preconditions| preconditions.resource_version.is_some())
    }

    fn retries(&self, attempt: &mut usize) -> bool {
        *attempt += 1;
        !self.has_version() && *attempt < ATTEMPTS
    }

    fn dry_run(&self) -> bool {
        self.options
            .dry_run
            .as_ref()
            .is_some_and(|runs| !runs.is_empty())
    }

    async fn pod(&self) -> Result<Box<dyn Object>, ApiError> {
        let info = &self.context.info;
        self.server.registry().fresh().await?;
        let cache = cache_of(self.resource)?;
        let key = cache.key(&info.namespace, &info.name);
        let entry = current(self.server.registry(), cache, &key)?
            .ok_or_else(|| ApiError::not_found(&*self.resource.kind, &info.name))?;
        self.resource.decode(&entry)
    }

    /// The budgets that the pod is under.
    fn budgets(&self, pod: &Pod) -> Vec<PodDisruptionBudget> {
        let lister = self.server.registry().lister::<PodDisruptionBudget>();
        lister
            .list(&self.context.info.namespace)
            .iter()
            .filter(|budget| {
                let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
                LabelSelector::from_object(selector)
                    .is_ok_and(|selector| selector.matches_labels(pod.metadata.labels.as_ref()))
            })
            .map(|budget| (**budget).clone())
            .collect()
    }

    /// Takes one disruption from the budget.
    async fn spend(&self, budget: &str) -> Result<(), ApiError> {
        let registry = self.server.registry();
        let budgets = registry
            .find("policy", "v1", "poddisruptionbudgets")
            .ok_or_else(ApiError::unknown_resource)?;
        let info = &self.context.info;
        let (namespace, dry_run) = (&info.namespace, self.dry_run());
        rewrite(
            registry,
            &budgets,
            namespace,
            budget,
            dry_run,
            |budget| match budget.as_any_mut().downcast_mut() {
                Some(budget) => spend(budget, &info.name),
                None => Err(ApiError::internal("not a PodDisruptionBudget")),
            },
        )
        .await
        .map(|_| ())
    }

    /// Says in the pod's status why it ends, and deletes it. `version`: only as it stood then.
    async fn delete(&self, version: Option<&String>) -> Result<(), ApiError> {
        let info = &self.context.info;
        let mut options = self.options.clone();
        if let Some(version) = version
            && !self.has_version()
        {
            let preconditions = options.preconditions.get_or_insert_default();
            preconditions.resource_version = Some(version.clone());
        }
        let (namespace, name) = (&info.namespace, &info.name);
        if !self.dry_run() {
            let kind = &self.resource.kind;
            let registry = self.server.registry();
            let marked = rewrite(registry, self.resource, namespace, name, false, |pod| {
                strategy::check_preconditions(kind, pod.meta(), &options)?;
                mark(pod)
            })
            .await?;
            let preconditions = options.preconditions.as_mut();
            if let Some(version) = preconditions.and_then(|p| p.resource_version.as_mut()) {
                *version = marked.revision.to_string();
            }
        }
        options::check_delete_options(&options)?;
        delete_object(
            self.server,
            self.context,
            self.resource,
            namespace,
            name,
            &options,
        )
        .await?;
        Ok(())
    }
}

fn mark(pod: &mut dyn Object) -> Result<(), ApiError> {
    let Some(pod) = pod.as_any_mut().downcast_mut::<Pod>() else {
        return Err(ApiError::internal("only pods can be evicted"));
    };
    let conditions = pod
        .status
        .get_or_insert_default()
        .conditions
        .get_or_insert_default();
    set_condition(
        conditions,
        PodCondition {
            type_: "DisruptionTarget".to_owned(),
            status: "True".to_owned(),
            reason: Some("EvictionByEvictionAPI".to_owned()),
            message: Some("Eviction API: evicting".to_owned()),
            ..PodCondition::default()
        },
    );
    Ok(())
}

fn phase(pod: &Pod) -> &str {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    phase.unwrap_or_default()
}

/// Whether the pod serves nobody that a budget could protect.
fn needs_no_budget(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed" | "Pending")
        || pod.metadata.deletion_timestamp.is_some()
}

/// Whether the budget does not protect this pod because it is not ready.
fn ignores_unhealthy(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let ready = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    if ready {
        return false;
    }
    let policy = budget
        .spec
        .as_ref()
        .and_then(|spec| spec.unhealthy_pod_eviction_policy.as_deref());
    let enough = budget.status.as_ref().is_some_and(|status| {
        let desired = status.desired_healthy.unwrap_or(0);
        status.current_healthy.unwrap_or(0) >= desired && desired > 0
    });
    policy == Some("AlwaysAllow") || enough
}

/// Takes one disruption from the budget, if it has one.
fn spend(budget: &mut PodDisruptionBudget, pod: &str) -> Result<(), ApiError> {
    let name = budget.metadata.name.clone().unwrap_or_default();
    let generation = budget.metadata.generation.unwrap_or(0);
    let status = budget.status.get_or_insert_default();
    if status.observed_generation.unwrap_or(0) < generation {
        return Err(still_processing(&name));
    }
    let subject = GroupResource {
        group: "policy",
        resource: "poddisruptionbudget",
    };
    let allowed = status.disruptions_allowed.unwrap_or(0);
    if allowed < 0 {
        let why = "pdb disruptions allowed is negative";
        return Err(ApiError::forbidden(subject, &name, why));
    }
    let disrupted = status.disrupted_pods.get_or_insert_default();
    if disrupted.len() > MAX_DISRUPTED_PODS {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(ApiError::forbidden(subject, &name, why));
    }
    if allowed == 0 {
        let why = why_none_allowed(&name, budget);
        return Err(refused(why, 0));
    }
    disrupted.insert(pod.to_owned(), strategy::now());
    status.disruptions_allowed = Some(allowed - 1);
    if allowed == 1 {
        set_not_allowed(status.conditions.get_or_insert_default(), generation);
    }
    Ok(())
}

fn why_none_allowed(name: &str, budget: &PodDisruptionBudget) -> String {
    let status = budget.status.clone().unwrap_or_default();
    let refused = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "DisruptionAllowed" && condition.status == "False")
        .filter(|condition| !condition.message.is_empty());
    match refused {
        Some(condition) if condition.reason == "SyncFailed" => format!(
            "The disruption budget {name} does not allow evicting pods currently because it failed sync: {}",
            condition.message
        ),
        _ if status.current_healthy <= status.desired_healthy => format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            status.desired_healthy.unwrap_or(0),
            status.current_healthy.unwrap_or(0)
        ),
        Some(condition) => format!(
            "The disruption budget {name} does not allow evicting pods currently ({}): {}",
            condition.reason, condition.message
        ),
        None => format!("The disruption budget {name} does not allow evicting pods currently"),
    }
}

fn set_not_allowed(conditions: &mut Vec<Condition>, generation: i64) {
    let condition = Condition {
        type_: "DisruptionAllowed".to_owned(),
        status: "False".to_owned(),
        reason: "InsufficientPods".to_owned(),
        message: String::new(),
        observed_generation: Some(generation),
        last_transition_time: strategy::now(),
    };
    match conditions
        .iter_mut()
        .find(|old| old.type_ == condition.type_)
    {
        Some(old) if old.status == condition.status => {
            old.reason = condition.reason;
            old.observed_generation = condition.observed_generation;
        }
        Some(old) => *old = condition,
        None => conditions.push(condition),
    }
}

fn still_processing(budget: &str) -> ApiError {
    let why = format!("The disruption budget {budget} is still being processed by the server.");
    refused(why, 10)
}

fn refused(why: String, retry_after_seconds: i32) -> ApiError {
    let mut error = ApiError::too_many_requests(VIOLATES, retry_after_seconds);
    let details = error.0.details.get_or_insert_default();
    details.retry_after_seconds.take_if(|seconds| *seconds == 0);
    details.causes = Some(vec![StatusCause {
        reason: Some("DisruptionBudget".to_owned()),
        message: Some(why),
        field: None,
    }]);
    error
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::policy::v1::PodDisruptionBudgetStatus;

    use super::*;

    fn budget(allowed: i32) -> PodDisruptionBudget {
        PodDisruptionBudget {
            status: Some(PodDisruptionBudgetStatus {
                disruptions_allowed: Some(allowed),
                desired_healthy: Some(2),
                current_healthy: Some(2 + allowed),
                ..PodDisruptionBudgetStatus::default()
            }),
            ..PodDisruptionBudget::default()
        }
    }

    #[test]
    fn a_disruption_is_spent_once() {
        let mut budget = budget(1);
        spend(&mut budget, "a").unwrap();
        let status = budget.status.as_ref().unwrap();
        assert_eq!(status.disruptions_allowed, Some(0));
        assert!(status.disrupted_pods.as_ref().unwrap().contains_key("a"));
        assert_eq!(
            status.conditions.as_ref().unwrap()[0].reason,
            "InsufficientPods"
        );
    }

    #[test]
    fn no_disruption_is_left() {
        let error = spend(&mut budget(0), "a").unwrap_err();
        assert_eq!(error.code(), StatusCode::TOO_MANY_REQUESTS);
        let causes = error.0.details.unwrap().causes.unwrap();
        assert_eq!(
            causes[0].message.as_deref(),
            Some("The disruption budget  needs 2 healthy pods and has 2 currently")
        );
    }
}
