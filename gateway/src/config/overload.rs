//! `[overload]`: what is given up first when there is too much to do.

use std::time::Duration;

use serde::Serialize;

use super::reader::Section;
use super::value::Percent;

/// What is given up first when there is too much to do.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Overload {
    pub enabled: bool,
    /// A queue delay that no call is refused for.
    pub target_delay: Duration,
    pub interval: Duration,
    /// Shares of the memory limit, from 0 to 1.
    pub memory_soft: f64,
    pub memory_hard: f64,
}

impl Overload {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let overload = Self {
            enabled: section.or("enabled", true),
            target_delay: section.or("target_delay", Duration::from_millis(5)),
            interval: section.or("interval", Duration::from_millis(100)),
            memory_soft: section.or("memory_soft", Percent(0.85)).0,
            memory_hard: section.or("memory_hard", Percent(0.95)).0,
        };
        if overload.interval == Duration::ZERO {
            section.problem("interval", "must be longer than zero");
        }
        if overload.memory_soft > overload.memory_hard {
            section.problem("memory_soft", "is above overload.memory_hard");
        }
        section.finish();
        overload
    }
}
