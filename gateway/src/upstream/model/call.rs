//! One call: its attempts, and what comes of them.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use engine::Tensor;
use http::HeaderValue;
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use super::RemoteModel;
use crate::breaker::{self, Sample};
use crate::error::{Kind, Rejection};
use crate::telemetry::Outcome;
use crate::types::{Deadline, PredictionId, Priority, Signature, Timings};
use crate::upstream::board::Verdict;
use crate::upstream::failure::{Cause, Failure};
use crate::upstream::wire::Attempt;

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
                Ok(_) => Verdict::Answered,
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
                    debug!(upstream, endpoint, cause = ?failure.cause, error, "an attempt failed");
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
