//! `pods/log`.

use async_trait::async_trait;
use axum::body::Body;
use coracle_api::field::{ErrorList, Path};
use coracle_transport::Backend;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::{
    NodeProxy, log_socket,
    options::container,
    stream::{node_of, parse},
};
use crate::{
    error::ApiError,
    handler::{Call, Handler},
    query::Query,
    websocket::is_websocket,
};

/// What is read of a kubelet's error, as upstream.
const MAX_ERROR_BYTES: usize = 50_000;

/// Shows what containers wrote.
pub struct Log(NodeProxy);

impl Log {
    pub fn new(proxy: NodeProxy) -> Self {
        Log(proxy)
    }
}

#[async_trait]
impl Handler for Log {
    async fn handle(&self, call: Call<'_>) -> Result<Response<Body>, ApiError> {
        let info = &call.context.info;
        let query = Query::parse(call.context.query());
        let options = LogOptions::parse(&query)?;
        let errors = options.validate();
        if !errors.is_empty() {
            return Err(ApiError::invalid("", "PodLogOptions", &info.name, &errors));
        }
        let lookup = &self.0.0.lookup;
        let pod = lookup.require::<Pod>(&info.namespace, &info.name).await?;
        let container = container(&pod, query.get("container").unwrap_or_default())?;
        let Some(node) = node_of(&pod) else {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            return Ok(response);
        };
        let verify = !query.flag("insecureSkipTLSVerifyBackend");
        let backend = self.0.0.kubelet(node, verify).await?;
        let path = format!(
            "/containerLogs/{}/{}/{container}?{}",
            info.namespace,
            info.name,
            options.to_query()
        );
        let response = self.fetch(&backend, &path, &info.name).await?;
        if is_websocket(call.context.headers()) {
            return log_socket::serve(&call.context.parts, response.into_body());
        }
        Ok(response)
    }
}

impl Log {
    async fn fetch(
        &self,
        backend: &Backend,
        path: &str,
        pod: &str,
    ) -> Result<Response<Body>, ApiError> {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = parse(path)?;
        let sent = self.0.0.forwarder.forward(backend, request).await;
        let response = sent.map_err(|error| {
            let message = format!("Get \"https://{}{path}\": {error}", backend.address);
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "", message)
        })?;
        if !response.status().is_success() {
            return Err(error_of(response, pod).await);
        }
        let mut answer = Response::new(response.into_body());
        let text = HeaderValue::from_static("text/plain");
        answer.headers_mut().insert(header::CONTENT_TYPE, text);
        Ok(answer)
    }
}

/// The kubelet's refusal, as the API says it.
async fn error_of(response: Response<Body>, pod: &str) -> ApiError {
    let code = response.status();
    let body = Limited::new(response.into_body(), MAX_ERROR_BYTES);
    let text = match body.collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        Err(error) => return ApiError::internal(error),
    };
    match code {
        StatusCode::INTERNAL_SERVER_ERROR => ApiError::internal(text),
        StatusCode::BAD_REQUEST => ApiError::bad_request(text),
        StatusCode::NOT_FOUND => {
            let message =
                format!("the server could not find the requested resource ( pods/log {pod})");
            ApiError::new(code, "NotFound", message)
        }
        _ => {
            let message = format!(
                "the server responded with the status code {} but did not return more information ( pods/log {pod})",
                code.as_u16()
            );
            ApiError::new(code, "", message)
        }
    }
}

/// `PodLogOptions`, as far as the kubelet is asked with them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct LogOptions {
    follow: bool,
    previous: bool,
    timestamps: bool,
    since_seconds: Option<i64>,
    since_time: Option<String>,
    tail_lines: Option<i64>,
    limit_bytes: Option<i64>,
    stream: Option<String>,
}

impl LogOptions {
    fn parse(query: &Query<'_>) -> Result<Self, ApiError> {
        let number = |name: &str| match query.get(name).filter(|value| !value.is_empty()) {
            None => Ok(None),
            Some(value) => value.parse().map(Some).map_err(|_| {
                let message = format!("strconv.ParseInt: parsing {value:?}: invalid syntax");
                ApiError::bad_request(message)
            }),
        };
        let since_time = query.get("sinceTime").filter(|value| !value.is_empty());
        if let Some(time) = since_time
            && time.parse::<Timestamp>().is_err()
        {
            let message = format!("parsing time {time:?}: it is not in RFC 3339");
            return Err(ApiError::bad_request(message));
        }
        Ok(LogOptions {
            follow: query.flag("follow"),
            previous: query.flag("previous"),
            timestamps: query.flag("timestamps"),
            since_seconds: number("sinceSeconds")?,
            since_time: since_time.map(str::to_owned),
            tail_lines: number("tailLines")?,
            limit_bytes: number("limitBytes")?,
            stream: query.get("stream").map(str::to_owned),
        })
    }

    fn validate(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        let positive = "must be greater than 0";
        if let Some(lines) = self.tail_lines.filter(|&lines| lines < 0) {
            let detail = "must be greater than or equal to 0";
            errors.push(Path::new("tailLines").invalid(lines, detail));
        }
        if let Some(bytes) = self.limit_bytes.filter(|&bytes| bytes < 1) {
            errors.push(Path::new("limitBytes").invalid(bytes, positive));
        }
        if self.since_seconds.is_some() && self.since_time.is_some() {
            let detail = "at most one of `sinceTime` or `sinceSeconds` may be specified";
            errors.push(Path::default().forbidden(detail));
        } else if let Some(seconds) = self.since_seconds.filter(|&seconds| seconds < 1) {
            errors.push(Path::new("sinceSeconds").invalid(seconds, positive));
        }
        // Upstream has the choice of a stream behind a gate that is off.
        if self.stream.is_some() {
            errors.push(Path::new("stream").forbidden("may not be specified"));
        }
        errors
    }

    fn to_query(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, set) in [
            ("follow", self.follow),
            ("previous", self.previous),
            ("timestamps", self.timestamps),
        ] {
            if set {
                query.append_pair(name, "true");
            }
        }
        for (name, number) in [
            ("sinceSeconds", self.since_seconds),
            ("tailLines", self.tail_lines),
            ("limitBytes", self.limit_bytes),
        ] {
            if let Some(number) = number {
                query.append_pair(name, &number.to_string());
            }
        }
        if let Some(time) = &self.since_time {
            query.append_pair("sinceTime", time);
        }
        query.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked_and_passed_on() {
        let parse = |query: &str| LogOptions::parse(&Query::parse(query));
        let options = parse("follow=true&tailLines=3&container=c&sinceTime=2020-01-01T00:00:00Z");
        assert_eq!(
            options.unwrap().to_query(),
            "follow=true&tailLines=3&sinceTime=2020-01-01T00%3A00%3A00Z"
        );
        assert!(parse("tailLines=x").is_err());
        assert!(parse("sinceTime=today").is_err());
        let invalid = parse("tailLines=-1&limitBytes=0&sinceSeconds=0").unwrap();
        let fields: Vec<String> = invalid.validate().into_iter().map(|e| e.field).collect();
        assert_eq!(fields, ["tailLines", "limitBytes", "sinceSeconds"]);
    }
}
