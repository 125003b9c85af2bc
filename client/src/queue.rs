//! A work queue of keys, as controllers use it: a key waits at most once, is worked on by one
//! worker at a time, and is retried after a growing delay.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    hash::Hash,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::metrics::{Work, Working};

/// How the delay between retries of one key grows: doubled each time from `base` to at most `max`.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    pub base: Duration,
    pub max: Duration,
}

impl Default for Backoff {
    /// Upstream's controllers: 5 ms doubled to 1000 s
    /// (client-go, `DefaultTypedControllerRateLimiter`).
    fn default() -> Self {
        Backoff {
            base: Duration::from_millis(5),
            max: Duration::from_secs(1000),
        }
    }
}

struct State<K> {
    /// With the times since when they wait.
    waiting: VecDeque<(K, Instant)>,
    queued: HashSet<K>,
    /// With what measures the work, if the queue has a name.
    working: HashMap<K, Option<Working>>,
    again: HashSet<K>,
    delayed: BTreeSet<(Instant, K)>,
    /// The time at which each key of `delayed` is due.
    due: HashMap<K, Instant>,
    failures: HashMap<K, u32>,
    measured: Option<Arc<Work>>,
}

impl<K> Drop for State<K> {
    fn drop(&mut self) {
        if let Some(work) = &self.measured {
            work.dropped(self.waiting.len());
        }
    }
}

/// The queue. Cheap to clone; all clones are the same queue.
///
/// Its size is bounded by the number of distinct keys.
pub struct Queue<K> {
    state: Arc<Mutex<State<K>>>,
    changed: Arc<Notify>,
    backoff: Backoff,
}

impl<K> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Queue {
            state: self.state.clone(),
            changed: self.changed.clone(),
            backoff: self.backoff,
        }
    }
}

impl<K: Clone + Eq + Hash + Ord + Send> Default for Queue<K> {
    fn default() -> Self {
        Queue::new(Backoff::default())
    }
}

impl<K: Clone + Eq + Hash + Ord + Send> Queue<K> {
    pub fn new(backoff: Backoff) -> Self {
        Queue {
            state: Arc::new(Mutex::new(State {
                waiting: VecDeque::new(),
                queued: HashSet::new(),
                working: HashMap::new(),
                again: HashSet::new(),
                delayed: BTreeSet::new(),
                due: HashMap::new(),
                failures: HashMap::new(),
                measured: None,
            })),
            changed: Arc::default(),
            backoff,
        }
    }

    /// With upstream's delays, and counted under this name.
    pub fn named(name: &'static str) -> Self {
        Queue::default().with_name(name)
    }

    /// The same, counted under this name: that of upstream's queue.
    #[must_use]
    pub fn with_name(self, name: &'static str) -> Self {
        self.state.lock().measured = Some(Work::of(name));
        self
    }

    /// Queues the key. While it is worked on, it is queued again when that work is done.
    pub fn add(&self, key: K) {
        let mut state = self.state.lock();
        state.enqueue(key);
        drop(state);
        self.changed.notify_one();
    }

    /// Queues the key after a delay. Of several times only the earliest stays in force: whoever
    /// works on the key then, asks again for what is still to come.
    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        self.state.lock().delay(key, Instant::now() + delay);
        self.changed.notify_one();
    }

    /// Queues the key after the back-off delay of its failures so far, and counts one more.
    pub fn retry(&self, key: K) {
        let failures = {
            let mut state = self.state.lock();
            let failures = state.failures.entry(key.clone()).or_insert(0);
            *failures += 1;
            let before = *failures - 1;
            if let Some(work) = &state.measured {
                work.retried();
            }
            before
        };
        let factor = 2u32.saturating_pow(failures.min(31));
        self.add_after(
            key,
            self.backoff
                .base
                .saturating_mul(factor)
                .min(self.backoff.max),
        );
    }

    /// How often [`Queue::retry`] was called for the key since [`Queue::forget`].
    pub fn failures(&self, key: &K) -> u32 {
        self.state.lock().failures.get(key).copied().unwrap_or(0)
    }

    /// The key succeeded: its next failure starts from the shortest delay again.
    pub fn forget(&self, key: &K) {
        self.state.lock().failures.remove(key);
    }

    /// The next key to work on. Call [`Queue::done`] with it afterwards, whatever came of it.
    pub async fn next(&self) -> K {
        loop {
            let changed = self.changed.notified();
            let due = {
                let mut state = self.state.lock();
                state.promote(Instant::now());
                if let Some((key, since)) = state.waiting.pop_front() {
                    state.queued.remove(&key);
                    let work = state.measured.as_ref();
                    let working = work.map(|work| work.begin(since.elapsed()));
                    state.working.insert(key.clone(), working);
                    if !state.waiting.is_empty() {
                        self.changed.notify_one();
                    }
                    return key;
                }
                state.delayed.first().map(|(due, _)| *due)
            };
            match due {
                Some(due) => tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep_until(due) => {}
                },
                None => changed.await,
            }
        }
    }

    /// The work on the key has ended, well or badly.
    pub fn done(&self, key: &K) {
        let mut state = self.state.lock();
        state.working.remove(key);
        if state.again.remove(key) {
            state.enqueue(key.clone());
            drop(state);
            self.changed.notify_one();
        }
    }
}

impl<K: Clone + Eq + Hash + Ord> State<K> {
    fn enqueue(&mut self, key: K) {
        if self.working.contains_key(&key) {
            self.again.insert(key);
        } else if self.queued.insert(key.clone()) {
            self.waiting.push_back((key, Instant::now()));
            if let Some(work) = &self.measured {
                work.added();
            }
        }
    }

    fn delay(&mut self, key: K, at: Instant) {
        match self.due.get(&key) {
            Some(known) if *known <= at => return,
            Some(known) => {
                self.delayed.remove(&(*known, key.clone()));
            }
            None => {}
        }
        self.due.insert(key.clone(), at);
        self.delayed.insert((at, key));
    }

    fn promote(&mut self, now: Instant) {
        while self.delayed.first().is_some_and(|(due, _)| *due <= now) {
            if let Some((_, key)) = self.delayed.pop_first() {
                self.due.remove(&key);
                self.enqueue(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_waits_once_and_is_worked_on_by_one_worker() {
        let queue = Queue::default();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        assert_eq!(queue.next().await, "b");
        assert!(
            tokio::time::timeout(Duration::from_millis(20), queue.next())
                .await
                .is_err(),
            "a key is never given out twice at once"
        );
        queue.done(&"a");
        assert_eq!(queue.next().await, "a");
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_of_several_times_counts() {
        let queue = Queue::default();
        let start = Instant::now();
        for seconds in [5, 3, 9] {
            queue.add_after("a", Duration::from_secs(seconds));
        }
        queue.add_after("b", Duration::from_secs(4));
        assert_eq!(queue.next().await, "a");
        assert_eq!((Instant::now() - start).as_secs(), 3);
        assert_eq!(queue.next().await, "b");
        queue.done(&"a");
        let later = tokio::time::timeout(Duration::from_secs(60), queue.next());
        assert!(later.await.is_err(), "the later times have lapsed");
    }

    #[tokio::test]
    async fn a_queue_with_a_name_is_counted() {
        let queue = Queue::named("counted");
        for key in ["a", "a", "b", "c"] {
            queue.add(key);
        }
        let key = queue.next().await;
        let shown = |line: &str| {
            let mut page = coracle_metrics::Page::default();
            page.add(crate::metrics());
            let page = page.render();
            assert!(page.lines().any(|found| found == line), "{line} in {page}");
        };
        shown("workqueue_adds_total{name=\"counted\"} 3");
        shown("workqueue_depth{name=\"counted\"} 2");
        shown("workqueue_queue_duration_seconds_count{name=\"counted\"} 1");
        queue.retry(key);
        queue.done(&key);
        shown("workqueue_retries_total{name=\"counted\"} 1");
        shown("workqueue_work_duration_seconds_count{name=\"counted\"} 1");
        drop(queue);
        shown("workqueue_depth{name=\"counted\"} 0");
    }

    #[tokio::test(start_paused = true)]
    async fn retries_back_off_and_forget_resets() {
        let queue = Queue::new(Backoff {
            base: Duration::from_millis(10),
            max: Duration::from_millis(35),
        });
        let start = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..4 {
            let before = Instant::now();
            queue.retry("a");
            let key = queue.next().await;
            waits.push((Instant::now() - before).as_millis());
            queue.done(&key);
        }
        assert_eq!(waits, [10, 20, 35, 35]);
        assert_eq!((Instant::now() - start).as_millis(), 100);
        queue.forget(&"a");
        assert_eq!(queue.failures(&"a"), 0);
    }
}
