//! Feedback: what became of predictions, told later over both protocols.
//!
//! A batch is checked as a whole (`told`), what was told before is left out (`seen`), the rest
//! is written to the prediction log like a durable row, and only then answered and counted. Which
//! prediction it belongs to is settled when the log is read; what is remembered of recent ones
//! ([`recent`](crate::predictions::Recent)) tells at once.

mod json;
mod seen;
mod told;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use predlog::Feedback;
use predlog::feedback::{Labels, Range};
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::config::{self, Memory};
use crate::error::{Kind, Rejection};
use crate::predictions::{Met, PredictionLog, Target, Word};
use crate::tasks;
use crate::telemetry::FeedbackMetrics;

pub use crate::telemetry::FeedbackOutcome as Outcome;
pub use json::{from_body, from_json};
pub use told::{Given, Told, Wrong};

use seen::Seen;

/// Feedback in one request, at most.
pub const MOST: usize = 4096;
/// What is wrong with a batch is told up to here.
const MOST_WRONG: usize = 100;
/// A prediction this young may not be in the log yet, and clocks of gateways differ as much.
const YOUNG: Duration = Duration::from_secs(60);

/// Takes feedback in.
#[derive(Debug)]
pub struct Intake {
    log: Arc<PredictionLog>,
    seen: Arc<Seen>,
    metrics: FeedbackMetrics,
    horizon: Duration,
    /// Predictions from before are not remembered.
    started_us: i64,
}

/// What became of one feedback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// What it is known by.
    pub id: String,
    pub outcome: Outcome,
}

/// Why a batch was not taken: nothing of it is stored.
#[derive(Debug)]
pub enum Refusal {
    /// What is wrong with which of it.
    Wrong(Vec<Wrong>),
    Rejected(Rejection),
}

impl Refusal {
    /// It in the words of the error table.
    #[must_use]
    pub fn rejection(&self) -> Rejection {
        match self {
            Self::Rejected(rejection) => rejection.clone(),
            Self::Wrong(all) => {
                const SHOWN: usize = 10;
                let mut texts: Vec<_> = all.iter().take(SHOWN).map(ToString::to_string).collect();
                if all.len() > SHOWN {
                    texts.push(format!("and {} more", all.len() - SHOWN));
                }
                Rejection::invalid(texts.join("; "))
            }
        }
    }
}

impl Intake {
    /// Takes feedback for a log. What was told within the horizon before is read from the log in
    /// the background, so that it is known when it is told again.
    #[must_use]
    pub fn start(log: Arc<PredictionLog>, config: &config::PredictionLog) -> Arc<Self> {
        let Memory { horizon, entries } = config.feedback.unwrap_or_default();
        let seen = Arc::new(Seen::new(horizon, entries));
        let (known, path) = (seen.clone(), log.path().to_owned());
        let started_us = log.now_us();
        let from_us = started_us.saturating_sub(micros(horizon));
        tasks::spawn("feedback", async move {
            let range = Range { from_us: Some(from_us), until_us: None, most: entries };
            match tasks::blocking(move || Labels::read(&path, &range)).await {
                Ok(labels) => {
                    for damage in labels.damage() {
                        warn!(damage, "feedback of the prediction log cannot be read");
                    }
                    let now = Instant::now();
                    for told in labels.iter() {
                        known.note(told.key(), now);
                    }
                    debug!(feedback = labels.len(), "what was told before is known");
                }
                Err(error) => warn!(
                    %error,
                    "feedback that is told again may be stored again; it counts once when it is read"
                ),
            }
        });
        Arc::new(Self { log, seen, metrics: FeedbackMetrics::new(), horizon, started_us })
    }

    /// Takes a batch: all of it or nothing. What is returned, in the order of the batch, is
    /// written.
    ///
    /// # Errors
    /// What is wrong with which of it, or why nothing can be written now.
    pub async fn take(&self, batch: Vec<Told>) -> Result<Vec<Settled>, Refusal> {
        let count = batch.len();
        let taken = self.take_all(batch).await;
        if taken.is_err() {
            self.metrics.count(Outcome::Refused, count);
        }
        taken
    }

    /// Counts what was refused before it could be told apart.
    pub fn refused(&self, count: usize) {
        self.metrics.count(Outcome::Refused, count);
    }

    async fn take_all(&self, batch: Vec<Told>) -> Result<Vec<Settled>, Refusal> {
        if batch.len() > MOST {
            let text = format!("more than {MOST} in one request: send them in parts");
            return Err(Refusal::Rejected(Rejection::new(Kind::TooLarge, text)));
        }
        let now_us = self.log.now_us();
        let checked = self.check(batch, now_us).map_err(Refusal::Wrong)?;
        let mut keys = Vec::with_capacity(checked.len());
        let mut own = HashSet::with_capacity(checked.len());
        let mut fresh: Vec<Feedback> = Vec::with_capacity(checked.len());
        for told in &checked {
            let key = told.key();
            let is_fresh = own.insert(key) && !self.seen.holds(key, Instant::now());
            keys.push(is_fresh.then_some(key));
            fresh.extend(is_fresh.then(|| told.clone()));
        }
        self.log.commit_feedback(&fresh).await.map_err(Refusal::Rejected)?;
        self.log.catch_up().await;
        let settle = |(told, key): (Feedback, Option<u128>)| {
            // Only now: a second one must not count on a first that was never written.
            let is_first = key.is_some_and(|key| self.seen.note(key, Instant::now()));
            let outcome = match is_first {
                true => self.join(&told, now_us),
                false => Outcome::Duplicate,
            };
            self.metrics.count(outcome, 1);
            Settled { id: told.id, outcome }
        };
        Ok(checked.into_iter().zip(keys).map(settle).collect())
    }

    fn check(&self, batch: Vec<Told>, now_us: i64) -> Result<Vec<Feedback>, Vec<Wrong>> {
        let mut checked = Vec::with_capacity(batch.len());
        let mut wrong = vec![];
        for (index, told) in batch.into_iter().enumerate() {
            match told.checked((index, now_us), |id| self.log.kept_caller_id(id)) {
                Ok(feedback) => checked.push(feedback),
                Err(found) => wrong.extend(found),
            }
            if wrong.len() >= MOST_WRONG {
                break;
            }
        }
        wrong.truncate(MOST_WRONG);
        if wrong.is_empty() { Ok(checked) } else { Err(wrong) }
    }

    /// Joins feedback with what is remembered.
    fn join(&self, told: &Feedback, now_us: i64) -> Outcome {
        let Some(recent) = self.log.recent() else { return Outcome::Stored };
        let word = Word { item: told.item, label: told.label.clone(), reward: told.reward };
        let id: Option<[u8; 16]> = told.prediction.as_ref().try_into().ok();
        let (met, unknown) = match id {
            None => (recent.tell(Target::Caller(&told.caller_id), word, true), Outcome::Unmatched),
            Some(id) => {
                let unknown = self.of_age(id, now_us);
                let waits = matches!(unknown, Outcome::Early);
                (recent.tell(Target::Prediction(id), word, waits), unknown)
            }
        };
        match met {
            Met::Prediction => Outcome::Matched,
            Met::NoItem => Outcome::Unmatched,
            Met::Nothing => unknown,
        }
    }

    /// What feedback about a prediction is that is not remembered. Ids of predictions say when
    /// they were made (UUID version 7, RFC 9562, 5.7).
    fn of_age(&self, id: [u8; 16], now_us: i64) -> Outcome {
        if id[6] >> 4 != 7 {
            return Outcome::Unmatched;
        }
        let made_ms = id[..6].iter().fold(0_i64, |ms, byte| ms << 8 | i64::from(*byte));
        let age_us = now_us.saturating_sub(made_ms.saturating_mul(1000));
        let made_us = now_us.saturating_sub(age_us);
        match age_us {
            age if age > micros(self.horizon) => Outcome::Late,
            age if made_us < self.started_us && age > micros(YOUNG) => Outcome::Stored,
            age if age.saturating_abs() <= micros(YOUNG) => Outcome::Early,
            _ => Outcome::Unmatched,
        }
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
