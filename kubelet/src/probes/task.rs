//! One probe of one container: when it asks, what it asks, and when an answer counts.

use std::{sync::Arc, time::Duration};

use coracle_client::{EventRecorder, EventType, InvolvedObject};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Probe};
use tokio::time::{Instant, MissedTickBehavior};

use super::{exec, grpc, http};
use crate::{
    cri::Cri,
    metrics::Probed,
    pods::{env::expand, inbox::Inbox, probe_results::ProbeKind},
};

/// A container that has just begun is asked again so soon, and then ever later until its period:
/// nobody has to wait a whole period for a program that needs a moment to start.
const EAGER: Duration = Duration::from_millis(50);
/// A liveness probe waits at least so long after the start.
const LIVENESS_DELAY: Duration = Duration::from_secs(1);
/// How often a probe that cannot be carried out is tried again at once, as upstream.
const TRIES: usize = 3;

/// What one attempt found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Healthy,
    /// Healthy, with something to tell.
    Warning(String),
    Unhealthy(String),
    /// Nothing is known.
    Error(String),
}

/// Carries out one attempt.
pub struct Prober {
    pub cri: Cri,
    pub kind: ProbeKind,
    pub probe: Probe,
    pub container: Container,
    pub container_id: String,
    pub pod_ip: String,
}

/// A probe and whom it tells.
pub struct Task {
    pub prober: Prober,
    pub recorder: EventRecorder,
    pub involved: InvolvedObject,
    pub inbox: Arc<Inbox>,
    pub probed: Probed,
    pub started_at: Option<Timestamp>,
}

/// Answers in a row, and the thresholds from which they count.
#[derive(Debug)]
pub struct Tally {
    success_threshold: i32,
    failure_threshold: i32,
    last: Option<bool>,
    run: i32,
}

impl Tally {
    pub fn new(probe: &Probe) -> Self {
        Tally {
            success_threshold: probe.success_threshold.unwrap_or(1),
            failure_threshold: probe.failure_threshold.unwrap_or(3),
            last: None,
            run: 0,
        }
    }

    /// Counts an answer; `Some` when it stands.
    pub fn count(&mut self, healthy: bool) -> Option<bool> {
        if self.last == Some(healthy) {
            self.run = self.run.saturating_add(1);
        } else {
            self.last = Some(healthy);
            self.run = 1;
        }
        let threshold = match healthy {
            true => self.success_threshold,
            false => self.failure_threshold,
        };
        (self.run >= threshold).then_some(healthy)
    }
}

fn seconds(value: Option<i32>, default: i32) -> Duration {
    let value = value.filter(|&value| value > 0).unwrap_or(default);
    Duration::from_secs(u64::try_from(value).unwrap_or(0))
}

impl Task {
    /// Goes on for as long as the container runs, as what was counted is shown until then.
    pub async fn run(self) {
        self.find_out().await;
        std::future::pending().await
    }

    async fn find_out(&self) {
        let period = seconds(self.prober.probe.period_seconds, 10);
        tokio::time::sleep(self.delay()).await;
        let mut tally = Tally::new(&self.prober.probe);
        if self.prober.kind != ProbeKind::Liveness
            && self.be_eager(period).await
            && self.judge(&mut tally, Answer::Healthy)
        {
            return;
        }
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        if tally.last.is_some() {
            ticks.tick().await;
        }
        loop {
            ticks.tick().await;
            let since = Instant::now();
            let answer = self.prober.ask().await;
            let result = match &answer {
                Answer::Healthy | Answer::Warning(_) => "successful",
                Answer::Unhealthy(_) => "failed",
                Answer::Error(_) => "unknown",
            };
            self.probed.answered(result, since.elapsed());
            if self.judge(&mut tally, answer) {
                return;
            }
        }
    }

    /// From now until the first attempt.
    fn delay(&self) -> Duration {
        let mut delay = seconds(self.prober.probe.initial_delay_seconds, 0);
        if self.prober.kind == ProbeKind::Liveness {
            delay = delay.max(LIVENESS_DELAY);
        }
        let running = self.started_at.map_or(0, |started_at| {
            Timestamp::now().as_millisecond() - started_at.as_millisecond()
        });
        delay.saturating_sub(Duration::from_millis(u64::try_from(running).unwrap_or(0)))
    }

    /// Asks often, for a period at most; failures do not count yet. Tells whether the container
    /// answered well.
    async fn be_eager(&self, period: Duration) -> bool {
        let until = Instant::now() + period;
        let mut wait = EAGER;
        loop {
            let since = Instant::now();
            if matches!(
                self.prober.ask_once().await,
                Answer::Healthy | Answer::Warning(_)
            ) {
                self.probed.answered("successful", since.elapsed());
                return true;
            }
            if Instant::now() + wait >= until {
                return false;
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
    }

    /// Tells of an answer. `true` when there is nothing more to find out.
    fn judge(&self, tally: &mut Tally, answer: Answer) -> bool {
        let kind = self.prober.kind;
        let title = kind.title();
        let healthy = match answer {
            Answer::Healthy => true,
            Answer::Warning(message) => {
                self.event("ProbeWarning", &format!("{title} probe warning: {message}"));
                true
            }
            Answer::Unhealthy(message) => {
                self.event("Unhealthy", &format!("{title} probe failed: {message}"));
                false
            }
            Answer::Error(message) => {
                let message =
                    format!("{title} probe errored and resulted in unknown state: {message}");
                self.event("Unhealthy", &message);
                return false;
            }
        };
        let Some(result) = tally.count(healthy) else {
            return false;
        };
        let key = (self.prober.container_id.clone(), kind);
        self.inbox.put(|letters| {
            letters.probes.insert(key, result);
        });
        kind == ProbeKind::Startup || (kind == ProbeKind::Liveness && !result)
    }

    fn event(&self, reason: &str, message: &str) {
        let involved = self.involved.clone();
        self.recorder
            .event(involved, EventType::Warning, reason, message);
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.probed.end();
    }
}

impl Prober {
    async fn ask(&self) -> Answer {
        let mut answer = self.ask_once().await;
        for _ in 1..TRIES {
            if !matches!(answer, Answer::Error(_)) {
                break;
            }
            answer = self.ask_once().await;
        }
        answer
    }

    async fn ask_once(&self) -> Answer {
        let timeout = seconds(self.probe.timeout_seconds, 1);
        if let Some(action) = &self.probe.exec {
            let env = self.container.env.as_deref().unwrap_or_default();
            let lookup = |name: &str| {
                let variable = env.iter().find(|variable| variable.name == name)?;
                Some(variable.value.as_deref().unwrap_or_default())
            };
            let words = action.command.iter().flatten();
            let command: Vec<String> = words.map(|word| expand(word, lookup)).collect();
            return match exec::run(&self.cri, &self.container_id, &command, Some(timeout)).await {
                exec::Outcome::Succeeded(_) => Answer::Healthy,
                exec::Outcome::Failed { output, .. } => Answer::Unhealthy(output),
                exec::Outcome::TimedOut(message) => Answer::Unhealthy(message),
                exec::Outcome::Error(message) => Answer::Error(message),
            };
        }
        if let Some(action) = &self.probe.http_get {
            let target = http::Target::new(action, &self.container, &self.pod_ip, "probe");
            return match target {
                Ok(target) => http_answer(target.get(timeout).await),
                Err(message) => Answer::Error(message),
            };
        }
        if let Some(action) = &self.probe.tcp_socket {
            let host = action.host.as_deref().filter(|host| !host.is_empty());
            let host = host.unwrap_or(&self.pod_ip);
            return match http::port(&action.port, &self.container) {
                Ok(port) => tcp(host, port, timeout).await,
                Err(message) => Answer::Error(message),
            };
        }
        if let Some(action) = &self.probe.grpc {
            let service = action.service.as_deref().unwrap_or_default();
            let port = u16::try_from(action.port).unwrap_or(0);
            return match grpc::check(&self.pod_ip, port, service, timeout).await {
                Ok(()) => Answer::Healthy,
                Err(message) => Answer::Unhealthy(message),
            };
        }
        Answer::Error(format!("missing probe handler for {}", self.container.name))
    }
}

fn http_answer(response: Result<http::Response, String>) -> Answer {
    match response {
        Err(message) => Answer::Unhealthy(message),
        Ok(http::Response { status, body }) => match status.as_u16() {
            200..300 => Answer::Healthy,
            300..400 => {
                Answer::Warning(format!("Probe terminated redirects, Response body: {body}"))
            }
            code => Answer::Unhealthy(format!("HTTP probe failed with statuscode: {code}")),
        },
    }
}

async fn tcp(host: &str, port: u16, timeout: Duration) -> Answer {
    match tokio::time::timeout(timeout, http::connect(host, port)).await {
        Ok(Ok(_)) => Answer::Healthy,
        Ok(Err(message)) => Answer::Unhealthy(message),
        Err(_) => Answer::Unhealthy(format!(
            "dial tcp {}: i/o timeout",
            http::authority(host, port)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_stand_from_their_thresholds_on() {
        let probe = Probe {
            success_threshold: Some(2),
            failure_threshold: Some(3),
            ..Probe::default()
        };
        let mut tally = Tally::new(&probe);
        let answers = [true, true, true, false, false, true, false, false, false];
        let standing: Vec<_> = answers.iter().map(|&it| tally.count(it)).collect();
        let (none, yes, no) = (None, Some(true), Some(false));
        assert_eq!(standing, [none, yes, yes, none, none, none, none, none, no]);
    }

    #[test]
    fn http_answers_follow_the_status() {
        let of = |code: u16| {
            http_answer(Ok(http::Response {
                status: ::http::StatusCode::from_u16(code).expect("a status"),
                body: "b".to_owned(),
            }))
        };
        assert_eq!(of(204), Answer::Healthy);
        assert_eq!(
            of(302),
            Answer::Warning("Probe terminated redirects, Response body: b".to_owned())
        );
        assert_eq!(
            of(500),
            Answer::Unhealthy("HTTP probe failed with statuscode: 500".to_owned())
        );
    }
}
