//! What is written into the audit log: one line for each change, whoever makes it.

use std::io;
use std::sync::PoisonError;

use tracing::{error, info};

use super::work::Request;
use super::{By, Traffic};
use crate::error::{Kind, Rejection};
use crate::revisions::{Entry, Event};
use crate::tasks;

impl Traffic {
    /// Writes into the audit log what was done, or was not, to anything else than routes.
    pub async fn note(&self, event: Event, by: By, what: String, problem: Option<String>) {
        let by = by.bounded();
        info!(?event, what, author = by.author, from = by.from, problem, "asked for");
        self.write(event, by, what, problem).await;
    }

    /// Writes into the audit log that a file was refused before its routes were looked at. `hash` is
    /// that of its text.
    pub async fn note_refused_file(&self, hash: &str, by: By, problem: String) {
        if by.unasked && !self.is_news_of(hash, &problem) {
            return;
        }
        let what = "apply the file".to_owned();
        self.write(Event::Refused, by.bounded(), what, Some(problem)).await;
    }

    /// Notes a change in the audit log that makes no revision, before it is made.
    pub(super) async fn accept(&self, by: &By, what: String) -> Result<(), Rejection> {
        let written = self.line(Event::Accepted, by.clone(), what, None).await;
        written.map_err(|error| unwritten(&format!("the audit log: {error}")))
    }

    /// Writes a line about what makes no revision into the audit log.
    pub(super) async fn write(&self, event: Event, by: By, what: String, problem: Option<String>) {
        if let Err(error) = self.line(event, by, what, problem).await {
            error!(%error, "the audit log cannot be written");
        }
    }

    async fn line(
        &self,
        event: Event,
        by: By,
        what: String,
        problem: Option<String>,
    ) -> io::Result<()> {
        let (audit, before) = (self.audit.clone(), self.current().number);
        let written = tasks::blocking(move || {
            audit.write(&Entry {
                event,
                author: &by.author,
                from: &by.from,
                what: &what,
                reason: &by.reason,
                before,
                after: None,
                problem: problem.as_deref(),
            })
        });
        written.await
    }

    /// Whether this is not what was refused last; for what is tried again and again.
    pub(super) fn is_news(&self, request: &Request, problem: &str) -> bool {
        let Request::File { config_hash, .. } = request else { return true };
        self.is_news_of(config_hash, problem)
    }

    /// The same of a file that is no configuration.
    fn is_news_of(&self, config_hash: &str, problem: &str) -> bool {
        let told = Some((config_hash.to_owned(), problem.to_owned()));
        let mut last = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = *last != told;
        *last = told;
        is_news
    }
}

/// Why nothing changed where a disk is full.
pub(super) fn unwritten(problem: &str) -> Rejection {
    // The problem may name a path.
    Rejection::new(Kind::Internal, "nothing changed: the state folder cannot be written")
        .with_detail(Some(problem))
}
