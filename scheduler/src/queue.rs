//! The pods that wait for a node.
//!
//! A pod is *active* (to be tried next, by priority), *backing off* (tried again when its delay
//! is over, or when nothing else is left to do), or *unschedulable* (tried again when something
//! happens that may help, or after five minutes). Time comes in as a parameter; there is no I/O.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    metrics::{Queue, Waiting},
    plugins::SCHEDULING_GATES,
    pod::{Key, PodInfo},
};

/// How long a pod waits after its first failure; doubled with each further one.
const INITIAL_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// How often the unschedulable pods are looked through for those that have waited so long.
const SWEEP: Duration = Duration::from_secs(30);
/// How long a pod stays unschedulable without an event that helps.
const UNSCHEDULABLE_AT_MOST: Duration = Duration::from_secs(5 * 60);

/// What brings pods to a queue, as upstream names it in its metrics.
const POD_ADDED: &str = "PodAdd";
const POD_UPDATED: &str = "PodUpdate";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Active,
    /// Tried early when nothing is active.
    Backoff,
    /// After an error: the delay is always waited for, or an outage would be hammered on.
    ErrorBackoff,
    Unschedulable,
}

/// A pod with its history in the queue.
#[derive(Clone, Debug)]
pub(crate) struct QueuedPod {
    pub info: Arc<PodInfo>,
    /// The plugins that stood against it last time; empty after an error.
    pub rejectors: BTreeSet<&'static str>,
    added: Instant,
    backoff_until: Instant,
    /// Since when it has been waiting in all, and how often it was tried.
    pub first: Instant,
    pub attempts: u32,
    rejections: u32,
    errors: u32,
    /// Its victims are being removed; until that is done it is not tried again.
    preempting: bool,
    /// Something happened meanwhile that may help.
    wanted: bool,
    /// It is not tried at all for now.
    gated: bool,
    place: Place,
}

impl QueuedPod {
    fn queue(&self) -> Queue {
        match self.place {
            Place::Active => Queue::Active,
            Place::Backoff | Place::ErrorBackoff => Queue::Backoff,
            Place::Unschedulable if self.gated => Queue::Gated,
            Place::Unschedulable => Queue::Unschedulable,
        }
    }

    /// It is where it is because of the event.
    fn count_in(&self, waiting: &mut Waiting, event: &'static str) {
        waiting.queued(self.queue(), event);
        self.count_rejectors(waiting, 1.0);
    }

    /// It is no longer where it was.
    fn count_out(&self, waiting: &mut Waiting) {
        waiting.unqueued(self.queue());
        self.count_rejectors(waiting, -1.0);
    }

    fn count_rejectors(&self, waiting: &mut Waiting, by: f64) {
        if self.place == Place::Unschedulable {
            for plugin in &self.rejectors {
                waiting.rejects(plugin, by);
            }
        }
    }
}

impl Drop for SchedulingQueue {
    fn drop(&mut self) {
        for pod in self.pods.values() {
            pod.count_out(&mut self.waiting);
        }
    }
}

/// Sorts the active pods: by priority, then by age.
type ActiveKey = (Reverse<i32>, Instant, Key);
type BackoffKey = (Instant, Reverse<i32>, Instant, Key);

/// Names the plugin that keeps a pod from being tried at all.
type Gate = Box<dyn Fn(&PodInfo) -> Option<&'static str> + Send>;

pub(crate) struct SchedulingQueue {
    gate: Gate,
    pods: HashMap<Key, QueuedPod>,
    active: BTreeSet<ActiveKey>,
    backoff: BTreeSet<BackoffKey>,
    error_backoff: BTreeSet<BackoffKey>,
    unschedulable: HashSet<Key>,
    swept: Option<Instant>,
    waiting: Waiting,
}

impl SchedulingQueue {
    /// A pod is not tried while it has scheduling gates or while `gate` names a plugin for it.
    pub fn new(gate: impl Fn(&PodInfo) -> Option<&'static str> + Send + 'static) -> Self {
        SchedulingQueue {
            gate: Box::new(gate),
            pods: HashMap::new(),
            active: BTreeSet::new(),
            backoff: BTreeSet::new(),
            error_backoff: BTreeSet::new(),
            unschedulable: HashSet::new(),
            swept: None,
            waiting: Waiting::default(),
        }
    }

    fn gate(&self, pod: &PodInfo) -> Option<&'static str> {
        match pod.is_gated() {
            true => Some(SCHEDULING_GATES),
            false => (self.gate)(pod),
        }
    }

    /// The waiting pod.
    pub fn get(&self, key: &str) -> Option<&QueuedPod> {
        self.pods.get(key)
    }

    /// The waiting pods.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.pods.keys()
    }

    /// Adds a pod that is new. With scheduling gates it waits for their removal.
    pub fn add(&mut self, info: Arc<PodInfo>, now: Instant) {
        let pod = QueuedPod {
            rejectors: BTreeSet::new(),
            added: now,
            backoff_until: now,
            first: now,
            attempts: 0,
            rejections: 0,
            errors: 0,
            preempting: false,
            wanted: false,
            gated: false,
            place: Place::Active,
            info,
        };
        self.put_active(pod, POD_ADDED);
    }

    /// Takes over a new version of the pod, which stays in its place.
    pub fn update(&mut self, info: Arc<PodInfo>) {
        if let Some(mut pod) = self.take(&info.key) {
            pod.info = info;
            self.put(pod, POD_UPDATED);
        }
    }

    pub fn remove(&mut self, key: &str) -> Option<Arc<PodInfo>> {
        self.take(key).map(|pod| pod.info)
    }

    /// The next pod to try, which leaves the queue.
    pub fn pop(&mut self) -> Option<QueuedPod> {
        let key = match self.active.first() {
            Some((_, _, key)) => key.clone(),
            None => self.backoff.first()?.3.clone(),
        };
        let mut pod = self.take(&key)?;
        pod.attempts += 1;
        Some(pod)
    }

    /// Whether [`SchedulingQueue::pop`] gives a pod.
    pub fn has_next(&self) -> bool {
        !self.active.is_empty() || !self.backoff.is_empty()
    }

    /// Puts a pod back that was tried in vain. `rejectors` is empty after an error.
    pub fn put_back(
        &mut self,
        mut pod: QueuedPod,
        rejectors: BTreeSet<&'static str>,
        preempting: bool,
        now: Instant,
    ) {
        let failed = rejectors.is_empty();
        if failed {
            pod.errors += 1;
        } else {
            pod.rejections += 1;
            pod.errors = 0;
        }
        let count = if failed { pod.errors } else { pod.rejections };
        pod.added = now;
        pod.backoff_until = now + backoff(count);
        pod.rejectors = rejectors;
        pod.preempting = preempting;
        pod.wanted = false;
        pod.place = if failed {
            Place::ErrorBackoff
        } else {
            Place::Unschedulable
        };
        self.put(pod, "ScheduleAttemptFailure");
    }

    /// Tries those unschedulable pods again that `may_help` picks.
    pub fn wake(
        &mut self,
        now: Instant,
        event: &'static str,
        mut may_help: impl FnMut(&QueuedPod) -> bool,
    ) {
        let picked: Vec<Key> = self
            .unschedulable
            .iter()
            .filter(|key| self.pods.get(*key).is_some_and(&mut may_help))
            .cloned()
            .collect();
        for key in picked {
            self.retry(&key, event, now);
        }
    }

    /// Tries the pod again, after its delay, because of the event.
    pub fn retry(&mut self, key: &str, event: &'static str, now: Instant) {
        let Some(mut pod) = self.take(key) else {
            return;
        };
        if pod.place != Place::Unschedulable {
            return self.put(pod, event);
        }
        if pod.preempting {
            pod.wanted = true;
            return self.put(pod, event);
        }
        if pod.backoff_until > now && self.gate(&pod.info).is_none() {
            pod.place = Place::Backoff;
            return self.put(pod, event);
        }
        self.put_active(pod, event);
    }

    /// The pod's victims have been asked to go, or `failed` says that this did not work.
    pub fn preemption_done(&mut self, key: &str, failed: bool, now: Instant) {
        let Some(pod) = self.pods.get_mut(key) else {
            return;
        };
        pod.preempting = false;
        if pod.wanted || failed {
            self.retry(key, "AssignedPodDelete", now);
        }
    }

    /// Moves pods whose time has come.
    pub fn flush(&mut self, now: Instant) {
        loop {
            let due = [&self.backoff, &self.error_backoff]
                .into_iter()
                .filter_map(|queue| queue.first())
                .find(|(until, ..)| *until <= now)
                .map(|(.., key)| key.clone());
            let Some(pod) = due.and_then(|key| self.take(&key)) else {
                break;
            };
            self.put_active(pod, "BackoffComplete");
        }
        if self.swept.is_some_and(|swept| swept + SWEEP > now) {
            return;
        }
        self.swept = Some(now);
        self.wake(now, "UnschedulableTimeout", |pod| {
            !pod.info.is_gated() && pod.added + UNSCHEDULABLE_AT_MOST <= now
        });
    }

    /// When [`SchedulingQueue::flush`] is due next.
    pub fn next_flush(&self, now: Instant) -> Option<Instant> {
        let backoff = [&self.backoff, &self.error_backoff]
            .into_iter()
            .filter_map(|queue| queue.first())
            .map(|(until, ..)| *until)
            .min();
        let sweep =
            (!self.unschedulable.is_empty()).then(|| self.swept.map_or(now, |swept| swept + SWEEP));
        [backoff, sweep].into_iter().flatten().min()
    }

    fn put_active(&mut self, mut pod: QueuedPod, event: &'static str) {
        pod.place = Place::Active;
        let gate = self.gate(&pod.info);
        pod.gated = gate.is_some();
        if let Some(plugin) = gate {
            pod.place = Place::Unschedulable;
            pod.rejectors = BTreeSet::from([plugin]);
        }
        self.put(pod, event);
    }

    fn put(&mut self, pod: QueuedPod, event: &'static str) {
        pod.count_in(&mut self.waiting, event);
        match pod.place {
            Place::Active => {
                self.active.insert(active_key(&pod));
            }
            Place::Backoff => {
                self.backoff.insert(backoff_key(&pod));
            }
            Place::ErrorBackoff => {
                self.error_backoff.insert(backoff_key(&pod));
            }
            Place::Unschedulable => {
                self.unschedulable.insert(pod.info.key.clone());
            }
        }
        self.pods.insert(pod.info.key.clone(), pod);
    }

    fn take(&mut self, key: &str) -> Option<QueuedPod> {
        let pod = self.pods.remove(key)?;
        pod.count_out(&mut self.waiting);
        match pod.place {
            Place::Active => self.active.remove(&active_key(&pod)),
            Place::Backoff => self.backoff.remove(&backoff_key(&pod)),
            Place::ErrorBackoff => self.error_backoff.remove(&backoff_key(&pod)),
            Place::Unschedulable => self.unschedulable.remove(key),
        };
        Some(pod)
    }
}

fn active_key(pod: &QueuedPod) -> ActiveKey {
    (Reverse(pod.info.priority), pod.added, pod.info.key.clone())
}

fn backoff_key(pod: &QueuedPod) -> BackoffKey {
    let (priority, added, key) = active_key(pod);
    (pod.backoff_until, priority, added, key)
}

fn backoff(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    INITIAL_BACKOFF
        .saturating_mul(1 << doublings)
        .min(MAX_BACKOFF)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;
    use serde_json::{Value, json};

    fn named(name: &str, mut value: Value) -> Arc<PodInfo> {
        value["metadata"]["name"] = json!(name);
        pod(value)
    }

    fn names(queue: &mut SchedulingQueue) -> Vec<String> {
        std::iter::from_fn(|| queue.pop())
            .map(|pod| pod.info.name().to_owned())
            .collect()
    }

    fn after(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn priority_then_age_decides() {
        let (mut queue, now) = (SchedulingQueue::new(|_| None), Instant::now());
        for (seconds, name, priority) in [(1, "old", 0), (2, "new", 0), (3, "vip", 7)] {
            let info = named(name, json!({"spec": {"priority": priority}}));
            queue.add(info, now + after(seconds));
        }
        assert_eq!(names(&mut queue), ["vip", "old", "new"]);
    }

    #[test]
    fn delays_double_up_to_the_limit() {
        let seconds: Vec<u64> = (1..=6).map(|count| backoff(count).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 10, 10]);
    }

    #[test]
    fn an_unschedulable_pod_waits_for_an_event_that_helps() {
        let (mut queue, now) = (SchedulingQueue::new(|_| None), Instant::now());
        queue.add(named("a", json!({})), now);
        let tried = queue.pop().expect("the pod");
        queue.put_back(tried, BTreeSet::from(["NodeResourcesFit"]), false, now);
        queue.wake(now, "NodeAdd", |pod| pod.rejectors.contains("NodePorts"));
        assert!(!queue.has_next());
        queue.wake(now, "NodeAdd", |pod| {
            pod.rejectors.contains("NodeResourcesFit")
        });
        assert_eq!(
            names(&mut queue),
            ["a"],
            "its delay is not waited for when all is quiet"
        );
    }

    #[test]
    fn a_pod_that_is_backing_off_comes_after_active_ones() {
        let (mut queue, now) = (SchedulingQueue::new(|_| None), Instant::now());
        queue.add(named("a", json!({"spec": {"priority": 9}})), now);
        let tried = queue.pop().expect("the pod");
        queue.put_back(tried, BTreeSet::from(["NodePorts"]), false, now);
        queue.retry("default/a", "NodeAdd", now);
        queue.add(named("b", json!({})), now);
        queue.add(named("c", json!({})), now + after(1));
        assert_eq!(queue.pop().expect("a pod").info.name(), "b");
        queue.flush(now + after(1));
        assert_eq!(names(&mut queue), ["a", "c"]);
    }

    #[test]
    fn after_an_error_the_delay_is_waited_for() {
        let (mut queue, now) = (SchedulingQueue::new(|_| None), Instant::now());
        queue.add(named("a", json!({})), now);
        let tried = queue.pop().expect("the pod");
        queue.put_back(tried, BTreeSet::new(), false, now);
        assert!(!queue.has_next());
        assert_eq!(queue.next_flush(now), Some(now + after(1)));
        queue.flush(now + after(1));
        assert_eq!(names(&mut queue), ["a"]);
    }

    #[test]
    fn nothing_waits_for_ever() {
        let (mut queue, now) = (SchedulingQueue::new(|_| None), Instant::now());
        queue.add(named("a", json!({})), now);
        queue.add(
            named(
                "gated",
                json!({"spec": {"schedulingGates": [{"name": "g"}]}}),
            ),
            now,
        );
        let tried = queue.pop().expect("the pod");
        queue.put_back(tried, BTreeSet::from(["NodePorts"]), false, now);
        queue.flush(now + after(299));
        assert!(!queue.has_next());
        queue.flush(now + after(330));
        assert_eq!(
            names(&mut queue),
            ["a"],
            "only gates are waited for without end"
        );
    }

    #[test]
    fn gates_keep_a_pod_back_until_the_last_is_removed() {
        let (mut queue, now) = (SchedulingQueue::new(|_| None), Instant::now());
        queue.add(
            named("a", json!({"spec": {"schedulingGates": [{"name": "g"}]}})),
            now,
        );
        assert!(!queue.has_next());
        queue.retry("default/a", "NodeAdd", now);
        assert!(!queue.has_next());
        queue.update(named("a", json!({})));
        queue.retry("default/a", "NodeAdd", now);
        assert_eq!(names(&mut queue), ["a"]);
    }

    #[test]
    fn what_a_plugin_keeps_back_is_not_tried_and_does_not_back_off() {
        let open = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let gate = open.clone();
        let is_open = move || gate.load(std::sync::atomic::Ordering::Relaxed);
        let mut queue = SchedulingQueue::new(move |_| (!is_open()).then_some("DynamicResources"));
        let now = Instant::now();
        queue.add(named("a", json!({})), now);
        assert!(!queue.has_next());
        let held = queue.get("default/a").expect("the pod");
        assert_eq!(held.rejectors, BTreeSet::from(["DynamicResources"]));
        assert_eq!(held.queue(), Queue::Gated);
        queue.retry("default/a", "NodeAdd", now);
        assert!(!queue.has_next(), "it still is kept back");
        open.store(true, std::sync::atomic::Ordering::Relaxed);
        queue.wake(now, "NodeAdd", |pod| {
            pod.rejectors.contains("DynamicResources")
        });
        let tried = queue.pop().expect("the pod");
        queue.put_back(tried, BTreeSet::from(["NodePorts"]), false, now);
        assert_eq!(
            queue.get("default/a").unwrap().queue(),
            Queue::Unschedulable
        );
        open.store(false, std::sync::atomic::Ordering::Relaxed);
        queue.retry("default/a", "NodeAdd", now);
        assert!(!queue.has_next(), "it is kept back again");
    }

    #[test]
    fn a_preempting_pod_is_not_tried_before_its_victims_were_asked_to_go() {
        let (mut queue, now) = (SchedulingQueue::new(|_| None), Instant::now());
        queue.add(named("a", json!({})), now);
        let tried = queue.pop().expect("the pod");
        queue.put_back(tried, BTreeSet::from(["NodeResourcesFit"]), true, now);
        queue.wake(now, "NodeAdd", |_| true);
        assert!(!queue.has_next());
        queue.preemption_done("default/a", false, now);
        assert_eq!(names(&mut queue), ["a"]);
    }
}
