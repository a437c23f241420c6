//! Format, I/O threads, stopping, the log.

use super::key;
use crate::config::reference::{Key, Type};

pub(super) const KEYS: &[Key] = &[
    key("version", Type::Count, "1", "Version of this file's format. Required."),
    key("server", Type::Table, "", "I/O threads and stopping."),
    key(
        "server.io_threads",
        Type::CountOrAuto,
        "\"auto\"",
        "Threads that read and write sockets. `\"auto\"`: half of the cores, at least one.",
    ),
    key(
        "server.stop_delay",
        Type::Duration,
        "\"0s\"",
        "After a stop signal: how long to answer as usual while reporting not ready.",
    ),
    key(
        "server.drain",
        Type::Duration,
        "\"30s\"",
        "Then: how long calls in flight may take to end.",
    ),
    key("log", Type::Table, "", "The gateway's own log, on standard error."),
    key(
        "log.level",
        Type::OneOf(&["error", "warn", "info", "debug", "trace"]),
        "\"info\"",
        "Least severity written. `PENSTOCK_LOG` may hold a finer filter.",
    ),
    key(
        "log.format",
        Type::OneOf(&["pretty", "json"]),
        "\"pretty\"",
        "Lines for people or JSON for machines.",
    ),
];
