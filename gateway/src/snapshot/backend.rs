//! What answers a call: a version of a local model, or a model elsewhere.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tracing::warn;

use crate::breaker::State;
use crate::contract::Checker;
use crate::models::ServedVersion;
use crate::telemetry::VersionMetrics;
use crate::types::{ArmName, Patience, Priority, Signature};
use crate::upstream::RemoteModel;

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

/// What a route's callers take all of its arms for: the first arm whose signature is known,
/// those that are loaded here before those elsewhere, which may change at any time.
#[derive(Debug)]
pub(super) struct Standard(Vec<(ArmName, Seat)>);

/// Whether a model elsewhere fits, as of the last time that one of the two signatures changed.
#[derive(Debug)]
struct Fit {
    standard: Arc<Standard>,
    last: RwLock<Option<Compared>>,
}

#[derive(Debug)]
struct Compared {
    standard: Arc<Signature>,
    own: Arc<Signature>,
    misfit: Option<String>,
}

impl Standard {
    pub(super) fn new<'a>(arms: impl Iterator<Item = (&'a ArmName, &'a Seat)>) -> Arc<Self> {
        let known = arms.filter(|(_, seat)| !matches!(seat, Seat::Empty(_)));
        let mut arms: Vec<_> = known.map(|(name, seat)| (name.clone(), seat.clone())).collect();
        // The order of arms stays otherwise.
        arms.sort_by_key(|(_, seat)| seat.local().is_none());
        Arc::new(Self(arms))
    }

    fn current(&self) -> Option<(&ArmName, Arc<Signature>)> {
        self.0.iter().find_map(|(name, seat)| {
            let signature = match seat {
                Seat::Local(served) => Some(served.signature().clone()),
                Seat::Remote(remote) => remote.model.signature(),
                Seat::Empty(_) => None,
            };
            Some((name, signature?))
        })
    }
}

impl Fit {
    /// Why a model with this signature does not fit; `None` where it does.
    fn misfit(&self, own: &Arc<Signature>) -> Option<String> {
        let (arm, standard) = self.standard.current()?;
        let is_same = |compared: &&Compared| {
            Arc::ptr_eq(&compared.standard, &standard) && Arc::ptr_eq(&compared.own, own)
        };
        let last = self.last.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = last.as_ref().filter(is_same) {
            return known.misfit.clone();
        }
        drop(last);
        let reason = standard.incompatibility(own);
        let misfit = reason.map(|reason| format!("does not fit arm '{arm}': {reason}"));
        if let Some(reason) = &misfit {
            warn!(reason, "a model elsewhere gets no calls of a route");
        }
        let compared = Compared { standard, own: own.clone(), misfit: misfit.clone() };
        *self.last.write().unwrap_or_else(PoisonError::into_inner) = Some(compared);
        misfit
    }
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
                let fit = Fit { standard: standard.clone(), last: RwLock::default() };
                Self::Remote(RemoteSeat { model, fit: Some(Arc::new(fit)) })
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
