//! A model of an upstream: what it takes and gives, and how a call to it is made.
//!
//! A call has one or several attempts, each on another endpoint. Its breaker counts calls: it opens
//! when the model fails wherever it is asked for, while ejection takes single endpoints out. It
//! also covers what ejection never does, the only endpoint and the last ones.

mod call;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use serde::Serialize;
use tokio::time::Instant;
use tracing::{info, warn};

pub use call::{RemoteAnswer, RemoteCall, Unanswered};

use super::Upstream;
use super::description::{self, View};
use super::failure::{Cause, Failure};
#[cfg(test)]
use super::fleet::Fleet;
use super::wire::{Description, Name};
use crate::breaker::{self, Breaker};
use crate::telemetry::{BreakerMetrics, VersionMetrics};
use crate::types::Signature;

/// A model of an upstream.
#[derive(Debug)]
pub struct RemoteModel {
    upstream: Arc<Upstream>,
    model: String,
    version: Option<String>,
    known: Mutex<Known>,
    /// By endpoint: whether it serves the signature.
    serves: Box<[AtomicBool]>,
    signature: RwLock<Option<Arc<Signature>>>,
    /// Grows after each change of the signature.
    revision: AtomicU64,
    breaker: Arc<Breaker>,
    metrics: Arc<VersionMetrics>,
    /// What answers named last: they all share it while it does not change.
    answered_by: Mutex<Arc<str>>,
}

/// What endpoints have said, by endpoint.
#[derive(Debug)]
struct Known {
    views: Vec<View>,
    asked: Vec<Asked>,
}

/// How asking an endpoint went.
#[derive(Debug, Clone, Copy, Default)]
struct Asked {
    /// Times in a row that it gave no answer, while it is taken for serving the model.
    misses: u32,
    /// Whether what is known is what it said last.
    is_settled: bool,
}

/// What a model is known to be like, for the same model of an upstream with other settings.
#[derive(Debug, Clone)]
pub(super) struct Legacy {
    model: String,
    version: Option<String>,
    signature: Arc<Signature>,
    /// By endpoint of the new upstream.
    serves: Vec<bool>,
}

/// What there is to see of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelStatus {
    pub model: String,
    pub version: Option<String>,
    pub ready: bool,
    /// Why it is not ready, or what keeps endpoints from serving it.
    pub reason: String,
}

impl Legacy {
    fn is(&self, model: &str, version: Option<&str>) -> bool {
        self.model == model && self.version.as_deref() == version
    }
}

impl RemoteModel {
    pub(super) fn new(upstream: Arc<Upstream>, model: &str, version: Option<&str>) -> Self {
        let endpoints = upstream.fleet.wires.len();
        let label = format!("{}/{model}", upstream.name());
        let shown = version.unwrap_or_default();
        let name = match version {
            Some(version) => format!("{label}/{version}"),
            None => label.clone(),
        };
        let metrics = BreakerMetrics::new(&label, shown);
        let legacy = upstream.legacy(|legacy| legacy.is(model, version));
        let serves = |index: usize| legacy.as_ref().is_some_and(|legacy| legacy.serves[index]);
        let view = |index| match &legacy {
            Some(legacy) if legacy.serves[index] => View::Serves(legacy.signature.clone()),
            _ => View::Unknown,
        };
        let views = (0..endpoints).map(view).collect();
        Self {
            known: Mutex::new(Known { views, asked: vec![Asked::default(); endpoints] }),
            serves: (0..endpoints).map(|index| AtomicBool::new(serves(index))).collect(),
            signature: RwLock::new(legacy.map(|legacy| legacy.signature)),
            revision: AtomicU64::new(0),
            breaker: Breaker::new(&name, upstream.breaker(), metrics),
            metrics: Arc::new(VersionMetrics::new(&label, shown)),
            answered_by: Mutex::new(shown.into()),
            model: model.to_owned(),
            version: version.map(ToOwned::to_owned),
            upstream,
        }
    }

    pub(super) fn is(&self, model: &str, version: Option<&str>) -> bool {
        self.model == model && self.version.as_deref() == version
    }

    /// What is known of it, for the same model at these endpoints: those that it has served so far
    /// are taken to do so, and all of them where none is an old one.
    pub(super) fn legacy(&self, endpoints: &[String]) -> Option<Legacy> {
        let signature = self.signature()?;
        let old = &self.upstream.fleet.settings.endpoints;
        let place = |endpoint: &String| old.iter().position(|known| known == endpoint);
        let is_new = endpoints.iter().all(|endpoint| place(endpoint).is_none());
        let serves =
            |endpoint| is_new || place(endpoint).is_some_and(|index| self.is_served_by(index));
        Some(Legacy {
            model: self.model.clone(),
            version: self.version.clone(),
            signature,
            serves: endpoints.iter().map(serves).collect(),
        })
    }

    pub(super) fn name(&self) -> Name<'_> {
        Name { model: &self.model, version: self.version.as_deref() }
    }

    #[cfg(test)]
    pub(super) fn upstream_fleet(&self) -> &Fleet {
        &self.upstream.fleet
    }

    #[must_use]
    pub fn upstream(&self) -> &str {
        self.upstream.name()
    }

    /// What the upstream calls it.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }

    /// What it takes and gives; `None` until an endpoint has said so.
    #[must_use]
    pub fn signature(&self) -> Option<Arc<Signature>> {
        self.signature.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says without a lock whether the signature may have changed since it was read: it is then
    /// another one.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// Whether a call would be taken.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.breaker.state() != breaker::State::Open && self.has_endpoint()
    }

    /// Its circuit breaker, of which each call is one sample.
    #[must_use]
    pub fn breaker(&self) -> &Arc<Breaker> {
        &self.breaker
    }

    /// Handles for calls that it answers; the label `model` is the upstream's name and the
    /// model's, as `fleet/digits`.
    #[must_use]
    pub fn metrics(&self) -> &Arc<VersionMetrics> {
        &self.metrics
    }

    /// Everything there is to see.
    #[must_use]
    pub fn status(&self) -> ModelStatus {
        let reason = self.breaker.trouble().unwrap_or_else(|| self.troubles());
        let ready = self.is_ready();
        ModelStatus { model: self.model.clone(), version: self.version.clone(), ready, reason }
    }

    fn has_endpoint(&self) -> bool {
        self.upstream.fleet.has(Instant::now(), |index| self.is_served_by(index))
    }

    fn is_served_by(&self, index: usize) -> bool {
        self.serves[index].load(Ordering::Relaxed)
    }

    /// What keeps endpoints from serving it.
    fn troubles(&self) -> String {
        let known = self.known();
        let endpoints = &self.upstream.fleet.settings.endpoints;
        let troubles = known.views.iter().zip(endpoints).enumerate();
        let troubles = troubles.filter_map(|(index, (view, endpoint))| match view {
            View::Unknown => Some(format!("{endpoint}: has not said what the model is like")),
            View::Away(reason) => Some(format!("{endpoint}: {reason}")),
            View::Serves(_) if self.is_served_by(index) => None,
            View::Serves(_) => Some(format!("{endpoint}: its signature differs from the others'")),
        });
        troubles.collect::<Vec<_>>().join("; ")
    }

    /// An endpoint has said what the model is like there or that it has none, or has given no
    /// answer: one that serves the model is believed to, until it has given none often enough.
    pub(super) fn learn(&self, index: usize, described: Result<Description, Failure>) {
        let mut known = self.known();
        let serves = matches!(known.views[index], View::Serves(_));
        let Asked { misses, is_settled } = &mut known.asked[index];
        *is_settled = described.is_ok();
        let view = match described {
            Ok(description) => match description::signature(&description) {
                Ok(signature) => View::Serves(Arc::new(signature)),
                Err(reason) => View::Away(reason),
            },
            // Whether it is still there, its health check says.
            Err(failure) if matches!(failure.cause, Cause::Connection | Cause::TimedOut) => return,
            Err(failure) => {
                *misses += 1;
                let enough = self.upstream.fleet.settings.health.unhealthy_after;
                if serves && !failure.cause.is_denial() && *misses < enough {
                    return;
                }
                View::Away(failure.text)
            }
        };
        *misses = 0;
        known.views[index] = view;
        let before = self.signature();
        let current = description::prevailing(&known.views, before.as_ref());
        for (index, view) in known.views.iter().enumerate() {
            let serves = match (view, &current) {
                (View::Serves(signature), Some(current)) => description::agree(signature, current),
                _ => false,
            };
            let served = self.serves[index].swap(serves, Ordering::Relaxed);
            if served != serves {
                self.tell(index, serves, view);
            }
        }
        let is_new = match (&before, &current) {
            (Some(before), Some(current)) => before != current,
            (before, current) => before.is_some() != current.is_some(),
        };
        if is_new {
            *self.signature.write().unwrap_or_else(PoisonError::into_inner) = current;
            self.revision.fetch_add(1, Ordering::Release);
        }
    }

    fn tell(&self, index: usize, serves: bool, view: &View) {
        let (upstream, model) = (self.upstream.name(), &self.model);
        let endpoint = &self.upstream.fleet.settings.endpoints[index];
        let reason = match view {
            View::Away(reason) => reason,
            _ => "its signature differs from the others'",
        };
        match serves {
            true => info!(upstream, model, endpoint, "the endpoint serves the model"),
            false => warn!(upstream, model, endpoint, reason, "the endpoint serves it no longer"),
        }
    }

    /// Whether an endpoint has yet to say what the model is like.
    pub(super) fn is_unknown_at(&self, index: usize) -> bool {
        let known = self.known();
        !matches!(known.views[index], View::Serves(_)) || !known.asked[index].is_settled
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
