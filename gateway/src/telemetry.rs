//! What the gateway says about itself: every metric is declared in [`metrics`], the handles that
//! the hot path uses are resolved beforehand in [`handles`], and [`logging`] sets up the log.

pub mod metrics;
pub mod handles;
pub mod logging;

pub use handles::{Closed, Dropped, Outcome, VersionMetrics, WireMetrics};
