//! Ranges of buckets.

use serde::{Deserialize, Serialize};

/// The buckets of one arm: half-open ranges, sorted, without overlap, and no two that touch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ranges(pub Vec<(u16, u16)>);
