//! What states and reasons are called in metrics, logs and answers.

use super::{Reason, State};

impl State {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

impl Reason {
    /// The value of the `reason` label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Consecutive => "consecutive_failures",
            Self::FailureRate => "failure_rate",
            Self::SlowRate => "slow_rate",
            Self::NanStorm => "nan_storm",
            Self::DeviceFault => "device_fault",
            Self::ProbeFailed => "probe_failed",
            Self::TimeOver => "time_over",
            Self::Recovered => "recovered",
            Self::Operator => "operator",
        }
    }
}
