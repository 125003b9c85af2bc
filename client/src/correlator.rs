//! What becomes of events that repeat: the same one is counted up, many that differ only in their
//! words are combined into one, and a source that goes on about an object is let through rarely.
//!
//! Enter at [`Correlator::observe`]. Upstream: `client-go/tools/record/events_cache.go`.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;

/// Distinct events remembered, and as many groups and objects; then the memory starts afresh.
const REMEMBERED: usize = 4096;
/// The so many'th event of a group is the first that is combined with others.
const SIMILAR: usize = 10;
/// A group that has been silent for longer starts anew.
const SILENCE: SignedDuration = SignedDuration::from_secs(600);
/// Events of one type about one object that are let through at once.
const BURST: f64 = 25.0;
/// And after that, in events a second.
const RATE: f64 = 1.0 / 300.0;

/// An event as it was recorded.
pub(crate) struct Recorded<'a> {
    pub involved: &'a ObjectReference,
    pub event_type: &'static str,
    pub reason: &'a str,
    pub message: &'a str,
    pub at: Timestamp,
}

/// An event as it is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Observed {
    pub name: String,
    pub message: String,
    /// One for an event that is new.
    pub count: i32,
    pub first: Timestamp,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Subject {
    kind: String,
    namespace: String,
    name: String,
    uid: String,
    event_type: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Group {
    subject: Subject,
    reason: String,
}

#[derive(PartialEq, Eq, Hash)]
enum Key {
    One {
        group: Group,
        field_path: String,
        message: String,
    },
    Combined(Group),
}

struct Similar {
    messages: HashSet<String>,
    last: Timestamp,
}

struct Written {
    name: String,
    count: i32,
    first: Timestamp,
}

/// A token bucket.
struct Budget {
    tokens: f64,
    filled: Timestamp,
}

impl Budget {
    fn take(&mut self, now: Timestamp) -> bool {
        let passed = now.duration_since(self.filled).as_secs_f64().max(0.0);
        self.tokens = (self.tokens + passed * RATE).min(BURST);
        self.filled = now;
        let enough = self.tokens >= 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }
}

/// The events of one source.
#[derive(Default)]
pub(crate) struct Correlator {
    similar: HashMap<Group, Similar>,
    written: HashMap<Key, Written>,
    budgets: HashMap<Subject, Budget>,
}

impl Correlator {
    /// What to write; `None` when there have been too many events about the object. They are
    /// counted all the same.
    pub fn observe(&mut self, event: &Recorded<'_>) -> Option<Observed> {
        let involved = event.involved;
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let subject = Subject {
            kind: text(&involved.kind),
            namespace: text(&involved.namespace),
            name: text(&involved.name),
            uid: text(&involved.uid),
            event_type: event.event_type,
        };
        let group = Group {
            subject: subject.clone(),
            reason: event.reason.to_owned(),
        };
        let (key, message) = if self.is_combined(&group, event) {
            let message = format!("(combined from similar events): {}", event.message);
            (Key::Combined(group), message)
        } else {
            let key = Key::One {
                group,
                field_path: text(&involved.field_path),
                message: event.message.to_owned(),
            };
            (key, event.message.to_owned())
        };
        let written = entry(&mut self.written, key, || Written {
            name: format!(
                "{}.{:x}",
                subject.name,
                event.at.as_nanosecond().unsigned_abs() as u64
            ),
            count: 0,
            first: event.at,
        });
        written.count += 1;
        let observed = Observed {
            name: written.name.clone(),
            message,
            count: written.count,
            first: written.first,
        };
        let budget = entry(&mut self.budgets, subject, || Budget {
            tokens: BURST,
            filled: event.at,
        });
        budget.take(event.at).then_some(observed)
    }

    fn is_combined(&mut self, group: &Group, event: &Recorded<'_>) -> bool {
        let similar = entry(&mut self.similar, group.clone(), || Similar {
            messages: HashSet::new(),
            last: event.at,
        });
        if event.at.duration_since(similar.last) > SILENCE {
            similar.messages.clear();
        }
        similar.last = event.at;
        if similar.messages.contains(event.message) {
            return false;
        }
        let combined = similar.messages.len() + 1 >= SIMILAR;
        if !combined {
            similar.messages.insert(event.message.to_owned());
        }
        combined
    }
}

fn entry<K: Eq + Hash, V>(known: &mut HashMap<K, V>, key: K, fresh: impl FnOnce() -> V) -> &mut V {
    if known.len() >= REMEMBERED && !known.contains_key(&key) {
        known.clear();
    }
    known.entry(key).or_insert_with(fresh)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Source {
        correlator: Correlator,
        now: Timestamp,
    }

    impl Source {
        fn new() -> Self {
            Source {
                correlator: Correlator::default(),
                now: Timestamp::from_second(1_000_000).expect("a time"),
            }
        }

        /// A second later, an event about the object.
        fn tell(&mut self, object: &str, reason: &str, message: &str) -> Option<Observed> {
            self.wait(1);
            let involved = ObjectReference {
                kind: Some("Pod".to_owned()),
                name: Some(object.to_owned()),
                ..ObjectReference::default()
            };
            self.correlator.observe(&Recorded {
                involved: &involved,
                event_type: "Warning",
                reason,
                message,
                at: self.now,
            })
        }

        fn wait(&mut self, seconds: i64) {
            self.now += SignedDuration::from_secs(seconds);
        }
    }

    #[test]
    fn the_same_event_is_counted_up() {
        let mut source = Source::new();
        let first = source.tell("p", "Failed", "why").expect("an event");
        assert_eq!((first.count, first.first), (1, source.now));
        let again = source.tell("p", "Failed", "why").expect("an event");
        assert_eq!(
            again,
            Observed {
                count: 2,
                ..first.clone()
            }
        );
        for (object, reason, message) in [
            ("q", "Failed", "why"),
            ("p", "Other", "why"),
            ("p", "Failed", "else"),
        ] {
            let other = source.tell(object, reason, message).expect("an event");
            assert_eq!(other.count, 1, "{object} {reason} {message}");
            assert_ne!(other.name, first.name);
        }
    }

    #[test]
    fn many_that_differ_in_words_only_are_combined() {
        let mut source = Source::new();
        let mut names = HashSet::new();
        for number in 1..SIMILAR {
            let message = format!("pod {number} is refused");
            let one = source.tell("set", "FailedCreate", &message);
            let one = one.expect("an event");
            assert_eq!((one.count, one.message), (1, message));
            names.insert(one.name);
        }
        let combined = |number: usize, count| {
            let message = format!("(combined from similar events): pod {number} is refused");
            (message, count)
        };
        let mut name = String::new();
        for (count, number) in [(1, 10), (2, 11), (3, 12)] {
            let message = format!("pod {number} is refused");
            let one = source.tell("set", "FailedCreate", &message);
            let one = one.expect("an event");
            assert_eq!((one.message, one.count), combined(number, count));
            name = one.name;
        }
        assert!(!names.contains(&name));
        let known = source.tell("set", "FailedCreate", "pod 3 is refused");
        assert_eq!(known.map(|one| one.count), Some(2));
        source.wait(601);
        let fresh = source.tell("set", "FailedCreate", "pod 13 is refused");
        let fresh = fresh.expect("an event");
        assert_eq!(
            (fresh.message.as_str(), fresh.count),
            ("pod 13 is refused", 1)
        );
    }

    #[test]
    fn a_source_that_goes_on_is_let_through_rarely() {
        let mut source = Source::new();
        let told = (0..40).filter(|_| source.tell("p", "BackOff", "why").is_some());
        assert_eq!(told.count(), 25);
        assert!(source.tell("q", "BackOff", "why").is_some());
        source.wait(300);
        let next = source.tell("p", "BackOff", "why").expect("an event");
        assert_eq!(next.count, 41, "those left out count");
        assert_eq!(source.tell("p", "BackOff", "why"), None);
    }
}
