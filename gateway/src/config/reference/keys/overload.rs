//! What is given up first when there is too much to do.

use super::key;
use crate::config::reference::{Key, Type};

pub(super) const KEYS: &[Key] = &[
    key("overload", Type::Table, "", "What is given up first when there is too much to do."),
    key(
        "overload.enabled",
        Type::Flag,
        "true",
        "Whether calls are refused for the delay of their queue and for memory. The bounds of `[limits]` hold anyway.",
    ),
    key(
        "overload.target_delay",
        Type::Duration,
        "\"5ms\"",
        "Queue delay that no call is refused for. Beyond it calls are refused that would wait a fourth of the time to their deadline or more, and longer than two batches take; the least urgent wait longest and so are the first.",
    ),
    key(
        "overload.interval",
        Type::Duration,
        "\"100ms\"",
        "The shortest delay of all calls in so long a time counts, so that a burst is no overload.",
    ),
    key(
        "overload.memory_soft",
        Type::Percent,
        "\"85%\"",
        "Share of the memory limit (of the control group, or of the machine) from which calls of priority 7 to 9, shadows and bodies above 1 MiB are refused.",
    ),
    key(
        "overload.memory_hard",
        Type::Percent,
        "\"95%\"",
        "Share of the memory limit from which all predictions are refused.",
    ),
];
