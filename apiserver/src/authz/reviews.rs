//! `SubjectAccessReview` and its like: questions of what a user may do, answered by the
//! authorizer that requests are asked of.

use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use coracle_api::{Identity, field::ErrorList, strategy::Behaviour as _};
use http::Response;
use k8s_openapi::{
    api::authorization::v1::{
        LocalSubjectAccessReview, NonResourceAttributes, NonResourceRule, ResourceAttributes,
        ResourceRule, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview,
        SubjectAccessReviewSpec, SubjectAccessReviewStatus, SubjectRulesReviewStatus,
    },
    apimachinery::pkg::apis::meta::v1::{FieldSelectorRequirement, LabelSelectorRequirement},
};
use serde::Serialize;

use super::{Attributes, Authorizer, Decision, node, rbac::Rbac};
use crate::{
    decode,
    error::ApiError,
    handler::{Call, Handler},
    query::Query,
    respond::{self, Output},
    server::Context,
    strategy,
};

const GROUP: &str = "authorization.k8s.io";

/// Whether somebody may do something.
pub struct SubjectAccessReviews(pub Arc<dyn Authorizer>);

/// Whether somebody may do something in the namespace of the request.
pub struct LocalSubjectAccessReviews(pub Arc<dyn Authorizer>);

/// Whether the sender may do something.
pub struct SelfSubjectAccessReviews(pub Arc<dyn Authorizer>);

/// What the sender may do in a namespace.
pub struct SelfSubjectRulesReviews(pub Arc<Rbac>);

#[async_trait]
impl Handler for SubjectAccessReviews {
    async fn handle(&self, call: Call<'_>) -> Result<Response<Body>, ApiError> {
        let context = call.context;
        let mut review: SubjectAccessReview = decode::review(context, call.body).await?;
        refuse(&review.validate())?;
        review.status = Some(answer(&*self.0, &review.spec).await);
        send(context, &review)
    }
}

#[async_trait]
impl Handler for LocalSubjectAccessReviews {
    async fn handle(&self, call: Call<'_>) -> Result<Response<Body>, ApiError> {
        let context = call.context;
        let mut review: LocalSubjectAccessReview = decode::review(context, call.body).await?;
        let namespace = &context.info.namespace;
        strategy::match_namespace(&mut review.metadata, true, namespace)?;
        refuse(&review.validate())?;
        review.status = Some(answer(&*self.0, &review.spec).await);
        send(context, &review)
    }
}

#[async_trait]
impl Handler for SelfSubjectAccessReviews {
    async fn handle(&self, call: Call<'_>) -> Result<Response<Body>, ApiError> {
        let context = call.context;
        let mut review: SelfSubjectAccessReview = decode::review(context, call.body).await?;
        refuse(&review.validate())?;
        let user = &context.user;
        let spec = SubjectAccessReviewSpec {
            user: Some(user.user.clone()),
            uid: Some(user.uid.clone()),
            groups: Some(user.groups.clone()),
            extra: Some(user.extra.clone()),
            resource_attributes: review.spec.resource_attributes.clone(),
            non_resource_attributes: review.spec.non_resource_attributes.clone(),
        };
        review.status = Some(answer(&*self.0, &spec).await);
        send(context, &review)
    }
}

#[async_trait]
impl Handler for SelfSubjectRulesReviews {
    async fn handle(&self, call: Call<'_>) -> Result<Response<Body>, ApiError> {
        let context = call.context;
        let mut review: SelfSubjectRulesReview = decode::review(context, call.body).await?;
        let namespace = review.spec.namespace.as_deref().unwrap_or_default();
        if namespace.is_empty() {
            return Err(ApiError::bad_request("no namespace on request"));
        }
        let found = self.0.rules_for(&context.user, namespace);
        let is_node = node::node_of(&context.user).is_some();
        let mut errors = found.errors;
        if is_node {
            errors.push("node authorizer does not support user rule resolution".to_owned());
        }
        let mut status = SubjectRulesReviewStatus {
            incomplete: is_node,
            evaluation_error: (!errors.is_empty()).then(|| errors.join(", ")),
            ..SubjectRulesReviewStatus::default()
        };
        for rule in found.rules {
            if rule.resources.as_ref().is_some_and(|list| !list.is_empty()) {
                status.resource_rules.push(ResourceRule {
                    verbs: rule.verbs.clone(),
                    api_groups: rule.api_groups,
                    resources: rule.resources,
                    resource_names: rule.resource_names,
                });
            }
            if rule
                .non_resource_urls
                .as_ref()
                .is_some_and(|list| !list.is_empty())
            {
                status.non_resource_rules.push(NonResourceRule {
                    verbs: rule.verbs,
                    non_resource_urls: rule.non_resource_urls,
                });
            }
        }
        review.status = Some(status);
        review.spec.namespace = None;
        send(context, &review)
    }
}

fn send(context: &Context, review: &impl Serialize) -> Result<Response<Body>, ApiError> {
    let output = Output::negotiate(context.headers(), &Query::parse(context.query()))?;
    respond::review(&output, review)
}

/// Upstream names the group, but neither kind nor object.
fn refuse(errors: &ErrorList) -> Result<(), ApiError> {
    if errors.is_empty() {
        Ok(())
    } else {
        Err(ApiError::invalid(GROUP, "", "", errors))
    }
}

async fn answer(
    authorizer: &dyn Authorizer,
    spec: &SubjectAccessReviewSpec,
) -> SubjectAccessReviewStatus {
    let user = Identity {
        user: spec.user.clone().unwrap_or_default(),
        uid: spec.uid.clone().unwrap_or_default(),
        groups: spec.groups.clone().unwrap_or_default(),
        extra: spec.extra.clone().unwrap_or_default(),
    };
    let question = match (&spec.resource_attributes, &spec.non_resource_attributes) {
        (Some(resource), _) => Question::of_resource(resource),
        (None, Some(path)) => Question::of_path(path),
        (None, None) => Question::default(),
    };
    let decision = authorizer.authorize(&question.attributes(&user)).await;
    let reason = decision.reason();
    SubjectAccessReviewStatus {
        allowed: decision.is_allowed(),
        denied: matches!(decision, Decision::Deny(_)).then_some(true),
        reason: (!reason.is_empty()).then(|| reason.to_owned()),
        evaluation_error: None,
    }
}

/// The attributes of a review, owned.
#[derive(Default)]
struct Question {
    resource: ResourceAttributes,
    path: Option<NonResourceAttributes>,
    field_selector: String,
    label_selector: String,
}

impl Question {
    fn of_resource(resource: &ResourceAttributes) -> Self {
        let fields = resource.field_selector.as_ref();
        let labels = resource.label_selector.as_ref();
        let raw = |raw: Option<&String>| raw.cloned().unwrap_or_default();
        let field_selector = match fields.and_then(|fields| fields.requirements.as_deref()) {
            Some(requirements) => join(requirements.iter().filter_map(field_requirement)),
            None => raw(fields.and_then(|fields| fields.raw_selector.as_ref())),
        };
        let label_selector = match labels.and_then(|labels| labels.requirements.as_deref()) {
            Some(requirements) => join(requirements.iter().filter_map(label_requirement)),
            None => raw(labels.and_then(|labels| labels.raw_selector.as_ref())),
        };
        Question {
            resource: resource.clone(),
            path: None,
            field_selector,
            label_selector,
        }
    }

    fn of_path(path: &NonResourceAttributes) -> Self {
        Question {
            path: Some(path.clone()),
            ..Question::default()
        }
    }

    fn attributes<'a>(&'a self, user: &'a Identity) -> Attributes<'a> {
        let text = |text: &'a Option<String>| text.as_deref().unwrap_or_default();
        if let Some(path) = &self.path {
            return Attributes {
                is_resource: false,
                path: text(&path.path),
                ..Attributes::of_resource(user, text(&path.verb), "", "")
            };
        }
        let resource = &self.resource;
        Attributes {
            version: text(&resource.version),
            namespace: text(&resource.namespace),
            subresource: text(&resource.subresource),
            name: text(&resource.name),
            field_selector: &self.field_selector,
            label_selector: &self.label_selector,
            ..Attributes::of_resource(
                user,
                text(&resource.verb),
                text(&resource.group),
                text(&resource.resource),
            )
        }
    }
}

fn join(requirements: impl Iterator<Item = String>) -> String {
    requirements.collect::<Vec<_>>().join(",")
}

/// One that a field selector cannot express only widens the question, and is left out.
fn field_requirement(requirement: &FieldSelectorRequirement) -> Option<String> {
    let values = requirement.values.as_deref().unwrap_or_default();
    let [value] = values else {
        return None;
    };
    match requirement.operator.as_str() {
        "In" => Some(format!("{}={value}", requirement.key)),
        "NotIn" => Some(format!("{}!={value}", requirement.key)),
        _ => None,
    }
}

fn label_requirement(requirement: &LabelSelectorRequirement) -> Option<String> {
    let key = &requirement.key;
    let values = requirement.values.as_deref().unwrap_or_default().join(",");
    match requirement.operator.as_str() {
        "In" => Some(format!("{key} in ({values})")),
        "NotIn" => Some(format!("{key} notin ({values})")),
        "Exists" => Some(key.clone()),
        "DoesNotExist" => Some(format!("!{key}")),
        _ => None,
    }
}
