//! Leader election: of several servers that share a store, one runs the controllers and one the
//! scheduler, as upstream's `k8s.io/client-go/tools/leaderelection` has it.
//!
//! Enter at [`Candidate`]: its [`run`](Candidate::run) holds a Lease in `kube-system` while it can,
//! and [`Leadership`] says whether it does. Whoever leads stops at once when it cannot renew the
//! Lease in time; others take over only when it has not changed for its whole duration, by their own
//! clock. Leaders with clocks that go apart are no danger, only clocks that run at different speeds.

use std::{future::Future, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{EventRecorder, EventType, metrics};

const NAMESPACE: &str = "kube-system";

/// When a leader gives up, and when others take over.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// A Lease that has not changed for so long has no holder.
    pub lease_duration: Duration,
    /// A leader that could not renew for so long leads no more. Less than the duration.
    pub renew_deadline: Duration,
    /// Between two attempts.
    pub retry_period: Duration,
}

impl Default for Timing {
    /// Upstream's: 15 s, 10 s and 2 s.
    fn default() -> Self {
        Timing {
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// Whether we lead. Cheap to clone.
#[derive(Clone)]
pub struct Leadership(watch::Receiver<bool>);

impl Leadership {
    /// For a server that has no others beside it: it leads for ever.
    pub fn alone() -> Self {
        // A receiver keeps its last value when the sender is gone.
        Leadership(watch::channel(true).1)
    }

    /// Whether we lead now.
    pub fn is_leader(&self) -> bool {
        *self.0.borrow()
    }

    /// Runs `start` while we lead, again each time that we come to lead, until it ends by itself
    /// or `shutdown`. What it runs is dropped at once when we lead no more.
    pub async fn lead<Run, Error>(
        mut self,
        shutdown: CancellationToken,
        start: impl Fn(CancellationToken) -> Run,
    ) -> Result<(), Error>
    where
        Run: Future<Output = Result<(), Error>>,
    {
        loop {
            if !self.becomes(true, &shutdown).await {
                return Ok(());
            }
            let token = shutdown.child_token();
            // Whatever it has spawned ends with its token.
            let _ended = token.clone().drop_guard();
            tokio::select! {
                outcome = start(token) => return outcome,
                true = self.becomes(false, &shutdown) => {}
            }
        }
    }

    /// Returns `true` when we lead, or do not. Returns `false` at the shutdown, when it waits for
    /// leadership; a leader ends by itself then.
    async fn becomes(&mut self, leader: bool, shutdown: &CancellationToken) -> bool {
        let changed = self.0.wait_for(|current| *current == leader);
        if !leader {
            if changed.await.is_ok() {
                return true;
            }
            return std::future::pending().await;
        }
        tokio::select! {
            () = shutdown.cancelled() => false,
            changed = changed => changed.is_ok(),
        }
    }
}

/// One who wants to lead. Of its clones only one may run at a time.
#[derive(Clone)]
pub struct Candidate {
    leases: Api<Lease>,
    recorder: EventRecorder,
    name: String,
    identity: String,
    timing: Timing,
    leading: watch::Sender<bool>,
    /// The Lease as last seen, and since when it has been like that.
    observed: Option<(LeaseSpec, Instant)>,
}

/// We lead until this is dropped, even by a panic.
struct Leading {
    leading: watch::Sender<bool>,
    name: String,
}

impl Leading {
    fn begin(leading: &watch::Sender<bool>, name: &str) -> Self {
        leading.send_replace(true);
        metrics::leads(name, true);
        Leading {
            leading: leading.clone(),
            name: name.to_owned(),
        }
    }
}

impl Drop for Leading {
    fn drop(&mut self) {
        self.leading.send_replace(false);
        metrics::leads(&self.name, false);
    }
}

/// Why an attempt has failed.
#[derive(Debug, thiserror::Error)]
pub enum AttemptError {
    /// Somebody else leads.
    #[error("the lease is held by {0}")]
    Held(String),
    /// The API did not let us.
    #[error("cannot acquire or renew the lease: {0}")]
    Api(#[from] kube::Error),
    /// The API did not answer.
    #[error("cannot acquire or renew the lease: no answer within {0:?}")]
    Timeout(Duration),
}

impl Candidate {
    /// `name` is that of the Lease, for example `kube-scheduler`; `identity` is ours and nobody
    /// else's.
    pub fn new(client: Client, name: &str, identity: &str, timing: Timing) -> Self {
        metrics::leads(name, false);
        Candidate {
            leases: Api::namespaced(client.clone(), NAMESPACE),
            recorder: EventRecorder::new(client, name, ""),
            name: name.to_owned(),
            identity: identity.to_owned(),
            timing,
            leading: watch::channel(false).0,
            observed: None,
        }
    }

    pub fn leadership(&self) -> Leadership {
        Leadership(self.leading.subscribe())
    }

    /// Leads whenever it can until `shutdown`, and lets others lead then.
    pub async fn run(mut self, shutdown: CancellationToken) {
        while shutdown.run_until_cancelled(self.acquire()).await.is_some() {
            tracing::info!(lease = self.name, "leading");
            let leading = Leading::begin(&self.leading, &self.name);
            let lost = shutdown.run_until_cancelled(self.renew()).await;
            drop(leading);
            self.tell("stopped leading");
            if lost.is_none() {
                self.release().await;
                return;
            }
            tracing::warn!(lease = self.name, "not leading any more");
        }
    }

    async fn acquire(&mut self) {
        while let Err(error) = self.attempt().await {
            tracing::debug!(lease = self.name, %error, "not leading");
            // Upstream's jitter is up to 1.2 times the period.
            let jitter = f64::from(Timestamp::now().subsec_nanosecond() % 1000) / 1000.0 * 1.2;
            tokio::time::sleep(self.timing.retry_period.mul_f64(1.0 + jitter)).await;
        }
        self.tell("became leader");
    }

    /// Returns when we have not been able to renew in time, or somebody else leads.
    async fn renew(&mut self) {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(self.timing.retry_period).await;
            let deadline = renewed + self.timing.renew_deadline;
            match tokio::time::timeout_at(deadline, self.attempt()).await {
                Ok(Ok(at)) => renewed = at,
                Ok(Err(AttemptError::Held(_))) | Err(_) => return,
                Ok(Err(error)) => {
                    tracing::info!(lease = self.name, %error, "trying again");
                    if Instant::now() >= deadline {
                        return;
                    }
                }
            }
        }
    }

    /// Acquires the Lease or renews it. Returns the time from which it is ours.
    async fn attempt(&mut self) -> Result<Instant, AttemptError> {
        let patience = self.timing.renew_deadline;
        let attempt = tokio::time::timeout(patience, self.try_once()).await;
        attempt.unwrap_or(Err(AttemptError::Timeout(patience)))
    }

    async fn try_once(&mut self) -> Result<Instant, AttemptError> {
        let (begun, now) = (Instant::now(), Timestamp::now());
        let found = self.leases.get_opt(&self.name).await?;
        let current = found.as_ref().and_then(|lease| lease.spec.clone());
        let current = current.unwrap_or_default();
        if self
            .observed
            .as_ref()
            .is_none_or(|(seen, _)| *seen != current)
        {
            self.observed = Some((current.clone(), Instant::now()));
        }
        let unchanged = self.observed.as_ref().map(|(_, since)| since.elapsed());
        if let Some(holder) = self.holder(&current, unchanged.unwrap_or_default()) {
            return Err(AttemptError::Held(holder.to_owned()));
        }
        let wanted = self.claim(&current, now);
        let params = PostParams::default();
        let written = match found {
            Some(mut lease) => {
                lease.spec = Some(wanted);
                self.leases.replace(&self.name, &params, &lease).await?
            }
            None => {
                let lease = Lease {
                    metadata: ObjectMeta {
                        name: Some(self.name.clone()),
                        namespace: Some(NAMESPACE.to_owned()),
                        ..ObjectMeta::default()
                    },
                    spec: Some(wanted),
                };
                self.leases.create(&params, &lease).await?
            }
        };
        self.observed = written.spec.map(|spec| (spec, Instant::now()));
        Ok(begun)
    }

    /// Who else leads, by a Lease that has been like this for so long.
    fn holder<'a>(&self, lease: &'a LeaseSpec, unchanged: Duration) -> Option<&'a str> {
        let holder = lease.holder_identity.as_deref().unwrap_or_default();
        let seconds = lease.lease_duration_seconds.unwrap_or_default();
        let duration = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let others = !holder.is_empty() && holder != self.identity;
        (others && unchanged < duration.max(self.timing.lease_duration)).then_some(holder)
    }

    /// The Lease with us as its holder.
    fn claim(&self, current: &LeaseSpec, now: Timestamp) -> LeaseSpec {
        let mut claim = current.clone();
        if current.holder_identity.as_deref() != Some(&self.identity) {
            let former = current.lease_transitions;
            claim.lease_transitions = Some(former.map_or(0, |transitions| transitions + 1));
            claim.acquire_time = Some(MicroTime(now));
        }
        claim.holder_identity = Some(self.identity.clone());
        claim.lease_duration_seconds = Some(self.seconds());
        claim.renew_time = Some(MicroTime(now));
        claim
    }

    /// A Lease knows whole seconds, at least one.
    fn seconds(&self) -> i32 {
        i32::try_from(self.timing.lease_duration.as_secs())
            .unwrap_or(i32::MAX)
            .max(1)
    }

    /// Nobody has to wait for us. When it fails they wait for the duration.
    async fn release(&mut self) {
        let release = async {
            let Some(mut lease) = self.leases.get_opt(&self.name).await? else {
                return Ok(());
            };
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() != Some(&self.identity) {
                return Ok(());
            }
            let now = MicroTime(Timestamp::now());
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            spec.acquire_time = Some(now.clone());
            spec.renew_time = Some(now);
            let params = PostParams::default();
            self.leases.replace(&self.name, &params, &lease).await?;
            Ok::<_, kube::Error>(())
        };
        match tokio::time::timeout(self.timing.retry_period, release).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::info!(lease = self.name, %error, "cannot release the lease"),
            Err(_) => tracing::info!(lease = self.name, "cannot release the lease in time"),
        }
    }

    fn tell(&self, what: &str) {
        let lease = k8s_openapi::api::core::v1::ObjectReference {
            api_version: Some("coordination.k8s.io/v1".to_owned()),
            kind: Some("Lease".to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            name: Some(self.name.clone()),
            ..Default::default()
        };
        let message = format!("{} {what}", self.identity);
        self.recorder
            .event(lease, EventType::Normal, "LeaderElection", message);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn candidate() -> Candidate {
        let nobody = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("no API"))
        });
        Candidate::new(
            Client::new(nobody, "default"),
            "it",
            "me",
            Timing::default(),
        )
    }

    fn spec(value: Value) -> LeaseSpec {
        serde_json::from_value(value).expect("a spec")
    }

    #[tokio::test]
    async fn a_lease_of_others_counts_until_it_has_not_changed_for_its_duration() {
        let candidate = candidate();
        let theirs = json!({"holderIdentity": "them", "leaseDurationSeconds": 15});
        let cases = [
            (json!({}), 0, None),
            (
                json!({"holderIdentity": "", "leaseDurationSeconds": 1}),
                0,
                None,
            ),
            (
                json!({"holderIdentity": "me", "leaseDurationSeconds": 15}),
                0,
                None,
            ),
            (theirs.clone(), 14, Some("them")),
            (theirs, 15, None),
            (
                json!({"holderIdentity": "them", "leaseDurationSeconds": 60}),
                15,
                Some("them"),
            ),
        ];
        for (lease, unchanged, holder) in cases {
            let found = spec(lease.clone());
            let found = candidate.holder(&found, Duration::from_secs(unchanged));
            assert_eq!(found, holder, "{lease}, unchanged for {unchanged} s");
        }
    }

    #[tokio::test]
    async fn a_claim_counts_transitions_and_a_renewal_keeps_the_beginning() {
        let candidate = candidate();
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().expect("a time");
        let claim = |current: Value| {
            serde_json::to_value(candidate.claim(&spec(current), now)).expect("JSON")
        };
        let mut first = json!({
            "holderIdentity": "me",
            "leaseDurationSeconds": 15,
            "acquireTime": "2026-01-02T00:00:00.000000Z",
            "renewTime": "2026-01-02T00:00:00.000000Z",
            "leaseTransitions": 0,
        });
        assert_eq!(claim(json!({})), first);
        first["leaseTransitions"] = json!(8);
        let theirs = json!({"holderIdentity": "them", "leaseTransitions": 7});
        assert_eq!(claim(theirs), first);
        let mut ours = first.clone();
        ours["acquireTime"] = json!("2026-01-01T00:00:00.000000Z");
        ours["renewTime"] = json!("2026-01-01T00:00:10.000000Z");
        let mut renewed = first;
        renewed["acquireTime"] = ours["acquireTime"].clone();
        assert_eq!(claim(ours), renewed);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_leader_runs_ends_with_its_leadership() {
        let (sender, receiver) = watch::channel(false);
        let (runs, mut seen) = watch::channel((0, false));
        let shutdown = CancellationToken::new();
        let leading = tokio::spawn({
            let shutdown = shutdown.clone();
            async move {
                Leadership(receiver)
                    .lead(shutdown, |run| {
                        let runs = runs.clone();
                        async move {
                            runs.send_modify(|(count, running)| {
                                *count += 1;
                                *running = true;
                            });
                            let _ended = Ended(runs);
                            run.cancelled().await;
                            Ok::<(), std::io::Error>(())
                        }
                    })
                    .await
            }
        });
        for count in 1..=2 {
            sender.send_replace(true);
            seen.wait_for(|seen| *seen == (count, true))
                .await
                .expect("it runs");
            sender.send_replace(false);
            seen.wait_for(|seen| *seen == (count, false))
                .await
                .expect("it ends");
        }
        shutdown.cancel();
        leading.await.expect("no panic").expect("no error");
    }

    struct Ended(watch::Sender<(u32, bool)>);

    impl Drop for Ended {
        fn drop(&mut self) {
            self.0.send_modify(|(_, running)| *running = false);
        }
    }
}
