//! A model of an upstream: what it takes and gives, and how a call to it is made.
//!
//! A call has one or several attempts, each on another endpoint. Its breaker counts calls: it opens
//! when the model fails wherever it is asked for, while ejection takes single endpoints out. It
//! also covers what ejection never does, the only endpoint and the last ones.

mod call;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use serde::Serialize;
use tokio::time::Instant;
use tracing::{info, warn};

pub use call::{RemoteAnswer, RemoteCall};

use super::Upstream;
use super::description::{self, View};
use super::failure::{Cause, Failure};
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
    /// By endpoint.
    views: Mutex<Vec<View>>,
    /// By endpoint: whether it serves the signature.
    serves: Box<[AtomicBool]>,
    signature: RwLock<Option<Arc<Signature>>>,
    breaker: Arc<Breaker>,
    metrics: Arc<VersionMetrics>,
    /// What answers named last: they all share it while it does not change.
    answered_by: Mutex<Arc<str>>,
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
        Self {
            views: Mutex::new(vec![View::Unknown; endpoints]),
            serves: (0..endpoints).map(|_| AtomicBool::new(false)).collect(),
            signature: RwLock::default(),
            breaker: Breaker::new(&name, upstream.breaker, metrics),
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

    pub(super) fn name(&self) -> Name<'_> {
        Name { model: &self.model, version: self.version.as_deref() }
    }

    #[must_use]
    pub fn upstream(&self) -> &str {
        self.upstream.name()
    }

    /// What it takes and gives; `None` until an endpoint has said so.
    #[must_use]
    pub fn signature(&self) -> Option<Arc<Signature>> {
        self.signature.read().unwrap_or_else(PoisonError::into_inner).clone()
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
        let views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        let endpoints = &self.upstream.fleet.settings.endpoints;
        let troubles = views.iter().zip(endpoints).enumerate();
        let troubles = troubles.filter_map(|(index, (view, endpoint))| match view {
            View::Unknown => Some(format!("{endpoint}: has not said what the model is like")),
            View::Away(reason) => Some(format!("{endpoint}: {reason}")),
            View::Serves(_) if self.is_served_by(index) => None,
            View::Serves(_) => Some(format!("{endpoint}: its signature differs from the others'")),
        });
        troubles.collect::<Vec<_>>().join("; ")
    }

    /// An endpoint has said what the model is like there, or that it has none.
    pub(super) fn learn(&self, index: usize, described: Result<Description, Failure>) {
        let view = match described {
            Ok(description) => match description::signature(&description) {
                Ok(signature) => View::Serves(Arc::new(signature)),
                Err(reason) => View::Away(reason),
            },
            // Whether it is still there, its health check says.
            Err(failure) if matches!(failure.cause, Cause::Connection | Cause::TimedOut) => return,
            Err(failure) => View::Away(failure.text),
        };
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        views[index] = view;
        let before = self.signature();
        let current = description::prevailing(&views, before.as_ref());
        for (index, view) in views.iter().enumerate() {
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
        let views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        !matches!(views[index], View::Serves(_))
    }
}
