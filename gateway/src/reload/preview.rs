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

impl Preview {
    /// Puts what becomes of the routes in the place of how the files differ in them: what was
    /// changed by hand stays or goes with the one and not with the other.
    pub(super) fn tell_routes(&mut self, lines: Vec<String>) {
        self.diff.retain(|line| !line.starts_with("route."));
        self.diff.extend(lines);
    }
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
