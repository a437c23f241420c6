//! The effective routes: the file, what was changed by hand, and the way back.
//!
//! ```text
//! file + overlay ──▶ effective ──▶ prepare ──▶ audit ──▶ revision on the disk ──▶ commit
//!                    (pure)        (loads)     (a line)  (from here it counts)    (a store)
//! ```
//!
//! Changes come one at a time. Whatever ends one on its way, the process included, leaves the
//! routes as they were before it or as it makes them, and never a third.

mod diff;
mod effective;
mod held;
mod notes;
mod served;
mod shares;
mod target;
mod words;
mod work;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{error, info};

use crate::config::{self, Problem, Route};
use crate::control::Pins;
use crate::error::{Kind, Rejection};
use crate::overload::Overload;
use crate::overload::memory::Pressure;
use crate::revisions::{Audit, Cause, Revision, Store, Summary};
use crate::tasks;
use crate::types::{ArmName, ModelName, Share};

use effective::{Effective, FileRoutes, by_name};
use held::Preparing;
use work::{NotBegun, Request};

pub use diff::target as target_text;
pub use served::Served;
pub use target::{Incoming, Settings, Target};
pub use words::{By, Outcome, Refused};

/// How often it is looked whether what is kept warm may go.
const EVERY: Duration = Duration::from_secs(1);
/// Longer is for ever; clocks do not reach further.
const LONGEST_WARM: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Decides which routes are in force. One per process.
#[derive(Debug)]
pub struct Traffic {
    target: Arc<dyn Target>,
    store: Arc<Store>,
    audit: Arc<Audit>,
    overlay: bool,
    keep_warm: Duration,
    /// Held while a change is made, once whatever it needs is loaded.
    turn: AsyncMutex<()>,
    standing: Mutex<Standing>,
    preparing: Preparing,
    /// The file that was refused last, and why.
    told: Mutex<Option<(String, String)>>,
}

/// What is in force.
#[derive(Debug, Clone)]
struct Standing {
    /// The last good one.
    file: Arc<FileRoutes>,
    config_hash: String,
    current: Arc<Revision>,
    previous: Option<Arc<Revision>>,
    /// Until when the versions of the previous revision stay loaded; `None`: no longer.
    warm_until: Option<Instant>,
}

impl Traffic {
    /// Opens the state folder and puts the routes in force: those of the newest revision as far as
    /// the file still agrees. Their arms need not serve yet: callers are refused until they do, and
    /// reach no other version meanwhile. [`Self::settle`] loads what is missing.
    ///
    /// # Errors
    /// When the state folder cannot be used, or the shares of a route cannot be divided.
    pub async fn start(
        target: Arc<dyn Target>,
        settings: &config::State,
        routes: Vec<Route>,
        config_hash: String,
    ) -> Result<Arc<Self>, String> {
        let opened = settings.clone();
        let (store, audit, current, previous) = tasks::blocking(move || {
            let store = Store::open(&opened)?;
            let folder = store.folder();
            let audit = Audit::open(folder).map_err(|error| {
                let path = folder.unwrap_or(Path::new("")).display();
                format!("state.path: {path}: the audit log: {error}")
            })?;
            let current = store.newest().map_err(|reason| format!("state.path: {reason}"))?;
            let previous = current.as_ref().and_then(|current| {
                let found = store.before(current.number);
                found.unwrap_or_else(|reason| {
                    error!(reason, "the revision before the current one cannot be read");
                    None
                })
            });
            Ok::<_, String>((store, audit, current, previous))
        })
        .await?;
        let is_first = current.is_none();
        let current = current.unwrap_or_else(|| Arc::new(nothing(config_hash.clone())));
        let keep_warm = settings.keep_warm.min(LONGEST_WARM);
        // A restart gives what is kept warm its time anew: when it ended is not known.
        let standing = Standing {
            file: Arc::new(by_name(routes)),
            config_hash,
            current,
            previous,
            warm_until: Some(Instant::now() + keep_warm),
        };
        let traffic = Arc::new(Self {
            target,
            store: Arc::new(store),
            audit: Arc::new(audit),
            overlay: settings.overlay,
            keep_warm,
            turn: AsyncMutex::default(),
            standing: Mutex::new(standing),
            preparing: Preparing::default(),
            told: Mutex::default(),
        });
        let path = settings.path.as_deref().unwrap_or(Path::new("")).display();
        let begun = traffic.begin(is_first).await;
        begun.map_err(|problem| match problem {
            NotBegun::State(reason) => format!("state.path: {path}: {reason}"),
            NotBegun::Routes(reason) => reason,
        })?;
        Ok(traffic)
    }

    /// Puts the routes of a changed file in force, all of them or none. What was changed by hand
    /// stays where the file says of that route what it said then. The settings take effect with
    /// them, also where the routes stay as they are.
    ///
    /// # Errors
    /// `InvalidInput` with every problem; nothing changed.
    pub async fn apply_file(
        self: &Arc<Self>,
        routes: Vec<Route>,
        config_hash: String,
        settings: Option<Settings>,
        by: By,
    ) -> Result<Outcome, Refused> {
        let file = Arc::new(by_name(routes));
        self.change(Request::File { file, config_hash, settings }, by).await
    }

    /// Sets the shares of some arms of a route; its other arms share the rest in proportion.
    ///
    /// # Errors
    /// `NotFound` for the route, `InvalidInput` for arms and shares, `Conflict` when another
    /// revision is current than expected, or the file is the only source.
    pub async fn set(
        self: &Arc<Self>,
        route: ModelName,
        shares: BTreeMap<ArmName, Share>,
        by: By,
    ) -> Result<Outcome, Refused> {
        self.change(Request::Set { route, shares }, by).await
    }

    /// Gives a route back to the file.
    ///
    /// # Errors
    /// `NotFound` for the route, `Conflict` when another revision is current than expected.
    pub async fn drop_overlay(
        self: &Arc<Self>,
        route: ModelName,
        by: By,
    ) -> Result<Outcome, Refused> {
        self.change(Request::DropOverlay { route }, by).await
    }

    /// Brings back the routes of an earlier revision, with their ranges, as a new one; without a
    /// number, those of the revision before the current one.
    ///
    /// # Errors
    /// `NotFound` when there is no such revision any more, `Conflict` when it cannot serve,
    /// another revision is current than expected, or the file is the only source.
    pub async fn rollback(self: &Arc<Self>, to: Option<u64>, by: By) -> Result<Outcome, Refused> {
        self.change(Request::Rollback { to }, by).await
    }

    /// What `apply_file` would change, beside these upstreams. Loads nothing.
    ///
    /// # Errors
    /// As `apply_file`, but for what only a load finds out.
    pub async fn preview(
        &self,
        routes: Vec<Route>,
        upstreams: &[config::Upstream],
    ) -> Result<Vec<String>, Vec<Problem>> {
        let standing = self.standing();
        let (next, notes) =
            Effective::of(&standing.current).with_file(&by_name(routes), self.overlay)?;
        let plans = next.list();
        let incoming = target::incoming(&standing.current.plans, &plans);
        let upstreams = upstreams.iter().map(|upstream| upstream.name.clone()).collect();
        let problems = self.target.look(&incoming, &upstreams).await;
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(diff::bounded([notes, diff::diff(&standing.current.plans, &plans)].concat()))
    }

    /// What `rollback` would change and load.
    ///
    /// # Errors
    /// `NotFound` when there is no such revision any more.
    pub async fn preview_rollback(&self, to: Option<u64>) -> Result<Outcome, Refused> {
        let standing = self.standing();
        let refused = |rejection| self.refused(rejection, vec![]);
        let wanted = self.revision_to(&standing, to).await.map_err(refused)?;
        let next = Effective::of(&standing.current).with_plans(&standing.file, &wanted.plans);
        let plans = next.list();
        let incoming = target::incoming(&standing.current.plans, &plans);
        Ok(Outcome {
            revision: standing.current.number,
            changed: next != Effective::of(&standing.current),
            diff: diff::bounded(diff::diff(&standing.current.plans, &plans)),
            restored: Some(wanted.number),
            needs_load: self.target.needs_load(&incoming),
        })
    }

    /// Notes the hash of a file that is another text and says the same.
    pub async fn set_config_hash(&self, config_hash: String) {
        let _turn = self.turn.lock().await;
        self.stand(Standing { config_hash, ..self.standing() });
    }

    /// The revision in force.
    #[must_use]
    pub fn current(&self) -> Arc<Revision> {
        self.standing().current
    }

    /// Whether routes may be changed beside the file.
    #[must_use]
    pub fn allows_overlay(&self) -> bool {
        self.overlay
    }

    /// At most so many revisions without their routes, newest first.
    ///
    /// # Errors
    /// `Internal` when one cannot be read.
    pub async fn revisions(&self, limit: usize) -> Result<Vec<Summary>, Rejection> {
        let store = self.store.clone();
        tasks::blocking(move || store.list(limit)).await.map_err(|reason| unread(&reason))
    }

    /// One revision, if it is still kept.
    ///
    /// # Errors
    /// `Internal` when it cannot be read.
    pub async fn revision(&self, number: u64) -> Result<Option<Arc<Revision>>, Rejection> {
        let current = self.current();
        if current.number == number {
            return Ok(Some(current));
        }
        let store = self.store.clone();
        tasks::blocking(move || store.get(number)).await.map_err(|reason| unread(&reason))
    }

    /// Lets versions that only the previous revision names go when their time is over, or memory
    /// is short. Runs for as long as the process lives.
    pub async fn upkeep(self: Arc<Self>, overload: Arc<Overload>) -> Infallible {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.release(overload.memory().pressure() >= Pressure::Soft).await;
        }
    }

    async fn release(&self, is_pressed: bool) {
        let is_over = |standing: &Standing| {
            standing.warm_until.is_some_and(|until| is_pressed || until <= Instant::now())
        };
        if !is_over(&self.standing()) {
            return;
        }
        let _turn = self.turn.lock().await;
        let mut standing = self.standing();
        // A change may have come first, and what is previous now has only begun to wait.
        if !is_over(&standing) {
            return;
        }
        standing.warm_until = None;
        self.stand(standing);
        if let Some(previous) = self.standing().previous {
            let revision = previous.number;
            info!(revision, is_pressed, "a rollback to the previous revision may have to load now");
        }
        self.pin();
    }

    /// Asks for a change; it goes on when whoever asked goes away.
    async fn change(self: &Arc<Self>, request: Request, by: By) -> Result<Outcome, Refused> {
        let (sender, receiver) = oneshot::channel();
        let traffic = self.clone();
        tasks::spawn("routes", async move {
            drop(sender.send(traffic.run(request, by.bounded()).await));
        });
        receiver.await.unwrap_or_else(|_| {
            Err(self.refused(Rejection::new(Kind::Internal, "the change failed"), vec![]))
        })
    }

    async fn revision_to(
        &self,
        standing: &Standing,
        to: Option<u64>,
    ) -> Result<Arc<Revision>, Rejection> {
        match to {
            None => standing.previous.clone().ok_or_else(|| {
                Rejection::new(Kind::NotFound, "there is no revision before the current one")
            }),
            Some(number) => self.revision(number).await?.ok_or_else(|| {
                let text = format!("there is no revision {number}, or it is no longer kept");
                Rejection::new(Kind::NotFound, text)
            }),
        }
    }

    fn refused(&self, rejection: Rejection, problems: Vec<Problem>) -> Refused {
        Refused { rejection, problems, revision: self.current().number, stale: false }
    }

    /// Tells the target what has to stay loaded.
    fn pin(&self) {
        let standing = self.standing();
        let mut pins = Pins::default();
        // Of both revisions that name a version, the current one is told.
        let previous = standing.previous.filter(|_| standing.warm_until.is_some());
        for revision in previous.iter().chain([&standing.current]) {
            for plan in &revision.plans {
                pins.add(revision.number, plan);
            }
        }
        let preparing = self.preparing.lock().unwrap_or_else(PoisonError::into_inner);
        preparing.values().flatten().for_each(|plan| pins.add(0, plan));
        drop(preparing);
        self.target.pin(pins);
    }

    fn standing(&self) -> Standing {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn stand(&self, standing: Standing) {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = standing;
    }
}

impl Standing {
    /// Whether a change that was decided on one is as good on the other.
    fn is_same(&self, other: &Self) -> bool {
        self.current.number == other.current.number && Arc::ptr_eq(&self.file, &other.file)
    }
}

/// Why revisions are not shown; the reason may name a path.
fn unread(reason: &str) -> Rejection {
    Rejection::new(Kind::Internal, "the state folder cannot be read").with_detail(Some(reason))
}

/// Before the first revision.
fn nothing(config_hash: String) -> Revision {
    Revision {
        number: 0,
        at: 0,
        author: String::new(),
        reason: String::new(),
        cause: Cause::Start,
        config_hash,
        plans: vec![],
        overlay: BTreeMap::new(),
        diff: vec![],
    }
}

#[cfg(test)]
mod tests;
