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

/// Of what endpoints call the version that answered, in bytes.
const LONGEST_VERSION: usize = 64;

/// A checked call.
#[derive(Debug, Clone, Copy)]
pub struct RemoteCall<'a> {
    /// What the call was checked by; an answer has to fit it.
    pub signature: &'a Signature,
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
    /// A recorded call that is sent anew: it says so, in its id and in a header.
    pub replay: bool,
    /// A shadow: it takes no room and no retry of live calls, and nothing is learnt from it.
    pub shadow: bool,
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

/// A call that was not answered.
#[derive(Debug, Clone)]
pub struct Unanswered {
    pub rejection: Rejection,
    /// Whether an endpoint ran it and failed: the same call would fail again.
    pub has_run: bool,
}

impl From<Rejection> for Unanswered {
    fn from(rejection: Rejection) -> Self {
        Self { rejection, has_run: false }
    }
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
    /// `NotReady` without an endpoint, `Overloaded`, `CircuitOpen`, `DeadlineExceeded`,
    /// `InvalidInput` in the upstream's words, `ArmFailed` for what is its fault.
    pub async fn infer(&self, call: RemoteCall<'_>) -> Result<RemoteAnswer, Unanswered> {
        if call.shadow {
            return Ok(self.infer_aside(&call).await?);
        }
        let mut account = Account { model: self, outcome: Outcome::Refused(Kind::Cancelled) };
        let result = self.answer(&call).await;
        account.outcome = match &result {
            Ok(_) => Outcome::Answered,
            Err(unanswered) => Outcome::Refused(unanswered.rejection.kind()),
        };
        result
    }

    async fn answer(&self, call: &RemoteCall<'_>) -> Result<RemoteAnswer, Unanswered> {
        let name = self.upstream.name();
        let now = Instant::now();
        if call.deadline.is_some_and(|deadline| deadline.has_passed(now)) {
            return Err(Failure::new(Cause::Expired, "").rejection(name).into());
        }
        let _room = self.upstream.fleet.enter(now)?;
        let permit = self.breaker.admit(now, call.deadline)?;
        let settings = &self.upstream.fleet.settings;
        permit.extend(now + settings.timeout.saturating_mul(settings.retry.max.saturating_add(1)));
        let result = self.attempts(now, call).await;
        let outcome = match &result {
            Ok(_) => Some(breaker::Outcome::Success),
            Err(failure) => failure.cause.is_failure().then_some(breaker::Outcome::Failure),
        };
        let ended = Instant::now();
        let sample = Sample { outcome, time: ended - now, ..Sample::default() };
        self.breaker.record(ended, &permit, sample);
        result.map_err(|failure| {
            let has_run = failure.cause == Cause::Failed;
            Unanswered { rejection: failure.rejection(name), has_run }
        })
    }

    /// Answers a shadow: one attempt, from which neither the board nor the breaker learns.
    async fn infer_aside(&self, call: &RemoteCall<'_>) -> Result<RemoteAnswer, Rejection> {
        let fleet = &self.upstream.fleet;
        if self.breaker.state() != breaker::State::Closed {
            return Err(Rejection::new(Kind::CircuitOpen, self.breaker.refusal()));
        }
        let _room = fleet.enter_aside()?;
        let started = Instant::now();
        let result = match fleet.pick(started, |index| self.is_served_by(index)) {
            Some(index) => self.attempt(index, call, started).await,
            None => Err(Failure::new(Cause::Nobody, self.troubles())),
        };
        let (version, outputs) = result.map_err(|failure| failure.rejection(self.upstream()))?;
        let timings = Timings { infer: started.elapsed(), ..Timings::default() };
        Ok(RemoteAnswer { outputs, version: self.shared(&version), timings })
    }

    async fn attempts(
        &self,
        arrived: Instant,
        call: &RemoteCall<'_>,
    ) -> Result<RemoteAnswer, Failure> {
        let fleet = &self.upstream.fleet;
        let retry = fleet.settings.retry;
        // Endpoints that have failed this call.
        let mut tried: Vec<usize> = Vec::new();
        let mut last = None;
        for number in 0..=retry.max {
            if let Some(last) = &last {
                self.before_retry(number, &mut tried, last, call.deadline).await?;
            }
            let fits = |index| self.is_served_by(index) && !tried.contains(&index);
            let Some(seated) = fleet.seat(Instant::now(), fits) else { break };
            let (index, started) = (seated.index, seated.started);
            let result = self.attempt(index, call, started).await;
            seated.end(match &result {
                Ok(_) => Verdict::Answered,
                Err(failure) => failure.cause.verdict(),
            });
            match result {
                Ok((version, outputs)) => {
                    let (queue, infer) = (started - arrived, started.elapsed());
                    let timings = Timings { queue, infer, ..Timings::default() };
                    return Ok(RemoteAnswer { outputs, version: self.shared(&version), timings });
                }
                Err(failure) => {
                    let endpoint = &fleet.settings.endpoints[index];
                    let (upstream, error) = (self.upstream.name(), &failure.text);
                    debug!(upstream, endpoint, cause = ?failure.cause, error, "an attempt failed");
                    if !failure.cause.may_retry() {
                        return Err(failure);
                    }
                    tried.push(index);
                    last = Some(failure);
                }
            }
        }
        Err(last.unwrap_or_else(|| Failure::new(Cause::Nobody, self.troubles())))
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
            signature: call.signature,
            tensors: call.tensors,
            rows: call.rows,
            prediction: call.prediction,
            replay: call.replay,
            once: !call.shadow && fleet.settings.retry.max > 0,
            priority: call.priority,
            trace: call.trace,
            hops: call.hops.saturating_add(1),
            patience,
        };
        let result = timeout(patience, fleet.wires[index].infer(&attempt)).await;
        if matches!(&result, Ok(Err(failure)) if failure.cause.is_doubt()) {
            fleet.doubt(index);
        }
        match result {
            Ok(Err(failure)) if failure.cause == Cause::TimedOut && has_passed(call.deadline) => {
                Err(expired())
            }
            Ok(result) => result,
            Err(_) if left.is_some_and(|left| left <= limit) => Err(expired()),
            Err(_) => Err(Failure::new(Cause::TimedOut, format!("no answer within {limit:?}"))),
        }
    }

    /// The version as all answers that name it share it; callers get no other text than a word.
    fn shared(&self, version: &str) -> Arc<str> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let is_word = version.len() <= LONGEST_VERSION && version.bytes().all(fits);
        let version = if is_word { version } else { "" };
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
