//! Asks the kubelets, as seldom as the answers allow.
//!
//! Enter at [`Collector::figures`]. Nobody is asked while nobody asks here. CPU is a rate, so
//! the readings before are kept; where there are none that are recent, the kubelets are asked
//! twice, a second apart.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use tokio::{sync::Mutex, time::Instant};

use super::{
    Source,
    figures::Figures,
    page::{self, Page},
};

/// For so long answers are given again: often enough that a new pod has a figure within 15 s.
const FRESH: Duration = Duration::from_secs(10);
/// A rate over a longer time says too little of what is used now.
const STALE: Duration = Duration::from_secs(90);
/// Between two readings when there were none before.
const FIRST: Duration = Duration::from_millis(1_100);
/// For one kubelet to answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Kubelets that are asked at the same time.
const AT_ONCE: usize = 32;

/// Keeps what the kubelets said last.
pub struct Collector {
    source: Arc<dyn Source>,
    /// Held while the kubelets are asked, so that many who ask at once cost one round.
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    at: Option<Instant>,
    figures: Arc<Figures>,
    readings: Readings,
}

type Readings = BTreeMap<String, Page>;

impl Last {
    fn is_younger_than(&self, age: Duration) -> bool {
        self.at.is_some_and(|at| at.elapsed() < age)
    }
}

impl Collector {
    pub fn new(source: Arc<dyn Source>) -> Self {
        Collector {
            source,
            last: Mutex::default(),
        }
    }

    /// What these nodes and the pods on them use. A node that does not answer is left out.
    pub async fn figures(&self, mut nodes: BTreeSet<String>) -> Arc<Figures> {
        let mut last = self.last.lock().await;
        if last.is_younger_than(FRESH) {
            return last.figures.clone();
        }
        if !last.is_younger_than(STALE) {
            last.readings.clear();
        }
        let unknown: BTreeSet<_> = nodes
            .iter()
            .filter(|node| !last.readings.contains_key(*node))
            .cloned()
            .collect();
        if !unknown.is_empty() {
            let first = self.read(&unknown).await;
            // Those who do not answer are not asked again.
            nodes.retain(|node| !unknown.contains(node) || first.contains_key(node));
            if !first.is_empty() {
                last.readings.extend(first);
                tokio::time::sleep(FIRST).await;
            }
        }
        let readings = self.read(&nodes).await;
        let mut figures = Figures::default();
        for (node, page) in &readings {
            figures.add(node, last.readings.get(node), page);
        }
        *last = Last {
            at: Some(Instant::now()),
            figures: Arc::new(figures),
            readings,
        };
        last.figures.clone()
    }

    async fn read(&self, nodes: &BTreeSet<String>) -> Readings {
        let reading = |node: &String| {
            let node = node.clone();
            async move {
                let page = tokio::time::timeout(TIMEOUT, self.source.page(&node)).await;
                match page.unwrap_or_else(|_| Err("it does not answer".to_owned())) {
                    Ok(text) => Some((node, page::parse(&text, Timestamp::now()))),
                    Err(error) => {
                        tracing::warn!(node, error, "cannot get the node's figures");
                        None
                    }
                }
            }
        };
        let readings: Vec<_> = nodes.iter().map(reading).collect();
        stream::iter(readings)
            .buffer_unordered(AT_ONCE)
            .filter_map(std::future::ready)
            .collect()
            .await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use async_trait::async_trait;

    use super::*;

    /// A node that uses half a core, by the test's clock; `gone` never answers.
    struct Half {
        start: Instant,
        asked: AtomicU64,
    }

    #[async_trait]
    impl Source for Half {
        async fn page(&self, node: &str) -> Result<String, String> {
            if node == "gone" {
                return Err("gone".to_owned());
            }
            self.asked.fetch_add(1, Ordering::Relaxed);
            let at = 1_000 + self.start.elapsed().as_millis();
            let cpu = self.start.elapsed().as_secs_f64() / 2.0;
            Ok(format!(
                "node_cpu_usage_seconds_total {cpu} {at}\nnode_memory_working_set_bytes 1\n"
            ))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn kubelets_are_asked_only_when_somebody_asks() {
        let half = Arc::new(Half {
            start: Instant::now(),
            asked: AtomicU64::new(0),
        });
        let collector = Collector::new(half.clone());
        let nodes = || BTreeSet::from(["n".to_owned(), "gone".to_owned()]);
        let ask = || async {
            let figures = collector.figures(nodes()).await;
            assert_eq!(figures.nodes.len(), 1);
            let (interval, usage) = figures.nodes["n"];
            let off = usage.cpu_nanos.abs_diff(500_000_000);
            assert!(off < 5_000_000, "{usage:?}");
            (
                interval.window.as_secs(),
                half.asked.load(Ordering::Relaxed),
            )
        };
        // At first twice, then not until the answer is old.
        assert_eq!(ask().await, (1, 2));
        assert_eq!(ask().await, (1, 2));
        tokio::time::advance(Duration::from_secs(15)).await;
        assert_eq!(ask().await, (15, 3));
        // What was told long ago makes no rate.
        tokio::time::advance(Duration::from_secs(600)).await;
        assert_eq!(ask().await, (1, 5));
    }
}
