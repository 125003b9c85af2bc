//! `TokenReview` and `SelfSubjectReview`: questions about users that are answered, not stored.

use axum::body::Body;
use http::{Response, StatusCode};
use jiff::Timestamp;
use k8s_openapi::{
    api::authentication::v1::{
        SelfSubjectReview, SelfSubjectReviewStatus, TokenReview, TokenReviewStatus, UserInfo,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use serde::de::DeserializeOwned;

use super::{TokenAuthenticator as _, Tokens};
use crate::{
    body,
    error::ApiError,
    query::Query,
    respond::{self, Output},
    server::Context,
};
use coracle_api::Identity;

/// Says whom a token belongs to.
pub async fn token_review(
    tokens: &Tokens,
    context: &Context,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let output = output(context)?;
    let mut review: TokenReview = read(context, body).await?;
    if review.spec.token.is_empty() {
        let message = "token is required for TokenReview in authentication";
        return Err(ApiError::bad_request(message));
    }
    let asked = review.spec.audiences.clone().unwrap_or_default();
    let audiences = if asked.is_empty() {
        tokens.audiences()
    } else {
        &asked
    };
    let answer = tokens
        .authenticate_token(&review.spec.token, audiences)
        .await;
    review.status = Some(match answer {
        Ok(Some(user)) => TokenReviewStatus {
            authenticated: Some(true),
            user: Some(user_info(with_authenticated(user.identity))),
            audiences: Some(user.audiences),
            error: None,
        },
        Ok(None) => TokenReviewStatus {
            error: Some("invalid bearer token".to_owned()),
            user: Some(UserInfo::default()),
            ..TokenReviewStatus::default()
        },
        Err(error) => TokenReviewStatus {
            error: Some(error.to_string()),
            user: Some(UserInfo::default()),
            ..TokenReviewStatus::default()
        },
    });
    respond::value(&output, StatusCode::CREATED, &review)
}

/// Says who the sender is.
pub async fn self_subject_review(
    context: &Context,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let output = output(context)?;
    let mut review: SelfSubjectReview = read(context, body).await?;
    review.metadata.creation_timestamp = Some(Time(Timestamp::now()));
    review.status = Some(SelfSubjectReviewStatus {
        user_info: Some(user_info(context.user.clone())),
    });
    respond::value(&output, StatusCode::CREATED, &review)
}

fn output(context: &Context) -> Result<Output, ApiError> {
    Output::negotiate(&context.headers, &Query::parse(context.query()))
}

/// Reads a review. An empty body is a review that asks nothing in particular.
async fn read<T: DeserializeOwned>(context: &Context, body: Body) -> Result<T, ApiError> {
    let json = body::read_json(&context.headers, body).await?;
    let kind = &context.info.resource;
    serde_json::from_slice(&json)
        .map_err(|error| ApiError::bad_request(format!("cannot decode {kind}: {error}")))
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
