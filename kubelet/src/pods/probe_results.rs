//! What probes have found out about the containers of a pod.

use std::collections::HashMap;

/// The three kinds of probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl ProbeKind {
    /// How events name it.
    pub fn title(self) -> &'static str {
        match self {
            ProbeKind::Startup => "Startup",
            ProbeKind::Liveness => "Liveness",
            ProbeKind::Readiness => "Readiness",
        }
    }
}

/// The latest results, by container; a result stands once its threshold was reached.
#[derive(Clone, Debug, Default)]
pub struct ProbeResults(HashMap<(String, ProbeKind), bool>);

impl ProbeResults {
    /// `None` until a threshold was reached for the first time.
    pub fn get(&self, container_id: &str, kind: ProbeKind) -> Option<bool> {
        self.0.get(&(container_id.to_owned(), kind)).copied()
    }

    pub fn set(&mut self, container_id: &str, kind: ProbeKind, healthy: bool) {
        self.0.insert((container_id.to_owned(), kind), healthy);
    }

    /// Forgets every container that `keep` does not want.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.0.retain(|(id, _), _| keep(id));
    }
}
