//! Other settings for a machine at work.

use tokio::time::Instant;

use super::{Machine, Phase, Transition};
use crate::breaker::window::Window;
use crate::config::Breaker as Settings;

impl Machine {
    /// Goes on under other settings; see [`crate::breaker::Breaker::reconfigure`].
    pub(in crate::breaker) fn reconfigure(
        &mut self,
        now: Instant,
        settings: Settings,
    ) -> Option<Transition> {
        if self.settings == settings {
            return None;
        }
        self.settings = settings;
        self.window = Window::new(now, settings.window);
        self.backoff.bound(settings.open_time, settings.max_open_time);
        let is_tried = match self.phase {
            Phase::Closed { .. } | Phase::Open { until: None } => false,
            Phase::Open { until: Some(_) } | Phase::HalfOpen { .. } => true,
        };
        // Nothing is counted any more, so no trial would ever close it.
        (!settings.enabled && is_tried).then(|| self.reset(now))
    }
}
