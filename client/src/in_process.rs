//! A `kube::Client` that calls the API server's router directly: no socket and no TLS, but the
//! same authorisation, admission and flow control as over the wire.

use std::{convert::Infallible, time::Instant};

use axum::body::Body;
use coracle_api::Identity;
use http::{HeaderValue, Request, Response, header};
use tower::{Service, ServiceExt as _};

use crate::{metrics, zero_times};

/// What the server is called in the metrics of a client that needs no host.
const HOST: &str = "in-process";

/// A client whose requests `router` answers in this process, as `identity`.
///
/// `router` is the service that the HTTPS listener serves too.
pub fn in_process<S>(router: S, identity: Identity) -> kube::Client
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let agent = HeaderValue::from_static(agent_of(&identity.user));
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let (mut parts, body) = request.into_parts();
        parts
            .headers
            .entry(header::USER_AGENT)
            .or_insert_with(|| agent.clone());
        parts.extensions.insert(identity.clone());
        let (method, since) = (parts.method.clone(), Instant::now());
        let answer = router
            .clone()
            .oneshot(Request::from_parts(parts, Body::new(body)));
        async move {
            let answer = answer.await?;
            metrics::answered(answer.status().as_str(), HOST, method.as_str(), since);
            Ok::<_, Infallible>(answer.map(zero_times::spelled_out))
        }
    });
    kube::Client::new(service, "default")
}

/// What upstream's component of this identity calls itself. What it writes is owned under the
/// name before the slash.
fn agent_of(user: &str) -> &'static str {
    match user {
        "system:kube-scheduler" => "kube-scheduler/v1.36.2",
        "system:kube-proxy" => "kube-proxy/v1.36.2",
        "system:kube-controller-manager" => "kube-controller-manager/v1.36.2",
        "system:apiserver" => "kube-apiserver/v1.36.2",
        user if user.starts_with("system:serviceaccount:kube-system:") => {
            "kube-controller-manager/v1.36.2"
        }
        user if user.starts_with("system:node:") => "kubelet/v1.36.2",
        _ => "coracle",
    }
}
