//! What answers a call: a version of a local model.

use std::sync::Arc;
use std::time::Duration;

use crate::contract::Checker;
use crate::models::ServedVersion;
use crate::telemetry::VersionMetrics;
use crate::types::{AnsweredBy, ModelName, Patience, Priority, Signature};

/// What runs the calls of an arm.
#[derive(Debug, Clone)]
pub enum Backend {
    Local(Arc<ServedVersion>),
}

impl Backend {
    #[must_use]
    pub fn signature(&self) -> &Arc<Signature> {
        match self {
            Self::Local(served) => served.signature(),
        }
    }

    /// What the values of its inputs must be like, where its manifest says so.
    #[must_use]
    pub fn contract(&self) -> Option<&Checker> {
        match self {
            Self::Local(served) => served.contract.as_ref(),
        }
    }

    /// How long its calls may take.
    #[must_use]
    pub fn timeouts(&self) -> Patience {
        match self {
            Self::Local(served) => served.timeouts,
        }
    }

    #[must_use]
    pub fn metrics(&self) -> &Arc<VersionMetrics> {
        match self {
            Self::Local(served) => &served.metrics,
        }
    }

    /// Whether a call would be taken.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        match self {
            Self::Local(served) => served.is_ready(),
        }
    }

    /// What its answers are called.
    #[must_use]
    pub fn answered_by(&self) -> AnsweredBy {
        match self {
            Self::Local(served) => AnsweredBy::Version(served.version),
        }
    }

    /// The local version behind it.
    #[must_use]
    pub fn local(&self) -> Option<&Arc<ServedVersion>> {
        match self {
            Self::Local(served) => Some(served),
        }
    }

    /// The model whose version it is.
    #[must_use]
    pub fn model(&self) -> &ModelName {
        match self {
            Self::Local(served) => &served.model,
        }
    }

    /// Of calls that name none.
    #[must_use]
    pub fn priority(&self) -> Priority {
        match self {
            Self::Local(served) => served.manifest.batching.priority,
        }
    }

    /// When trying again may help.
    #[must_use]
    pub fn retry_after(&self) -> Duration {
        match self {
            Self::Local(served) => served.queue.retry_after(),
        }
    }

    /// Its name in messages.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Self::Local(served) => served.label(),
        }
    }
}
