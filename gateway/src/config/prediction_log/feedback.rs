//! `[prediction_log.feedback]`: for how long predictions are remembered, so that feedback counts in
//! metrics as soon as it comes.

use std::time::Duration;

use serde::Serialize;

use crate::config::reader::Section;

const MAX_ENTRIES: usize = 16 << 20;

/// How predictions are remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// A prediction is forgotten after this.
    pub horizon: Duration,
    /// So is the oldest beyond so many.
    pub entries: usize,
}

impl Default for Memory {
    fn default() -> Self {
        Self { horizon: Duration::from_secs(3600), entries: 262_144 }
    }
}

impl Memory {
    /// Reads the section, where there is one: nothing is remembered otherwise.
    pub(super) fn read(log: &mut Section<'_>) -> Option<Self> {
        let is_there = log.has("feedback");
        let mut section = log.section("feedback");
        let default = Self::default();
        let memory = Self {
            horizon: section.or("horizon", default.horizon),
            entries: section.or("entries", default.entries),
        };
        if memory.horizon.is_zero() {
            section.problem("horizon", "must be longer than zero");
        }
        if !(1..=MAX_ENTRIES).contains(&memory.entries) {
            section.problem("entries", format!("must be 1 to {MAX_ENTRIES}"));
        }
        section.finish();
        is_there.then_some(memory)
    }
}
