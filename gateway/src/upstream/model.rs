//! A model of an upstream: what it takes and gives, and how a call to it is made.
//!
//! A call has one or several attempts, each on another endpoint. Its breaker counts calls: it opens
//! when the model fails wherever it is asked for, while ejection takes single endpoints out. It
//! also covers what ejection never does, the only endpoint and the last ones.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use engine::Tensor;
use http::HeaderValue;
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::Upstream;
use super::description::{self, View};
use super::failure::{Cause, Failure};
use super::wire::{Attempt, Description, Name};
use crate::breaker::{self, Breaker, Sample};
use crate::error::{Kind, Rejection};
use crate::telemetry::{BreakerMetrics, Outcome, VersionMetrics};
use crate::types::{Deadline, PredictionId, Priority, Signature, Timings};

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

/// A checked call.
#[derive(Debug, Clone, Copy)]
pub struct RemoteCall<'a> {
    /// In the signature's order.
    pub tensors: &'a [Tensor],
    pub rows: usize,
    pub deadline: Option<Deadline>,
    pub priority: Option<Priority>,
    /// The caller's `traceparent`.
    pub trace: Option<&'a HeaderValue>,
    pub prediction: PredictionId,
    /// Gateways that the call has passed, this one not counted.
    pub hops: u8,
}

/// The answer to a call.
#[derive(Debug, Clone)]
pub struct RemoteAnswer {
    /// All, in the signature's order.
    pub outputs: Vec<Tensor>,
    /// As the endpoint names it; may be empty.
    pub version: Arc<str>,
    /// `infer` is the attempt that was answered, `queue` what came before it.
    pub timings: Timings,
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

/// Counts how a call ended, also one whose caller leaves.
struct Account<'a> {
    model: &'a RemoteModel,
    outcome: Outcome,
}

impl Drop for Account<'_> {
    fn drop(&mut self) {
        self.model.upstream.fleet.metrics.count(self.outcome);
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

    /// Answers a call whose inputs fit the signature.
    ///
    /// # Errors
    /// `NotReady` without an endpoint or a signature, `Overloaded`, `CircuitOpen`,
    /// `DeadlineExceeded`, `InvalidInput` in the upstream's words, `ArmFailed` for what is its
    /// fault.
    pub async fn infer(&self, call: RemoteCall<'_>) -> Result<RemoteAnswer, Rejection> {
        let mut account = Account { model: self, outcome: Outcome::Refused(Kind::Cancelled) };
        let result = self.answer(&call).await;
        account.outcome = match &result {
            Ok(_) => Outcome::Answered,
            Err(rejection) => Outcome::Refused(rejection.kind()),
        };
        result
    }

    async fn answer(&self, call: &RemoteCall<'_>) -> Result<RemoteAnswer, Rejection> {
        let name = self.upstream.name();
        let Some(signature) = self.signature() else {
            let text =
                format!("upstream '{name}' has not said what model '{}' is like", self.model);
            return Err(Rejection::new(Kind::NotReady, text).with_detail(Some(&self.troubles())));
        };
        let now = Instant::now();
        if call.deadline.is_some_and(|deadline| deadline.has_passed(now)) {
            return Err(Failure::new(Cause::Expired, "").rejection(name));
        }
        let _room = self.upstream.fleet.enter(now)?;
        let permit = self.breaker.admit(now, call.deadline)?;
        let settings = &self.upstream.fleet.settings;
        permit.extend(now + settings.timeout.saturating_mul(settings.retry.max.saturating_add(1)));
        let result = self.attempts(now, &signature, call).await;
        let outcome = match &result {
            Ok(_) => Some(breaker::Outcome::Success),
            Err(failure) => failure.cause.is_failure().then_some(breaker::Outcome::Failure),
        };
        let ended = Instant::now();
        let sample = Sample { outcome, time: ended - now, ..Sample::default() };
        self.breaker.record(ended, &permit, sample);
        result.map_err(|failure| failure.rejection(name))
    }

    async fn attempts(
        &self,
        arrived: Instant,
        signature: &Signature,
        call: &RemoteCall<'_>,
    ) -> Result<RemoteAnswer, Failure> {
        let fleet = &self.upstream.fleet;
        let retry = fleet.settings.retry;
        // Endpoints that have failed this call.
        let mut tried: Vec<usize> = Vec::new();
        let mut last = Failure::new(Cause::Nobody, "");
        for number in 0..=retry.max {
            if number > 0 {
                self.before_retry(number, &mut tried, &last, call.deadline).await?;
            }
            let fits = |index| self.is_served_by(index) && !tried.contains(&index);
            let Some(seated) = fleet.seat(Instant::now(), fits) else { return Err(last) };
            let (index, started) = (seated.index, seated.started);
            let result = self.attempt(index, signature, call, started).await;
            seated.end(match &result {
                Ok(_) => super::board::Verdict::Answered,
                Err(failure) => failure.cause.verdict(),
            });
            match result {
                Ok((version, outputs)) => {
                    let (queue, infer) = (started - arrived, started.elapsed());
                    let timings = Timings { queue, infer, ..Timings::default() };
                    return Ok(RemoteAnswer { outputs, version: self.shared(version), timings });
                }
                Err(failure) => {
                    let endpoint = &fleet.settings.endpoints[index];
                    let (upstream, error) = (self.upstream.name(), &failure.text);
                    tracing::debug!(upstream, endpoint, cause = ?failure.cause, error, "an attempt failed");
                    if !failure.cause.may_retry() {
                        return Err(failure);
                    }
                    tried.push(index);
                    last = failure;
                }
            }
        }
        Err(last)
    }

    /// Waits before another attempt.
    ///
    /// # Errors
    /// The failure of the last one, where another attempt is out of the question.
    async fn before_retry(
        &self,
        number: u32,
        tried: &mut Vec<usize>,
        last: &Failure,
        deadline: Option<Deadline>,
    ) -> Result<(), Failure> {
        let fleet = &self.upstream.fleet;
        let retry = fleet.settings.retry;
        // The only endpoint is tried again where the connection was at fault: it may have closed
        // one that was idle.
        if fleet.wires.len() == 1 && last.cause == Cause::Connection {
            tried.clear();
        }
        let now = Instant::now();
        // Full jitter: M. Brooker, "Exponential Backoff And Jitter", 2015.
        let doubled =
            retry.backoff.saturating_mul(1_u32.checked_shl(number - 1).unwrap_or(u32::MAX));
        let wait = doubled.min(retry.max_backoff).mul_f64(fastrand::f64());
        let in_time = deadline.is_none_or(|Deadline(at)| now + wait < at);
        let fits = |index| self.is_served_by(index) && !tried.contains(&index);
        if !in_time || !fleet.has(now, fits) || !fleet.may_retry(now) {
            return Err(last.clone());
        }
        sleep(wait).await;
        Ok(())
    }

    async fn attempt(
        &self,
        index: usize,
        signature: &Signature,
        call: &RemoteCall<'_>,
        started: Instant,
    ) -> Result<(String, Vec<Tensor>), Failure> {
        let fleet = &self.upstream.fleet;
        let left = call.deadline.map(|Deadline(at)| at.saturating_duration_since(started));
        let limit = fleet.settings.timeout;
        let patience = left.map_or(limit, |left| left.min(limit));
        let expired = || Failure::new(Cause::Expired, "");
        if patience.is_zero() {
            return Err(expired());
        }
        let attempt = Attempt {
            name: self.name(),
            signature,
            tensors: call.tensors,
            rows: call.rows,
            prediction: call.prediction,
            priority: call.priority,
            trace: call.trace,
            hops: call.hops.saturating_add(1),
            patience,
        };
        match timeout(patience, fleet.wires[index].infer(&attempt)).await {
            Ok(Err(failure)) if failure.cause == Cause::TimedOut && has_passed(call.deadline) => {
                Err(expired())
            }
            Ok(result) => result,
            Err(_) if left.is_some_and(|left| left <= limit) => Err(expired()),
            Err(_) => Err(Failure::new(Cause::TimedOut, format!("no answer within {limit:?}"))),
        }
    }

    /// The version as all answers that name it share it.
    fn shared(&self, version: String) -> Arc<str> {
        let mut last = self.answered_by.lock().unwrap_or_else(PoisonError::into_inner);
        if **last != *version {
            *last = version.into();
        }
        last.clone()
    }
}

/// Whether the deadline is over, or so near that an endpoint's clock may have it over.
fn has_passed(deadline: Option<Deadline>) -> bool {
    const SLACK: Duration = Duration::from_millis(5);
    deadline.is_some_and(|Deadline(at)| Instant::now() + SLACK >= at)
}
