//! What a writer knows of a value that the feed is about to bring.
//!
//! The feed would have to decode the value again for its selectable fields. The stores of this
//! process hand the very bytes on that were written, so their address finds the hint; from
//! another store nothing is found, and the value is decoded.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use super::entry::Fields;

/// Hints that nobody took are dropped when there are more.
const CAPACITY: usize = 1024;

/// Hints by the address of their value.
#[derive(Default)]
pub struct Hints {
    by_address: HashMap<usize, Hint>,
    order: VecDeque<usize>,
}

struct Hint {
    /// Keeps the address from being used again.
    _value: Bytes,
    fields: Fields,
}

impl Hints {
    pub fn put(&mut self, value: Bytes, fields: Fields) {
        if self.order.len() == CAPACITY
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_address.remove(&oldest);
        }
        let address = value.as_ptr().addr();
        let hint = Hint {
            _value: value,
            fields,
        };
        if self.by_address.insert(address, hint).is_none() {
            self.order.push_back(address);
        }
    }

    pub fn take(&mut self, value: &Bytes) -> Option<Fields> {
        let address = value.as_ptr().addr();
        let hint = self.by_address.remove(&address)?;
        // It is one of the oldest: the feed brings values in the order of their writing.
        if let Some(at) = self.order.iter().position(|known| *known == address) {
            self.order.remove(at);
        }
        Some(hint.fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_found_once_and_by_its_value_only() {
        let mut hints = Hints::default();
        let value = Bytes::from(vec![1, 2, 3]);
        hints.put(value.clone(), Fields::default());
        assert!(hints.take(&Bytes::from(vec![1, 2, 3])).is_none());
        assert!(hints.take(&value.clone()).is_some());
        assert!(hints.take(&value).is_none());
        for _ in 0..2 * CAPACITY {
            hints.put(Bytes::from(vec![0]), Fields::default());
        }
        assert_eq!(hints.by_address.len(), CAPACITY);
        assert_eq!(hints.order.len(), CAPACITY);
    }
}
