//! `[engine]`: threads and time limits of engines.

use std::time::Duration;

use serde::Serialize;

use super::reader::Section;
use super::value::{OrAuto, cores};

/// Threads and time limits of engines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Engine {
    pub cpu_threads: usize,
    pub cuda_threads: usize,
    pub load_timeout: Duration,
    pub warmup_timeout: Duration,
    pub run_timeout: Duration,
    /// More threads than this stuck in native code fail liveness.
    pub max_stuck_threads: usize,
}

impl Engine {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let engine = Self {
            cpu_threads: section.or("cpu_threads", OrAuto(None)).0.unwrap_or(cores().div_ceil(2)),
            cuda_threads: section.or("cuda_threads", OrAuto(None)).0.unwrap_or(1),
            load_timeout: section.or("load_timeout", Duration::from_secs(120)),
            warmup_timeout: section.or("warmup_timeout", Duration::from_secs(60)),
            run_timeout: section.or("run_timeout", Duration::from_secs(30)),
            max_stuck_threads: section.or("max_stuck_threads", 2),
        };
        for (key, limit) in [
            ("load_timeout", engine.load_timeout),
            ("warmup_timeout", engine.warmup_timeout),
            ("run_timeout", engine.run_timeout),
        ] {
            if limit.is_zero() {
                section.problem(key, "must be longer than zero");
            }
        }
        section.finish();
        engine
    }
}
