//! What all metrics of an autoscaler ask for together: the most that any does.

use std::{sync::Arc, time::Instant};

use coracle_api::quantity::{Amount, Format};
use k8s_openapi::{
    api::{
        autoscaling::v2::{
            ContainerResourceMetricStatus, ExternalMetricSource, ExternalMetricStatus,
            HorizontalPodAutoscaler, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus,
            ObjectMetricSource, ObjectMetricStatus, PodsMetricSource, PodsMetricStatus,
            ResourceMetricStatus,
        },
        core::v1::Pod,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::LabelSelector},
};
use kube::api::GroupVersionKind;

use super::{
    ACTIVE, Controller, Look, Target, group_version,
    replicas::{self, Goal, Proposal, Starting, Tolerance},
};
use crate::{
    metrics::{self, Scaled},
    work::Key,
};

/// What the metrics ask for.
pub(super) struct Wish {
    pub replicas: i32,
    /// The metric that asks for most, in words.
    pub metric: String,
}

/// What one metric asks for.
struct Answer {
    proposal: Proposal,
    metric: String,
    status: MetricStatus,
}

/// Why there is none: the condition's reason, and the message.
struct Failure {
    reason: &'static str,
    why: String,
    /// How the message goes on in the autoscaler's own failure.
    what: String,
}

/// Everything about the target that metrics are compared with.
struct Subject<'a> {
    namespace: &'a str,
    pods: &'a [Arc<Pod>],
    selector: &'a str,
    current: i32,
    /// The replicas that the target says it has.
    observed: i32,
    tolerance: Tolerance,
    now: jiff::Timestamp,
}

/// Where the autoscaler does not say, `default`.
fn tolerance(object: &HorizontalPodAutoscaler, default: f64) -> Tolerance {
    let behavior = object.spec.behavior.as_ref();
    let of = |quantity: Option<&Quantity>| {
        quantity.map_or(default, |quantity| Amount::from(quantity).as_f64())
    };
    Tolerance {
        up: of(behavior.and_then(|rules| rules.scale_up.as_ref()?.tolerance.as_ref())),
        down: of(behavior.and_then(|rules| rules.scale_down.as_ref()?.tolerance.as_ref())),
    }
}

fn milli(quantity: &Quantity) -> i64 {
    Amount::from(quantity).milli_value()
}

fn quantity(milli: i64) -> Quantity {
    Amount::from_milli(milli).to_quantity()
}

/// What a resource's status says: memory is written in powers of two, as the metrics API does.
fn resource_status(resource: &str, proposal: &Proposal) -> MetricValueStatus {
    let amount = Amount::from_milli(proposal.usage);
    let amount = if resource == "memory" {
        amount.with_format(Format::BinarySi)
    } else {
        amount
    };
    MetricValueStatus {
        average_utilization: proposal.utilization,
        average_value: Some(amount.to_quantity()),
        value: None,
    }
}

fn value_status(average: bool, proposal: &Proposal) -> MetricValueStatus {
    let usage = Some(quantity(proposal.usage));
    MetricValueStatus {
        average_utilization: None,
        average_value: usage.clone().filter(|_| average),
        value: usage.filter(|_| !average),
    }
}

/// A metric's selector as events and conditions write it: in the words of Go.
fn spelled(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else {
        return "nil".to_owned();
    };
    let mut text = String::from("&LabelSelector{MatchLabels:map[string]string{");
    for (key, value) in selector.match_labels.iter().flatten() {
        text += &format!("{key}: {value},");
    }
    text += "},MatchExpressions:[]LabelSelectorRequirement{";
    for one in selector.match_expressions.iter().flatten() {
        let values = one.values.as_deref().unwrap_or_default().join(" ");
        let (key, operator) = (&one.key, &one.operator);
        text += &format!(
            "LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{values}],}},"
        );
    }
    text + "},}"
}

fn empty(type_: &str) -> MetricStatus {
    MetricStatus {
        type_: type_.to_owned(),
        ..MetricStatus::default()
    }
}

impl Controller {
    pub(super) async fn evaluate(
        &self,
        key: &Key,
        look: &mut Look<'_>,
        target: &Target,
    ) -> Result<Wish, String> {
        let current = target.replicas();
        let (pods, selector) = match self.selected(look, target) {
            Ok(selected) => selected,
            Err(error) => {
                self.warn(look.object, "FailedComputeMetricsReplicas", &error);
                look.measured(current, Vec::new());
                return Err(error);
            }
        };
        let observed = target
            .scale
            .status
            .as_ref()
            .map_or(0, |status| status.replicas);
        let subject = Subject {
            namespace: &key.namespace,
            pods: &pods,
            selector: &selector,
            current,
            observed,
            tolerance: tolerance(look.object, self.settings.tolerance),
            now: look.now,
        };
        let specs = look.object.spec.metrics.as_deref().unwrap_or_default();
        let (mut wish, mut failures): (Option<Wish>, Vec<Failure>) = (None, Vec::new());
        let mut statuses = Vec::new();
        for spec in specs {
            let since = Instant::now();
            let answer = self.answer(spec, &subject).await;
            let proposed = answer.as_ref().map(|answer| answer.proposal.replicas);
            let scaled = Scaled {
                from: current,
                to: proposed.unwrap_or(current),
                failed: answer.is_err(),
            };
            metrics::computed(&spec.type_, scaled, since.elapsed());
            match answer {
                Ok(answer) => {
                    statuses.push(answer.status);
                    let replicas = answer.proposal.replicas;
                    let grows = |wish: &Wish| wish.replicas == 0 || replicas > wish.replicas;
                    if wish.as_ref().is_none_or(grows) {
                        wish = Some(Wish {
                            replicas,
                            metric: answer.metric,
                        });
                    }
                }
                Err(failure) => {
                    self.warn(look.object, failure.reason, &failure.why);
                    // Each metric's status stands where its metric does.
                    statuses.push(empty(""));
                    failures.push(failure);
                }
            }
        }
        look.measured(current, statuses);
        // When some metric is not known, what the others say is good enough only to grow.
        let enough = |wish: &Wish| failures.is_empty() || wish.replicas >= current;
        if let Some(wish) = wish.filter(enough) {
            let message = format!(
                "the HPA was able to successfully calculate a replica count from {}",
                wish.metric
            );
            look.set(ACTIVE, true, "ValidMetricFound", &message);
            return Ok(wish);
        }
        let Some(first) = failures.first() else {
            return Err("no metrics".to_owned());
        };
        let message = format!(
            "the HPA was unable to compute the replica count: {}",
            first.why
        );
        look.set(ACTIVE, false, first.reason, &message);
        let error = format!(
            "invalid metrics ({} invalid out of {}), first error is: {}: {}",
            failures.len(),
            specs.len(),
            first.what,
            first.why
        );
        self.warn(look.object, "FailedComputeMetricsReplicas", &error);
        Err(error)
    }

    async fn answer(&self, spec: &MetricSpec, subject: &Subject<'_>) -> Result<Answer, Failure> {
        let fail = |reason, what: String| move |why: String| Failure { reason, why, what };
        if let Some(source) = &spec.resource {
            let name = &source.name;
            let what = format!("failed to get {name} resource metric value");
            let asked = self.resource(name, None, &source.target, subject).await;
            let (proposal, metric) = asked.map_err(fail("FailedGetResourceMetric", what))?;
            let mut status = empty("Resource");
            status.resource = Some(ResourceMetricStatus {
                name: name.clone(),
                current: resource_status(name, &proposal),
            });
            return Ok(Answer {
                proposal,
                metric,
                status,
            });
        }
        if let Some(source) = &spec.container_resource {
            let (name, container) = (&source.name, &source.container);
            let what = format!("failed to get {container} container metric value");
            let asked = self.resource(name, Some(container), &source.target, subject);
            let (proposal, metric) = asked
                .await
                .map_err(fail("FailedGetContainerResourceMetric", what))?;
            let mut status = empty("ContainerResource");
            status.container_resource = Some(ContainerResourceMetricStatus {
                name: name.clone(),
                container: container.clone(),
                current: resource_status(name, &proposal),
            });
            return Ok(Answer {
                proposal,
                metric,
                status,
            });
        }
        if let Some(source) = &spec.pods {
            let what = "failed to get pods metric value".to_owned();
            return self
                .pods_metric(source, subject)
                .await
                .map_err(fail("FailedGetPodsMetric", what));
        }
        if let Some(source) = &spec.object {
            let what = "failed to get object metric value".to_owned();
            return self
                .object_metric(source, subject)
                .await
                .map_err(fail("FailedGetObjectMetric", what));
        }
        if let Some(source) = &spec.external {
            let what = format!("failed to get {} external metric value", source.metric.name);
            return self
                .external_metric(source, subject)
                .await
                .map_err(fail("FailedGetExternalMetric", what));
        }
        let why = format!("unknown metric source type {:?}", spec.type_);
        Err(Failure {
            reason: "InvalidMetricSourceType",
            what: why.clone(),
            why,
        })
    }

    async fn resource(
        &self,
        name: &str,
        container: Option<&str>,
        target: &MetricTarget,
        subject: &Subject<'_>,
    ) -> Result<(Proposal, String), String> {
        let kind = if container.is_some() {
            "container resource"
        } else {
            "resource"
        };
        let (prefix, metric) = match (&target.average_value, target.average_utilization) {
            (Some(_), _) => ("usage", format!("{name} resource")),
            (None, Some(_)) => (
                "utilization",
                format!("{name} {kind} utilization (percentage of request)"),
            ),
            (None, None) => {
                return Err(
                    "invalid resource metric source: neither an average utilization target nor an \
                     average value (usage) target was set"
                        .to_owned(),
                );
            }
        };
        let failed = |why: String| format!("failed to get {name} {prefix}: {why}");
        let samples = self
            .metrics
            .resource(subject.namespace, subject.selector, name, container)
            .await
            .map_err(|why| failed(format!("unable to get metrics for resource {name}: {why}")))?;
        let goal = match (&target.average_value, target.average_utilization) {
            (Some(average), _) => Goal::Average(milli(average)),
            (None, percent) => Goal::Utilization {
                percent: percent.unwrap_or(100),
                resource: name,
                container,
            },
        };
        let proposal = replicas::by_pods(
            subject.current,
            subject.pods,
            &samples,
            (name == "cpu").then(|| Starting::new(&self.settings)),
            &goal,
            subject.tolerance,
            subject.now,
        );
        Ok((proposal.map_err(failed)?, metric))
    }

    async fn pods_metric(
        &self,
        source: &PodsMetricSource,
        subject: &Subject<'_>,
    ) -> Result<Answer, String> {
        let name = &source.metric.name;
        let target = source.target.average_value.as_ref();
        let target = target.ok_or_else(|| {
            "invalid pods metric source: an average value target was not set".to_owned()
        })?;
        let samples = self
            .metrics
            .pods(subject.namespace, subject.selector, &source.metric)
            .await
            .map_err(|why| format!("unable to get metric {name}: {why}"))?;
        let proposal = replicas::by_pods(
            subject.current,
            subject.pods,
            &samples,
            None,
            &Goal::Average(milli(target)),
            subject.tolerance,
            subject.now,
        )?;
        let mut status = empty("Pods");
        status.pods = Some(PodsMetricStatus {
            metric: source.metric.clone(),
            current: value_status(true, &proposal),
        });
        Ok(Answer {
            proposal,
            metric: format!("pods metric {name}"),
            status,
        })
    }

    async fn object_metric(
        &self,
        source: &ObjectMetricSource,
        subject: &Subject<'_>,
    ) -> Result<Answer, String> {
        let (name, object) = (&source.metric.name, &source.described_object);
        let (kind, namespace) = (&object.kind, subject.namespace);
        let failed = |why: String| {
            format!(
                "unable to get metric {name}: {why} on {kind} {namespace}/{}",
                object.name
            )
        };
        let version = object.api_version.as_deref().unwrap_or("v1");
        let (group, version) = group_version(version);
        let gvk = GroupVersionKind::gvk(group, version, kind);
        let found = Box::pin(kube::discovery::pinned_kind(&self.client, &gvk)).await;
        let (resource, _) = found.map_err(|_| failed(format!("no matches for kind {kind:?}")))?;
        let dot = if group.is_empty() { "" } else { "." };
        let resource = format!("{}{dot}{group}", resource.plural);
        let usage = self
            .metrics
            .object(namespace, &resource, &object.name, &source.metric)
            .await;
        let by_share = source.target.average_value.is_some();
        let usage = usage.map_err(failed).map_err(|why| match by_share {
            true => format!("failed to get {name} object metric: {why}"),
            false => why,
        })?;
        let (proposal, average) = by_target(&source.target, usage, subject, "object")?;
        // Upstream calls it so.
        let metric = if average {
            let selector = spelled(source.metric.selector.as_ref());
            format!("external metric {name}({selector})")
        } else {
            format!("{kind} metric {name}")
        };
        let mut status = empty("Object");
        status.object = Some(ObjectMetricStatus {
            described_object: object.clone(),
            metric: source.metric.clone(),
            current: value_status(average, &proposal),
        });
        Ok(Answer {
            proposal,
            metric,
            status,
        })
    }

    async fn external_metric(
        &self,
        source: &ExternalMetricSource,
        subject: &Subject<'_>,
    ) -> Result<Answer, String> {
        let name = &source.metric.name;
        let selector = spelled(source.metric.selector.as_ref());
        let prefix = match source.target.average_value {
            Some(_) => format!("failed to get {name} external metric"),
            None => format!("failed to get external metric {name}"),
        };
        let failed = |why: String| format!("{prefix}: {why}");
        let usage = self
            .metrics
            .external(subject.namespace, &source.metric)
            .await;
        let usage = usage.map_err(|why| {
            let namespace = subject.namespace;
            failed(format!(
                "unable to get external metric {namespace}/{name}/{selector}: {why}"
            ))
        })?;
        let (proposal, average) = by_target(&source.target, usage, subject, "external")?;
        let mut status = empty("External");
        status.external = Some(ExternalMetricStatus {
            metric: source.metric.clone(),
            current: value_status(average, &proposal),
        });
        Ok(Answer {
            proposal,
            metric: format!("external metric {name}({selector})"),
            status,
        })
    }
}

/// By the metric's value or by each replica's share of it; which, is returned too.
fn by_target(
    target: &MetricTarget,
    usage: i64,
    subject: &Subject<'_>,
    kind: &str,
) -> Result<(Proposal, bool), String> {
    let tolerance = subject.tolerance;
    match (&target.average_value, &target.value) {
        (Some(average), _) => {
            let found = replicas::by_average(subject.observed, usage, milli(average), tolerance);
            Ok((found, true))
        }
        (None, Some(value)) => {
            let (current, value) = (subject.current, milli(value));
            let found = replicas::by_value(current, subject.pods, usage, value, tolerance)?;
            Ok((found, false))
        }
        (None, None) => Err(format!(
            "invalid {kind} metric source: neither a value target nor an average value target was \
             set"
        )),
    }
}
