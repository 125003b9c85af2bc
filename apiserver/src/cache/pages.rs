//! Snapshots kept for the later pages of a list that was asked for in pages.
//!
//! Keeping one costs only what has changed since, and without one a snapshot can still be made
//! from the history; so few are enough.

use std::collections::VecDeque;

use coracle_store::Revision;

use super::Objects;

const CAPACITY: usize = 16;

/// The latest snapshots, oldest first.
#[derive(Default)]
pub struct Pages(VecDeque<(Revision, Objects)>);

impl Pages {
    pub fn get(&self, revision: Revision) -> Option<Objects> {
        self.0
            .iter()
            .find(|(at, _)| *at == revision)
            .map(|(_, objects)| objects.clone())
    }

    pub fn keep(&mut self, revision: Revision, objects: Objects) {
        if self.0.iter().any(|(at, _)| *at == revision) {
            return;
        }
        if self.0.len() == CAPACITY {
            self.0.pop_front();
        }
        self.0.push_back((revision, objects));
    }

    pub fn expire(&mut self, horizon: Revision) {
        self.0.retain(|(at, _)| *at >= horizon);
    }
}
