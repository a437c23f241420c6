//! What can go wrong inside an engine, in words that are fit for a caller.
//!
//! A native library's own text may hold source code and paths of the machine that exported the
//! model. It goes into `detail`, which is for the log alone.

use std::fmt;

/// Whose fault a failed load or run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The request cannot be run by this model.
    Input,
    /// The model file or its settings cannot be used.
    Load,
    /// The device is not there or not usable.
    Device,
    /// The model threw while it ran.
    Run,
    /// The model answered other than its signature says.
    Output,
    /// Memory ran out.
    Memory,
}

/// A failed load or run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineError {
    fault: Fault,
    message: String,
    detail: Option<String>,
}

impl EngineError {
    /// An error whose text may be shown to a caller.
    pub fn new(fault: Fault, message: impl Into<String>) -> Self {
        Self { fault, message: message.into(), detail: None }
    }

    /// Adds what only the log may show.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    #[must_use]
    pub fn fault(&self) -> Fault {
        self.fault
    }

    /// What a caller may read.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What only the log may show.
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for EngineError {}
