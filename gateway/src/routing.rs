//! Which caller belongs to which arm: pure functions of keys, shares and earlier ranges.

pub mod plan;
pub mod ranges;

pub use plan::{RoutePlan, Source};
pub use ranges::Ranges;
