//! `TokenReview` and `SelfSubjectReview`: questions about users that are answered, not stored.

use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use http::Response;
use jiff::Timestamp;
use k8s_openapi::{
    api::authentication::v1::{
        SelfSubjectReview, SelfSubjectReviewStatus, TokenReview, TokenReviewStatus, UserInfo,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::{TokenAuthenticator as _, Tokens};
use crate::{
    decode,
    error::ApiError,
    handler::{Call, Handler},
    query::Query,
    respond::{self, Output},
    server::Context,
};
use coracle_api::Identity;

/// Says whom a token belongs to.
pub struct TokenReviews(pub Arc<Tokens>);

#[async_trait]
impl Handler for TokenReviews {
    async fn handle(&self, call: Call<'_>) -> Result<Response<Body>, ApiError> {
        let output = output(call.context)?;
        let mut review: TokenReview = decode::review(call.context, call.body).await?;
        let token = review.spec.token.as_str();
        if token.is_empty() {
            let message = "token is required for TokenReview in authentication";
            return Err(ApiError::bad_request(message));
        }
        let asked = review.spec.audiences.as_deref().unwrap_or_default();
        let audiences = if asked.is_empty() {
            self.0.audiences()
        } else {
            asked
        };
        let failed = |error: String| TokenReviewStatus {
            error: Some(error),
            user: Some(UserInfo::default()),
            ..TokenReviewStatus::default()
        };
        let status = match self.0.authenticate_token(token, audiences).await {
            Ok(Some(user)) => TokenReviewStatus {
                authenticated: Some(true),
                user: Some(user_info(with_authenticated(user.identity))),
                audiences: Some(user.audiences),
                error: None,
            },
            Ok(None) => failed("invalid bearer token".to_owned()),
            Err(error) => failed(error.to_string()),
        };
        review.status = Some(status);
        respond::review(&output, &review)
    }
}

/// Says who the sender is.
pub struct SelfSubjectReviews;

#[async_trait]
impl Handler for SelfSubjectReviews {
    async fn handle(&self, call: Call<'_>) -> Result<Response<Body>, ApiError> {
        let output = output(call.context)?;
        let mut review: SelfSubjectReview = decode::review(call.context, call.body).await?;
        review.metadata.creation_timestamp = Some(Time(Timestamp::now()));
        review.status = Some(SelfSubjectReviewStatus {
            user_info: Some(user_info(call.context.user.clone())),
        });
        respond::review(&output, &review)
    }
}

fn output(context: &Context) -> Result<Output, ApiError> {
    Output::negotiate(context.headers(), &Query::parse(context.query()))
}

fn with_authenticated(mut identity: Identity) -> Identity {
    if !identity.groups.iter().any(|g| g == super::AUTHENTICATED) {
        identity.groups.push(super::AUTHENTICATED.to_owned());
    }
    identity
}

fn user_info(identity: Identity) -> UserInfo {
    let non_empty = |text: String| (!text.is_empty()).then_some(text);
    UserInfo {
        username: non_empty(identity.user),
        uid: non_empty(identity.uid),
        groups: (!identity.groups.is_empty()).then_some(identity.groups),
        extra: (!identity.extra.is_empty()).then_some(identity.extra),
    }
}
