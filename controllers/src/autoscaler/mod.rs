//! Horizontal pod autoscalers: as many replicas as the metrics ask for.
//!
//! Enter at [`run`]. [`metrics`] asks for what is used, [`replicas`] says how many replicas that
//! takes, [`limits`] how fast to go there. Each autoscaler is looked at again and again, as metrics
//! tell of no changes; how often, [`Autoscaling`] says. Upstream: `pkg/controller/podautoscaler`.

mod evaluate;
mod limits;
mod metrics;
mod replicas;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc, time::Instant};

use coracle_api::selector::LabelSelector;
use coracle_client::{EventRecorder, EventType, Informer, Queue};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        autoscaling::{
            v1::Scale,
            v2::{
                HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition,
                HorizontalPodAutoscalerStatus, MetricStatus,
            },
        },
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, PostParams},
};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use self::{
    limits::{History, Sizes},
    metrics::Metrics,
};
use crate::{
    Autoscaling, Context, Error,
    changes::{self, Seen},
    conditions, error,
    metrics::{self as counted, Scaled},
    objects::Objects,
    work::{self, Done, Key},
};

const NAME: &str = "horizontal-pod-autoscaler";

const ABLE: &str = "AbleToScale";
const ACTIVE: &str = "ScalingActive";
const LIMITED: &str = "ScalingLimited";
/// Told only where scaling to zero is allowed, which it is not.
const AT_ZERO: &str = "ScaledToZero";

/// How often a size is written against others who write too.
const RESCALES: usize = 5;

/// Runs the autoscalers.
pub(crate) async fn run(context: Context, shutdown: CancellationToken) -> Result<(), Error> {
    Controller::new(&context).run(shutdown).await
}

struct Controller {
    client: Client,
    settings: Autoscaling,
    metrics: Metrics,
    autoscalers: Objects<HorizontalPodAutoscaler>,
    pods: Informer<Pod>,
    recorder: EventRecorder,
    /// Lost with the process, which only makes windows begin anew.
    histories: Mutex<HashMap<Key, History>>,
    /// What each autoscaler's target selects, as last seen.
    selectors: Mutex<HashMap<Key, LabelSelector>>,
    queue: Queue<Key>,
}

/// One look at an autoscaler.
struct Look<'a> {
    object: &'a HorizontalPodAutoscaler,
    status: HorizontalPodAutoscalerStatus,
    now: Timestamp,
}

impl Look<'_> {
    fn set(&mut self, type_: &str, status: bool, reason: &str, message: &str) {
        let status = if status { "True" } else { "False" };
        let known = conditions::find(self.status.conditions.as_ref(), type_);
        let since = known
            .filter(|known| known.status == status)
            .and_then(|known| known.last_transition_time.clone());
        let condition = HorizontalPodAutoscalerCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_transition_time: Some(since.unwrap_or(Time(conditions::to_seconds(self.now)))),
        };
        let list = self.status.conditions.get_or_insert_default();
        match list.iter_mut().find(|known| known.type_ == type_) {
            Some(known) => *known = condition,
            None => list.push(condition),
        }
    }

    fn measured(&mut self, current: i32, metrics: Vec<MetricStatus>) {
        self.status.current_replicas = Some(current);
        self.status.current_metrics = (!metrics.is_empty()).then_some(metrics);
    }
}

/// The target of an autoscaler, and how to write its size.
struct Target {
    api: Api<DynamicObject>,
    scale: Scale,
}

impl Target {
    fn replicas(&self) -> i32 {
        let spec = self.scale.spec.as_ref();
        spec.and_then(|spec| spec.replicas).unwrap_or(0)
    }
}

/// The group and version of an `apiVersion`.
fn group_version(api_version: &str) -> (&str, &str) {
    api_version.rsplit_once('/').unwrap_or(("", api_version))
}

impl Controller {
    fn new(context: &Context) -> Self {
        Controller {
            client: context.client.clone(),
            settings: context.config.autoscaling,
            metrics: Metrics::new(context.client.clone()),
            autoscalers: context.objects(),
            pods: context.informers.get(),
            recorder: context.recorder(NAME),
            histories: Mutex::default(),
            selectors: Mutex::default(),
            queue: Queue::named("horizontalpodautoscaler"),
        }
    }

    async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let autoscalers = changes::each(&self.autoscalers.cache, |seen| match seen {
            // Its own writes are no reason to look at once.
            Seen::Applied {
                old: Some(old),
                new,
            } if old.spec == new.spec => {}
            Seen::Applied { new: object, .. } => self.queue.add(Key::of(&object.metadata)),
            Seen::Deleted(object) => {
                let key = Key::of(&object.metadata);
                self.histories.lock().remove(&key);
                self.selectors.lock().remove(&key);
            }
            Seen::Lagged => {}
        });
        let workers = async {
            self.autoscalers.cache.synced().await;
            self.pods.synced().await;
            let workers = self.settings.concurrent_syncs;
            work::work(NAME, &self.queue, workers, &shutdown, |key| self.sync(key)).await;
        };
        tokio::select! {
            () = autoscalers => {}
            () = workers => {}
            () = shutdown.cancelled() => {}
        }
        Ok(())
    }

    /// A failure is told in conditions and events; the next look comes as always.
    async fn sync(&self, key: Key) -> Result<Done, Error> {
        let Some(object) = self.autoscalers.get(&key.namespace, &key.name) else {
            return Ok(Done::Settled);
        };
        let mut look = Look {
            object: &object,
            status: object.status.clone().unwrap_or_default(),
            now: Timestamp::now(),
        };
        let (from, since) = (look.status.current_replicas.unwrap_or(0), Instant::now());
        let outcome = self.look(&key, &mut look).await;
        let to = look.status.desired_replicas;
        let scaled = Scaled {
            from: look.status.current_replicas.unwrap_or(from),
            to: if outcome.is_ok() { to } else { from },
            failed: outcome.is_err(),
        };
        counted::autoscaled(scaled, since.elapsed());
        if let Err(error) = &outcome {
            tracing::debug!(controller = NAME, %key, error, "cannot scale");
        }
        if object.status.as_ref() != Some(&look.status) {
            let next = HorizontalPodAutoscaler {
                status: Some(look.status),
                ..(*object).clone()
            };
            if let Err(error) = self.autoscalers.replace_status(&next).await
                && !error::is_conflict(&error)
            {
                let reason = "FailedUpdateStatus";
                self.warn(&object, reason, &error::message(&error));
            }
        }
        Ok(Done::Again(self.settings.sync_period))
    }

    fn warn(&self, object: &HorizontalPodAutoscaler, reason: &str, message: &str) {
        self.recorder
            .on(object, EventType::Warning, reason, message);
    }

    async fn look(&self, key: &Key, look: &mut Look<'_>) -> Result<(), String> {
        let target = match self.target(look.object, &key.namespace).await {
            Ok(target) => target,
            Err(error) => {
                self.warn(look.object, "FailedGetScale", &error);
                let message = format!(
                    "the HPA controller was unable to get the target's current scale: {error}"
                );
                look.set(ABLE, false, "FailedGetScale", &message);
                return Err(error);
            }
        };
        let message = "the HPA controller was able to get the target's current scale";
        look.set(ABLE, true, "SucceededGetScale", message);
        let spec = &look.object.spec;
        let (current, max) = (target.replicas(), spec.max_replicas);
        let min = spec.min_replicas.unwrap_or(1);
        let now = look.now;
        self.history(key, |history| history.start(current, now));
        if current == 0 {
            let message = "scaling is disabled since the replica count of the target is zero";
            look.set(ACTIVE, false, "ScalingDisabled", message);
            conditions::remove(&mut look.status.conditions, AT_ZERO);
            look.measured(current, Vec::new());
            look.status.desired_replicas = 0;
            return Ok(());
        }
        if current > max {
            let why = "Current number of replicas above Spec.MaxReplicas";
            look.measured(current, Vec::new());
            return self.rescale(key, look, &target, max, why).await;
        }
        if current < min {
            let why = "Current number of replicas below Spec.MinReplicas";
            look.measured(current, Vec::new());
            return self.rescale(key, look, &target, min, why).await;
        }
        let wish = self.evaluate(key, look, &target).await?;
        let why = match wish.replicas.cmp(&current) {
            std::cmp::Ordering::Greater => format!("{} above target", wish.metric),
            std::cmp::Ordering::Less => "All metrics below target".to_owned(),
            std::cmp::Ordering::Equal => String::new(),
        };
        let sizes = Sizes {
            current,
            desired: wish.replicas,
            min,
            max,
        };
        let behavior = spec.behavior.as_ref();
        let window = self.settings.downscale_stabilization;
        let outcome = self.history(key, |history| {
            history.normalize(behavior, window, sizes, now)
        });
        look.set(ABLE, true, outcome.able.0, outcome.able.1);
        look.set(LIMITED, outcome.limited, outcome.limit.0, outcome.limit.1);
        if outcome.replicas == current {
            look.status.desired_replicas = current;
            return Ok(());
        }
        self.rescale(key, look, &target, outcome.replicas, &why)
            .await
    }

    fn history<T>(&self, key: &Key, change: impl FnOnce(&mut History) -> T) -> T {
        change(self.histories.lock().entry(key.clone()).or_default())
    }

    async fn target(
        &self,
        object: &HorizontalPodAutoscaler,
        namespace: &str,
    ) -> Result<Target, String> {
        let reference = &object.spec.scale_target_ref;
        let version = reference.api_version.as_deref().unwrap_or("v1");
        let (group, version) = group_version(version);
        let kind = GroupVersionKind::gvk(group, version, &reference.kind);
        let resource = match Box::pin(kube::discovery::pinned_kind(&self.client, &kind)).await {
            Ok((resource, _)) => resource,
            Err(_) => self.in_any_version(&kind).await?,
        };
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), namespace, &resource);
        let scale = Box::pin(api.get_scale(&reference.name)).await;
        let scale = scale.map_err(|error| error::message(&error))?;
        Ok(Target { api, scale })
    }

    /// Which version a reference names does not matter as long as the group has the kind.
    async fn in_any_version(&self, kind: &GroupVersionKind) -> Result<ApiResource, String> {
        let group = Box::pin(kube::discovery::group(&self.client, &kind.group)).await;
        let found = group.ok().and_then(|group| {
            let mut resources = group.resources_by_stability().into_iter();
            resources.find(|(resource, _)| resource.kind == kind.kind)
        });
        found.map(|(resource, _)| resource).ok_or_else(|| {
            format!(
                "no matches for kind {:?} in group {:?}",
                kind.kind, kind.group
            )
        })
    }

    /// Writes the size; when somebody else has changed the target meanwhile, again.
    async fn write(&self, target: &Target, name: &str, desired: i32) -> Result<(), kube::Error> {
        let params = PostParams::default();
        let mut scale = target.scale.clone();
        for _ in 1..RESCALES {
            scale.spec.get_or_insert_default().replicas = Some(desired);
            let written = Box::pin(target.api.replace_scale(name, &params, &scale)).await;
            match written {
                Err(error) if error::is_conflict(&error) => {
                    scale = Box::pin(target.api.get_scale(name)).await?;
                }
                other => return other.map(drop),
            }
        }
        scale.spec.get_or_insert_default().replicas = Some(desired);
        let written = Box::pin(target.api.replace_scale(name, &params, &scale)).await;
        written.map(drop)
    }

    async fn rescale(
        &self,
        key: &Key,
        look: &mut Look<'_>,
        target: &Target,
        desired: i32,
        why: &str,
    ) -> Result<(), String> {
        let current = target.replicas();
        let name = &look.object.spec.scale_target_ref.name;
        let written = self.write(target, name, desired).await;
        look.status.current_replicas = Some(current);
        if let Err(error) = written {
            let error = error::message(&error);
            let message = format!("New size: {desired}; reason: {why}; error: {error}");
            self.warn(look.object, "FailedRescale", &message);
            let message =
                format!("the HPA controller was unable to update the target scale: {error}");
            look.set(ABLE, false, "FailedUpdateScale", &message);
            return Err(error);
        }
        let message =
            format!("the HPA controller was able to update the target scale to {desired}");
        look.set(ABLE, true, "SucceededRescale", &message);
        conditions::remove(&mut look.status.conditions, AT_ZERO);
        let message = format!("New size: {desired}; reason: {why}");
        let type_ = EventType::Normal;
        self.recorder
            .on(look.object, type_, "SuccessfulRescale", message);
        let behavior = look.object.spec.behavior.as_ref();
        let now = look.now;
        self.history(key, |history| {
            history.scaled(behavior, current, desired, now)
        });
        look.status.desired_replicas = desired;
        look.status.last_scale_time = Some(Time(conditions::to_seconds(now)));
        Ok(())
    }

    /// The pods that the target's selector selects, and the selector as text.
    fn selected(
        &self,
        look: &mut Look<'_>,
        target: &Target,
    ) -> Result<(Vec<Arc<Pod>>, String), String> {
        let status = target.scale.status.as_ref();
        let text = status.and_then(|status| status.selector.clone());
        let text = text.unwrap_or_default();
        if text.is_empty() {
            let why = "selector is required";
            self.warn(look.object, "SelectorRequired", why);
            let message = "the HPA target's scale is missing a selector";
            look.set(ACTIVE, false, "InvalidSelector", message);
            return Err(why.to_owned());
        }
        let selector: LabelSelector = text.parse().map_err(|error| {
            let why = format!(
                "couldn't convert selector into a corresponding internal selector object: {error}"
            );
            self.warn(look.object, "InvalidSelector", &why);
            look.set(ACTIVE, false, "InvalidSelector", &why);
            why
        })?;
        let key = Key::of(&look.object.metadata);
        let mut pods = self.pods.list_namespace(&key.namespace);
        pods.retain(|pod| selector.matches_labels(pod.metadata.labels.as_ref()));
        self.selectors.lock().insert(key.clone(), selector);
        let rivals = self.selecting(&key.namespace, &pods);
        if rivals.len() > 1 {
            let why = format!(
                "pods by selector {text} are controlled by multiple HPAs: [{}]",
                rivals.join(" ")
            );
            self.warn(look.object, "AmbiguousSelector", &why);
            look.set(ACTIVE, false, "AmbiguousSelector", &why);
            return Err(why);
        }
        Ok((pods, text))
    }

    /// The autoscalers of the namespace whose targets select any of these pods.
    fn selecting(&self, namespace: &str, pods: &[Arc<Pod>]) -> Vec<String> {
        let selectors = self.selectors.lock();
        let selecting = selectors.iter().filter(|(key, selector)| {
            key.namespace == namespace
                && pods
                    .iter()
                    .any(|pod| selector.matches_labels(pod.metadata.labels.as_ref()))
        });
        let mut names: Vec<_> = selecting.map(|(key, _)| key.to_string()).collect();
        names.sort();
        names
    }
}
