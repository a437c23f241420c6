//! One change of the routes, step by step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::Instant;
use tracing::{error, info, warn};

use super::effective::{Effective, FileRoutes};
use super::held::Held;
use super::notes::unwritten;
use super::target::{Settings, incoming};
use super::{By, Outcome, Refused, Standing, Traffic, diff};
use crate::config::Problem;
use crate::error::{Kind, Rejection};
use crate::revisions::{Cause, Draft, Entry, Event, Revision};
use crate::routing::RoutePlan;
use crate::tasks;
use crate::types::{ArmName, ModelName, Share};

/// How often a change is decided without the turn.
const ROUNDS: u32 = 5;

/// What is asked for.
#[derive(Debug, Clone)]
pub(super) enum Request {
    File { file: Arc<FileRoutes>, config_hash: String, settings: Option<Settings> },
    Set { route: ModelName, shares: BTreeMap<ArmName, Share> },
    DropOverlay { route: ModelName },
    Rollback { to: Option<u64> },
}

/// Why there are no first routes.
#[derive(Debug)]
pub(super) enum NotBegun {
    /// Of the state folder.
    State(String),
    Routes(String),
}

/// A change that has been thought through.
struct Decision {
    /// Those of `next`.
    plans: Vec<Arc<RoutePlan>>,
    next: Effective,
    cause: Cause,
    notes: Vec<String>,
}

impl Traffic {
    /// The first routes of this process.
    pub(super) async fn begin(&self, is_first: bool) -> Result<(), NotBegun> {
        let standing = self.standing();
        let before = Effective::of(&standing.current);
        let (next, notes) = before.with_file(&standing.file, self.overlay).map_err(|problems| {
            let lines: Vec<_> = problems.iter().map(Problem::to_string).collect();
            NotBegun::Routes(lines.join("; "))
        })?;
        if is_first || next != before {
            let by = By { author: "penstock".into(), from: "start".into(), ..By::default() };
            let decision = Decision { plans: next.list(), next, cause: Cause::Start, notes };
            let what = "start with the file's routes";
            let revision = self.record(&standing, decision, &by, what).await;
            // At a start there is nobody to hide paths from.
            let revision = revision.map_err(|rejection| {
                let reason = rejection.detail().unwrap_or(rejection.public_message());
                NotBegun::State(reason.to_owned())
            })?;
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
        let plans = self.current().plans.clone();
        if let Err(problems) = self.target.prepare(&plans, &incoming(&[], &plans), None).await {
            for problem in problems {
                error!(path = problem.path, reason = problem.message, "an arm cannot serve");
            }
        }
        let _turn = self.turn.lock().await;
        self.pin();
    }

    /// Carries out a change, or nothing of it, and notes either.
    pub(super) async fn run(&self, request: Request, by: By) -> Result<Outcome, Refused> {
        let held = Held::new(&self.preparing);
        let result = self.attempt(&request, &by, &held).await;
        if !held.is_empty() {
            // What was loaded for nothing may go.
            let _turn = self.turn.lock().await;
            held.clear();
            self.pin();
        }
        let what = request.to_string();
        match &result {
            Ok(outcome) if outcome.changed => {
                let (revision, author, reason) = (outcome.revision, &by.author, &by.reason);
                info!(revision, what, author, reason, diff = ?outcome.diff, "routes changed");
            }
            Err(refused) => {
                let (problem, detail) = (refused.to_string(), refused.rejection.detail());
                if by.unasked && !self.is_news(&request, &problem) {
                    return result;
                }
                warn!(what, author = by.author, problem, detail, "routes not changed");
                let is_ours = refused.rejection.kind() == Kind::Internal;
                let event = if is_ours { Event::Failed } else { Event::Refused };
                self.write(event, by, what, Some(problem)).await;
            }
            Ok(_) => {}
        }
        result
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

    /// Decides without the turn, since what has to be loaded takes its time and others must not
    /// wait for it; and anew when somebody else's change came first. In the end it takes the turn
    /// first: by then little is left to load.
    async fn attempt(
        &self,
        request: &Request,
        by: &By,
        held: &Held<'_>,
    ) -> Result<Outcome, Refused> {
        let mut needs_load = BTreeSet::new();
        let mut round = 0;
        loop {
            round += 1;
            let turn = if round < ROUNDS { None } else { Some(self.turn.lock().await) };
            let before = self.standing();
            let decision = self.decide(&before, request, by).await?;
            let incoming = incoming(&before.current.plans, &decision.plans);
            needs_load.extend(self.target.needs_load(&incoming));
            held.add(&incoming);
            let settings = request.settings();
            let prepared = self.target.prepare(&decision.plans, &incoming, settings).await;
            let _turn = match turn {
                Some(turn) => turn,
                None => self.turn.lock().await,
            };
            let standing = self.standing();
            if !standing.is_same(&before) {
                continue;
            }
            let result = match prepared {
                Ok(()) => self.carry_out(standing, decision, (request, by), held).await,
                Err(problems) => Err(self.unprepared(request, problems)),
            };
            held.clear();
            self.pin();
            let needs_load = needs_load.into_iter().collect();
            return result.map(|outcome| Outcome { needs_load, ..outcome });
        }
    }

    fn unprepared(&self, request: &Request, problems: Vec<Problem>) -> Refused {
        let is_file = matches!(request, Request::File { .. });
        let kind = if is_file { Kind::InvalidInput } else { Kind::Conflict };
        let text: Vec<_> = problems.iter().map(Problem::to_string).collect();
        let text = format!("nothing changed, since not every arm can serve: {}", text.join("; "));
        self.refused(Rejection::new(kind, text), problems)
    }

    /// Makes a change that is prepared; the turn is taken.
    async fn carry_out(
        &self,
        mut standing: Standing,
        decision: Decision,
        (request, by): (&Request, &By),
        held: &Held<'_>,
    ) -> Result<Outcome, Refused> {
        let current = standing.current.clone();
        let restored = match &decision.cause {
            Cause::Rollback { to } => Some(*to),
            _ => None,
        };
        if let Request::File { file, config_hash, .. } = request {
            standing.file = file.clone();
            standing.config_hash.clone_from(config_hash);
        }
        let settings = request.settings().cloned();
        let refused = |rejection| self.refused(rejection, vec![]);
        let needs_load = vec![];
        if decision.next == Effective::of(&current) {
            if settings.is_some() {
                let what = format!("{request}, which changes no route");
                self.accept(by, what).await.map_err(refused)?;
                self.stand(standing);
                self.target.commit(current.number, &current.plans, settings);
            } else {
                self.stand(standing);
            }
            let (revision, diff) = (current.number, vec![]);
            return Ok(Outcome { revision, changed: false, diff, restored, needs_load });
        }
        let recorded = async {
            self.open_folder().await?;
            self.record(&standing, decision, by, &request.to_string()).await.map_err(refused)
        };
        let revision = recorded.await?;
        self.advance(standing, revision.clone());
        self.target.commit(revision.number, &revision.plans, settings);
        held.clear();
        let (revision, diff) = (revision.number, revision.diff.clone());
        Ok(Outcome { revision, changed: true, diff, restored, needs_load })
    }

    async fn decide(
        &self,
        standing: &Standing,
        request: &Request,
        by: &By,
    ) -> Result<Decision, Refused> {
        let refused = |rejection| self.refused(rejection, vec![]);
        let current = standing.current.number;
        if let Some(expected) = by.expect_revision.filter(|number| *number != current) {
            let text = format!("revision {current} is current, not {expected}");
            let refused = refused(Rejection::new(Kind::Conflict, text));
            return Err(Refused { stale: true, revision: current, ..refused });
        }
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
        Ok(Decision { plans: next.list(), next, cause, notes })
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
        let Decision { plans, next, cause, notes } = decision;
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
        written.await.map_err(|problem| unwritten(&problem))
    }

    fn advance(&self, standing: Standing, revision: Arc<Revision>) {
        let before = standing.current.clone();
        let previous = (before.number > 0).then_some(before);
        let warm_until = Some(Instant::now() + self.keep_warm);
        self.stand(Standing { current: revision, previous, warm_until, ..standing });
    }
}

impl Request {
    fn settings(&self) -> Option<&Settings> {
        match self {
            Self::File { settings, .. } => settings.as_ref(),
            _ => None,
        }
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
