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
        "limits.max_in_flight",
        Type::Count,
        "16384",
        "Predictions under way in the whole process; more are refused with 503 / UNAVAILABLE before their body is read.",
    ),
    key(
        "limits.max_in_flight_bytes",
        Type::Size,
        "\"1GiB\"",
        "Bytes of the requests under way in the whole process, as they come; of a declared length 64 KiB count before. One request is held whatever its size.",
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
    key(
        "limits.max_connections",
        Type::Count,
        "16384",
        "Open connections of the HTTP and the gRPC port together; more are closed at once. The metrics and the admin port have 256 of their own.",
    ),
    key(
        "limits.max_connections_per_address",
        Type::CountOrOff,
        "\"off\"",
        "The same from one IPv4 address, or from one /64 of IPv6. Leave it off behind a proxy, which has one address for everybody.",
    ),
    key(
        "limits.max_head",
        Type::Size,
        "\"32KiB\"",
        "Largest head of a request, its line and its headers, from 4KiB to 256KiB; beyond it, and beyond 100 headers over HTTP, the answer is 431.",
    ),
    key(
        "limits.idle_timeout",
        Type::DurationOrOff,
        "\"1h\"",
        "How long a gRPC connection may stay without a call, give or take a quarter. For HTTP see `limits.header_timeout`.",
    ),
    key(
        "limits.max_connection_age",
        Type::DurationOrOff,
        "\"off\"",
        "How long a connection of the HTTP or the gRPC port may live, give or take a tenth: then its calls end and it closes, so that clients connect anew and show their certificates again.",
    ),
];
