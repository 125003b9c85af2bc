//! Lifecycle hooks: what a container is told when it has started and before it ends (upstream's
//! pkg/kubelet/lifecycle/handlers.go).

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};

use super::spec::describe;
use crate::{
    cri::Cri,
    probes::{
        exec::{self, Outcome},
        http::Target,
    },
};

/// For a request of a hook; the hook as a whole is limited by its caller.
const HTTP_TIMEOUT: Duration = Duration::from_secs(3600);

/// The container whose hook runs.
pub struct Of<'a> {
    pub pod: &'a Pod,
    pub container: &'a Container,
    pub container_id: &'a str,
    pub pod_ip: &'a str,
}

/// Runs a hook to its end.
///
/// # Errors
/// In upstream's words.
pub async fn run(cri: &Cri, of: &Of<'_>, handler: &LifecycleHandler) -> Result<(), String> {
    let about = format!(
        "for Container {:?} in Pod {:?} failed - error:",
        of.container.name,
        describe(of.pod)
    );
    if let Some(action) = &handler.exec {
        let command = action.command.clone().unwrap_or_default();
        let (error, output) = match exec::run(cri, of.container_id, &command, None).await {
            Outcome::Succeeded(_) => return Ok(()),
            Outcome::Failed { output, error, .. } => (error, output),
            Outcome::TimedOut(error) | Outcome::Error(error) => (error, String::new()),
        };
        return Err(format!(
            "Exec lifecycle hook ([{}]) {about} {error}, message: {output:?}",
            command.join(" ")
        ));
    }
    if let Some(action) = &handler.http_get {
        let path = action.path.as_deref().unwrap_or_default();
        let failed = |error: String| format!("HTTP lifecycle hook ({path}) {about} {error}");
        let target = Target::new(action, of.container, of.pod_ip, "lifecycle").map_err(failed)?;
        return match target.get(HTTP_TIMEOUT).await {
            Ok(_) => Ok(()),
            // A server without TLS behind a port that was said to have it, as upstream forgives.
            Err(error) if error.contains("server gave HTTP response to HTTPS client") => {
                let mut plain = target;
                plain.scheme = "http".to_owned();
                plain.headers.remove(http::header::AUTHORIZATION);
                plain.get(HTTP_TIMEOUT).await.map(|_| ()).map_err(failed)
            }
            Err(error) => Err(failed(error)),
        };
    }
    if let Some(action) = &handler.sleep {
        let seconds = u64::try_from(action.seconds).unwrap_or(0);
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        return Ok(());
    }
    Err("Cannot run handler: invalid handler".to_owned())
}
