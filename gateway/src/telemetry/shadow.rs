//! Metric handles of a shadow.

use std::sync::OnceLock;

use ::metrics::Counter;

use super::metrics;

/// How a call ended that a shadow was meant to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShadowOutcome {
    /// Both answers were compared.
    Compared,
    /// The shadow gave an error, or an answer of another form than live.
    Failed,
    /// As many calls as it may have under way were.
    Full,
    /// As many bytes as it may hold were held.
    Bytes,
    /// Memory was short.
    Pressure,
    /// Its circuit breaker was open.
    CircuitOpen,
    /// It waited until its time was over: live calls come first.
    Expired,
    /// Too many answers waited to be compared.
    Behind,
    /// The shadow's model was not there.
    NotLoaded,
    /// It does not take the inputs that the live arm took, or it cannot be asked.
    Unfit,
    /// Nothing became of it: the gateway stopped, or the shadow was taken away.
    Abandoned,
}

impl ShadowOutcome {
    /// Every one, in the order of its number.
    pub const ALL: [Self; 11] = [
        Self::Compared,
        Self::Failed,
        Self::Full,
        Self::Bytes,
        Self::Pressure,
        Self::CircuitOpen,
        Self::Expired,
        Self::Behind,
        Self::NotLoaded,
        Self::Unfit,
        Self::Abandoned,
    ];

    /// The value of the `outcome` label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Compared => "compared",
            Self::Failed => "failed",
            Self::Full => "full",
            Self::Bytes => "bytes",
            Self::Pressure => "pressure",
            Self::CircuitOpen => "circuit_open",
            Self::Expired => "expired",
            Self::Behind => "behind",
            Self::NotLoaded => "not_loaded",
            Self::Unfit => "unfit",
            Self::Abandoned => "abandoned",
        }
    }

    /// Whether nothing was learnt about the shadow.
    #[must_use]
    pub const fn is_dropped(self) -> bool {
        !matches!(self, Self::Compared | Self::Failed)
    }
}

/// Handles of one shadow; a series appears with its first event.
#[derive(Debug)]
pub struct ShadowMetrics {
    route: String,
    shadow: String,
    outcomes: [OnceLock<Counter>; ShadowOutcome::ALL.len()],
}

impl ShadowMetrics {
    #[must_use]
    pub fn new(route: &str, shadow: &str) -> Self {
        let outcomes = std::array::from_fn(|_| OnceLock::new());
        Self { route: route.to_owned(), shadow: shadow.to_owned(), outcomes }
    }

    /// Counts how a call ended.
    pub fn count(&self, outcome: ShadowOutcome) {
        let counter = self.outcomes[outcome as usize].get_or_init(|| {
            metrics::SHADOW_REQUESTS.counter(&[&self.route, &self.shadow, outcome.label()])
        });
        counter.increment(1);
    }

    /// Shows how the times compare.
    pub fn show_latency_ratio(&self, ratio: f64) {
        metrics::SHADOW_LATENCY_RATIO.gauge(&[&self.route, &self.shadow]).set(ratio);
    }

    /// Shows which part of an output agrees.
    pub fn show_agreement(&self, output: &str, share: f64) {
        metrics::SHADOW_AGREEMENT.gauge(&[&self.route, &self.shadow, output]).set(share);
    }

    /// Shows how far an output is off.
    pub fn show_difference(&self, output: &str, relative: f64) {
        metrics::SHADOW_DIFFERENCE.gauge(&[&self.route, &self.shadow, output]).set(relative);
    }
}
