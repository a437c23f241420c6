//! The shared types of lock-free accounting; `tests/loom.rs` puts its own in their place.

pub(super) use std::sync::Arc;
pub(super) use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
