//! Where an autoscaler's metrics come from: the metrics APIs that the cluster serves.
//!
//! Enter at [`Metrics`]. Upstream: `pkg/controller/podautoscaler/metrics`.

use std::time::Duration;

use coracle_api::{quantity::Amount, selector::format_object};
use futures::{FutureExt as _, future::BoxFuture};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::autoscaling::v2::MetricIdentifier, apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::Client;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::replicas::{Sample, Samples};
use crate::error;

const CUSTOM: &str = "custom.metrics.k8s.io";
/// The window of a metric that does not say.
const WINDOW: Duration = Duration::from_secs(60);

/// The metrics APIs.
pub(super) struct Metrics {
    client: Client,
}

impl Metrics {
    pub fn new(client: Client) -> Self {
        Metrics { client }
    }

    /// What the selected pods use of a resource, in all or in one container.
    pub async fn resource(
        &self,
        namespace: &str,
        selector: &str,
        resource: &str,
        container: Option<&str>,
    ) -> Result<Samples, String> {
        let selector = encode(selector);
        let path = format!(
            "/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods?labelSelector={selector}"
        );
        let list = self.get(path).await;
        let list = list.map_err(|error| {
            let why = told(&error, "pods.metrics.k8s.io");
            format!("unable to fetch metrics from resource metrics API: {why}")
        })?;
        if items(&list).next().is_none() {
            return Err("no metrics returned from resource metrics API".to_owned());
        }
        Ok(resource_samples(&list, resource, container))
    }

    /// A metric that the selected pods have.
    pub async fn pods(
        &self,
        namespace: &str,
        selector: &str,
        metric: &MetricIdentifier,
    ) -> Result<Samples, String> {
        let path = format!(
            "namespaces/{namespace}/pods/*/{}?labelSelector={}&metricLabelSelector={}",
            encode(&metric.name),
            encode(selector),
            encode(&written(metric.selector.as_ref())),
        );
        let list = self.custom(&path, "pods").await?;
        let samples: Samples = items(&list).filter_map(custom_sample).collect();
        if samples.is_empty() {
            return Err("no metrics returned from custom metrics API".to_owned());
        }
        Ok(samples)
    }

    /// A metric that one object has. `resource` is `services` or `ingresses.networking.k8s.io`.
    pub async fn object(
        &self,
        namespace: &str,
        resource: &str,
        name: &str,
        metric: &MetricIdentifier,
    ) -> Result<i64, String> {
        let object = if resource == "namespaces" {
            format!("namespaces/{namespace}/metrics")
        } else {
            format!("namespaces/{namespace}/{resource}/{name}")
        };
        let selector = encode(&written(metric.selector.as_ref()));
        let path = format!(
            "{object}/{}?metricLabelSelector={selector}",
            encode(&metric.name)
        );
        let list = self.custom(&path, resource).await?;
        let found: Vec<&Value> = items(&list).collect();
        let [item] = found[..] else {
            return Err(unavailable(&format!(
                "the custom metrics API server returned {} results when we asked for exactly one",
                found.len()
            )));
        };
        item.get("value").and_then(amount).ok_or_else(|| {
            let what = "the custom metrics API server returned a metric without a value";
            unavailable(what)
        })
    }

    /// Asks the custom metrics API in the version that it prefers. Which one that is may change
    /// whenever another server for it is installed, so nothing is remembered.
    async fn custom(&self, path: &str, resource: &str) -> Result<Value, String> {
        let group = self.get(format!("/apis/{CUSTOM}")).await;
        let group = group.map_err(|error| match &error {
            kube::Error::Api(status) if status.code == 404 => {
                unavailable(&format!("no custom metrics API ({CUSTOM}) registered"))
            }
            other => unavailable(&error::message(other)),
        })?;
        let version = custom_version(&group)
            .ok_or_else(|| unavailable("no known available metric versions found"))?;
        let list = self.get(format!("/apis/{version}/{path}")).await;
        list.map_err(|error| unavailable(&told(&error, &format!("{resource}.{CUSTOM}"))))
    }

    /// The sum of a metric of things outside of the cluster.
    pub async fn external(
        &self,
        namespace: &str,
        metric: &MetricIdentifier,
    ) -> Result<i64, String> {
        let path = format!(
            "/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{}?labelSelector={}",
            encode(&metric.name),
            encode(&written(metric.selector.as_ref())),
        );
        let list = self.get(path).await.map_err(|error| {
            let resource = format!("{}.external.metrics.k8s.io", metric.name);
            let why = told(&error, &resource);
            format!("unable to fetch metrics from external metrics API: {why}")
        })?;
        let mut values = items(&list)
            .filter_map(|item| amount(item.get("value")?))
            .peekable();
        if values.peek().is_none() {
            return Err("no metrics returned from external metrics API".to_owned());
        }
        Ok(values.fold(0, i64::saturating_add))
    }

    fn get(&self, path: String) -> BoxFuture<'_, Result<Value, kube::Error>> {
        async move {
            let request = http::Request::get(path).body(Vec::new());
            let request = request.map_err(kube::Error::HttpError)?;
            self.client.request(request).await
        }
        .boxed()
    }
}

/// What the API answered; that it does not serve such a thing, in the words of upstream's client.
fn told(error: &kube::Error, resource: &str) -> String {
    match error {
        kube::Error::Api(status) if status.message == "404 page not found" => {
            format!("the server could not find the requested resource (get {resource})")
        }
        other => error::message(other),
    }
}

fn unavailable(why: &str) -> String {
    format!("unable to fetch metrics from custom metrics API: {why}")
}

/// The preferred version if it is known here, otherwise the first that is.
fn custom_version(group: &Value) -> Option<&str> {
    let known = |version: &&str| {
        version
            .strip_prefix(CUSTOM)
            .is_some_and(|version| matches!(version, "/v1beta1" | "/v1beta2"))
    };
    let preferred = group["preferredVersion"]["groupVersion"].as_str();
    preferred.filter(known).or_else(|| {
        let mut versions = group["versions"].as_array()?.iter();
        versions.find_map(|version| version["groupVersion"].as_str().filter(known))
    })
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn written(selector: Option<&LabelSelector>) -> String {
    match selector {
        None => String::new(),
        some => format_object(some),
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().into_iter().flatten()
}

fn amount(quantity: &Value) -> Option<i64> {
    let amount = match quantity {
        Value::String(text) => Amount::parse(text).ok()?,
        Value::Number(number) => Amount::parse(&number.to_string()).ok()?,
        _ => return None,
    };
    Some(amount.milli_value())
}

fn time(item: &Value) -> Timestamp {
    let text = item["timestamp"].as_str().unwrap_or_default();
    text.parse().unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Go's way to write a duration, such as `1m0s`.
fn window(item: &Value) -> Option<Duration> {
    let text = item["window"].as_str()?;
    let window: SignedDuration = text.parse().ok()?;
    Duration::try_from(window).ok()
}

/// A pod that does not tell for every container, or of none, is left out.
fn resource_samples(list: &Value, resource: &str, container: Option<&str>) -> Samples {
    let sample = |item: &Value| {
        let containers = item["containers"].as_array()?;
        let mut wanted = containers
            .iter()
            .filter(|one| container.is_none_or(|name| one["name"] == name))
            .peekable();
        wanted.peek()?;
        let mut value = 0;
        for one in wanted {
            value += amount(one["usage"].get(resource)?)?;
        }
        let name = item["metadata"]["name"].as_str()?.to_owned();
        let sample = Sample {
            value,
            at: time(item),
            window: window(item).unwrap_or(WINDOW),
        };
        Some((name, sample))
    };
    items(list).filter_map(sample).collect()
}

fn custom_sample(item: &Value) -> Option<(String, Sample)> {
    let name = item["describedObject"]["name"].as_str()?.to_owned();
    let seconds = item["windowSeconds"].as_u64();
    let sample = Sample {
        value: amount(&item["value"])?,
        at: time(item),
        window: seconds.map_or(WINDOW, Duration::from_secs),
    };
    Some((name, sample))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn usage_is_summed_up_over_containers() {
        let list = json!({ "items": [
            { "metadata": { "name": "a" }, "timestamp": "2026-01-01T00:00:00Z",
                "window": "1m0.5s", "containers": [
                    { "name": "x", "usage": { "cpu": "250m", "memory": "1Ki" } },
                    { "name": "y", "usage": { "cpu": "1500000n", "memory": "1Ki" } }] },
            { "metadata": { "name": "b" }, "containers": [{ "name": "x", "usage": {} }] },
        ]});
        let all = resource_samples(&list, "cpu", None);
        assert_eq!(all.len(), 1);
        assert_eq!(all["a"].value, 252);
        assert_eq!(all["a"].window, Duration::from_millis(60_500));
        let one = resource_samples(&list, "memory", Some("y"));
        assert_eq!(one["a"].value, 1_024_000);
        assert!(resource_samples(&list, "cpu", Some("z")).is_empty());
    }

    #[test]
    fn the_preferred_version_of_custom_metrics_is_asked() {
        let group = |preferred: &str, versions: &[&str]| {
            let of = |version: &&str| json!({ "groupVersion": format!("{CUSTOM}/{version}") });
            let versions: Vec<_> = versions.iter().map(of).collect();
            json!({ "preferredVersion": of(&preferred), "versions": versions })
        };
        let chosen = |preferred, versions| {
            custom_version(&group(preferred, versions))
                .map(|it| it.rsplit('/').next().unwrap_or_default().to_owned())
        };
        assert_eq!(chosen("v1beta1", &["v1beta2"]).as_deref(), Some("v1beta1"));
        assert_eq!(chosen("v2", &["v2", "v1beta2"]).as_deref(), Some("v1beta2"));
        assert_eq!(chosen("v2", &["v2"]), None);
    }

    #[test]
    fn custom_metrics_are_read() {
        let item = json!({ "describedObject": { "name": "p" }, "value": "1500m",
            "timestamp": "2026-01-01T00:00:00Z", "windowSeconds": 30 });
        let (name, sample) = custom_sample(&item).expect("a sample");
        assert_eq!((name.as_str(), sample.value), ("p", 1500));
        assert_eq!(sample.window, Duration::from_secs(30));
        assert_eq!(amount(&json!("2")), Some(2000));
        assert_eq!(amount(&json!(null)), None);
    }
}
