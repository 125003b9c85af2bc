//! What comes of a decision: the pod is bound, or makes room for itself, and is told why it waits.
//! The writing is done by tasks beside the loop, which says what came of it in [`Done`].

use std::sync::Arc;

use tokio::time::Instant;

use super::{Done, Loop};
use crate::{
    actions::{Nomination, condition},
    binding::{self, Binding, Interrupt},
    devices::{
        self,
        binding::{Plan, Reserved},
    },
    event::Event,
    framework::PostFilter,
    metrics::{self, Attempt},
    plugins::volume_binding,
    pod::PodInfo,
    preemption::Preemption,
    queue::QueuedPod,
    schedule::Unfit,
};

impl Loop {
    /// No node could be chosen because of an error.
    pub(super) fn failed(&mut self, queued: QueuedPod, why: &str) {
        let pod = queued.info.clone();
        tracing::warn!(pod = %pod.key, error = why, "cannot schedule the pod");
        self.nominator.remove(&pod.key);
        self.report(&pod, "SchedulerError", why, Nomination::Clear);
        self.queue
            .put_back(queued, [].into(), false, Instant::now());
    }

    pub(super) fn bind(
        &mut self,
        queued: QueuedPod,
        node: &Arc<str>,
        devices: Plan,
        since: Instant,
    ) {
        let pod = queued.info.clone();
        let storage = &self.surroundings.storage;
        let found = self.cache.node(node);
        let plan = found.and_then(|found| volume_binding::plan(&pod, &found.node, &**storage));
        // The loop alone changes what the decision was made on, so there is always a plan.
        let plan = plan.unwrap_or_default();
        let devices = Reserved::new_for(devices, self.surroundings.devices.clone());
        let binding = Binding::new(pod.clone(), node.clone(), plan, storage.clone(), devices);
        self.cache.assume(pod.clone(), node);
        self.nominator.remove(&pod.key);
        let waits = binding.waits();
        if waits {
            let interrupt = binding.interrupt();
            self.interrupts.insert(pod.uid().to_owned(), interrupt);
        }
        let (actions, pods) = (self.actions.clone(), self.pods.clone());
        let counted = metrics::binding();
        let work = async move {
            let outcome = binding.run(&actions, &pods).await;
            drop(counted);
            match &outcome {
                Ok(()) => {
                    metrics::attempted(Attempt::Scheduled, since.elapsed());
                    metrics::bound(queued.attempts, queued.first.elapsed());
                }
                Err(_) => metrics::attempted(Attempt::Error, since.elapsed()),
            }
            Done::Bound {
                pod: queued,
                outcome,
            }
        };
        if waits {
            self.bindings.spawn(work);
        } else {
            self.writes.spawn(work);
        }
    }

    pub(super) fn unfit(&mut self, queued: QueuedPod, unfit: Unfit) {
        let pod = queued.info.clone();
        let nomination = match &unfit.preemption {
            Preemption::Possible { node, .. } => {
                self.nominator.set(pod.clone(), node);
                Nomination::Set(node.to_string())
            }
            Preemption::Impossible(_) => {
                self.nominator.remove(&pod.key);
                Nomination::Clear
            }
            Preemption::Ineligible(_) => Nomination::Keep,
        };
        self.report(&pod, "Unschedulable", &unfit.message, nomination);
        let preempting = matches!(unfit.preemption, Preemption::Possible { .. });
        self.queue
            .put_back(queued, unfit.rejectors, preempting, Instant::now());
        if !matches!(unfit.claims, PostFilter::Nothing) {
            self.give_up(unfit.claims);
        }
        if let Preemption::Possible { node, victims } = unfit.preemption {
            self.preempt(pod, node, victims);
        }
    }

    /// Gives a claim of devices up that does not help its pod.
    fn give_up(&mut self, claims: PostFilter) {
        let actions = self.actions.clone();
        let work = async move {
            match &claims {
                PostFilter::Nothing => Ok(()),
                PostFilter::Deallocate(claim) => {
                    devices::binding::deallocate(claim, &actions).await
                }
                PostFilter::Delete(claim) => devices::binding::delete(claim, &actions).await,
            }
        };
        self.writes.spawn(async move {
            if let Err(error) = work.await {
                tracing::warn!(error, "cannot give up a claim of devices");
            }
            Done::Reported
        });
    }

    fn preempt(&mut self, pod: Arc<PodInfo>, node: Arc<str>, victims: Vec<Arc<PodInfo>>) {
        metrics::preempts(victims.len());
        let void: Vec<Arc<PodInfo>> = self
            .nominator
            .on(&node)
            .iter()
            .filter(|other| other.priority < pod.priority)
            .cloned()
            .collect();
        // Those that are not bound yet need not be deleted: they look for another node.
        let (waiting, victims): (Vec<_>, Vec<_>) = victims.into_iter().partition(|victim| {
            let interrupt = self.interrupts.get(victim.uid());
            interrupt.is_some_and(Interrupt::give_up)
        });
        for victim in waiting {
            let how = " (in kube-scheduler memory).";
            self.actions.record_preempted(&pod, &node, &victim, how);
        }
        let actions = self.actions.clone();
        self.writes.spawn(async move {
            let outcome = actions.preempt(&pod, &node, &victims, &void).await;
            if let Err(error) = &outcome {
                tracing::warn!(pod = %pod.key, node = %node, %error, "cannot preempt");
            }
            Done::Preempted {
                preemptor: pod.key.clone(),
                failed: outcome.is_err(),
            }
        });
    }

    /// Tells the user and the API that the pod could not be scheduled.
    pub(super) fn report(
        &mut self,
        pod: &Arc<PodInfo>,
        reason: &str,
        message: &str,
        nomination: Nomination,
    ) {
        self.actions.record_failure(pod, message);
        let condition = condition(pod, "PodScheduled", "False", reason, message);
        let (actions, pod) = (self.actions.clone(), pod.clone());
        self.writes.spawn(async move {
            if let Err(error) = actions.report(&pod, condition, &nomination).await {
                tracing::debug!(pod = %pod.key, %error, "cannot update the pod's status");
            }
            Done::Reported
        });
    }

    pub(super) fn done(&mut self, done: Done) {
        if let Done::Bound { pod, .. } = &done {
            self.interrupts.remove(pod.info.uid());
        }
        match done {
            Done::Reported
            | Done::Bound {
                outcome: Ok(()), ..
            } => {}
            Done::Preempted { preemptor, failed } => {
                self.queue
                    .preemption_done(&preemptor, failed, Instant::now());
            }
            Done::Bound {
                pod,
                outcome: Err(error),
            } => self.not_bound(pod, &error),
        }
    }

    /// Gives the room back and tries again, unless the pod is gone or bound after all.
    fn not_bound(&mut self, mut queued: QueuedPod, error: &binding::Error) {
        let pod = queued.info.clone();
        let still_assumed = self.cache.is_assumed(&pod.key)
            && self
                .cache
                .pod(&pod.key)
                .is_some_and(|known| known.uid() == pod.uid());
        if !still_assumed {
            return;
        }
        self.cache.remove_pod(&pod.key);
        self.wake(&Event::PodDeleted(&pod), |_| true);
        self.wake(&Event::DevicesReleased, |_| true);
        let message = error.to_string();
        tracing::warn!(pod = %pod.key, %error, "cannot bind the pod");
        let Some(current) = self.pods.get(pod.namespace(), pod.name()) else {
            return self.actions.record_failure(&pod, &message);
        };
        let current = Arc::new(PodInfo::new(current));
        if current.uid() != pod.uid() || !current.node_name().is_empty() {
            // What the informer says next is taken in as a pod that is new here.
            return self.look_at_pod(pod.namespace(), pod.name());
        }
        self.report(&current, "SchedulerError", &message, Nomination::Clear);
        queued.info = current;
        self.queue
            .put_back(queued, [].into(), false, Instant::now());
    }
}
