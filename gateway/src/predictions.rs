//! The prediction log: a row for every call, in segments on the disk.
//!
//! [`Notes`] keep what a call was, changed as the log's rules say, until it has ended; then a row
//! is encoded into the lane of its I/O thread (`lane`). One thread takes what the lanes hold and
//! appends it to a segment (`writer`). Nobody who answers calls ever waits for a disk, but for
//! durable calls, which are answered once their row is written. What becomes of closed segments
//! is not known here.

mod bell;
mod closing;
mod follow;
mod lane;
mod notes;
mod recent;
mod redact;
mod sample;
mod schema;
mod segments;
mod settings;
mod state;
mod told;
mod writer;

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak, mpsc};
use std::time::Duration;

use predlog::{Folder, folder::Lock};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tracing::{error, info, warn};

use crate::config::{self, Problem};
use crate::error::{Kind, Rejection};
use crate::tasks;
use crate::telemetry::{LostRow, PredictionMetrics};

pub use lane::{Refusal, Ticket};
pub use notes::{About, Names, Notes, Of, Sides};
pub use predlog::{RowRef, Status};
pub use recent::{Met, Recent, Target, Word};
pub use settings::Settings;

use lane::Lanes;
use state::{Health, Shared};
use writer::{Terms, Writer};

/// How long the log may fail before durable calls are refused at their beginning.
const PATIENCE: Duration = Duration::from_secs(1);
/// Other settings for a log.
#[derive(Debug, Clone)]
pub struct Change {
    pub log: Arc<PredictionLog>,
    pub settings: Arc<Settings>,
}

impl Change {
    pub fn apply(self) {
        self.log.apply(self.settings);
    }
}

/// When trying again may help.
const RETRY: Duration = Duration::from_secs(1);

/// The log of one gateway.
#[derive(Debug)]
pub struct PredictionLog {
    shared: Arc<Shared>,
    settings: RwLock<Arc<Settings>>,
    path: PathBuf,
    instance: u32,
    /// Of the folder; the writer holds it.
    lock: Mutex<Weak<Lock>>,
    /// The predictions that feedback may come to soon; `None`: nothing is remembered.
    recent: Option<Recent>,
    /// Told when everything is written and closed.
    ended: Mutex<mpsc::Receiver<()>>,
}

impl PredictionLog {
    /// Takes the folder, closes what a crash left open and starts the thread that writes.
    ///
    /// # Errors
    /// What is wrong with the configuration or the folder, with the path of the key.
    pub fn start(config: &config::PredictionLog) -> Result<Arc<Self>, Problem> {
        let settings = Settings::new(config)?;
        let wrong = |error: std::io::Error| {
            let path = config.path.display();
            Problem::new("prediction_log.path", format!("cannot use {path}: {error}"))
        };
        let mut folder = Folder::open(&config.path).map_err(wrong)?;
        for recovered in folder.recover().map_err(wrong)? {
            let (path, rows) = (recovered.path.display(), recovered.rows);
            if let Some(problem) = recovered.problem {
                warn!(%path, problem, "a segment was left open and stays as it is");
                continue;
            }
            match recovered.damage {
                None => info!(%path, rows, "a segment was left open and is closed"),
                Some(damage) => warn!(%path, rows, %damage, "a segment was left damaged"),
            }
        }
        let (path, instance) = (folder.path().to_owned(), folder.instance());
        let lock = Arc::downgrade(folder.lock());
        let (log, writer) = Self::assemble(settings, config, folder, (path, instance));
        *log.lock.lock().unwrap_or_else(PoisonError::into_inner) = lock;
        let (done, ended) = mpsc::sync_channel(1);
        *log.ended.lock().unwrap_or_else(PoisonError::into_inner) = ended;
        let started = tasks::thread("predictions", move || {
            if writer.run() {
                // Nobody may wait for it.
                let _told = done.send(());
            }
        });
        started.map_err(wrong)?;
        Ok(log)
    }

    fn assemble<S: writer::Sink>(
        settings: Arc<Settings>,
        config: &config::PredictionLog,
        sink: S,
        (path, instance): (PathBuf, u32),
    ) -> (Arc<Self>, Writer<S>) {
        let shared = Arc::new(Shared {
            lanes: Lanes::new(config.queue_rows, config.queue_bytes),
            bell: Default::default(),
            health: Health::default(),
            metrics: PredictionMetrics::new(),
            closed: watch::Sender::new(0),
            stop: Mutex::default(),
            in_hand: Mutex::default(),
        });
        let writer = Writer::new(shared.clone(), sink, Terms::from(config));
        let (_, ended) = mpsc::sync_channel(1);
        let (settings, ended) = (RwLock::new(settings), Mutex::new(ended));
        let lock = Mutex::default();
        let recent = config.feedback.as_ref().map(Recent::new);
        (Arc::new(Self { shared, settings, path, instance, lock, recent, ended }), writer)
    }

    /// The folder of the log.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What tells its files from those of other gateways.
    #[must_use]
    pub fn instance(&self) -> u32 {
        self.instance
    }

    /// What keeps other gateways away from the folder, for those who go on there when everything is
    /// written; `None` once that is so.
    #[must_use]
    pub fn lock(&self) -> Option<Arc<Lock>> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    /// Tells the number of the last segment whenever one was closed.
    #[must_use]
    pub fn closed(&self) -> watch::Receiver<u64> {
        self.shared.closed.subscribe()
    }

    /// Holds the writing back, for the reason given, or lets it go on. Meanwhile rows wait as
    /// they do while the disk is full.
    pub fn hold(&self, why: Option<String>) {
        self.shared.health.hold(why);
        self.shared.bell.ring();
    }

    /// The predictions that feedback may come to soon; `None` where nothing is remembered.
    #[must_use]
    pub fn recent(&self) -> Option<&Recent> {
        self.recent.as_ref()
    }

    /// What is in force for a call that comes now.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts other settings in force, for calls that come from now on.
    pub fn apply(&self, settings: Arc<Settings>) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    /// Puts settings in the place of those that were in force before; false where others are
    /// meanwhile.
    fn exchange(&self, before: &Arc<Settings>, settings: Arc<Settings>) -> bool {
        let mut current = self.settings.write().unwrap_or_else(PoisonError::into_inner);
        let is_same = Arc::ptr_eq(&current, before);
        if is_same {
            *current = settings;
        }
        is_same
    }

    /// Whether a durable call has a chance.
    ///
    /// # Errors
    /// `Overloaded` while nothing has been written for a while.
    pub fn admit(&self) -> Result<(), Rejection> {
        let stalled = self.settings().commit_timeout;
        if !self.shared.health.stands_still(Instant::now(), PATIENCE, stalled) {
            return Ok(());
        }
        Err(self.uncommitted("the prediction log cannot be written"))
    }

    /// Hands a durable row over, as soon as there is room, and waits until it is written.
    ///
    /// # Errors
    /// `Overloaded` when that is not done by `until`; it may be written later all the same.
    pub async fn commit(
        &self,
        until: Instant,
        mut push: impl FnMut() -> Result<Ticket, Refusal>,
    ) -> Result<(), Rejection> {
        let ticket = loop {
            let mut freed = pin!(self.shared.lanes.room.freed.notified());
            // What is given back from now on is told.
            freed.as_mut().enable();
            // Making a row ready costs more than this look.
            let is_full = self.shared.lanes.room.is_full();
            match if is_full { Err(Refusal::Full) } else { push() } {
                Ok(ticket) => break ticket,
                Err(Refusal::Full) => {
                    self.shared.bell.ring();
                    if timeout_at(until, freed).await.is_err() {
                        return Err(self.uncommitted("the prediction log is full"));
                    }
                }
                Err(Refusal::Large) => {
                    let text = "the call is too large for the prediction log";
                    self.shared.metrics.uncommitted.increment(1);
                    return Err(Rejection::new(Kind::TooLarge, text));
                }
                Err(Refusal::Broken) => {
                    return Err(self.uncommitted("the prediction log cannot be written"));
                }
                Err(Refusal::Stopping) => {
                    self.shared.metrics.uncommitted.increment(1);
                    return Err(Rejection::new(Kind::NotReady, "the gateway is stopping"));
                }
            }
        };
        self.shared.bell.ring();
        match timeout_at(until, self.shared.lanes.written(ticket)).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.uncommitted("the prediction log could not be written in time")),
        }
    }

    fn uncommitted(&self, text: &str) -> Rejection {
        self.shared.metrics.uncommitted.increment(1);
        Rejection::new(Kind::Overloaded, text).with_retry_after(RETRY)
    }

    /// Counts a row that was not taken in.
    fn lost(&self, refusal: Refusal) {
        let reason = match refusal {
            Refusal::Full if self.shared.health.is_troubled() => LostRow::Disk,
            Refusal::Broken => LostRow::Disk,
            Refusal::Full => LostRow::Full,
            Refusal::Large => LostRow::Large,
            Refusal::Stopping => LostRow::Stopping,
        };
        self.shared.metrics.dropped(reason, 1);
    }

    /// Brings the gauges up to date; called before they are rendered.
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    pub fn publish(&self) {
        let (rows, bytes) = self.shared.lanes.room.held();
        let metrics = &self.shared.metrics;
        metrics.queue_rows.set(rows as f64);
        metrics.queue_bytes.set(bytes as f64);
        let oldest = self.shared.oldest();
        metrics.oldest.set(oldest.map_or(0.0, |since| since.elapsed().as_secs_f64()));
    }

    /// Writes all rows and closes the segment; whether that was done within `limit`. What comes
    /// afterwards is lost, and counted. Blocks.
    pub fn stop(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        *self.shared.stop.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
        self.shared.bell.ring();
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        // A disk that stalls is not waited for beyond that.
        if ended.recv_timeout(limit + RETRY).is_ok() {
            return true;
        }
        let (rows, _) = self.shared.lanes.room.held();
        self.shared.metrics.dropped(LostRow::Stopping, rows as u64);
        // A thread that has died holds none.
        if rows > 0 {
            error!(rows, "rows of the prediction log were lost: the disk stands still");
        }
        false
    }
}

#[cfg(test)]
pub(crate) mod reading;
#[cfg(test)]
mod tests;
