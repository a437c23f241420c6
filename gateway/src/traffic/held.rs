//! What changes need while they are prepared.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::target::Incoming;
use crate::routing::RoutePlan;

/// What changes that are being prepared need, which must not be unloaded when another one comes
/// first.
pub(super) type Preparing = Mutex<BTreeMap<u64, Vec<Arc<RoutePlan>>>>;

/// What one change needs, for as long as it is prepared.
pub(super) struct Held<'a> {
    all: &'a Preparing,
    number: u64,
}

impl<'a> Held<'a> {
    pub(super) fn new(all: &'a Preparing) -> Self {
        let mut changes = all.lock().unwrap_or_else(PoisonError::into_inner);
        let number = changes.last_key_value().map_or(0, |(number, _)| number + 1);
        changes.insert(number, vec![]);
        drop(changes);
        Self { all, number }
    }

    fn own<T>(&self, see: impl FnOnce(&mut Vec<Arc<RoutePlan>>) -> T) -> T {
        let mut changes = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        see(changes.entry(self.number).or_default())
    }

    pub(super) fn add(&self, incoming: &[Incoming]) {
        self.own(|plans| plans.extend(incoming.iter().map(|coming| coming.plan.clone())));
    }

    pub(super) fn clear(&self) {
        self.own(Vec::clear);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.own(|plans| plans.is_empty())
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}
