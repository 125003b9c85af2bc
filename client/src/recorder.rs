//! Events as components record them: `kubectl describe` and `kubectl events` show them.
//!
//! Recording never waits and never fails the caller. Events that repeat become one, see
//! [`crate::correlator`]; when the API cannot keep up, events are dropped.

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::sync::mpsc;

use crate::correlator::{Correlator, Observed, Recorded};

/// Events waiting to be written; more are dropped.
const WAITING: usize = 1000;

/// Upstream's two types of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    Normal,
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        }
    }
}

/// The object that an event is about.
pub type InvolvedObject = ObjectReference;

/// Records events in the name of one component. Cheap to clone.
#[derive(Clone)]
pub struct EventRecorder {
    sender: mpsc::Sender<Record>,
}

struct Record {
    involved: InvolvedObject,
    event_type: EventType,
    reason: String,
    message: String,
    at: Timestamp,
}

impl EventRecorder {
    /// Starts the writer. `component` is the event's source, for example `kubelet`; `host` is the
    /// node's name, or empty.
    pub fn new(client: Client, component: &str, host: &str) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        let writer = Writer {
            client,
            source: EventSource {
                component: Some(component.to_owned()),
                host: (!host.is_empty()).then(|| host.to_owned()),
            },
            correlator: Correlator::default(),
        };
        tokio::spawn(writer.run(receiver));
        EventRecorder { sender }
    }

    /// Records that something happened to `involved`. `reason` is in upper camel case.
    pub fn event(
        &self,
        involved: InvolvedObject,
        event_type: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        let record = Record {
            involved,
            event_type,
            reason: reason.to_owned(),
            message: message.into(),
            at: Timestamp::now(),
        };
        if self.sender.try_send(record).is_err() {
            tracing::debug!(reason, "too many events are waiting, one was dropped");
        }
    }

    /// As [`EventRecorder::event`], for any typed object.
    pub fn on<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        event_type: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.event(object.object_ref(&()), event_type, reason, message);
    }
}

struct Writer {
    client: Client,
    source: EventSource,
    correlator: Correlator,
}

impl Writer {
    async fn run(mut self, mut receiver: mpsc::Receiver<Record>) {
        while let Some(record) = receiver.recv().await {
            if let Err(error) = self.write(&record).await {
                tracing::debug!(reason = record.reason, %error, "cannot write the event");
            }
        }
    }

    async fn write(&mut self, record: &Record) -> Result<(), kube::Error> {
        let involved = &record.involved;
        let namespace = involved
            .namespace
            .clone()
            .unwrap_or_else(|| "default".to_owned());
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let recorded = Recorded {
            involved,
            event_type: record.event_type.as_str(),
            reason: &record.reason,
            message: &record.message,
            at: record.at,
        };
        let Some(observed) = self.correlator.observe(&recorded) else {
            return Ok(());
        };
        if observed.count > 1 {
            let patch = json!({
                "count": observed.count,
                "lastTimestamp": Time(record.at),
                "message": observed.message,
            });
            match api
                .patch(
                    &observed.name,
                    &PatchParams::default(),
                    &Patch::Merge(patch),
                )
                .await
            {
                // The event lived its hour: it comes anew.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                other => return other.map(|_| ()),
            }
        }
        let event = self.event(record, &namespace, observed);
        api.create(&PostParams::default(), &event).await?;
        Ok(())
    }

    fn event(&self, record: &Record, namespace: &str, observed: Observed) -> Event {
        Event {
            metadata: ObjectMeta {
                name: Some(observed.name),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: record.involved.clone(),
            reason: Some(record.reason.clone()),
            message: Some(observed.message),
            type_: Some(record.event_type.as_str().to_owned()),
            source: Some(self.source.clone()),
            reporting_component: self.source.component.clone(),
            reporting_instance: self.source.host.clone(),
            first_timestamp: Some(Time(observed.first)),
            last_timestamp: Some(Time(record.at)),
            count: Some(observed.count),
            ..Event::default()
        }
    }
}
