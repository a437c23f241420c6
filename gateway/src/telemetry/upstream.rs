//! Metric handles of an upstream.

use std::sync::OnceLock;
use std::time::Duration;

use ::metrics::{Counter, Gauge, Histogram};

use super::handles::Outcome;
use super::metrics;

/// Handles of one upstream.
#[derive(Debug)]
pub struct UpstreamMetrics {
    name: String,
    outcomes: [OnceLock<Counter>; Outcome::COUNT],
    attempts: [OnceLock<Histogram>; 5],
    pub retried: Counter,
    pub over_budget: Counter,
    pub ejections: Counter,
    pub in_flight: Gauge,
    endpoints: [Gauge; 3],
}

/// Values of the `result` label of attempts, in the order of their places.
const RESULTS: [&str; 5] = ["answered", "failed", "throttled", "neutral", "given_up"];

impl UpstreamMetrics {
    /// `states` are the words for what endpoints can be.
    #[must_use]
    pub fn new(name: &str, states: [&str; 3]) -> Self {
        Self {
            name: name.to_owned(),
            outcomes: std::array::from_fn(|_| OnceLock::new()),
            attempts: std::array::from_fn(|_| OnceLock::new()),
            retried: metrics::UPSTREAM_RETRIES.counter(&[name, "sent"]),
            over_budget: metrics::UPSTREAM_RETRIES.counter(&[name, "over_budget"]),
            ejections: metrics::UPSTREAM_EJECTIONS.counter(&[name]),
            in_flight: metrics::UPSTREAM_IN_FLIGHT.gauge(&[name]),
            endpoints: states.map(|state| metrics::UPSTREAM_ENDPOINTS.gauge(&[name, state])),
        }
    }

    /// Counts how a call ended; a series appears with its first event.
    pub fn count(&self, outcome: Outcome) {
        let labels = [self.name.as_str(), outcome.label()];
        let counter = self.outcomes[outcome.index()]
            .get_or_init(|| metrics::UPSTREAM_REQUESTS.counter(&labels));
        counter.increment(1);
    }

    /// Records an attempt; `result` is a place in the table of their results.
    pub fn attempt(&self, result: usize, time: Duration) {
        let labels = [self.name.as_str(), RESULTS[result]];
        let histogram =
            self.attempts[result].get_or_init(|| metrics::UPSTREAM_ATTEMPTS.histogram(&labels));
        histogram.record(time);
    }

    /// Shows how many endpoints are in each state.
    #[expect(clippy::cast_precision_loss, reason = "endpoints are few")]
    pub fn show(&self, counts: [usize; 3]) {
        for (gauge, count) in self.endpoints.iter().zip(counts) {
            gauge.set(count as f64);
        }
    }
}
