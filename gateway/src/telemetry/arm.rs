//! Metric handles of an arm of a route.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use ::metrics::Counter;

use super::{Outcome, metrics};
use crate::error::Kind;

/// Handles of one arm of a route; a series appears with its first event.
#[derive(Debug)]
pub struct ArmMetrics {
    route: String,
    arm: String,
    requests: [OnceLock<Counter>; Outcome::COUNT],
    fallbacks: [OnceLock<Counter>; Kind::ALL.len()],
    forced: OnceLock<Counter>,
    keyless: OnceLock<Counter>,
    counted: AtomicU64,
    fell_back: AtomicU64,
}

impl ArmMetrics {
    #[must_use]
    pub fn new(route: &str, arm: &str) -> Self {
        Self {
            route: route.to_owned(),
            arm: arm.to_owned(),
            requests: std::array::from_fn(|_| OnceLock::new()),
            fallbacks: std::array::from_fn(|_| OnceLock::new()),
            forced: OnceLock::new(),
            keyless: OnceLock::new(),
            counted: AtomicU64::new(0),
            fell_back: AtomicU64::new(0),
        }
    }

    /// Counts how a call ended that fell to the arm, whoever answered.
    pub fn count(&self, outcome: Outcome) {
        self.counted.fetch_add(1, Ordering::Relaxed);
        let counter = self.requests[outcome.index()].get_or_init(|| {
            metrics::ROUTE_REQUESTS.counter(&[&self.route, &self.arm, outcome.label()])
        });
        counter.increment(1);
    }

    /// Counts a call that fell to the arm and that somebody else had to answer.
    pub fn fell_back(&self, reason: Kind) {
        self.fell_back.fetch_add(1, Ordering::Relaxed);
        let counter = self.fallbacks[reason as usize].get_or_init(|| {
            metrics::ROUTE_FALLBACKS.counter(&[&self.route, &self.arm, reason.label()])
        });
        counter.increment(1);
    }

    /// Counts a call whose caller named the arm: it says nothing about the division.
    pub fn forced(&self) {
        let counter =
            self.forced.get_or_init(|| metrics::ROUTE_FORCED.counter(&[&self.route, &self.arm]));
        counter.increment(1);
    }

    /// Counts a call that fell to the arm without the key by which the route keeps callers.
    pub fn keyless(&self) {
        let counter = self.keyless.get_or_init(|| metrics::ROUTE_KEYLESS.counter(&[&self.route]));
        counter.increment(1);
    }

    /// Calls that fell to the arm, and those of them that somebody else had to answer.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.counted.load(Ordering::Relaxed), self.fell_back.load(Ordering::Relaxed))
    }
}
