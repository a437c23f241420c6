//! `[limits]`: what one caller, and all together, may ask for.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Serialize;

use super::reader::Section;
use super::value::{OrOff, Size};
use crate::types::Patience;

const HOUR: Duration = Duration::from_secs(3600);
/// Sizes of heads that the buffers behind them can hold.
const HEAD: RangeInclusive<usize> = 4 << 10..=256 << 10;

/// What one caller, and all together, may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Largest request, decompressed.
    pub max_request: usize,
    pub header_timeout: Duration,
    pub body_timeout: Duration,
    pub queue_rows: usize,
    pub queue_bytes: usize,
    /// Open connections of the data doors together.
    pub max_connections: usize,
    /// The same from one IPv4 address, or one /64 of IPv6.
    pub max_connections_per_address: Option<usize>,
    /// Largest head of a request: its line and its headers.
    pub max_head: usize,
    /// How long a gRPC connection may stay without a call.
    pub idle_timeout: Option<Duration>,
    /// How long a connection of a data door may live, give or take a tenth.
    pub max_connection_age: Option<Duration>,
    #[serde(flatten)]
    pub timeouts: Patience,
    /// Predictions under way in the whole process, and bytes of their requests.
    pub max_in_flight: usize,
    pub max_in_flight_bytes: usize,
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
            max_connections: section.or("max_connections", 16_384),
            max_connections_per_address: section.or("max_connections_per_address", OrOff(None)).0,
            max_head: section.or("max_head", Size(32 << 10)).0,
            idle_timeout: section.or("idle_timeout", OrOff(Some(HOUR))).0,
            max_connection_age: section.or("max_connection_age", OrOff(None)).0,
            timeouts: Patience { default, max },
            max_in_flight: section.or("max_in_flight", 16_384),
            max_in_flight_bytes: section.or("max_in_flight_bytes", Size::mib(1024)).0,
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
        if limits.max_in_flight == 0 {
            section.problem("max_in_flight", "must be at least 1");
        }
        if limits.queue_rows == 0 {
            section.problem("queue_rows", "must be at least 1");
        }
        limits.check_connections(&section);
        section.finish();
        limits
    }

    fn check_connections(&self, section: &Section<'_>) {
        if self.max_connections == 0 {
            section.problem("max_connections", "must be at least 1");
        }
        if self.max_connections_per_address == Some(0) {
            section.problem("max_connections_per_address", "must be at least 1, or \"off\"");
        }
        if !HEAD.contains(&self.max_head) {
            section.problem("max_head", "must be between 4KiB and 256KiB");
        }
        for (key, limit) in
            [("idle_timeout", self.idle_timeout), ("max_connection_age", self.max_connection_age)]
        {
            if limit.is_some_and(|limit| limit < Duration::from_secs(1)) {
                section.problem(key, "must be at least 1s, or \"off\"");
            }
        }
    }
}
