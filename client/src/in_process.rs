//! A `kube::Client` that calls the API server's router directly: no socket and no TLS, but the
//! same authorisation, admission and flow control as over the wire.

use axum::body::Body;
use coracle_api::Identity;
use http::{Request, Response};
use tower::{Service, ServiceExt as _};

/// A client whose requests `router` answers in this process, as `identity`.
///
/// `router` is the service that the HTTPS listener serves too.
pub fn in_process<S>(router: S, identity: Identity) -> kube::Client
where
    S: Service<Request<Body>, Response = Response<Body>, Error = std::convert::Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let (mut parts, body) = request.into_parts();
        parts.extensions.insert(identity.clone());
        router
            .clone()
            .oneshot(Request::from_parts(parts, Body::new(body)))
    });
    kube::Client::new(service, "default")
}
