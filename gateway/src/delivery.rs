//! What becomes of the prediction log's segments: Parquet files on this machine, and from there in
//! an object store; how long files stay; and a stop before the disk is full.
//!
//! ```text
//! segment ─▶ convert ─▶ files ─┬▶ retention (age, size)
//!    ▲ removed last            └▶ outbox ─▶ upload ─▶ object store, confirmed ─▶ off this machine
//! ```
//!
//! Every step is on the disk before the one that it replaces goes, and doing one twice gives the
//! same names: a process that ends anywhere loses nothing and leaves nothing twice.

mod backlog;
mod convert;
mod outbox;
mod retention;
mod space;
mod store;
mod upload;

use std::fs;
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use predlog::folder::Lock;
use serde::Serialize;
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::{debug, error, warn};

use crate::config::{self, Disk, LogStore, Scheme};
use crate::predictions::PredictionLog;
use crate::tasks;
use crate::telemetry::DeliveryMetrics;

use self::backlog::Backlog;
use self::convert::{Convert, Converter};
use self::outbox::Outbox;
use self::space::Space;
use self::upload::Uploader;

pub use self::space::Hold;

/// How often the disk is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How often files that have to go are looked for.
const TIDY: Duration = Duration::from_secs(60);

/// How long a task rests that a panic ended.
const REST: Duration = Duration::from_secs(10);

/// What a log's folder is to become.
#[expect(missing_debug_implementations, reason = "holds a function")]
pub struct Settings {
    /// The log's.
    pub folder: PathBuf,
    /// What keeps other processes away from it, until nobody here works on it any more.
    pub lock: Option<Arc<Lock>>,
    /// This gateway, in the names of files.
    pub instance: u32,
    pub disk: Disk,
    pub store: Option<LogStore>,
    /// What the writer of segments is told.
    pub hold: Hold,
}

/// Converts, delivers and deletes in the background.
#[derive(Debug, Clone)]
pub struct Delivery {
    parts: Arc<Parts>,
    /// What [`finish`](Self::finish) ends.
    tasks: Arc<[AbortHandle]>,
}

#[derive(Debug)]
struct Parts {
    folder: PathBuf,
    disk: Disk,
    backlog: Arc<Backlog>,
    outbox: Option<Arc<Outbox>>,
    space: Space,
    metrics: Arc<DeliveryMetrics>,
}

/// How things stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Closed segments that wait to be converted.
    pub segments: usize,
    /// Files that wait to be delivered.
    pub undelivered_files: usize,
    /// Bytes of the file system, as of the last look.
    pub free_bytes: u64,
    /// Whether rows are written: the disk is not short of space.
    pub is_writing: bool,
}

impl Delivery {
    /// Goes on with what an earlier process left in the log's folder, and with what is written
    /// from now on.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn of(log: &Arc<PredictionLog>, config: &config::PredictionLog) -> io::Result<Self> {
        let held = log.clone();
        let delivery = Self::start(Settings {
            folder: log.path().to_owned(),
            lock: log.lock(),
            instance: log.instance(),
            disk: config.disk.clone(),
            store: config.store.clone(),
            hold: Box::new(move |why| held.hold(why)),
        })?;
        let (mut closed, told) = (log.closed(), delivery.clone());
        tasks::spawn("segments", async move {
            while closed.changed().await.is_ok() {
                told.wake();
            }
        });
        Ok(delivery)
    }

    /// As [`of`](Self::of), for a folder that anybody writes. On the runtime of the caller.
    ///
    /// # Errors
    /// When the folder cannot be used, is the store's too, or the system has no thread to give.
    pub fn start(settings: Settings) -> io::Result<Self> {
        let format = Box::new(convert::Parquet::new(settings.instance));
        Self::start_with(settings, format)
    }

    fn start_with(settings: Settings, format: Box<dyn Convert>) -> io::Result<Self> {
        let Settings { folder, lock, instance, disk, store, hold } = settings;
        let segments = folder.join("segments");
        fs::create_dir_all(&segments)?;
        if let Some(store) = &store {
            store::apart(store, &folder).map_err(io::Error::other)?;
        }
        let outbox = match &store {
            None => None,
            Some(_) => Some(Arc::new(Outbox::open(folder.join("outbox"))?)),
        };
        let parts = Arc::new(Parts {
            backlog: Arc::new(Backlog::new(segments)),
            space: Space::new(hold, disk.min_free),
            metrics: Arc::default(),
            outbox,
            folder,
            disk,
        });
        // Before the first row is written.
        parts.look();
        parts.tidy(true);
        let converter = Converter {
            folder: parts.folder.clone(),
            backlog: parts.backlog.clone(),
            outbox: parts.outbox.clone(),
            format,
            metrics: parts.metrics.clone(),
            _lock: lock.clone(),
        };
        converter.start()?;
        let mut tasks = vec![parts.every("disk", LOOK, Parts::look)];
        tasks.push(parts.every("retention", TIDY, |parts| parts.tidy(false)));
        if let (Some(store), Some(outbox)) = (store, parts.outbox.clone()) {
            let uploader = parts.uploader(store, outbox, instance);
            let deliver = async move {
                let _held = lock;
                loop {
                    let run = AssertUnwindSafe(uploader.run()).catch_unwind();
                    if run.await.is_err() {
                        error!(again_in = ?REST, "delivering the prediction log panicked");
                    }
                    sleep(REST).await;
                    // What it had in hand is handed out again.
                    uploader.outbox.take_back();
                }
            };
            tasks.push(tasks::spawn("deliver", deliver).abort_handle());
        }
        Ok(Self { parts, tasks: tasks.into() })
    }

    /// A segment was closed: somebody may begin with it.
    pub fn wake(&self) {
        self.parts.backlog.wake();
    }

    /// How things stand.
    #[must_use]
    pub fn status(&self) -> Status {
        let parts = &self.parts;
        Status {
            segments: parts.backlog.figures().0,
            undelivered_files: parts.outbox.as_ref().map_or(0, |outbox| outbox.figures().0),
            free_bytes: parts.space.last(),
            is_writing: parts.space.is_open(),
        }
    }

    /// For a machine that may not come back: delivers what there is, at most for `limit`. What does
    /// not get through waits on the disk, as does everything where there is no store.
    pub async fn finish(self, limit: Duration) {
        let parts = self.parts;
        let end = Instant::now() + limit;
        while parts.outbox.is_some() && Instant::now() < end {
            if parts.backlog.look().is_ok() && parts.is_idle() {
                break;
            }
            parts.backlog.wake();
            sleep(Duration::from_millis(20)).await;
        }
        if let Some(outbox) = parts.outbox.as_ref().filter(|_| !parts.is_idle()) {
            let (segments, files) = (parts.backlog.figures().0, outbox.figures().0);
            warn!(segments, files, "of the prediction log is not delivered and waits on disk");
        }
        parts.backlog.end();
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Parts {
    fn uploader(&self, store: LogStore, outbox: Arc<Outbox>, instance: u32) -> Uploader {
        Uploader {
            outbox,
            folder: self.folder.clone(),
            url: store.url.clone(),
            prefix: match store.scheme {
                Scheme::File => object_store::path::Path::default(),
                _ => object_store::path::Path::from(store.prefix.as_str()),
            },
            instance: format!("{instance:08x}"),
            keep_local: store.keep_local,
            uploads: store.uploads,
            metrics: self.metrics.clone(),
            beneath: (store.scheme == Scheme::File).then(|| Path::new("/").join(&store.prefix)),
            open: {
                let folder = self.folder.clone();
                // Mounts and links may have changed.
                Arc::new(move || store::apart(&store, &folder).and_then(|()| store::open(&store)))
            },
        }
    }

    fn is_idle(&self) -> bool {
        let waiting = self.outbox.as_ref().map_or(0, |outbox| outbox.figures().0);
        self.backlog.figures().0 == 0 && waiting == 0
    }

    /// Does something about the disk now and then, for ever, whatever becomes of it once. A disk
    /// that hangs holds up nobody else.
    fn every(
        self: &Arc<Self>,
        name: &'static str,
        pause: Duration,
        work: fn(&Self),
    ) -> AbortHandle {
        let parts = self.clone();
        let task = async move {
            let mut ticks = interval(pause);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            // The first one is at once, and has been done.
            ticks.tick().await;
            loop {
                ticks.tick().await;
                let parts = parts.clone();
                let done = AssertUnwindSafe(tasks::blocking(move || work(&parts))).catch_unwind();
                if done.await.is_err() {
                    error!(task = name, "panicked, and goes on");
                }
            }
        };
        tasks::spawn(name, task).abort_handle()
    }

    /// Measures, and opens or closes the gate.
    fn look(&self) {
        match space::free(&self.folder) {
            Ok(free) => {
                self.space.judge(free);
                self.metrics.free_bytes.set(as_f64(free));
            }
            Err(error) => debug!(%error, "cannot tell how much of the disk is free"),
        }
        self.metrics.writing.set(f64::from(u8::from(self.space.is_open())));
        let now = SystemTime::now();
        let age = |since: Option<SystemTime>| {
            let age = since.and_then(|since| now.duration_since(since).ok());
            age.unwrap_or_default().as_secs_f64()
        };
        let (segments, since) = self.backlog.figures();
        self.metrics.segments.set(as_f64(segments as u64));
        self.metrics.conversion_lag.set(age(since));
        let Some(outbox) = &self.outbox else { return };
        let (files, since) = outbox.figures();
        self.metrics.undelivered_files.set(as_f64(files as u64));
        self.metrics.delivery_lag.set(age(since));
    }

    /// Deletes what is too old or too much.
    fn tidy(&self, leftovers: bool) {
        let now = SystemTime::now();
        let retention::Found { files: found, problems } =
            retention::scan(&self.folder, now, leftovers);
        for (path, error) in problems {
            error!(path, %error, "cannot be looked at for old files of the prediction log");
        }
        let mut total: u64 = found.iter().map(|file| file.bytes).sum();
        // Asked for after the files were found: whatever was made meanwhile is held by one of them.
        let is_held = |file: &retention::Kept| {
            retention::segment_of(&file.path).is_some_and(|number| self.backlog.holds(number))
                || self.outbox.as_ref().is_some_and(|outbox| outbox.holds(&file.path))
        };
        for (file, reason) in retention::choose(found, &self.disk, now, is_held) {
            match fs::remove_file(Path::new(&self.folder).join(&file.path)) {
                Ok(()) => {
                    total -= file.bytes;
                    self.metrics.removed(reason.label());
                    debug!(file = file.path, reason = reason.label(), "deleted");
                }
                // Delivered since.
                Err(error) if error.kind() == io::ErrorKind::NotFound => total -= file.bytes,
                Err(error) => error!(file = file.path, %error, "cannot delete an old file"),
            }
        }
        self.metrics.file_bytes.set(as_f64(total));
    }
}

#[expect(clippy::cast_precision_loss, reason = "a metric")]
const fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
