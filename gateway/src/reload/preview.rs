//! What a reload would change, before anybody asks for it.

use crate::config::{Config, Difference, Problem};

/// What a reload with another text would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preview {
    /// What is wrong with the text; with any, a reload changes nothing.
    pub problems: Vec<Problem>,
    /// What becomes different, a line for each key.
    pub diff: Vec<String>,
    /// Paths of keys that wait for the next start; with any, a reload changes nothing.
    pub needs_restart: Vec<String>,
}

/// Compares what runs with what would.
#[must_use]
pub fn preview(current: &Config, new: &Config) -> Preview {
    Preview {
        problems: Vec::new(),
        diff: current.differences(new).iter().map(Difference::to_string).collect(),
        needs_restart: current.needs_restart(new).into_iter().map(|found| found.path).collect(),
    }
}
