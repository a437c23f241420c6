//! What the process's configuration and a manifest together make of a version's queue.

use std::sync::PoisonError;

use super::{Loader, Manifest, QueueSettings, ServedVersion};
use crate::config;
use crate::overload::delay::Shedding;

impl Loader {
    /// Gives versions circuit breakers with these settings, where their manifests do not differ.
    #[must_use]
    pub fn with_breaker(self, breaker: config::Breaker) -> Self {
        self.set_breaker(breaker);
        self
    }

    /// The same for versions that load from now on. Those that serve follow by
    /// [`Loader::settle_breaker`].
    pub fn set_breaker(&self, breaker: config::Breaker) {
        *self.breaker.lock().unwrap_or_else(PoisonError::into_inner) = breaker;
    }

    /// Gives a version's circuit breaker the settings that hold now; its state stays.
    pub fn settle_breaker(&self, served: &ServedVersion) {
        served.breaker.reconfigure(self.breaker_of(&served.manifest));
    }

    /// What a manifest and the gateway's own settings make of a breaker.
    pub(super) fn breaker_of(&self, manifest: &Manifest) -> config::Breaker {
        manifest.breaker.over(&self.breaker.lock().unwrap_or_else(PoisonError::into_inner))
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
