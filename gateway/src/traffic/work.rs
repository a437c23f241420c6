//! One change of the routes, step by step.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use tokio::time::Instant;
use tracing::{error, info, warn};

use super::effective::{Effective, FileRoutes};
use super::target::{Settings, incoming};
use super::{By, Outcome, Refused, Standing, Traffic, diff};
use crate::config::Problem;
use crate::error::{Kind, Rejection};
use crate::revisions::{Cause, Draft, Entry, Event, Revision};
use crate::tasks;
use crate::types::{ArmName, ModelName, Share};

/// What is asked for.
#[derive(Debug, Clone)]
pub(super) enum Request {
    File { file: Arc<FileRoutes>, config_hash: String, settings: Option<Settings> },
    Set { route: ModelName, shares: BTreeMap<ArmName, Share> },
    DropOverlay { route: ModelName },
    Rollback { to: Option<u64> },
}

/// A change that has been thought through.
struct Decision {
    next: Effective,
    cause: Cause,
    notes: Vec<String>,
}

impl Traffic {
    /// The first routes of this process.
    pub(super) async fn begin(&self, is_first: bool) -> Result<(), String> {
        let standing = self.standing();
        let before = Effective::of(&standing.current);
        let (next, notes) = before.with_file(&standing.file, self.overlay).map_err(|problems| {
            let lines: Vec<_> = problems.iter().map(Problem::to_string).collect();
            lines.join("; ")
        })?;
        if is_first || next != before {
            let by = By { author: "penstock".into(), from: "start".into(), ..By::default() };
            let decision = Decision { next, cause: Cause::Start, notes };
            let what = "start with the file's routes";
            let revision = self.record(&standing, decision, &by, what).await;
            let revision = revision.map_err(|rejection| rejection.to_string())?;
            self.advance(standing, revision);
        }
        let current = self.current();
        self.target.commit(current.number, &current.plans, None);
        self.pin();
        info!(revision = current.number, routes = current.plans.len(), "routes in force");
        Ok(())
    }

    /// Loads what the routes in force need; arms that cannot serve are logged.
    pub async fn settle(&self) {
        let _turn = self.turn.lock().await;
        let plans = self.current().plans.clone();
        if let Err(problems) = self.target.prepare(&incoming(&[], &plans), None).await {
            for problem in problems {
                error!(path = problem.path, reason = problem.message, "an arm cannot serve");
            }
        }
        self.pin();
    }

    /// Carries out a change, or nothing of it, and notes either.
    pub(super) async fn run(&self, request: Request, by: By) -> Result<Outcome, Refused> {
        let _turn = self.turn.lock().await;
        let standing = self.standing();
        let result = self.attempt(&standing, &request, &by).await;
        let what = request.to_string();
        let is_news = self.is_news(&request, &by, &result);
        match &result {
            Ok(outcome) if outcome.changed => {
                let (revision, author, reason) = (outcome.revision, &by.author, &by.reason);
                info!(revision, what, author, reason, diff = ?outcome.diff, "routes changed");
            }
            Err(refused) if is_news => {
                let (problem, detail) = (refused.to_string(), refused.rejection.detail());
                warn!(what, author = by.author, problem, detail, "routes not changed");
                let is_ours = refused.rejection.kind() == Kind::Internal;
                let event = if is_ours { Event::Failed } else { Event::Refused };
                self.write(event, by, what, Some(problem)).await;
            }
            Ok(_) | Err(_) => {}
        }
        result
    }

    /// Whether that is no second refusal of the same file for the same reason which nobody asked
    /// for: it would fill the audit log.
    fn is_news(&self, request: &Request, by: &By, result: &Result<Outcome, Refused>) -> bool {
        let Request::File { config_hash, .. } = request else { return true };
        let why = result.as_ref().err().map(|refused| (config_hash.clone(), refused.to_string()));
        let mut told = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *told, why);
        before != *told || by.from != By::WATCH
    }

    /// Opens the state folder where no change has needed it until now.
    async fn open_folder(&self) -> Result<(), Refused> {
        let (store, audit) = (self.store.clone(), self.audit.clone());
        let opened = tasks::blocking(move || match store.begin()? {
            Some(folder) => audit.begin(folder).map_err(|error| format!("the audit log: {error}")),
            None => Ok(()),
        });
        opened.await.map_err(|text| {
            let rejection =
                Rejection::new(Kind::Internal, "nothing changed: the state folder cannot be used");
            let problem = Problem::new("state.path", text);
            self.refused(rejection.with_detail(Some(&problem.to_string())), vec![problem])
        })
    }

    async fn attempt(
        &self,
        standing: &Standing,
        request: &Request,
        by: &By,
    ) -> Result<Outcome, Refused> {
        let current = &standing.current;
        let conflict = |text: String| Rejection::new(Kind::Conflict, text);
        let refused = |rejection| self.refused(rejection, vec![]);
        if let Some(expected) = by.expect_revision.filter(|number| *number != current.number) {
            let text = format!("revision {} is current, not {expected}", current.number);
            return Err(refused(conflict(text)));
        }
        let decision = self.decide(standing, request).await?;
        let restored = match &decision.cause {
            Cause::Rollback { to } => Some(*to),
            _ => None,
        };
        let unchanged = decision.next == Effective::of(current);
        let mut standing = standing.clone();
        let mut settings = None;
        if let Request::File { file, config_hash, settings: given } = request {
            settings.clone_from(given);
            standing.file = file.clone();
            standing.config_hash.clone_from(config_hash);
        }
        let current = standing.current.clone();
        let plans = decision.next.list();
        let incoming = incoming(&current.plans, &plans);
        let needs_load = self.target.needs_load(&incoming);
        if unchanged {
            self.stand(standing);
            if settings.is_some() {
                self.target.commit(current.number, &current.plans, settings);
            }
            let (revision, diff) = (current.number, vec![]);
            return Ok(Outcome { revision, changed: false, diff, restored, needs_load });
        }
        if let Err(problems) = self.target.prepare(&incoming, settings.as_ref()).await {
            // What was loaded for nothing may go.
            self.pin();
            let is_file = matches!(request, Request::File { .. });
            let kind = if is_file { Kind::InvalidInput } else { Kind::Conflict };
            let text: Vec<_> = problems.iter().map(Problem::to_string).collect();
            let text =
                format!("nothing changed, since not every arm can serve: {}", text.join("; "));
            return Err(self.refused(Rejection::new(kind, text), problems));
        }
        let recorded = async {
            self.open_folder().await?;
            self.record(&standing, decision, by, &request.to_string()).await.map_err(refused)
        };
        let revision = recorded.await.inspect_err(|_| self.pin())?;
        self.advance(standing, revision.clone());
        self.target.commit(revision.number, &revision.plans, settings);
        self.pin();
        let (revision, diff) = (revision.number, revision.diff.clone());
        Ok(Outcome { revision, changed: true, diff, restored, needs_load })
    }

    async fn decide(&self, standing: &Standing, request: &Request) -> Result<Decision, Refused> {
        let refused = |rejection| self.refused(rejection, vec![]);
        let by_hand = matches!(request, Request::Set { .. } | Request::Rollback { .. });
        if by_hand && !self.overlay {
            let text = "state.overlay is off: routes are changed in the configuration file alone";
            return Err(refused(Rejection::new(Kind::Conflict, text)));
        }
        let before = Effective::of(&standing.current);
        let mut notes = vec![];
        let (next, cause) = match request {
            Request::File { file, .. } => {
                let merged = before.with_file(file, self.overlay).map_err(|problems| {
                    let text: Vec<_> = problems.iter().map(Problem::to_string).collect();
                    self.refused(Rejection::invalid(text.join("; ")), problems)
                })?;
                notes = merged.1;
                (merged.0, Cause::File)
            }
            Request::Set { route, shares } => {
                let next = before.with_shares(&standing.file, route, shares).map_err(refused)?;
                (next, Cause::Set { route: route.clone() })
            }
            Request::DropOverlay { route } => {
                let next = before.without_overlay(&standing.file, route).map_err(refused)?;
                (next, Cause::OverlayDropped { route: route.clone() })
            }
            Request::Rollback { to } => {
                let wanted = self.revision_to(standing, *to).await.map_err(refused)?;
                let next = before.with_plans(&standing.file, &wanted.plans);
                (next, Cause::Rollback { to: wanted.number })
            }
        };
        Ok(Decision { next, cause, notes })
    }

    /// Notes a change in the audit log and writes its revision. On return it counts, whatever
    /// happens to the process.
    async fn record(
        &self,
        standing: &Standing,
        decision: Decision,
        by: &By,
        what: &str,
    ) -> Result<Arc<Revision>, Rejection> {
        let Decision { next, cause, notes } = decision;
        let plans = next.list();
        let diff = diff::bounded([notes, diff::diff(&standing.current.plans, &plans)].concat());
        let draft = Draft {
            author: by.author.clone(),
            reason: by.reason.clone(),
            cause,
            config_hash: standing.config_hash.clone(),
            plans,
            overlay: next.overlay,
            diff,
        };
        let (store, audit) = (self.store.clone(), self.audit.clone());
        let (by, what, before) = (by.clone(), what.to_owned(), standing.current.number);
        let written = tasks::blocking(move || {
            let entry = Entry {
                event: Event::Accepted,
                author: &by.author,
                from: &by.from,
                what: &what,
                reason: &by.reason,
                before,
                after: Some(store.next()),
                problem: None,
            };
            audit.write(&entry).map_err(|error| format!("the audit log: {error}"))?;
            store.append(draft)
        });
        written.await.map_err(|problem| {
            // The problem may name a path.
            Rejection::new(Kind::Internal, "nothing changed: the state folder cannot be written")
                .with_detail(Some(&problem))
        })
    }

    /// Writes a line about what makes no revision into the audit log.
    pub(super) async fn write(&self, event: Event, by: By, what: String, problem: Option<String>) {
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
        if let Err(error) = written.await {
            error!(%error, "the audit log cannot be written");
        }
    }

    fn advance(&self, standing: Standing, revision: Arc<Revision>) {
        let before = standing.current.clone();
        let previous = (before.number > 0).then_some(before);
        let warm_until = Some(Instant::now() + self.keep_warm);
        self.stand(Standing { current: revision, previous, warm_until, ..standing });
    }
}

impl std::fmt::Display for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File { .. } => f.write_str("apply the file"),
            Self::Set { route, shares } => {
                write!(f, "set {route}")?;
                shares.iter().try_for_each(|(arm, share)| write!(f, " {arm}={share}"))
            }
            Self::DropOverlay { route } => write!(f, "give {route} back to the file"),
            Self::Rollback { to: Some(to) } => write!(f, "roll back to {to}"),
            Self::Rollback { to: None } => f.write_str("roll back"),
        }
    }
}
