//! Making sure that an image is on the node before a container starts from it (upstream's
//! pkg/kubelet/images/image_manager.go).

use std::{collections::HashMap, sync::Arc, time::Duration};

use coracle_client::{EventRecorder, EventType};
use k8s_cri::v1::{
    AuthConfig, Image, ImageSpec, ImageStatusRequest, PodSandboxConfig, PullImageRequest,
};
use k8s_openapi::api::core::v1::{ObjectReference, Secret};
use parking_lot::Mutex;
use tokio::{sync::Semaphore, time::Instant};
use tonic::Status;

use super::{credentials, errors::describe, image_name, status::Waiting};
use crate::{cri::Cri, metrics};

const BACKOFF: Duration = Duration::from_secs(10);
const BACKOFF_MAX: Duration = Duration::from_secs(300);

/// The images of the node.
pub struct Images {
    cri: Cri,
    recorder: EventRecorder,
    /// How many images are pulled at once; no limit when `None`.
    pulls: Option<Semaphore>,
    /// By pod and image.
    failures: Mutex<HashMap<(String, String), Failed>>,
}

#[derive(Clone, Debug)]
struct Failed {
    backoff: Duration,
    at: Instant,
    error: String,
}

/// An image that is wanted for a container.
pub struct Wanted<'a> {
    /// The container that events are about.
    pub involved: &'a ObjectReference,
    pub pod_uid: &'a str,
    pub image: &'a str,
    pub policy: Policy,
    pub pull_secrets: &'a [Arc<Secret>],
    pub sandbox: &'a PodSandboxConfig,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Always,
    IfNotPresent,
    Never,
}

impl Policy {
    pub fn new(name: Option<&str>) -> Self {
        match name {
            Some("Always") => Policy::Always,
            Some("Never") => Policy::Never,
            _ => Policy::IfNotPresent,
        }
    }
}

/// Why an image is not there, and when another attempt is worth it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable {
    pub waiting: Waiting,
    pub retry_at: Option<Instant>,
}

impl Images {
    /// `at_once` is the number of images pulled at the same time; `None` is no limit.
    pub fn new(cri: Cri, recorder: EventRecorder, at_once: Option<usize>) -> Self {
        Images {
            cri,
            recorder,
            pulls: at_once.map(|at_once| Semaphore::new(at_once.max(1))),
            failures: Mutex::default(),
        }
    }

    /// Makes the image available; returns what the runtime calls it.
    ///
    /// # Errors
    /// Tells what the container's status shows meanwhile.
    pub async fn ensure(&self, wanted: &Wanted<'_>) -> Result<Image, Unavailable> {
        let image = image_name::with_default_tag(wanted.image).map_err(|error| {
            let message = format!(
                "Failed to apply default image tag {:?}: {error}",
                wanted.image
            );
            self.event(wanted, EventType::Warning, "InspectFailed", &message);
            unavailable("InvalidImageName", message, None)
        })?;
        if wanted.policy != Policy::Always {
            match self.look_up(&image).await {
                Ok(Some(found)) => {
                    let message = format!(
                        "Container image {:?} already present on machine and can be accessed by \
                         the pod",
                        wanted.image
                    );
                    self.event(wanted, EventType::Normal, "Pulled", &message);
                    return Ok(found);
                }
                Ok(None) if wanted.policy == Policy::Never => {
                    let message = format!(
                        "Container image {:?} is not present with pull policy of Never",
                        wanted.image
                    );
                    self.event(wanted, EventType::Warning, "ErrImageNeverPull", &message);
                    return Err(unavailable("ErrImageNeverPull", message, None));
                }
                Ok(None) => {}
                Err(status) => {
                    let message =
                        format!("Failed to inspect image {image:?}: {}", describe(&status));
                    self.event(wanted, EventType::Warning, "InspectFailed", &message);
                    let retry_at = Some(Instant::now() + BACKOFF);
                    return Err(unavailable("ImageInspectError", message, retry_at));
                }
            }
        }
        self.pull(wanted, &image).await
    }

    /// The image, if the runtime has it.
    pub async fn look_up(&self, image: &str) -> Result<Option<Image>, Status> {
        let request = ImageStatusRequest {
            image: Some(spec(image, image)),
            verbose: false,
        };
        let response = self.cri.image.clone().image_status(request).await?;
        Ok(response.into_inner().image)
    }

    /// The pod is gone: its failures count no more.
    pub fn forget(&self, pod_uid: &str) {
        self.failures.lock().retain(|(uid, _), _| uid != pod_uid);
    }

    async fn pull(&self, wanted: &Wanted<'_>, image: &str) -> Result<Image, Unavailable> {
        let key = (wanted.pod_uid.to_owned(), wanted.image.to_owned());
        let failed = self.failures.lock().get(&key).cloned();
        if let Some(failed) = failed.as_ref().filter(|it| it.at.elapsed() < it.backoff) {
            let message = format!("Back-off pulling image {:?}", wanted.image);
            self.event(wanted, EventType::Normal, "BackOff", &message);
            let message = format!("{message}: {}", failed.error);
            let retry_at = Some(failed.at + failed.backoff);
            return Err(unavailable("ImagePullBackOff", message, retry_at));
        }
        let message = format!("Pulling image {:?}", wanted.image);
        self.event(wanted, EventType::Normal, "Pulling", &message);
        let asked = Instant::now();
        let _permit = match &self.pulls {
            Some(pulls) => pulls.acquire().await.ok(),
            None => None,
        };
        let began = Instant::now();
        match self.pull_and_look_up(wanted, image).await {
            Ok(found) => {
                self.failures.lock().remove(&key);
                metrics::pulled(found.size, began.elapsed());
                let message = format!(
                    "Successfully pulled image {:?} in {} ({} including waiting). Image size: {} \
                     bytes.",
                    wanted.image,
                    milliseconds(began.elapsed()),
                    milliseconds(asked.elapsed()),
                    found.size
                );
                self.event(wanted, EventType::Normal, "Pulled", &message);
                Ok(found)
            }
            Err(error) => {
                let message = format!("Failed to pull image {:?}: {error}", wanted.image);
                self.event(wanted, EventType::Warning, "Failed", &message);
                let (reason, message) = classify(wanted.image, &error);
                let now = Instant::now();
                let expired = |it: &Failed| it.at.elapsed() > BACKOFF_MAX * 2;
                let backoff = match failed.filter(|it| !expired(it)) {
                    Some(failed) => (failed.backoff * 2).min(BACKOFF_MAX),
                    None => BACKOFF,
                };
                let failed = Failed {
                    backoff,
                    at: now,
                    error: format!("{reason}: {message}"),
                };
                self.failures.lock().insert(key, failed);
                Err(unavailable(reason, message, Some(now + backoff)))
            }
        }
    }

    async fn pull_and_look_up(&self, wanted: &Wanted<'_>, image: &str) -> Result<Image, String> {
        let secrets = wanted.pull_secrets.iter().map(AsRef::as_ref);
        let mut credentials: Vec<Option<AuthConfig>> = credentials::lookup(image, secrets)
            .into_iter()
            .map(Some)
            .collect();
        if credentials.is_empty() {
            credentials.push(None);
        }
        let mut errors = Vec::new();
        for auth in credentials {
            let request = PullImageRequest {
                image: Some(spec(image, wanted.image)),
                auth,
                sandbox_config: Some(wanted.sandbox.clone()),
            };
            match self.cri.image.clone().pull_image(request).await {
                Ok(_) => {
                    return match self.look_up(image).await {
                        Ok(Some(found)) => Ok(found),
                        Ok(None) => Err("the runtime does not have the image it pulled".to_owned()),
                        Err(status) => Err(describe(&status)),
                    };
                }
                Err(status) => errors.push(describe(&status)),
            }
        }
        errors.dedup();
        match errors.as_slice() {
            [only] => Err(only.clone()),
            several => Err(format!("[{}]", several.join(", "))),
        }
    }

    fn event(&self, wanted: &Wanted<'_>, event_type: EventType, reason: &str, message: &str) {
        let involved = wanted.involved.clone();
        self.recorder.event(involved, event_type, reason, message);
    }
}

fn spec(image: &str, as_written: &str) -> ImageSpec {
    ImageSpec {
        image: image.to_owned(),
        user_specified_image: as_written.to_owned(),
        ..ImageSpec::default()
    }
}

fn unavailable(reason: &str, message: String, retry_at: Option<Instant>) -> Unavailable {
    Unavailable {
        waiting: Waiting {
            reason: reason.to_owned(),
            message,
        },
        retry_at,
    }
}

/// Runtimes mark some errors by how they begin (`k8s.io/cri-api/pkg/errors`).
fn classify(image: &str, error: &str) -> (&'static str, String) {
    let marks = [
        ("RegistryUnavailable", "the registry is unavailable"),
        (
            "SignatureValidationFailed",
            "the signature validation failed",
        ),
    ];
    for (mark, meaning) in marks {
        if let Some(rest) = error.strip_prefix(mark) {
            let message = format!("image pull failed for {image} because {meaning}{rest}");
            return (mark, message);
        }
    }
    ("ErrImagePull", error.to_owned())
}

/// A duration as Go prints it, in whole milliseconds: `17ms`, `1.234s`, `1m1.5s`.
fn milliseconds(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    if milliseconds < 1000 {
        return format!("{milliseconds}ms");
    }
    let (minutes, rest) = (milliseconds / 60_000, milliseconds % 60_000);
    let seconds = format!("{}.{:03}", rest / 1000, rest % 1000);
    let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
    match minutes {
        0 => format!("{seconds}s"),
        minutes => format!("{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_gos() {
        let cases = [
            (17, "17ms"),
            (1234, "1.234s"),
            (2000, "2s"),
            (61_500, "1m1.5s"),
        ];
        for (value, expected) in cases {
            assert_eq!(milliseconds(Duration::from_millis(value)), expected);
        }
    }

    #[test]
    fn marked_errors_have_reasons_of_their_own() {
        assert_eq!(classify("i", "rpc error: x").0, "ErrImagePull");
        let (reason, message) = classify("i", "RegistryUnavailable: timed out");
        assert_eq!(reason, "RegistryUnavailable");
        assert_eq!(
            message,
            "image pull failed for i because the registry is unavailable: timed out"
        );
    }
}
