//! What callers are told about failed runs.

use engine::error::Fault;
use tracing::error;

use crate::batching::Failure;
use crate::error::{Kind, Rejection};
use crate::models::ServedVersion;
use crate::snapshot::Backend;

/// A call that was not answered.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) rejection: Rejection,
    /// Whether the call ran and failed: the same call would fail again.
    pub(super) has_run: bool,
}

impl From<Rejection> for Refused {
    fn from(rejection: Rejection) -> Self {
        Self { rejection, has_run: false }
    }
}

/// What a caller is told about a failed run.
pub(super) fn of(served: &ServedVersion, failure: Failure) -> Refused {
    let label = served.label();
    // Memory may be there again the next time.
    let has_run = match &failure {
        Failure::Engine(error) => !matches!(error.fault(), Fault::Memory),
        // With more time the same call would be answered.
        Failure::Expired | Failure::Overdue | Failure::Cancelled => false,
        Failure::Displaced | Failure::Stopping | Failure::CircuitOpen(_) => false,
        Failure::Input(_) | Failure::TimedOut(_) | Failure::Panicked | Failure::Outputs(_) => true,
    };
    let rejection = match failure {
        Failure::Engine(error) => {
            let kind = match error.fault() {
                Fault::Input => Kind::InvalidInput,
                Fault::Memory => Kind::Overloaded,
                Fault::Load | Fault::Device | Fault::Run | Fault::Output => Kind::EngineFailed,
            };
            let text = format!("model {label}: {}", error.message());
            Rejection::new(kind, text).with_detail(error.detail())
        }
        // The model answers its own inputs: this call's are the cause.
        Failure::Input(error) => Rejection::invalid(format!("model {label}: {}", error.message()))
            .with_detail(error.detail()),
        Failure::Expired => Rejection::new(
            Kind::DeadlineExceeded,
            format!("model {label}: the deadline passed before there was an answer"),
        ),
        Failure::Overdue => Rejection::new(
            Kind::DeadlineExceeded,
            format!("model {label}: the deadline passed during the run"),
        ),
        Failure::Cancelled => Rejection::new(Kind::Cancelled, "the caller went away"),
        Failure::Displaced => Rejection::new(
            Kind::Overloaded,
            format!("the queue of {label} is full: a more urgent call took the place"),
        )
        .with_retry_after(served.queue.retry_after()),
        Failure::Stopping => Rejection::new(Kind::NotReady, "the gateway is stopping"),
        Failure::CircuitOpen(after) => {
            Rejection::new(Kind::CircuitOpen, served.breaker.refusal()).with_retry_after(after)
        }
        Failure::TimedOut(limit) => Rejection::new(
            Kind::EngineFailed,
            format!("model {label}: the run took longer than {limit:?} and was given up"),
        ),
        Failure::Panicked => {
            Rejection::new(Kind::EngineFailed, format!("model {label}: the engine failed"))
        }
        Failure::Outputs(text) => {
            error!(model = label, error = text, "the model breaks its signature");
            Rejection::new(Kind::EngineFailed, format!("model {label}: {text}"))
        }
    };
    Refused { rejection, has_run }
}

/// The deadline had passed before anything was done.
pub(super) fn expired(backend: &Backend) -> Refused {
    let text = format!("model {}: the deadline passed before there was an answer", backend.label());
    Rejection::new(Kind::DeadlineExceeded, text).into()
}
