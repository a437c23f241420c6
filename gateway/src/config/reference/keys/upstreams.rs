//! Other servers that arms may send calls to.

use super::key;
use crate::config::reference::{Key, Type};

pub(super) const KEYS: &[Key] = &[
    key(
        "upstream",
        Type::Tables,
        "",
        "One `[[upstream]]` for each group of servers of the protocol that serve the same models, at most 1000.",
    ),
    key(
        "upstream.name",
        Type::Text,
        "",
        "1 to 64 letters, digits, `-`, `_` or `.`: what arms and metrics call it. Required.",
    ),
    key("upstream.protocol", Type::OneOf(&["http", "grpc"]), "\"grpc\"", "How it is spoken to."),
    key(
        "upstream.endpoints",
        Type::Texts,
        "",
        "1 to 64 servers, `HOST:PORT` each; IPv6 addresses in brackets. Required.",
    ),
    key(
        "upstream.connect_timeout",
        Type::Duration,
        "\"1s\"",
        "Longest time until a connection stands, TLS included.",
    ),
    key(
        "upstream.timeout",
        Type::Duration,
        "\"30s\"",
        "Longest time of one attempt; the caller's deadline ends it earlier.",
    ),
    key(
        "upstream.max_connections",
        Type::Count,
        "32",
        "Connections to each endpoint that are kept, 1 to 1024.",
    ),
    key(
        "upstream.max_in_flight",
        Type::Count,
        "4096",
        "Calls under way to all endpoints together, 1 to 1000000; more are refused.",
    ),
    key(
        "upstream.tls",
        Type::Table,
        "",
        "TLS to the endpoints, by `[upstream.tls]` even if it is empty. Absent: plain.",
    ),
    key(
        "upstream.tls.ca",
        Type::Text,
        "",
        "Who may vouch for the endpoints, PEM. Absent: whom the system trusts.",
    ),
    key(
        "upstream.tls.certificate",
        Type::Text,
        "",
        "The certificate chain to show, PEM. Needs `upstream.tls.key`.",
    ),
    key("upstream.tls.key", Type::Text, "", "The private key of the first certificate, PEM."),
    key(
        "upstream.tls.server_name",
        Type::Text,
        "",
        "The name in the endpoints' certificates, where it is not their host.",
    ),
    key("upstream.retry", Type::Table, "", "Second attempts, where another one can help."),
    key("upstream.retry.max", Type::Count, "2", "Attempts beyond the first, 0 to 10."),
    key(
        "upstream.retry.budget",
        Type::Percent,
        "\"20%\"",
        "Retries for the calls of the last ten seconds, so that they never multiply an outage.",
    ),
    key(
        "upstream.retry.min_per_second",
        Type::Count,
        "3",
        "Retries that are allowed whatever the budget says, 0 to 10000.",
    ),
    key(
        "upstream.retry.backoff",
        Type::Duration,
        "\"25ms\"",
        "Pause before the first retry; it doubles, and varies by chance.",
    ),
    key("upstream.retry.max_backoff", Type::Duration, "\"250ms\"", "Longest pause."),
    key("upstream.health", Type::Table, "", "How endpoints are asked whether they are well."),
    key(
        "upstream.health.every",
        Type::DurationOrOff,
        "\"5s\"",
        "How often each is asked. `\"off\"`: never, all count as well.",
    ),
    key("upstream.health.timeout", Type::Duration, "\"1s\"", "Longest wait for its word."),
    key(
        "upstream.health.unhealthy_after",
        Type::Count,
        "3",
        "Failures in a row that take an endpoint out, 1 to 100.",
    ),
    key(
        "upstream.health.healthy_after",
        Type::Count,
        "2",
        "Successes in a row that bring it back, 1 to 100.",
    ),
    key(
        "upstream.ejection",
        Type::Table,
        "",
        "When an endpoint gets no calls for a while because of how it answers them.",
    ),
    key("upstream.ejection.consecutive", Type::Count, "5", "Failures in a row, 1 to 1000."),
    key(
        "upstream.ejection.time",
        Type::Duration,
        "\"10s\"",
        "For how long the first time; times the number of ejections in a row.",
    ),
    key("upstream.ejection.max_time", Type::Duration, "\"300s\"", "For how long at most."),
    key(
        "upstream.ejection.max_part",
        Type::Percent,
        "\"50%\"",
        "Part of the endpoints that may be out; with more failing, calls go on to them.",
    ),
];
