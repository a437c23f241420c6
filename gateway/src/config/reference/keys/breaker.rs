//! When the calls of a failing version are refused.

use super::key;
use crate::config::reference::{Key, Type};

pub(super) const KEYS: &[Key] = &[
    key(
        "breaker",
        Type::Table,
        "",
        "Circuit breakers: one for each version, overridden by `[breaker]` in `model.toml`.",
    ),
    key(
        "breaker.enabled",
        Type::Flag,
        "true",
        "Whether the calls of a version that fails are refused at once for a while. An operator can open and close a breaker either way.",
    ),
    key("breaker.window", Type::Duration, "\"10s\"", "How far back batches are counted."),
    key(
        "breaker.min_samples",
        Type::Count,
        "20",
        "Rates open it only with so many batches in the window.",
    ),
    key("breaker.failure_rate", Type::Percent, "\"50%\"", "Share of failed batches that opens it."),
    key(
        "breaker.consecutive",
        Type::Count,
        "5",
        "Batches that fail one after the other and open it.",
    ),
    key(
        "breaker.slow_call",
        Type::DurationOrOff,
        "\"off\"",
        "A run on the engine that takes longer is slow; time in the queue does not count.",
    ),
    key("breaker.slow_rate", Type::Percent, "\"80%\"", "Share of slow batches that opens it."),
    key(
        "breaker.nan_answers",
        Type::CountOrOff,
        "20",
        "Answers with NaN one after the other that open it: to finite inputs, in outputs that were free of NaN while the version was loaded, from a model that answers its own inputs with NaN too.",
    ),
    key(
        "breaker.open_time",
        Type::Duration,
        "\"1s\"",
        "How long it stays open the first time, give or take 20 %; doubles each time.",
    ),
    key("breaker.max_open_time", Type::Duration, "\"60s\"", "It never stays open for longer."),
    key(
        "breaker.probes",
        Type::Count,
        "3",
        "Trial calls that have to succeed, one at a time, before it closes.",
    ),
    key(
        "breaker.probe_timeout",
        Type::Duration,
        "\"5s\"",
        "How long a trial call may wait for an engine thread before another one is let through.",
    ),
    key(
        "breaker.reset_after",
        Type::Duration,
        "\"60s\"",
        "After being closed for so long, the open time starts over.",
    ),
];
