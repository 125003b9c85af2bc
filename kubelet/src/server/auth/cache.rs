//! Answers that stay good for a while.

use std::{collections::HashMap, hash::Hash, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

/// Bounded: when it is full, what has expired goes, and if that is nothing, everything.
pub struct Cache<K, V> {
    capacity: usize,
    entries: Mutex<HashMap<K, (Instant, V)>>,
}

impl<K: Eq + Hash, V: Clone> Cache<K, V> {
    pub fn new(capacity: usize) -> Self {
        Cache {
            capacity,
            entries: Mutex::default(),
        }
    }

    pub fn get(&self, key: &K) -> Option<V> {
        let entries = self.entries.lock();
        let (expires, value) = entries.get(key)?;
        (Instant::now() < *expires).then(|| value.clone())
    }

    pub fn insert(&self, key: K, value: V, ttl: Duration) {
        let now = Instant::now();
        let mut entries = self.entries.lock();
        if entries.len() >= self.capacity {
            entries.retain(|_, (expires, _)| now < *expires);
        }
        if entries.len() >= self.capacity {
            entries.clear();
        }
        entries.insert(key, (now + ttl, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn answers_expire_and_are_bounded() {
        let cache = Cache::new(2);
        cache.insert("a", 1, Duration::from_secs(1));
        cache.insert("b", 2, Duration::from_secs(9));
        assert_eq!(cache.get(&"a"), Some(1));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(cache.get(&"a"), None);
        cache.insert("c", 3, Duration::from_secs(9));
        assert_eq!(cache.get(&"b"), Some(2), "the expired one made room");
        cache.insert("d", 4, Duration::from_secs(9));
        assert_eq!(cache.entries.lock().len(), 1);
    }
}
