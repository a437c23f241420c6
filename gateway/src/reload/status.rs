//! How the configuration file stands: for operators, for metrics, and so that nothing is told twice.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::{Reloaded, Text};
use crate::config::Problem;
use crate::telemetry::metrics;

/// How the configuration file stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub path: PathBuf,
    /// SHA-256 of the text in force, lower-case hex.
    pub hash: Option<String>,
    /// The revision that it became.
    pub revision: u64,
    /// What is wrong with the text that was tried last; nothing where it is in force.
    pub problems: Vec<Problem>,
    /// Time since a changed file, or that of the start, last came to be in force.
    pub age: Duration,
}

impl Status {
    /// Why the file is not in force, in one line; `None` while it is.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        let texts: Vec<_> = self.problems.iter().map(Problem::to_string).collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }
}

/// What was tried, and what came of it.
#[derive(Debug)]
pub(super) struct Standing {
    tried: Text,
    hash: Option<String>,
    revision: u64,
    problems: Vec<Problem>,
    success: Instant,
}

impl Standing {
    /// That of a process which has just begun with this text.
    pub(super) fn new(text: Text, revision: u64) -> Self {
        let hash = text.hash();
        let standing =
            Self { tried: text, hash, revision, problems: Vec::new(), success: Instant::now() };
        standing.publish();
        metrics::CONFIG_SUCCESS.gauge(&[]).set(now());
        standing
    }

    /// Takes note of what became of a text; whether that is news.
    pub(super) fn note(&mut self, text: &Text, result: &Result<Reloaded, Vec<Problem>>) -> bool {
        let problems = result.as_ref().err().cloned().unwrap_or_default();
        let is_news = self.tried != *text || self.problems != problems;
        self.tried = text.clone();
        self.problems = problems;
        if let Ok(done) = result {
            (self.hash, self.revision, self.success) = (text.hash(), done.revision, Instant::now());
            metrics::CONFIG_SUCCESS.gauge(&[]).set(now());
        }
        if is_news {
            let result = match result {
                Ok(Reloaded { changed: true, .. }) => "applied",
                Ok(_) => "unchanged",
                Err(_) => "failed",
            };
            metrics::CONFIG_RELOADS.counter(&[result]).increment(1);
        }
        self.publish();
        is_news
    }

    /// Whether this text was tried last, and was good.
    pub(super) fn has_tried(&self, text: &Text) -> Option<bool> {
        (self.tried == *text).then_some(self.problems.is_empty())
    }

    pub(super) fn status(&self, path: &Path) -> Status {
        Status {
            path: path.to_owned(),
            hash: self.hash.clone(),
            revision: self.revision,
            problems: self.problems.clone(),
            age: self.success.elapsed(),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    fn publish(&self) {
        metrics::CONFIG_VALID.gauge(&[]).set(f64::from(u8::from(self.problems.is_empty())));
        metrics::CONFIG_REVISION.gauge(&[]).set(self.revision as f64);
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
