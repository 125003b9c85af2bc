//! The API server as a service: one chain of handlers for requests from the network and from
//! this process.
//!
//! Enter at [`ApiServer::new`]; the order of what happens to a request is in
//! [`ApiServer::handle`], read from top to bottom.

mod context;

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll},
};

use axum::body::Body;
use coracle_api::Identity;
use futures::FutureExt as _;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, request::Parts};
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::{
    admission::{Chain, Warnings},
    authn::{Authenticator, TrustEveryone},
    authz::{AlwaysAllow, Attributes, Authorizer, Decision},
    config::Config,
    error::{ApiError, GroupResource},
    handler::Handlers,
    query::Query,
    registry::Registry,
    request_info::RequestInfo,
    respond::{self, Output},
    verbs,
};

pub use context::Context;

/// The parts of the server that are chosen by whoever builds it.
pub struct Plugins {
    pub authenticator: Arc<dyn Authenticator>,
    pub authorizer: Arc<dyn Authorizer>,
    pub admission: Chain,
    pub handlers: Handlers,
}

impl Default for Plugins {
    /// Everyone may do everything. For tests.
    fn default() -> Self {
        Plugins {
            authenticator: Arc::new(TrustEveryone),
            authorizer: Arc::new(AlwaysAllow),
            admission: Chain::default(),
            handlers: Handlers::default(),
        }
    }
}

/// The API server. Cheap to clone; a `tower` service of HTTP requests.
#[derive(Clone)]
pub struct ApiServer(Arc<Inner>);

struct Inner {
    config: Config,
    registry: Registry,
    plugins: Plugins,
    /// Ends long-running requests.
    shutdown: CancellationToken,
}

impl ApiServer {
    /// Nothing runs until [`ApiServer::run`] does; requests before that wait or are turned away.
    pub fn new(config: Config, registry: Registry, plugins: Plugins) -> Self {
        ApiServer(Arc::new(Inner {
            config,
            registry,
            plugins,
            shutdown: CancellationToken::new(),
        }))
    }

    /// Keeps the watch caches at the store's revision until `shutdown`; then ends long-running
    /// requests.
    pub async fn run(&self, shutdown: CancellationToken) {
        self.0.registry.run(shutdown).await;
        self.0.shutdown.cancel();
    }

    pub fn config(&self) -> &Config {
        &self.0.config
    }

    pub fn registry(&self) -> &Registry {
        &self.0.registry
    }

    pub fn admission(&self) -> &Chain {
        &self.0.plugins.admission
    }

    pub fn handlers(&self) -> &Handlers {
        &self.0.plugins.handlers
    }

    pub fn authorizer(&self) -> &Arc<dyn Authorizer> {
        &self.0.plugins.authorizer
    }

    /// Cancelled when the server ends: every watch and other long-running request ends with it.
    pub fn shutdown(&self) -> &CancellationToken {
        &self.0.shutdown
    }

    /// Answers a request. Never panics.
    pub async fn handle(&self, request: Request<Body>) -> Response<Body> {
        let handled = AssertUnwindSafe(self.chain(request)).catch_unwind().await;
        handled.unwrap_or_else(|_| {
            respond::text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "This request caused apiserver to panic. Look in the logs for details.\n",
            )
        })
    }

    async fn chain(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let info = RequestInfo::parse(&parts.method, parts.uri.path(), &query);
        let output = Output::negotiate_plain(&parts.headers, &query).unwrap_or(Output::json());
        drop(query);
        let mut context = Context {
            info,
            user: Identity::default(),
            parts,
            warnings: Warnings::default(),
        };
        let result = self.answer(&mut context, body).await;
        let mut response = result.unwrap_or_else(|error| respond::error(&output, &error));
        add_warnings(&mut response, &context.warnings);
        response
    }

    async fn answer(&self, context: &mut Context, body: Body) -> Result<Response<Body>, ApiError> {
        context.user = self.authenticate(&mut context.parts).await?;
        self.allow(&Attributes::of_request(&context.user, &context.info))
            .await?;
        if !context.info.is_resource {
            return Ok(respond::text(StatusCode::NOT_FOUND, "404 page not found\n"));
        }
        Box::pin(verbs::dispatch(self, context, body)).await
    }

    /// Who sent the request. In-process requests carry their identity.
    async fn authenticate(&self, parts: &mut Parts) -> Result<Identity, ApiError> {
        let mut user = match parts.extensions.remove::<Identity>() {
            Some(user) => user,
            None => match self.0.plugins.authenticator.authenticate(parts).await {
                Ok(Some(user)) => user,
                Ok(None) => return Err(ApiError::unauthorized()),
                Err(error) => {
                    tracing::debug!(%error, "a request was refused");
                    return Err(ApiError::unauthorized());
                }
            },
        };
        const AUTHENTICATED: &str = "system:authenticated";
        let anonymous = user.user == "system:anonymous";
        if !anonymous && !user.groups.iter().any(|group| group == AUTHENTICATED) {
            user.groups.push(AUTHENTICATED.to_owned());
        }
        Ok(user)
    }

    /// Fails unless the user may do it.
    pub async fn allow(&self, attributes: &Attributes<'_>) -> Result<(), ApiError> {
        let reason = match self.0.plugins.authorizer.authorize(attributes).await {
            Decision::Allow(_) => return Ok(()),
            Decision::Deny(reason) | Decision::NoOpinion(reason) => reason,
        };
        Err(forbidden(attributes, &reason))
    }
}

/// What a user is told who may not do something.
pub fn forbidden(attributes: &Attributes<'_>, reason: &str) -> ApiError {
    let user = &attributes.user.user;
    let mut why = if attributes.is_resource {
        let resource = if attributes.subresource.is_empty() {
            attributes.resource.to_owned()
        } else {
            format!("{}/{}", attributes.resource, attributes.subresource)
        };
        let scope = if attributes.namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace {:?}", attributes.namespace)
        };
        format!(
            "User {user:?} cannot {} resource {resource:?} in API group {:?} {scope}",
            attributes.verb, attributes.group
        )
    } else {
        format!(
            "User {user:?} cannot {} path {:?}",
            attributes.verb, attributes.path
        )
    };
    if !reason.is_empty() {
        why.push_str(": ");
        why.push_str(reason);
    }
    let subject = GroupResource {
        group: attributes.group,
        resource: attributes.resource,
    };
    ApiError::forbidden(subject, attributes.name, why)
}

/// Adds a `Warning` header for each warning, as RFC 7234 writes them.
fn add_warnings(response: &mut Response<Body>, warnings: &Warnings) {
    const WARNING: HeaderName = http::header::WARNING;
    for text in warnings.take() {
        let escaped: String = text
            .chars()
            .filter(|character| !character.is_control())
            .flat_map(|character| {
                let escape = matches!(character, '"' | '\\').then_some('\\');
                escape.into_iter().chain(std::iter::once(character))
            })
            .collect();
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{escaped}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
}

impl Service<Request<Body>> for ApiServer {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move { Ok(server.handle(request).await) })
    }
}
