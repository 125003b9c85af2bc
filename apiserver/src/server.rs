//! The API server as a service: one chain of handlers for requests from the network and from
//! this process.
//!
//! Enter at [`ApiServer::new`]; the order of what happens to a request is in
//! [`ApiServer::handle`], read from top to bottom.

mod context;
mod guarded;

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll},
    time::{Duration, Instant},
};

use axum::body::Body;
use coracle_api::Identity;
use futures::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::{
    admission::Chain,
    audit::{self, AUDIT_ID, Auditor},
    authn::{Authenticator, TrustEveryone, impersonation},
    authz::{AlwaysAllow, Attributes, Authorizer, Decision},
    config::Config,
    error::{ApiError, GroupResource},
    flow::{Admitted, Class, FlowControl},
    handler::Handlers,
    metrics::{
        Metrics,
        access::{self, Authenticated},
        in_flight,
        requests::{self, Answered},
    },
    openapi::OpenApi,
    paths::{self, Discovery, Health},
    query::Query,
    registry::{Registry, expiry},
    request_info::RequestInfo,
    respond::{self, Output},
    services::Services,
    verbs,
};

pub use context::Context;
pub(crate) use guarded::Guarded;

/// The parts of the server that are chosen by whoever builds it.
pub struct Plugins {
    pub authenticator: Arc<dyn Authenticator>,
    pub authorizer: Arc<dyn Authorizer>,
    pub admission: Chain,
    pub handlers: Handlers,
    /// `None`: nothing is told of.
    pub audit: Option<Arc<Auditor>>,
}

impl Default for Plugins {
    /// Everyone may do everything. For tests.
    fn default() -> Self {
        Plugins {
            authenticator: Arc::new(TrustEveryone),
            authorizer: Arc::new(AlwaysAllow),
            admission: Chain::default(),
            handlers: Handlers::default(),
            audit: None,
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
    discovery: Discovery,
    openapi: OpenApi,
    health: Health,
    metrics: Metrics,
    services: Option<Services>,
    flow: Option<FlowControl>,
    /// Ends long-running requests.
    shutdown: CancellationToken,
}

impl ApiServer {
    /// Nothing runs until [`ApiServer::run`] does; requests before that wait or are turned away.
    pub fn new(config: Config, registry: Registry, plugins: Plugins) -> Self {
        ApiServer(Arc::new(Inner {
            discovery: Discovery::default(),
            openapi: OpenApi::default(),
            health: Health::default(),
            metrics: Metrics::default(),
            services: Services::new(&registry, &config),
            flow: FlowControl::new(&registry, config.max_requests),
            config,
            registry,
            plugins,
            shutdown: CancellationToken::new(),
        }))
    }

    /// Keeps the watch caches at the store's revision until `shutdown`; then ends long-running
    /// requests.
    pub async fn run(&self, shutdown: CancellationToken) {
        tokio::join!(
            self.0.registry.run(shutdown.clone()),
            self.repair(),
            self.expire_events(shutdown)
        );
        self.0.shutdown.cancel();
    }

    async fn expire_events(&self, shutdown: CancellationToken) {
        let registry = &self.0.registry;
        let events = registry.find("", "v1", "events");
        if let Some(cache) = events.and_then(|events| events.cache.clone()) {
            let ttl = self.0.config.event_ttl;
            expiry::run(&**registry.store(), &cache, ttl, shutdown).await;
        }
    }

    async fn repair(&self) {
        self.0.registry.ready().await;
        if let Some(services) = &self.0.services
            && let Err(error) = services.repair().await
        {
            tracing::error!(%error, "cannot put back what belongs to Services");
        }
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

    /// What /readyz and /healthz look at.
    pub fn health(&self) -> &Health {
        &self.0.health
    }

    /// What is shown at `/metrics` beside the server's own.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub(crate) fn services(&self) -> Option<&Services> {
        self.0.services.as_ref()
    }

    pub(crate) fn discovery(&self) -> &Discovery {
        &self.0.discovery
    }

    /// The documents of OpenAPI; custom resources are described there.
    pub fn openapi(&self) -> &OpenApi {
        &self.0.openapi
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
            warnings: Arc::default(),
            class: Class::default(),
            waited: Duration::ZERO,
            audit: None,
        };
        let since = Instant::now();
        let id = audit::id_of(&context.parts.headers);
        let answered = AssertUnwindSafe(self.answer(&mut context, body, &id));
        let result = match answered.catch_unwind().await {
            Ok(result) => result,
            Err(panic) => {
                if let Some(record) = context.audit.take() {
                    record.panicked();
                }
                std::panic::resume_unwind(panic)
            }
        };
        if let (Err(error), Some(record)) = (&result, &context.audit) {
            record.response(serde_json::to_value(&error.0).unwrap_or_default());
        }
        let mut response = result.unwrap_or_else(|error| respond::error(&output, &error));
        add_headers(response.headers_mut(), &context);
        if let Ok(id) = HeaderValue::from_str(&id) {
            response.headers_mut().insert(AUDIT_ID, id);
        }
        if let Some(record) = context.audit.take() {
            response = audit::finish(record, &context, response).await;
        }
        let dry_run = context.query().contains("dryRun=");
        let answered = Answered {
            dry_run,
            code: response.status(),
            since,
            waited: context.waited,
        };
        requests::answered(self.registry(), &context.info, &answered);
        requests::measure(self.registry(), &context.info, response)
    }

    async fn answer(
        &self,
        context: &mut Context,
        body: Body,
        id: &str,
    ) -> Result<Response<Body>, ApiError> {
        let user = self.authenticate(context).await;
        let (user, refused) = match user {
            Ok(user) => (user, None),
            Err(error) => (Identity::default(), Some(error)),
        };
        context.user = user;
        if let Some(auditor) = &self.0.plugins.audit {
            let attributes = Attributes::of_request(&context.user, &context.info);
            let record = match refused {
                None => auditor.begin(&attributes, &context.parts, id),
                Some(_) => {
                    auditor.refused(&attributes, &context.parts, id);
                    None
                }
            };
            context.audit = record.map(Arc::new);
            if context
                .audit
                .as_ref()
                .is_some_and(|record| record.wants_response())
            {
                // The answer is read on its way.
                context.parts.headers.remove(header::ACCEPT_ENCODING);
            }
        }
        if let Some(error) = refused {
            return Err(error);
        }
        self.impersonate(context).await?;
        let asked = Instant::now();
        let admitted = self.turn(context).await;
        context.waited = asked.elapsed();
        let admitted = admitted?;
        if let Some(admitted) = &admitted {
            context.class = admitted.class.clone();
        }
        let attributes = Attributes::of_request(&context.user, &context.info);
        let asked = Instant::now();
        let decision = self.0.plugins.authorizer.authorize(&attributes).await;
        access::authorized(&decision, asked);
        if let Some(record) = &context.audit {
            record.authorized(&decision);
        }
        permitted(&attributes, decision)?;
        let in_flight = in_flight::begin(self.registry(), &context.info);
        let work = Box::pin(self.dispatch(context, body));
        if context.info.long_running() {
            let response = work.await?;
            // Such an answer goes on for as long as its body is read.
            return Ok(response.map(|body| Body::new(Guarded::new(body, in_flight))));
        }
        let timeout = self.0.config.request_timeout;
        let answered = tokio::time::timeout(timeout, work).await;
        answered.unwrap_or_else(|_| {
            let code = StatusCode::GATEWAY_TIMEOUT;
            requests::terminated(self.registry(), &context.info, code);
            let why = "request did not complete within the allotted timeout";
            Err(ApiError::timeout(why, 0))
        })
    }

    async fn dispatch(&self, context: &Context, body: Body) -> Result<Response<Body>, ApiError> {
        if context.info.is_resource {
            verbs::dispatch(self, context, body).await
        } else {
            paths::answer(self, context, body).await
        }
    }

    pub(crate) fn flow(&self) -> Option<&FlowControl> {
        self.0.flow.as_ref()
    }

    /// Waits until it is the request's turn. Long-running requests do not wait: their number is
    /// bounded by what their clients can open.
    async fn turn(&self, context: &Context) -> Result<Option<Admitted>, ApiError> {
        let info = &context.info;
        match &self.0.flow {
            Some(flow) if !info.long_running() => {
                let admitted = flow.admit(&context.user, info).await;
                admitted.map(Some).inspect_err(|_| {
                    let code = StatusCode::TOO_MANY_REQUESTS;
                    requests::terminated(self.registry(), info, code);
                })
            }
            _ => Ok(None),
        }
    }

    /// Who sent the request. In-process requests carry their identity.
    async fn authenticate(&self, context: &mut Context) -> Result<Identity, ApiError> {
        let parts = &mut context.parts;
        let mut user = match parts.extensions.remove::<Identity>() {
            Some(user) => user,
            None => {
                // Where authenticators leave what they have to say of the credentials.
                parts.extensions.insert(context.warnings.clone());
                let asked = Instant::now();
                let answer = self.0.plugins.authenticator.authenticate(parts).await;
                let how = match &answer {
                    Ok(Some(user)) => Authenticated::As(&user.user),
                    Ok(None) => Authenticated::Unknown,
                    Err(error) => {
                        tracing::debug!(%error, "a request was refused");
                        Authenticated::Refused
                    }
                };
                access::authenticated(how, asked);
                answer.ok().flatten().ok_or_else(ApiError::unauthorized)?
            }
        };
        const AUTHENTICATED: &str = "system:authenticated";
        let anonymous = user.user == "system:anonymous";
        if !anonymous && !user.groups.iter().any(|group| group == AUTHENTICATED) {
            user.groups.push(AUTHENTICATED.to_owned());
        }
        Ok(user)
    }

    /// Lets the request go on as the user that it asks to act as.
    async fn impersonate(&self, context: &mut Context) -> Result<(), ApiError> {
        if let Some(wanted) = impersonation::wanted(&mut context.parts.headers)? {
            let request = Attributes::of_request(&context.user, &context.info);
            let authorizer = &*self.0.plugins.authorizer;
            context.user = impersonation::impersonate(authorizer, &request, &wanted).await?;
            if let Some(record) = &context.audit {
                record.impersonated(&context.user);
            }
        }
        Ok(())
    }

    /// Fails unless the user may do it.
    pub async fn allow(&self, attributes: &Attributes<'_>) -> Result<(), ApiError> {
        permitted(
            attributes,
            self.0.plugins.authorizer.authorize(attributes).await,
        )
    }
}

fn permitted(attributes: &Attributes<'_>, decision: Decision) -> Result<(), ApiError> {
    match decision {
        Decision::Allow(_) => Ok(()),
        Decision::Deny(reason) | Decision::NoOpinion(reason) => Err(forbidden(attributes, &reason)),
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

/// What every answer says beside its content.
fn add_headers(headers: &mut HeaderMap, context: &Context) {
    const SCHEMA: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
    const LEVEL: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");
    if !headers.contains_key(header::CACHE_CONTROL) {
        let value = HeaderValue::from_static("no-cache, private");
        headers.insert(header::CACHE_CONTROL, value);
    }
    for (name, uid) in [
        (SCHEMA, &context.class.schema_uid),
        (LEVEL, &context.class.level_uid),
    ] {
        if !uid.is_empty()
            && let Ok(value) = HeaderValue::from_str(uid)
        {
            headers.insert(name, value);
        }
    }
    for text in context.warnings.take() {
        if let Some(value) = warning(&text) {
            headers.append(header::WARNING, value);
        }
    }
}

/// A warning as RFC 7234 writes it.
fn warning(text: &str) -> Option<HeaderValue> {
    let escaped: String = text
        .chars()
        .filter(|character| !character.is_control())
        .flat_map(|character| {
            let escape = matches!(character, '"' | '\\').then_some('\\');
            escape.into_iter().chain(std::iter::once(character))
        })
        .collect();
    HeaderValue::from_str(&format!("299 - \"{escaped}\"")).ok()
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
