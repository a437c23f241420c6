//! Threads and time limits of engines.

use super::key;
use crate::config::reference::{Key, Type};

pub(super) const KEYS: &[Key] = &[
    key("engine", Type::Table, "", "Threads and time limits of engines."),
    key(
        "engine.cpu_threads",
        Type::CountOrAuto,
        "\"auto\"",
        "Engine threads of the device `cpu`, one intra-op thread each. `\"auto\"`: half of the cores, at least one.",
    ),
    key(
        "engine.cuda_threads",
        Type::CountOrAuto,
        "\"auto\"",
        "Engine threads of each `cuda:N` device. `\"auto\"`: 1.",
    ),
    key(
        "engine.shadow_threads",
        Type::Count,
        "1",
        "Threads of each device that run nothing but shadows, at the lowest priority of the system and while no live call waits for a thread; they start with the first shadow. `0`: shadows run on the threads of live calls, behind those that wait.",
    ),
    key(
        "engine.load_timeout",
        Type::Duration,
        "\"120s\"",
        "Longest load of one version; a load that takes longer is given up and its thread counted as stuck.",
    ),
    key(
        "engine.warmup_timeout",
        Type::Duration,
        "\"60s\"",
        "Longest single warm-up or golden run.",
    ),
    key(
        "engine.run_timeout",
        Type::Duration,
        "\"30s\"",
        "Longest run of one batch; its calls are failed, its thread is counted as stuck and replaced.",
    ),
    key(
        "engine.max_stuck_threads",
        Type::Count,
        "2",
        "Liveness fails while more threads than this are stuck in native code, so that a supervisor restarts the process.",
    ),
];
