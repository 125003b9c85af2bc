//! Components run under supervision: one that fails or panics is started again after a growing
//! delay and does not take the process down. Until it runs again, /readyz says what is wrong.

use std::{collections::BTreeMap, fmt::Display, future::Future, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

const FIRST_DELAY: Duration = Duration::from_millis(500);
const MAX_DELAY: Duration = Duration::from_secs(30);
/// A component that ran this long starts with the first delay again.
const GOOD_RUN: Duration = Duration::from_secs(60);

/// How a component fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// Why it is not running at the moment.
    pub failure: Option<String>,
    /// How often it was started again.
    pub restarts: u64,
}

/// The components of the process. Cheap to clone.
#[derive(Clone, Default)]
pub struct Components {
    conditions: Arc<Mutex<BTreeMap<String, Condition>>>,
    tasks: Arc<Mutex<JoinSet<()>>>,
    shutdown: CancellationToken,
}

impl Components {
    /// Components end when `shutdown` is cancelled.
    pub fn new(shutdown: CancellationToken) -> Self {
        Components {
            shutdown,
            ..Components::default()
        }
    }

    /// Starts a component. `start` makes it anew for each run.
    pub fn spawn<Start, Run, Error>(&self, name: &str, start: Start)
    where
        Start: Fn(CancellationToken) -> Run + Send + 'static,
        Run: Future<Output = Result<(), Error>> + Send + 'static,
        Error: Display + Send + 'static,
    {
        let name = name.to_owned();
        self.conditions
            .lock()
            .insert(name.clone(), Condition::default());
        let supervisor = supervise(name, start, self.conditions.clone(), self.shutdown.clone());
        self.tasks.lock().spawn(supervisor);
    }

    /// Every component's condition, by name.
    pub fn conditions(&self) -> BTreeMap<String, Condition> {
        self.conditions.lock().clone()
    }

    /// Waits until all components have ended, which they do after the shutdown, for `patience`
    /// at most.
    pub async fn ended(&self, patience: Duration) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        let drained = tokio::time::timeout(patience, async {
            while tasks.join_next().await.is_some() {}
        });
        if drained.await.is_err() {
            error!(left = tasks.len(), "components did not end in time");
            tasks.abort_all();
        }
    }
}

async fn supervise<Start, Run, Error>(
    name: String,
    start: Start,
    conditions: Arc<Mutex<BTreeMap<String, Condition>>>,
    shutdown: CancellationToken,
) where
    Start: Fn(CancellationToken) -> Run + Send + 'static,
    Run: Future<Output = Result<(), Error>> + Send + 'static,
    Error: Display + Send + 'static,
{
    let mut delay = FIRST_DELAY;
    loop {
        let started = Instant::now();
        // A child token: whatever the component spawned ends with it, even after a panic.
        let run = shutdown.child_token();
        let outcome = tokio::spawn(start(run.clone())).await;
        run.cancel();
        if shutdown.is_cancelled() {
            return;
        }
        let failure = match outcome {
            Ok(Ok(())) => "ended unexpectedly".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(panic) => panic_message(panic),
        };
        if started.elapsed() >= GOOD_RUN {
            delay = FIRST_DELAY;
        }
        error!(
            component = name,
            failure,
            delay_seconds = delay.as_secs_f64(),
            "component failed, starting it again"
        );
        if let Some(condition) = conditions.lock().get_mut(&name) {
            condition.failure = Some(failure);
            condition.restarts += 1;
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(delay) => {}
        }
        delay = (delay * 2).min(MAX_DELAY);
        if let Some(condition) = conditions.lock().get_mut(&name) {
            condition.failure = None;
        }
        info!(component = name, "component started again");
    }
}

fn panic_message(error: tokio::task::JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => {
            let message = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("without a message");
            format!("panicked: {message}")
        }
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_panic_shows_and_the_component_is_started_again() {
        let shutdown = CancellationToken::new();
        let components = Components::new(shutdown.clone());
        let runs = Arc::new(AtomicU32::new(0));
        let counted = runs.clone();
        components.spawn("fragile", move |run| {
            let runs = counted.clone();
            async move {
                assert!(runs.fetch_add(1, Ordering::SeqCst) > 0, "first run");
                run.cancelled().await;
                Ok::<(), std::io::Error>(())
            }
        });
        tokio::time::sleep(FIRST_DELAY / 2).await;
        let condition = components.conditions()["fragile"].clone();
        assert_eq!(condition.failure.as_deref(), Some("panicked: first run"));
        tokio::time::sleep(FIRST_DELAY).await;
        assert_eq!(runs.load(Ordering::SeqCst), 2);
        assert_eq!(
            components.conditions()["fragile"],
            Condition {
                failure: None,
                restarts: 1
            }
        );
        shutdown.cancel();
        components.ended(Duration::from_secs(1)).await;
    }
}
