//! `[limits]`: what one caller, and all together, may ask for.

use std::time::Duration;

use super::reader::Section;
use super::value::Size;

/// What one caller, and all together, may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Largest request, decompressed.
    pub max_request: usize,
    pub header_timeout: Duration,
    pub body_timeout: Duration,
    pub queue_rows: usize,
    pub queue_bytes: usize,
}

impl Limits {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let limits = Self {
            max_request: section.or("max_request", Size::mib(64)).0,
            header_timeout: section.or("header_timeout", Duration::from_secs(60)),
            body_timeout: section.or("body_timeout", Duration::from_secs(30)),
            queue_rows: section.or("queue_rows", 4096),
            queue_bytes: section.or("queue_bytes", Size::mib(256)).0,
        };
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
