//! Since when endpoints should have been as they are about to be written: what upstream's
//! programming latency is measured from.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service};

use crate::{pods, work::Key};

/// The annotation with that time.
pub(super) const LAST_CHANGE: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// What was the cause last time. Losing it costs nothing but a missing annotation.
#[derive(Debug, Default)]
pub(super) struct Triggers(HashMap<Key, Known>);

#[derive(Debug, Default)]
struct Known {
    service: Option<Timestamp>,
    pods: HashMap<String, Timestamp>,
}

impl Triggers {
    /// The earliest change that was not there last time; for a Service seen first, its creation.
    pub fn next<'a>(
        &mut self,
        key: &Key,
        service: &Service,
        pods: impl Iterator<Item = &'a Pod>,
    ) -> Option<Timestamp> {
        let created = service.metadata.creation_timestamp.as_ref().map(|t| t.0);
        let first = !self.0.contains_key(key);
        let known = self.0.entry(key.clone()).or_default();
        let mut earliest: Option<Timestamp> = None;
        let mut note = |at: Timestamp| earliest = Some(earliest.map_or(at, |known| known.min(at)));
        let mut times = HashMap::new();
        for pod in pods {
            let ready = pods::condition(pod, "Ready");
            let Some(at) = ready.and_then(|ready| ready.last_transition_time.as_ref()) else {
                continue;
            };
            let name = pod.metadata.name.clone().unwrap_or_default();
            if known.pods.get(&name).is_none_or(|last| at.0 > *last) {
                note(at.0);
            }
            times.insert(name, at.0);
        }
        if let Some(created) = created
            && known.service.is_none_or(|last| created > last)
        {
            note(created);
        }
        known.pods = times;
        known.service = created;
        if first { created } else { earliest }
    }

    pub fn forget(&mut self, key: &Key) {
        self.0.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_earliest_new_change_is_the_cause() {
        let service: Service = serde_json::from_value(json!({
            "metadata": { "creationTimestamp": "2026-01-01T00:00:00Z" }
        }))
        .expect("a service");
        let pod = |name: &str, at: &str| -> Pod {
            serde_json::from_value(json!({
                "metadata": { "name": name },
                "status": { "conditions": [
                    { "type": "Ready", "status": "True", "lastTransitionTime": at },
                ]},
            }))
            .expect("a pod")
        };
        let at = |time: &str| Some(time.parse::<Timestamp>().expect("a time"));
        let key = Key::new("default", "web");
        let mut triggers = Triggers::default();
        let first = [pod("a", "2026-01-01T00:00:05Z")];
        let mut next = |pods: &[Pod]| triggers.next(&key, &service, pods.iter());
        assert_eq!(next(&first), at("2026-01-01T00:00:00Z"));
        assert_eq!(next(&first), None);
        let changed = [
            pod("a", "2026-01-01T00:00:20Z"),
            pod("b", "2026-01-01T00:00:10Z"),
        ];
        assert_eq!(next(&changed), at("2026-01-01T00:00:10Z"));
        assert_eq!(next(&changed[..1]), None);
    }
}
