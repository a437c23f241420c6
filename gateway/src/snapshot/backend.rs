//! What answers a call: a version of a local model, or a model elsewhere.

mod standard;

use std::sync::Arc;
use std::time::Duration;

use crate::breaker::State;
use crate::contract::Checker;
use crate::models::ServedVersion;
use crate::telemetry::VersionMetrics;
use crate::types::{Patience, Priority, Signature};
use crate::upstream::RemoteModel;

use standard::Fit;
pub(super) use standard::Standard;

/// How long callers of a model elsewhere are told to wait: the time in which its endpoints may be
/// found well again.
const RETRY: Duration = Duration::from_secs(1);

/// What runs the calls of an arm.
#[derive(Debug, Clone)]
pub enum Backend {
    Local(Arc<ServedVersion>),
    Remote(Remote),
}

/// A model elsewhere, with what it takes and gives.
#[derive(Debug, Clone)]
pub struct Remote {
    pub model: Arc<RemoteModel>,
    pub signature: Arc<Signature>,
}

/// Where the calls of an arm or a shadow go, as far as that is there.
#[derive(Debug, Clone)]
pub enum Seat {
    Local(Arc<ServedVersion>),
    Remote(RemoteSeat),
    /// Why nobody is there.
    Empty(String),
}

/// A model elsewhere, and what it has to fit to answer calls of a route.
#[derive(Debug, Clone)]
pub struct RemoteSeat {
    pub model: Arc<RemoteModel>,
    /// `None` outside of routes.
    fit: Option<Arc<Fit>>,
}

impl RemoteSeat {
    fn misfit(&self, own: &Arc<Signature>) -> Option<String> {
        self.fit.as_ref().and_then(|fit| fit.misfit(own))
    }
}

impl Seat {
    pub(super) fn remote(model: Arc<RemoteModel>) -> Self {
        Self::Remote(RemoteSeat { model, fit: None })
    }

    /// The same, for calls whose callers take all arms for the same model.
    pub(super) fn fitting(self, standard: &Arc<Standard>) -> Self {
        match self {
            Self::Remote(RemoteSeat { model, .. }) => {
                let fit = Some(Arc::new(Fit::new(standard)));
                Self::Remote(RemoteSeat { model, fit })
            }
            Self::Local(_) | Self::Empty(_) => self,
        }
    }

    /// What runs calls now; `None` while nothing does.
    #[must_use]
    pub fn backend(&self) -> Option<Backend> {
        match self {
            Self::Local(served) => Some(Backend::Local(served.clone())),
            Self::Remote(seat) => {
                let signature = seat.model.signature()?;
                let fits = seat.misfit(&signature).is_none();
                fits.then(|| Backend::Remote(Remote { model: seat.model.clone(), signature }))
            }
            Self::Empty(_) => None,
        }
    }

    /// One word for how it is, and why where it is not well.
    #[must_use]
    pub fn state(&self) -> (&'static str, String) {
        let ready = |is_ready, reason: String| match is_ready {
            true => ("ready", String::new()),
            false => ("not_ready", reason),
        };
        match self {
            Self::Local(served) if served.breaker.state() == State::Open => {
                ("open", served.breaker.trouble().unwrap_or_default())
            }
            Self::Local(served) => {
                let failure = served.queue.device_failure().unwrap_or_default();
                ready(served.is_ready(), failure.to_owned())
            }
            Self::Remote(seat) => {
                let (model, breaker) = (&seat.model, seat.model.breaker());
                if let Some(misfit) = model.signature().and_then(|own| seat.misfit(&own)) {
                    return ("not_ready", misfit);
                }
                if breaker.state() == State::Open {
                    return ("open", breaker.trouble().unwrap_or_default());
                }
                ready(model.is_ready(), model.status().reason)
            }
            Self::Empty(reason) => ("not_ready", reason.clone()),
        }
    }

    /// The local version, where it is one.
    #[must_use]
    pub fn local(&self) -> Option<&Arc<ServedVersion>> {
        match self {
            Self::Local(served) => Some(served),
            Self::Remote(_) | Self::Empty(_) => None,
        }
    }

    /// Whether both are the same thing, loaded once.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Local(one), Self::Local(other)) => Arc::ptr_eq(one, other),
            (Self::Remote(one), Self::Remote(other)) => Arc::ptr_eq(&one.model, &other.model),
            _ => false,
        }
    }
}

impl Backend {
    /// The model's name, where it runs.
    #[must_use]
    pub fn model(&self) -> &str {
        match self {
            Self::Local(served) => served.model.as_str(),
            Self::Remote(remote) => remote.model.model(),
        }
    }

    #[must_use]
    pub fn signature(&self) -> &Arc<Signature> {
        match self {
            Self::Local(served) => served.signature(),
            Self::Remote(remote) => &remote.signature,
        }
    }

    /// What the values of its inputs must be like, where its manifest says so.
    #[must_use]
    pub fn contract(&self) -> Option<&Checker> {
        match self {
            Self::Local(served) => served.contract.as_ref(),
            Self::Remote(_) => None,
        }
    }

    /// How long its calls may take; `outer` is what the gateway says.
    #[must_use]
    pub fn timeouts(&self, outer: Patience) -> Patience {
        match self {
            Self::Local(served) => served.timeouts,
            Self::Remote(_) => outer,
        }
    }

    #[must_use]
    pub fn metrics(&self) -> &Arc<VersionMetrics> {
        match self {
            Self::Local(served) => &served.metrics,
            Self::Remote(remote) => remote.model.metrics(),
        }
    }

    /// The local version behind it.
    #[must_use]
    pub fn local(&self) -> Option<&Arc<ServedVersion>> {
        match self {
            Self::Local(served) => Some(served),
            Self::Remote(_) => None,
        }
    }

    /// Of calls that name none.
    #[must_use]
    pub fn priority(&self) -> Priority {
        match self {
            Self::Local(served) => served.manifest.batching.priority,
            Self::Remote(_) => Priority::default(),
        }
    }

    /// When trying again may help.
    #[must_use]
    pub fn retry_after(&self) -> Duration {
        match self {
            Self::Local(served) => served.queue.retry_after(),
            Self::Remote(_) => RETRY,
        }
    }

    /// Its name in messages.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Self::Local(served) => served.label(),
            Self::Remote(remote) => format!("of upstream '{}'", remote.model.upstream()),
        }
    }
}

#[cfg(test)]
mod tests;
