//! What the process's configuration and a manifest together make of a version's queue.

use super::{Loader, Manifest, QueueSettings};
use crate::config;
use crate::overload::delay::Shedding;

impl Loader {
    /// Gives versions circuit breakers with these settings, where their manifests do not differ.
    #[must_use]
    pub fn with_breaker(mut self, breaker: config::Breaker) -> Self {
        self.breaker = breaker;
        self
    }

    /// Lets versions refuse calls for the delay of their queues, where that is on.
    #[must_use]
    pub fn with_overload(mut self, overload: &config::Overload) -> Self {
        let config::Overload { enabled, target_delay: target, interval, .. } = *overload;
        self.shedding = enabled.then_some(Shedding { target, interval });
        self
    }

    pub(super) fn queue_settings(&self, label: &str, manifest: &Manifest) -> QueueSettings {
        let batching = &manifest.batching;
        QueueSettings {
            max_rows: self.limits.queue_rows,
            max_bytes: self.limits.queue_bytes,
            run_timeout: manifest.run_timeout.unwrap_or(self.settings.run_timeout),
            max_delay: batching.max_delay,
            instances: batching.instances.unwrap_or(usize::MAX),
            weight: batching.weight,
            priority: batching.priority,
            refuse_late: batching.refuse_late,
            fixed_shapes: manifest.signature.has_fixed_shapes(),
            variable: batching.variable.clone(),
            stack: !manifest.deterministic,
            shedding: self.shedding,
            ..QueueSettings::new(label, manifest.signature.max_batch_size)
        }
    }
}
