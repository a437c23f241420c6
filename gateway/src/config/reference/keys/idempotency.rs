//! Calls that carry a key run once.

use super::key;
use crate::config::reference::{Key, Type};

pub(super) const KEYS: &[Key] = &[
    key(
        "idempotency",
        Type::Table,
        "",
        "Prediction calls with an `idempotency-key` run once; repeats get the first answer.",
    ),
    key(
        "idempotency.enabled",
        Type::Flag,
        "true",
        "Whether keys have an effect; else they are ignored.",
    ),
    key(
        "idempotency.window",
        Type::Duration,
        "\"10m\"",
        "How long repeats get the first answer, from the moment it was there.",
    ),
    key(
        "idempotency.max_bytes",
        Type::Size,
        "\"64MiB\"",
        "Memory of all kept answers. When it is full, the oldest ones are forgotten.",
    ),
    key(
        "idempotency.max_answer",
        Type::Size,
        "\"1MiB\"",
        "Largest answer that is kept; a repeat of a call with a larger one runs again.",
    ),
    key(
        "idempotency.max_keys",
        Type::Count,
        "100000",
        "Keys known at a time. When there are more, the oldest answers are forgotten; calls under way never are.",
    ),
    key("idempotency.max_key_length", Type::Count, "255", "Longest key, in bytes. At most 1024."),
];
