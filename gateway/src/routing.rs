//! Which caller belongs to which arm: pure functions of keys, shares and earlier ranges.

pub mod assign;
pub mod plan;
pub mod ranges;
pub mod rebalance;

pub use assign::{Lot, Seed, Table};
pub use plan::{RoutePlan, Source, reshuffles};
pub use ranges::Ranges;
pub use rebalance::{moved, rebalance};

#[cfg(test)]
mod tests;
