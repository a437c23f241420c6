//! What callers may ask for.

use super::key;
use crate::config::reference::{Key, Type};

pub(super) const KEYS: &[Key] = &[
    key("limits", Type::Table, "", "What callers may ask for."),
    key(
        "limits.max_request",
        Type::Size,
        "\"64MiB\"",
        "Largest request on either protocol, measured after decompression. At most 2GiB.",
    ),
    key(
        "limits.header_timeout",
        Type::Duration,
        "\"60s\"",
        "Longest wait for the head of an HTTP request, and so for the next request on an idle connection.",
    ),
    key(
        "limits.body_timeout",
        Type::Duration,
        "\"30s\"",
        "Longest wait for the body of an HTTP request or the message of a unary gRPC call.",
    ),
    key(
        "limits.default_timeout",
        Type::DurationOrOff,
        "\"60s\"",
        "How long a call may take, from its arrival, that names no deadline, where its model has no default of its own.",
    ),
    key(
        "limits.max_timeout",
        Type::DurationOrOff,
        "\"10m\"",
        "How long any call may take, whatever deadline it names.",
    ),
    key(
        "limits.queue_rows",
        Type::Count,
        "4096",
        "Items that may wait for one model version; more are refused with 503 / UNAVAILABLE.",
    ),
    key(
        "limits.queue_bytes",
        Type::Size,
        "\"256MiB\"",
        "Input bytes that may wait for one model version.",
    ),
];
