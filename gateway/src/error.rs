//! The one table of error kinds: each maps to an HTTP status, a gRPC code, a metric label and
//! whose fault it is. Everything a caller is refused with is a [`Rejection`].
//!
//! The text of a rejection is public. What only an operator may read goes into `detail`, which
//! is logged and never sent.

use std::fmt;
use std::time::Duration;

/// Why a call was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    InvalidInput,
    Unauthenticated,
    PermissionDenied,
    NotFound,
    Conflict,
    TooLarge,
    RateLimited,
    Overloaded,
    NotReady,
    CircuitOpen,
    DeadlineExceeded,
    ArmFailed,
    EngineFailed,
    Unsupported,
    IdempotencyMismatch,
    Cancelled,
    Internal,
}

/// Who answers for an error; decides what counts against a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    Caller,
    Gateway,
    Arm,
}

impl Kind {
    /// Every kind, for tables and metric handles.
    pub const ALL: [Self; 17] = [
        Self::InvalidInput,
        Self::Unauthenticated,
        Self::PermissionDenied,
        Self::NotFound,
        Self::Conflict,
        Self::TooLarge,
        Self::RateLimited,
        Self::Overloaded,
        Self::NotReady,
        Self::CircuitOpen,
        Self::DeadlineExceeded,
        Self::ArmFailed,
        Self::EngineFailed,
        Self::Unsupported,
        Self::IdempotencyMismatch,
        Self::Cancelled,
        Self::Internal,
    ];

    /// The HTTP status.
    #[must_use]
    pub const fn http(self) -> u16 {
        match self {
            Self::InvalidInput => 400,
            Self::Unauthenticated => 401,
            Self::PermissionDenied => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::IdempotencyMismatch => 422,
            Self::RateLimited => 429,
            Self::Cancelled => 499,
            Self::EngineFailed | Self::Internal => 500,
            Self::Unsupported => 501,
            Self::ArmFailed => 502,
            Self::Overloaded | Self::NotReady | Self::CircuitOpen => 503,
            Self::DeadlineExceeded => 504,
        }
    }

    /// The gRPC status code.
    #[must_use]
    pub const fn grpc(self) -> i32 {
        match self {
            Self::Cancelled => 1,
            Self::InvalidInput => 3,
            Self::DeadlineExceeded => 4,
            Self::NotFound => 5,
            Self::PermissionDenied => 7,
            Self::RateLimited | Self::TooLarge => 8,
            Self::IdempotencyMismatch => 9,
            Self::Conflict => 10,
            Self::Unsupported => 12,
            Self::EngineFailed | Self::Internal => 13,
            Self::ArmFailed | Self::Overloaded | Self::NotReady | Self::CircuitOpen => 14,
            Self::Unauthenticated => 16,
        }
    }

    /// The value of the `outcome` metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::InvalidInput => "invalid_input",
            Self::Unauthenticated => "unauthenticated",
            Self::PermissionDenied => "permission_denied",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::TooLarge => "too_large",
            Self::RateLimited => "rate_limited",
            Self::Overloaded => "overloaded",
            Self::NotReady => "not_ready",
            Self::CircuitOpen => "circuit_open",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::ArmFailed => "arm_failed",
            Self::EngineFailed => "engine_failed",
            Self::Unsupported => "unsupported",
            Self::IdempotencyMismatch => "idempotency_mismatch",
            Self::Cancelled => "cancelled",
            Self::Internal => "internal",
        }
    }

    /// Who answers for it.
    #[must_use]
    pub const fn blame(self) -> Blame {
        match self {
            Self::InvalidInput
            | Self::Unauthenticated
            | Self::PermissionDenied
            | Self::NotFound
            | Self::Conflict
            | Self::TooLarge
            | Self::RateLimited
            | Self::Unsupported
            | Self::IdempotencyMismatch
            | Self::Cancelled => Blame::Caller,
            Self::Overloaded | Self::NotReady | Self::DeadlineExceeded | Self::Internal => {
                Blame::Gateway
            }
            Self::CircuitOpen | Self::ArmFailed | Self::EngineFailed => Blame::Arm,
        }
    }
}

/// Longest text sent to a caller, in bytes. Texts quote what callers sent, and gRPC carries them
/// in a header, which clients bound to a few kilobytes.
const LONGEST_MESSAGE: usize = 1024;

/// A refused or failed call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    kind: Kind,
    message: String,
    detail: Option<String>,
    retry_after: Option<Duration>,
    allowance: Option<Box<Allowance>>,
    is_replayed: bool,
}

/// The limit that a call ran into, and what is left of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowance {
    /// The limit's name in the configuration.
    pub name: String,
    /// What the limit allows, in its unit: within the window, or at the same time without one.
    pub quota: u64,
    pub window: Option<Duration>,
    pub unit: AllowanceUnit,
    pub remaining: u64,
    /// When there is enough for the refused call.
    pub reset: Duration,
}

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AllowanceUnit {
    Requests,
    Rows,
    Bytes,
    ConcurrentRequests,
    ConcurrentRows,
}

impl Rejection {
    /// A rejection whose text the caller reads; what is beyond 1 KiB is cut off.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > LONGEST_MESSAGE {
            message.truncate(message.floor_char_boundary(LONGEST_MESSAGE));
            message.push('…');
        }
        Self { kind, message, detail: None, retry_after: None, allowance: None, is_replayed: false }
    }

    /// Shorthand for the most frequent kind.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::InvalidInput, message)
    }

    /// Adds what only the log may show.
    #[must_use]
    pub fn with_detail(mut self, detail: Option<&str>) -> Self {
        self.detail = detail.map(ToOwned::to_owned);
        self
    }

    /// Says when trying again may help.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// Names the limit that the call ran into.
    #[must_use]
    pub fn with_allowance(mut self, allowance: Allowance) -> Self {
        self.allowance = Some(Box::new(allowance));
        self
    }

    /// Says that this is how an earlier call with the same idempotency key ended.
    #[must_use]
    pub fn into_replayed(mut self) -> Self {
        self.is_replayed = true;
        self
    }

    #[must_use]
    pub fn is_replayed(&self) -> bool {
        self.is_replayed
    }

    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What the caller reads.
    #[must_use]
    pub fn public_message(&self) -> &str {
        &self.message
    }

    /// What only the log may show.
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    #[must_use]
    pub fn allowance(&self) -> Option<&Allowance> {
        self.allowance.as_deref()
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Rejection {}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_kind_has_its_own_label() {
        let labels: HashSet<_> = Kind::ALL.iter().map(|kind| kind.label()).collect();
        assert_eq!(labels.len(), Kind::ALL.len());
    }

    #[test]
    fn callers_faults_are_4xx_and_ours_are_5xx() {
        for kind in Kind::ALL {
            let unsupported = kind == Kind::Unsupported;
            let is_4xx = (400..500).contains(&kind.http());
            assert_eq!(is_4xx || unsupported, kind.blame() == Blame::Caller, "{kind:?}");
        }
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let rejection = Rejection::invalid(format!("x{}", "ü".repeat(5000)));
        assert!(rejection.public_message().len() < LONGEST_MESSAGE + 4);
        assert!(rejection.public_message().ends_with("ü…"));
    }

    #[test]
    fn unavailable_is_kept_for_what_a_retry_can_help() {
        let unavailable: Vec<_> = Kind::ALL.into_iter().filter(|kind| kind.grpc() == 14).collect();
        assert_eq!(
            unavailable,
            [Kind::Overloaded, Kind::NotReady, Kind::CircuitOpen, Kind::ArmFailed]
        );
    }
}
