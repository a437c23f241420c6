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

/// Compares what runs with what would; `of_routes` is what would become of the routes.
#[must_use]
pub(super) fn preview(current: &Config, new: &Config, of_routes: Vec<String>) -> Preview {
    Preview {
        problems: Vec::new(),
        diff: told(current.differences(new), of_routes),
        needs_restart: current.needs_restart(new).into_iter().map(|found| found.path).collect(),
    }
}

/// Every difference in a line. What becomes of routes is not for the file alone to say: where
/// those who decide have said it, the keys of routes are left out.
pub(super) fn told(mut differences: Vec<Difference>, of_routes: Vec<String>) -> Vec<String> {
    if !of_routes.is_empty() {
        differences.retain(|found| !found.path.starts_with("route."));
    }
    differences.iter().map(Difference::to_string).chain(of_routes).collect()
}
