//! The recent past, for watches: a ring of events bounded by number and by bytes.

use std::collections::VecDeque;

use crate::{Event, Revision};

/// How much of the past is kept in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryLimits {
    /// Events kept at most.
    pub events: usize,
    /// Bytes of keys and values that the kept events may hold at most.
    pub bytes: usize,
}

impl Default for HistoryLimits {
    fn default() -> Self {
        HistoryLimits {
            events: 8192,
            bytes: 8 << 20,
        }
    }
}

/// The ring. Every event after [`History::floor`] is in it.
#[derive(Debug)]
pub(crate) struct History {
    events: VecDeque<Event>,
    bytes: usize,
    floor: Revision,
    limits: HistoryLimits,
}

impl History {
    /// An empty history that begins after `floor`.
    pub fn new(limits: HistoryLimits, floor: Revision) -> Self {
        History {
            events: VecDeque::new(),
            bytes: 0,
            floor,
            limits,
        }
    }

    /// The oldest revision from which a watch can still be served.
    pub fn floor(&self) -> Revision {
        self.floor
    }

    /// Events are pushed in order of revision.
    pub fn push(&mut self, event: Event) {
        self.bytes += weight(&event);
        self.events.push_back(event);
        while self.events.len() > self.limits.events || self.bytes > self.limits.bytes {
            let Some(oldest) = self.events.pop_front() else {
                break;
            };
            self.bytes -= weight(&oldest);
            self.floor = oldest.revision();
        }
    }

    /// The events after a revision, oldest first.
    pub fn after(&self, revision: Revision) -> impl Iterator<Item = &Event> {
        let start = self
            .events
            .partition_point(|event| event.revision() <= revision);
        self.events.range(start..)
    }
}

/// The bytes that an event keeps alive, at most: its values may be current ones too.
fn weight(event: &Event) -> usize {
    match event {
        Event::Put { current, previous } => {
            current.key.len()
                + current.value.len()
                + previous.as_ref().map_or(0, |previous| previous.value.len())
        }
        Event::Delete { previous, .. } => previous.key.len() + previous.value.len(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::KeyValue;

    fn put(revision: Revision, bytes: usize) -> Event {
        Event::Put {
            current: Arc::new(KeyValue {
                key: "k".into(),
                value: vec![0; bytes].into(),
                create_revision: 1,
                mod_revision: revision,
            }),
            previous: None,
        }
    }

    #[test]
    fn is_bounded_by_number_and_by_bytes() {
        let limits = HistoryLimits {
            events: 3,
            bytes: 100,
        };
        let mut history = History::new(limits, 10);
        for revision in 11..=15 {
            history.push(put(revision, 1));
        }
        assert_eq!(history.floor(), 12);
        let kept: Vec<Revision> = history.after(13).map(Event::revision).collect();
        assert_eq!(kept, [14, 15]);

        history.push(put(16, 98));
        assert_eq!(history.floor(), 15);
        history.push(put(17, 200));
        assert_eq!(history.floor(), 17);
        assert_eq!(history.after(0).count(), 0);
    }
}
