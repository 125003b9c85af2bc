//! What happens to containers, as soon as it happens: a stream of hints that a container or
//! sandbox is worth a look.
//!
//! A hint never says what changed; whoever gets one asks the runtime. The hints come from CRI's
//! container events where the runtime has them (containerd 1.7, CRI-O 1.26), from containerd's
//! own event service where it does not, and from a look at everything each second where there is
//! neither.

use std::time::Duration;

use k8s_cri::v1::{ContainerEventResponse, ContainerEventType, GetEventsRequest};
use tokio::sync::mpsc;
use tonic::{Code, Request, Status, transport::Channel};

use super::HealthWatch;
use crate::cri::Cri;

/// Between two looks at everything when the runtime tells nothing (upstream's relist period).
const RELIST: Duration = Duration::from_secs(1);
/// Before a broken stream is opened again.
const RETRY: Duration = Duration::from_millis(100);

/// What is worth a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// The container or sandbox of that identifier.
    Changed(String),
    /// The container or sandbox has ended; the runtime may take a moment to say so.
    Ended(String),
    /// Anything: hints may have been missed.
    Everything,
}

/// Follows the events of the runtime.
pub struct Hints {
    cri: Cri,
    health: HealthWatch,
}

/// Where hints come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Cri,
    Containerd,
    Relist,
}

impl Source {
    fn next(self) -> Self {
        match self {
            Source::Cri => Source::Containerd,
            Source::Containerd | Source::Relist => Source::Relist,
        }
    }
}

impl Hints {
    pub fn new(cri: Cri, health: HealthWatch) -> Self {
        Hints { cri, health }
    }

    /// Sends hints until the receiver is gone. A receiver that does not keep up holds the stream
    /// back, which costs nothing but freshness.
    pub async fn run(mut self, hints: mpsc::Sender<Hint>) {
        let mut source = Source::Cri;
        while !hints.is_closed() {
            self.health.usable().await;
            let ended = match source {
                Source::Cri => self.follow_cri(&hints).await,
                Source::Containerd => self.follow_containerd(&hints).await,
                Source::Relist => {
                    // The receiver may be gone: the loop's condition sees it.
                    let _ = hints.send(Hint::Everything).await;
                    tokio::time::sleep(RELIST).await;
                    continue;
                }
            };
            match ended {
                Err(status) if status.code() == Code::Unimplemented => {
                    source = source.next();
                    tracing::debug!(?source, "the runtime does not have these events");
                    continue;
                }
                Err(status) => {
                    tracing::debug!(error = status.message(), "the event stream broke");
                    // A restarted runtime may be another version.
                    source = Source::Cri;
                }
                Ok(()) => {}
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn follow_cri(&self, hints: &mpsc::Sender<Hint>) -> Result<(), Status> {
        let mut events = self
            .cri
            .runtime
            .clone()
            .get_container_events(GetEventsRequest {})
            .await?
            .into_inner();
        let mut caught_up = false;
        loop {
            // The stream's headers come with its first event, so a runtime without events is
            // only known by its error: look at everything once it is clear that it has them.
            let next = if caught_up {
                events.message().await?
            } else {
                caught_up = true;
                tokio::select! {
                    biased;
                    event = events.message() => event?,
                    () = tokio::time::sleep(RETRY) => {
                        send(hints, Hint::Everything).await?;
                        continue;
                    }
                }
            };
            match next {
                Some(event) => send(hints, cri_hint(event)).await?,
                None => return Ok(()),
            }
        }
    }

    async fn follow_containerd(&self, hints: &mpsc::Sender<Hint>) -> Result<(), Status> {
        let mut events = containerd::subscribe(self.cri.channel()).await?;
        send(hints, Hint::Everything).await?;
        while let Some(envelope) = events.message().await? {
            if let Some(hint) = envelope.hint() {
                send(hints, hint).await?;
            }
        }
        Ok(())
    }
}

async fn send(hints: &mpsc::Sender<Hint>, hint: Hint) -> Result<(), Status> {
    hints
        .send(hint)
        .await
        .map_err(|_| Status::cancelled("nobody listens any more"))
}

fn cri_hint(event: ContainerEventResponse) -> Hint {
    match event.container_event_type() {
        ContainerEventType::ContainerStoppedEvent => Hint::Ended(event.container_id),
        _ => Hint::Changed(event.container_id),
    }
}

/// The part of containerd's event service that is needed
/// (api/services/events/v1/events.proto).
mod containerd {
    use super::{Channel, Hint, Request, Status};

    const NAMESPACE: &str = "k8s.io";
    const TOPICS: [&str; 3] = ["/tasks/exit", "/tasks/delete", "/tasks/oom"];

    #[derive(Clone, PartialEq, prost::Message)]
    struct SubscribeRequest {
        #[prost(string, repeated, tag = "1")]
        filters: Vec<String>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Envelope {
        #[prost(string, tag = "3")]
        topic: String,
        #[prost(message, optional, tag = "4")]
        event: Option<Any>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Any {
        #[prost(bytes = "vec", tag = "2")]
        value: Vec<u8>,
    }

    /// `TaskExit`; the other events of tasks begin alike.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Task {
        #[prost(string, tag = "1")]
        container_id: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct TaskExit {
        #[prost(string, tag = "1")]
        container_id: String,
        /// The identifier of an exec, or the container's own.
        #[prost(string, tag = "2")]
        id: String,
    }

    impl Envelope {
        /// What the event means for containers; `None` for the end of an exec.
        pub fn hint(&self) -> Option<Hint> {
            use prost::Message as _;
            let event = self.event.as_ref()?.value.as_slice();
            if self.topic == "/tasks/exit" {
                let exit = TaskExit::decode(event).ok()?;
                let whole = exit.id.is_empty() || exit.id == exit.container_id;
                return whole.then_some(Hint::Ended(exit.container_id));
            }
            let container_id = Task::decode(event).ok()?.container_id;
            Some(match self.topic.as_str() {
                "/tasks/delete" => Hint::Ended(container_id),
                _ => Hint::Changed(container_id),
            })
        }
    }

    pub async fn subscribe(channel: Channel) -> Result<tonic::Streaming<Envelope>, Status> {
        let mut client = tonic::client::Grpc::new(channel);
        client
            .ready()
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let mut request = Request::new(SubscribeRequest {
            filters: TOPICS
                .iter()
                .map(|topic| format!("namespace=={NAMESPACE},topic==\"{topic}\""))
                .collect(),
        });
        request.metadata_mut().insert(
            "containerd-namespace",
            tonic::metadata::MetadataValue::from_static(NAMESPACE),
        );
        let path =
            http::uri::PathAndQuery::from_static("/containerd.services.events.v1.Events/Subscribe");
        let codec = tonic_prost::ProstCodec::<SubscribeRequest, Envelope>::default();
        Ok(client
            .server_streaming(request, path, codec)
            .await?
            .into_inner())
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use prost::Message as _;

        fn envelope(topic: &str, value: Vec<u8>) -> Envelope {
            Envelope {
                topic: topic.to_owned(),
                event: Some(Any { value }),
            }
        }

        #[test]
        fn the_end_of_an_exec_is_no_hint() {
            let exit = |id: &str| {
                let exit = TaskExit {
                    container_id: "c".to_owned(),
                    id: id.to_owned(),
                };
                envelope("/tasks/exit", exit.encode_to_vec()).hint()
            };
            assert_eq!(exit("c"), Some(Hint::Ended("c".to_owned())));
            assert_eq!(exit("probe-1"), None);
        }

        #[test]
        fn running_out_of_memory_is_a_change() {
            let oom = Task {
                container_id: "c".to_owned(),
            };
            let envelope = envelope("/tasks/oom", oom.encode_to_vec());
            assert_eq!(envelope.hint(), Some(Hint::Changed("c".to_owned())));
        }
    }
}
