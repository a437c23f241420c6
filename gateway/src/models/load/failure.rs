//! Why a version did not become ready.

use std::fmt;

use crate::batching::Failure;

/// Why a version did not become ready, in words for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadFailure {
    message: String,
    detail: Option<String>,
    transient: bool,
}

impl LoadFailure {
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), detail: None, transient: false }
    }

    /// A failure that is not the files' fault and may pass by itself.
    pub fn transient(message: impl Into<String>) -> Self {
        Self { transient: true, ..Self::new(message) }
    }

    /// Whether trying the same files again may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.transient
    }

    /// The engine's own words, for the log.
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }
}

impl fmt::Display for LoadFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<engine::EngineError> for LoadFailure {
    fn from(error: engine::EngineError) -> Self {
        let detail = error.detail().map(ToOwned::to_owned);
        Self { detail, ..Self::new(error.message()) }
    }
}

impl From<String> for LoadFailure {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}

/// A failed run as part of a load.
pub(super) fn describe(what: &str, failure: Failure) -> LoadFailure {
    let (message, detail) = match failure {
        Failure::Engine(error) | Failure::Input(error) => {
            (error.message().to_owned(), error.detail().map(ToOwned::to_owned))
        }
        Failure::TimedOut(limit) => (format!("took longer than {limit:?}, given up"), None),
        Failure::Panicked => ("the engine panicked".to_owned(), None),
        Failure::Outputs(text) => (text, None),
        Failure::CircuitOpen(_) => ("its circuit breaker is open".to_owned(), None),
        Failure::Expired | Failure::Overdue | Failure::Cancelled | Failure::Displaced => {
            ("it was given up".to_owned(), None)
        }
        Failure::Stopping => ("the gateway is stopping".to_owned(), None),
    };
    LoadFailure { detail, ..LoadFailure::new(format!("{what}: {message}")) }
}
