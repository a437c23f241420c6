//! One segment becomes Parquet files, and goes when those are safe. Whatever is cut off between
//! two steps is done again at the next start, with the same names: nothing is there twice.

use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use predlog::folder::Lock;
use tracing::{debug, error, warn};

use super::backlog::{Backlog, Claim};
use super::outbox::Outbox;
use crate::tasks;
use crate::telemetry::DeliveryMetrics;

/// How often a thread without work looks for some.
const EVERY: Duration = Duration::from_secs(1);

/// How long a segment waits for the thread that yields to calls, before one that yields less
/// takes it.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a segment became.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Made {
    /// Paths in the log's folder, with `/`; each file is whole and on the disk.
    pub(super) files: Vec<String>,
    pub(super) rows: u64,
    /// What of the segment could not be read, and why.
    pub(super) damage: Option<String>,
}

/// Writes the files of a segment.
pub(super) trait Convert: Send + Sync {
    /// Reads the segment and writes below the log's folder. Doing it again writes the same files.
    ///
    /// # Errors
    /// What a person can do something about.
    fn convert(&self, segment: &Path, folder: &Path) -> Result<Made, String>;
}

/// Parquet, as `predlog` writes it.
#[derive(Debug)]
pub(super) struct Parquet(predlog::convert::Options);

impl Parquet {
    pub(super) fn new(instance: u32) -> Self {
        Self(predlog::convert::Options { instance, ..predlog::convert::Options::default() })
    }
}

impl Convert for Parquet {
    fn convert(&self, segment: &Path, folder: &Path) -> Result<Made, String> {
        let converted = predlog::convert::convert(segment, folder, &self.0)
            .map_err(|error| error.to_string())?;
        let files = converted.files.iter().map(|file| &file.path);
        let files = files.chain(&converted.feedback_files).map(|path| named(path, folder));
        let mut gaps: Vec<_> = converted.gaps.iter().map(ToString::to_string).collect();
        if converted.unknown > 0 {
            gaps.push(format!("{} records are of a later version", converted.unknown));
        }
        Ok(Made {
            files: files.collect::<Result<_, _>>()?,
            rows: converted.rows,
            damage: (!gaps.is_empty()).then(|| gaps.join("; ")),
        })
    }
}

/// The path in the log's folder.
fn named(file: &Path, folder: &Path) -> Result<String, String> {
    let inside = file.strip_prefix(folder).ok().and_then(Path::to_str);
    inside.map(ToOwned::to_owned).ok_or_else(|| format!("{} is elsewhere", file.display()))
}

/// Converts segments, one after the other.
pub(super) struct Converter {
    /// The log's.
    pub(super) folder: PathBuf,
    pub(super) backlog: Arc<Backlog>,
    /// `None`: files stay on this machine alone.
    pub(super) outbox: Option<Arc<Outbox>>,
    pub(super) format: Box<dyn Convert>,
    pub(super) metrics: Arc<DeliveryMetrics>,
    /// Held until both threads have ended.
    pub(super) _lock: Option<Arc<Lock>>,
}

impl Converter {
    /// Starts the two threads: one that yields to all others, and one for what waits for that too
    /// long, since calls can leave it no time at all.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub(super) fn start(self) -> io::Result<()> {
        let (idle, late) = (Arc::new(self), "convert-late");
        let late_one = idle.clone();
        tasks::thread("convert", move || {
            if let Err(error) = tasks::yield_to_others() {
                warn!(%error, "the prediction log is converted beside calls, not behind them");
                step_back("convert");
            }
            idle.run(Duration::ZERO);
        })?;
        tasks::thread(late, move || {
            step_back(late);
            late_one.run(PATIENCE);
        })?;
        Ok(())
    }

    fn run(&self, patience: Duration) {
        let mut was_seen = true;
        while !self.backlog.is_over() {
            let seen = self.backlog.look();
            if let (true, Err(error)) = (was_seen, &seen) {
                let folder = self.backlog.folder().display();
                error!(%folder, %error, "cannot look at the segments of the prediction log");
            }
            was_seen = seen.is_ok();
            match self.backlog.claim(patience) {
                Some(claim) => self.work(&claim),
                None => drop(self.backlog.wait(EVERY)),
            }
        }
    }

    /// Converts a segment, or leaves it for a later try.
    pub(super) fn work(&self, claim: &Claim) {
        let whole = catch_unwind(AssertUnwindSafe(|| self.finish(claim)));
        let Err(error) = whole.unwrap_or_else(|_| Err("a panic, see the log".to_owned())) else {
            return self.backlog.done(claim);
        };
        self.metrics.conversion_failures.increment(1);
        let (segment, pause) = (claim.path.display(), self.backlog.failed(claim));
        error!(%segment, %error, again_in = ?pause, "cannot convert a segment of the prediction log");
    }

    /// The steps, in their order.
    fn finish(&self, claim: &Claim) -> Result<(), String> {
        let made = self.make(claim)?;
        self.note(claim, &made)?;
        self.retire(claim, &made)
    }

    /// Files are whole on this machine.
    pub(super) fn make(&self, claim: &Claim) -> Result<Made, String> {
        self.format.convert(&claim.path, &self.folder)
    }

    /// It cannot be forgotten that they have to be delivered.
    pub(super) fn note(&self, claim: &Claim, made: &Made) -> Result<(), String> {
        let Some(outbox) = self.outbox.as_ref().filter(|_| !made.files.is_empty()) else {
            return Ok(());
        };
        outbox
            .add(claim.number, &made.files)
            .map_err(|error| format!("{}: {error}", outbox.folder().display()))
    }

    /// Only now may the segment go. One with damage stays beside: what could not be read of it may
    /// be of use to somebody.
    pub(super) fn retire(&self, claim: &Claim, made: &Made) -> Result<(), String> {
        let gone = match &made.damage {
            None => fs::remove_file(&claim.path),
            Some(damage) => {
                let aside = claim.path.with_extension("damaged");
                let segment = aside.display();
                error!(%segment, %damage, "a segment of the prediction log is damaged; what could be read was kept");
                self.metrics.damaged_segments.increment(1);
                fs::rename(&claim.path, &aside)
            }
        };
        gone.and_then(|()| File::open(self.backlog.folder())?.sync_all())
            .map_err(|error| format!("{}: {error}", claim.path.display()))?;
        self.metrics.files.increment(made.files.len() as u64);
        self.metrics.converted_rows.increment(made.rows);
        debug!(segment = claim.number, rows = made.rows, files = made.files.len(), "converted");
        Ok(())
    }
}

fn step_back(name: &str) {
    if let Err(error) = tasks::step_back() {
        warn!(%error, thread = name, "a thread in the background is as urgent as calls");
    }
}
