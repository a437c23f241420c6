//! How the calls of one version are batched.

use std::time::Duration;

use super::variable::VariableLength;
use crate::overload::delay::Shedding;
use crate::types::Priority;

/// How the calls of one version are batched, and what bounds them. A call that would break a
/// bound is refused, never dropped later.
#[derive(Debug, Clone)]
pub struct QueueSettings {
    /// `model/version`, for messages.
    pub label: String,
    /// Items of one batch; 0: every call runs alone, as it is.
    pub max_batch: usize,
    /// Whether calls share batches at all.
    pub stack: bool,
    /// Items that may wait.
    pub max_rows: usize,
    /// Input bytes that may wait.
    pub max_bytes: usize,
    /// Longest run of one batch.
    pub run_timeout: Duration,
    /// How long a batch may wait for more calls while an engine thread is free.
    pub max_delay: Duration,
    /// Batches of this version that may run at the same time.
    pub instances: usize,
    /// Share of engine time against other versions of the device.
    pub weight: f64,
    /// Of calls that name none.
    pub priority: Priority,
    /// Whether calls that cannot make their deadline are refused at the door.
    pub refuse_late: bool,
    /// Whether the inputs' shapes leave no choice but the batch dimension.
    pub fixed_shapes: bool,
    pub variable: Option<VariableLength>,
    /// When calls are refused for the delay of the queue; never where there is none.
    pub shedding: Option<Shedding>,
}

impl QueueSettings {
    /// Batches of at most `max_batch` items of one shape, with the defaults of a manifest.
    #[must_use]
    pub fn new(label: &str, max_batch: usize) -> Self {
        Self {
            label: label.to_owned(),
            max_batch,
            stack: true,
            max_rows: 10_000,
            max_bytes: 256 << 20,
            run_timeout: Duration::from_secs(30),
            max_delay: Duration::ZERO,
            instances: usize::MAX,
            weight: 1.0,
            priority: Priority::default(),
            refuse_late: false,
            fixed_shapes: false,
            variable: None,
            shedding: None,
        }
    }

    /// Whether several calls may share a batch.
    pub(super) fn stacks(&self) -> bool {
        self.stack && self.max_batch > 0
    }
}
