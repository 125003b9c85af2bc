//! The health check of gRPC servers (`grpc.health.v1.Health`).

use std::time::Duration;

use tonic::{Code, Request, transport::Endpoint};

use super::http::authority;

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;

/// Asks a server whether a service of it is well.
///
/// # Errors
/// What an event says of the failure, in upstream's words.
pub async fn check(host: &str, port: u16, service: &str, timeout: Duration) -> Result<(), String> {
    let address = authority(host, port);
    let shown = format!("{}s", timeout.as_secs());
    let asking = ask(&address, service);
    let status = match tokio::time::timeout(timeout, asking).await {
        Ok(result) => result?,
        Err(_) => {
            return Err(format!(
                "timeout: health rpc did not complete within {shown}"
            ));
        }
    };
    match status {
        SERVING => Ok(()),
        other => {
            let name = match other {
                0 => "UNKNOWN",
                2 => "NOT_SERVING",
                3 => "SERVICE_UNKNOWN",
                _ => "an unknown status",
            };
            Err(format!("service unhealthy (responded with {name:?})"))
        }
    }
}

async fn ask(address: &str, service: &str) -> Result<i32, String> {
    let unreachable = |error: &dyn std::fmt::Display| {
        format!("error: failed to connect service at {address:?}: {error}")
    };
    let channel = Endpoint::from_shared(format!("http://{address}"))
        .and_then(|endpoint| endpoint.user_agent("kube-probe/1.36"))
        .map_err(|error| unreachable(&error))?
        .connect()
        .await
        .map_err(|error| unreachable(&error))?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| unreachable(&error))?;
    let request = Request::new(HealthCheckRequest {
        service: service.to_owned(),
    });
    let path = http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    match client.unary(request, path, codec).await {
        Ok(response) => Ok(response.into_inner().status),
        Err(status) if status.code() == Code::Unimplemented => Err(format!(
            "error: this server does not implement the grpc health protocol \
             (grpc.health.v1.Health): {}",
            status.message()
        )),
        Err(status) => Err(format!(
            "error: health rpc probe failed: {}",
            crate::pods::errors::describe(&status)
        )),
    }
}
