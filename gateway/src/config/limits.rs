//! `[limits]`: what one caller, and all together, may ask for.

use std::time::Duration;

use super::reader::Section;
use super::value::{OrOff, Size};
use crate::types::Patience;

/// What one caller, and all together, may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Largest request, decompressed.
    pub max_request: usize,
    pub header_timeout: Duration,
    pub body_timeout: Duration,
    pub queue_rows: usize,
    pub queue_bytes: usize,
    pub timeouts: Patience,
}

impl Limits {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let default = section.or("default_timeout", OrOff(Some(Duration::from_secs(60)))).0;
        let max = section.or("max_timeout", OrOff(Some(Duration::from_secs(600)))).0;
        let limits = Self {
            max_request: section.or("max_request", Size::mib(64)).0,
            header_timeout: section.or("header_timeout", Duration::from_secs(60)),
            body_timeout: section.or("body_timeout", Duration::from_secs(30)),
            queue_rows: section.or("queue_rows", 4096),
            queue_bytes: section.or("queue_bytes", Size::mib(256)).0,
            timeouts: Patience { default, max },
        };
        for (key, time) in [("default_timeout", default), ("max_timeout", max)] {
            if time == Some(Duration::ZERO) {
                section.problem(key, "must be longer than zero, or \"off\"");
            }
        }
        if let (Some(default), Some(max)) = (default, max)
            && default > max
        {
            section.problem("default_timeout", "is longer than limits.max_timeout");
        }
        if limits.max_request > 2 << 30 {
            section.problem("max_request", "is above 2GiB, which no client can send in one piece");
        }
        if limits.queue_rows == 0 {
            section.problem("queue_rows", "must be at least 1");
        }
        section.finish();
        limits
    }
}
