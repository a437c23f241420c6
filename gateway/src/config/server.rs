//! `[server]` and `[log]`: I/O threads, stopping, the log.

use std::time::Duration;

use serde::Serialize;

use super::reader::Section;
use super::value::{OrAuto, cores};

/// I/O threads and stopping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Server {
    pub io_threads: usize,
    /// Not ready, but still answering: time for load balancers to notice.
    pub stop_delay: Duration,
    /// Then: how long calls in flight may take to end.
    pub drain: Duration,
}

/// How the gateway writes its log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Log {
    pub level: String,
    pub format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    Pretty,
    Json,
}

const FORMATS: &[(&str, LogFormat)] = &[("pretty", LogFormat::Pretty), ("json", LogFormat::Json)];
const LEVELS: &[(&str, &str)] = &[
    ("error", "error"),
    ("warn", "warn"),
    ("info", "info"),
    ("debug", "debug"),
    ("trace", "trace"),
];

impl Server {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let server = Self {
            io_threads: section.or("io_threads", OrAuto(None)).0.unwrap_or((cores() / 2).max(1)),
            stop_delay: section.or("stop_delay", Duration::ZERO),
            drain: section.or("drain", Duration::from_secs(30)),
        };
        section.finish();
        server
    }
}

impl Log {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let log = Self {
            level: section.choice("level", LEVELS, "info").to_owned(),
            format: section.choice("format", FORMATS, LogFormat::Pretty),
        };
        section.finish();
        log
    }
}
