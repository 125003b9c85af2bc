//! Running a command in a container and waiting for its end.

use std::time::Duration;

use k8s_cri::v1::ExecSyncRequest;
use tonic::{Code, Request};

use crate::{cri::Cri, pods::errors::describe};

/// The most bytes of output that are kept.
const MAX_OUTPUT: usize = 10 << 10;
/// The runtime ends a command at its deadline; waiting longer than that helps nobody.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Succeeded(String),
    /// It ended with a code other than zero.
    Failed {
        code: i32,
        output: String,
        error: String,
    },
    TimedOut(String),
    /// It could not be run.
    Error(String),
}

/// Runs a command; there is no deadline when `timeout` is `None`.
pub async fn run(
    cri: &Cri,
    container_id: &str,
    command: &[String],
    timeout: Option<Duration>,
) -> Outcome {
    let seconds = timeout.map_or(0, |timeout| timeout.as_secs());
    let mut request = Request::new(ExecSyncRequest {
        container_id: container_id.to_owned(),
        cmd: command.to_vec(),
        timeout: i64::try_from(seconds).unwrap_or(i64::MAX),
    });
    if let Some(timeout) = timeout {
        request.set_timeout(timeout + PATIENCE);
    }
    let line = command.join(" ");
    match cri.runtime.clone().exec_sync(request).await {
        Ok(response) => {
            let response = response.into_inner();
            let mut output = response.stdout;
            output.extend_from_slice(&response.stderr);
            output.truncate(MAX_OUTPUT);
            let output = String::from_utf8_lossy(&output).into_owned();
            match response.exit_code {
                0 => Outcome::Succeeded(output),
                code => Outcome::Failed {
                    code,
                    output,
                    error: format!(
                        "command '{line}' exited with {code}: {}",
                        String::from_utf8_lossy(&response.stderr)
                    ),
                },
            }
        }
        Err(status) if status.code() == Code::DeadlineExceeded => Outcome::TimedOut(format!(
            "command timed out: {line:?} timed out after {seconds}s"
        )),
        Err(status) => Outcome::Error(describe(&status)),
    }
}
