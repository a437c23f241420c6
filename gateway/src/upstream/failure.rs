//! Why an attempt failed, what follows from it for the endpoint and for a retry, and what the
//! caller is told in the end.

use std::error::Error;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use tonic::{Code, Status};

use super::board::Verdict;
use crate::error::{Kind, Rejection};

/// Longest text of an upstream that callers are told.
const LONGEST: usize = 300;

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// There was no connection, or it broke before the whole answer was there.
    Connection,
    /// The endpoint says that it cannot answer now.
    Unavailable,
    /// The endpoint, asked whether it or its model is ready, says that it is not.
    Unready,
    TimedOut,
    /// What came back is no answer to this call.
    Garbage,
    /// The endpoint tried and failed.
    Failed,
    /// The endpoint has had enough calls.
    Throttled,
    /// The endpoint finds fault with the call.
    Invalid,
    /// The endpoint does not know the model.
    Unknown,
    /// The endpoint will not, for instance because it does not know whom it talks to.
    Refused,
    /// The caller's deadline passed.
    Expired,
    /// No endpoint takes calls.
    Nobody,
}

/// A failed attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) cause: Cause,
    /// The endpoint's words or the system's: for the log, and for callers where they are to blame.
    pub(super) text: String,
    pub(super) retry_after: Option<Duration>,
}

impl Cause {
    /// Whether the same call may have an answer elsewhere.
    pub(super) fn may_retry(self) -> bool {
        self.verdict() == Verdict::Failed
    }

    /// What it says about the endpoint.
    pub(super) fn verdict(self) -> Verdict {
        match self {
            Self::Connection | Self::Unavailable | Self::Unready => Verdict::Failed,
            Self::TimedOut | Self::Garbage => Verdict::Failed,
            // The call's values may be the cause, and other models of the endpoint may be well.
            Self::Failed | Self::Unknown | Self::Refused => Verdict::Faulted,
            Self::Throttled => Verdict::Throttled,
            Self::Invalid | Self::Nobody => Verdict::Neutral,
            Self::Expired => Verdict::GivenUp,
        }
    }

    /// Whether it counts against the model as it is served there.
    pub(super) fn is_failure(self) -> bool {
        matches!(self.verdict(), Verdict::Failed | Verdict::Faulted)
    }

    /// Whether the endpoint may have another model than it had.
    pub(super) fn is_doubt(self) -> bool {
        matches!(self, Self::Garbage | Self::Unknown | Self::Refused)
    }

    /// Whether an endpoint that was asked about a model has said that it does not serve it.
    pub(super) fn is_denial(self) -> bool {
        matches!(self, Self::Unready | Self::Unknown)
    }
}

impl Failure {
    pub(super) fn new(cause: Cause, text: impl Into<String>) -> Self {
        Self { cause, text: text.into(), retry_after: None }
    }

    pub(super) fn garbage(text: impl Into<String>) -> Self {
        Self::new(Cause::Garbage, text)
    }

    /// A connection that was refused or broke.
    pub(super) fn connection(error: &(dyn Error + 'static)) -> Self {
        Self::new(Cause::Connection, chain(error))
    }

    /// From an HTTP answer that is none of 200.
    pub(super) fn of_http(status: StatusCode, headers: &HeaderMap, text: &str) -> Self {
        let cause = match status.as_u16() {
            400 | 413 | 415 | 422 => Cause::Invalid,
            429 => Cause::Throttled,
            502 | 503 => Cause::Unavailable,
            504 => Cause::TimedOut,
            404 => Cause::Unknown,
            500.. => Cause::Failed,
            _ => Cause::Refused,
        };
        let words = if cause == Cause::Invalid { text.into() } else { format!("{status}: {text}") };
        Self { retry_after: retry_after(headers), ..Self::new(cause, words) }
    }

    /// From the status of a gRPC answer.
    pub(super) fn of_grpc(status: &Status, headers: &HeaderMap) -> Self {
        let cause = match status.code() {
            Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition => Cause::Invalid,
            Code::ResourceExhausted => Cause::Throttled,
            Code::Unavailable => Cause::Unavailable,
            Code::DeadlineExceeded => Cause::TimedOut,
            Code::NotFound => Cause::Unknown,
            Code::AlreadyExists | Code::Unimplemented => Cause::Refused,
            Code::PermissionDenied | Code::Unauthenticated => Cause::Refused,
            Code::Ok | Code::Cancelled | Code::Unknown | Code::Aborted => Cause::Failed,
            Code::Internal | Code::DataLoss => Cause::Failed,
        };
        let text = match cause {
            Cause::Invalid => status.message().to_owned(),
            _ => format!("{:?}: {}", status.code(), status.message()),
        };
        Self { retry_after: retry_after(headers), ..Self::new(cause, text) }
    }

    /// What the caller is told. The words of an upstream are passed on where the caller's input is
    /// the cause; where the upstream is, they are for the log.
    pub(super) fn rejection(self, upstream: &str) -> Rejection {
        let Self { cause, text, retry_after } = self;
        let (kind, words) = match cause {
            Cause::Invalid => (Kind::InvalidInput, plain(&text)),
            Cause::Throttled => (Kind::Overloaded, "it refuses more calls".into()),
            Cause::Expired => {
                (Kind::DeadlineExceeded, "the deadline passed before there was an answer".into())
            }
            Cause::Nobody => (Kind::NotReady, "no endpoint takes calls".into()),
            Cause::TimedOut => (Kind::ArmFailed, "it did not answer in time".into()),
            Cause::Connection => (Kind::ArmFailed, "it cannot be reached".into()),
            Cause::Unavailable | Cause::Unready => (Kind::ArmFailed, "it is not available".into()),
            Cause::Garbage => (Kind::ArmFailed, "its answer does not fit the call".into()),
            Cause::Failed => (Kind::ArmFailed, "it failed".into()),
            Cause::Unknown | Cause::Refused => {
                (Kind::ArmFailed, "it does not serve this call".into())
            }
        };
        let rejection = Rejection::new(kind, format!("upstream '{upstream}': {words}"));
        let rejection = rejection.with_detail(Some(&text));
        match retry_after {
            Some(after) if cause == Cause::Throttled => rejection.with_retry_after(after),
            _ => rejection,
        }
    }
}

/// A text of somebody else, as callers may see it: short, and on one line.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect()
}

/// An error with its causes: hyper's own words alone do not say much.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

/// `Retry-After` in seconds; longer than five minutes is not believed.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 =
        headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.min(300)))
}
