//! Delivers files: a few at a time, the oldest first, again after pauses that grow while the store
//! fails. A file leaves the outbox when the store has said that it has all of it.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use object_store::path::Path;
use object_store::{Error, MultipartUpload, ObjectStore, ObjectStoreExt};
use tokio::time::sleep;
use tracing::{debug, error, info, warn};

use super::outbox::{Item, Outbox};
use super::store::{describe, is_about_credentials, is_same};
use crate::tasks;
use crate::telemetry::DeliveryMetrics;

/// What of a file is in memory at a time; a larger one goes in parts. S3 takes no part below 5 MiB
/// and no more than 10,000 of them.
const PART: usize = 8 << 20;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Opens the store anew: credentials may have changed.
pub(super) type Open = Arc<dyn Fn() -> Result<Arc<dyn ObjectStore>, String> + Send + Sync>;

/// Delivers what is in the outbox.
pub(super) struct Uploader {
    pub(super) outbox: Arc<Outbox>,
    /// The log's.
    pub(super) folder: PathBuf,
    pub(super) open: Open,
    /// As the configuration says, for the log.
    pub(super) url: String,
    /// Behind the bucket.
    pub(super) prefix: Path,
    /// Where files of the store are on this machine.
    pub(super) beneath: Option<PathBuf>,
    /// This gateway, in the name of the object that shows that the store can be written.
    pub(super) instance: String,
    pub(super) keep_local: bool,
    /// Files at a time.
    pub(super) uploads: usize,
    pub(super) metrics: Arc<DeliveryMetrics>,
}

/// Why a file has not arrived.
#[derive(Debug)]
enum Failure {
    Store(Error),
    /// It is not what was sent.
    Unconfirmed(String),
    Local(io::Error),
}

/// Pauses that double, each somewhere in its upper half, so that gateways do not ask together.
#[derive(Debug)]
struct Pause(Duration);

impl Pause {
    fn next(&mut self) -> Duration {
        let pause = self.0.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.0 = self.0.saturating_mul(2).min(LONGEST_PAUSE);
        pause
    }
}

impl Uploader {
    /// Delivers for ever.
    pub(super) async fn run(&self) -> Infallible {
        let mut pause = Pause(FIRST_PAUSE);
        loop {
            let store = self.connected(&mut pause).await;
            while self.deliver(&*store).await {
                // That a small object was taken says little of files.
                pause = Pause(FIRST_PAUSE);
            }
            // Whatever it was: the store is asked with something small before it is trusted again.
            sleep(pause.next()).await;
        }
    }

    /// Opens the store, and writes a small object to it before anything is sent there: whether
    /// that works says more about credentials than any question that rights may not cover.
    async fn connected(&self, pause: &mut Pause) -> Arc<dyn ObjectStore> {
        let mut failed = false;
        loop {
            let open = self.open.clone();
            let problem = match tasks::blocking(move || open()).await {
                Err(problem) => problem,
                Ok(store) => match store.put(&self.mark(), self.instance.clone().into()).await {
                    Ok(_) => {
                        if failed {
                            info!(
                                store = self.url,
                                "the store of the prediction log can be written again"
                            );
                        }
                        return store;
                    }
                    Err(error) => told(&error),
                },
            };
            failed = true;
            self.metrics.failures.increment(1);
            let again_in = pause.next();
            warn!(
                store = self.url,
                problem,
                ?again_in,
                "files of the prediction log cannot be delivered; rows wait on disk"
            );
            sleep(again_in).await;
        }
    }

    /// Readers of Parquet pass over names that begin with an underscore.
    fn mark(&self) -> Path {
        self.prefix.clone().join("_penstock").join(self.instance.as_str())
    }

    /// Delivers the next files, a few at a time; `false` when the store failed, or nothing got
    /// through.
    async fn deliver(&self, store: &dyn ObjectStore) -> bool {
        let items = self.outbox.next(self.uploads * 4).await;
        let (mut arrived, mut store_failed) = (0_usize, false);
        let mut uploads = stream::iter(items)
            .map(|item| async move { (self.upload(store, &item).await, item) })
            .buffer_unordered(self.uploads);
        while let Some((outcome, item)) = uploads.next().await {
            let Err(failure) = outcome else {
                arrived += 1;
                self.arrived(&item).await;
                continue;
            };
            store_failed |= !matches!(failure, Failure::Local(_));
            self.metrics.failures.increment(1);
            let (file, problem) = (&item.path, failure.told());
            warn!(
                store = self.url,
                file, problem, "a file of the prediction log was not delivered"
            );
            self.outbox.failed(item);
        }
        arrived > 0 && !store_failed
    }

    /// Forgets a file, and the note of its segment with the last one.
    async fn arrived(&self, item: &Item) {
        if let Some(note) = self.outbox.completed_by(item)
            && let Err(error) = tasks::blocking(move || fs::remove_file(note)).await
        {
            // Left there it has the files delivered once more, under the same names.
            error!(file = item.path, %error, "cannot remove the note of files that were delivered");
        }
        self.outbox.delivered(item);
    }

    async fn upload(&self, store: &dyn ObjectStore, item: &Item) -> Result<(), Failure> {
        let local = self.folder.join(&item.path);
        let target = self.target(&item.path)?;
        let opening = local.clone();
        let opened = tasks::blocking(move || {
            let file = File::open(opening)?;
            let length = file.metadata()?.len();
            Ok::<_, io::Error>((file, length))
        });
        let (file, length) = match opened.await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return self.is_there(store, &target, item).await;
            }
            opened => opened.map_err(Failure::Local)?,
        };
        if length <= PART as u64 {
            let (_, bytes) = part(file).await?;
            store.put(&target, bytes.into()).await.map_err(Failure::Store)?;
        } else {
            send_parts(store, &target, file).await?;
        }
        confirm(store, &target, length).await?;
        if !self.keep_local {
            let there = self.beneath.as_ref().map(|root| root.join(&item.path));
            let gone = tasks::blocking(move || match there {
                Some(there) if is_same(&local, &there)? => Ok(false),
                _ => fs::remove_file(local).map(|()| true),
            });
            let gone = gone.await;
            if matches!(gone, Ok(false)) {
                return Err(Failure::Unconfirmed(
                    "the folder of the store has the log's own files".into(),
                ));
            }
            // Left behind it would be deleted by its age.
            if let Err(error) = gone {
                warn!(file = item.path, %error, "cannot delete a file that was delivered");
            }
        }
        self.metrics.delivered_files.increment(1);
        self.metrics.delivered_bytes.increment(length);
        debug!(file = item.path, length, "delivered");
        Ok(())
    }

    /// A file that is gone from here was delivered before the process ended, as the store can tell
    /// where it may be asked; else somebody took it.
    async fn is_there(
        &self,
        store: &dyn ObjectStore,
        target: &Path,
        item: &Item,
    ) -> Result<(), Failure> {
        match store.head(target).await {
            Ok(_) => Ok(()),
            Err(Error::NotFound { .. }) => {
                self.metrics.lost_files.increment(1);
                error!(
                    file = item.path,
                    "a file of the prediction log was gone before it was delivered"
                );
                Ok(())
            }
            // May not be asked: files are deleted here after they were delivered only.
            Err(error) if is_about_credentials(&error) => Ok(()),
            Err(error) => Err(Failure::Store(error)),
        }
    }

    fn target(&self, path: &str) -> Result<Path, Failure> {
        let whole = format!("{}/{path}", self.prefix);
        Path::parse(whole.trim_start_matches('/'))
            .map_err(|error| Failure::Store(Error::InvalidPath { source: error }))
    }
}

impl Failure {
    fn told(&self) -> String {
        match self {
            Self::Store(error) => told(error),
            Self::Unconfirmed(what) => what.clone(),
            Self::Local(error) => error.to_string(),
        }
    }
}

/// With the key that a person has to look at.
fn told(error: &Error) -> String {
    match is_about_credentials(error) {
        true => format!(
            "prediction_log.store.credentials or those of the environment: {}",
            describe(error)
        ),
        false => format!("prediction_log.store: {}", describe(error)),
    }
}

/// The next part of a file.
async fn part(mut file: File) -> Result<(File, Vec<u8>), Failure> {
    let read = tasks::blocking(move || {
        let mut bytes = Vec::new();
        (&mut file).take(PART as u64).read_to_end(&mut bytes)?;
        Ok((file, bytes))
    });
    read.await.map_err(Failure::Local)
}

/// Sends a large file; one that does not arrive whole leaves nothing behind, as far as the store can
/// still be asked.
async fn send_parts(store: &dyn ObjectStore, target: &Path, file: File) -> Result<(), Failure> {
    let mut upload = store.put_multipart(target).await.map_err(Failure::Store)?;
    let sent = each_part(&mut *upload, file).await;
    if sent.is_err()
        && let Err(error) = upload.abort().await
    {
        debug!(problem = describe(&error), "parts of a file stay in the store");
    }
    sent
}

async fn each_part(upload: &mut dyn MultipartUpload, mut file: File) -> Result<(), Failure> {
    loop {
        let (rest, bytes) = part(file).await?;
        if bytes.is_empty() {
            break;
        }
        file = rest;
        upload.put_part(bytes.into()).await.map_err(Failure::Store)?;
    }
    upload.complete().await.map(drop).map_err(Failure::Store)
}

/// Asks the store what it has. Where it may not be asked (credentials that can write alone), its
/// word on the writing counts.
async fn confirm(store: &dyn ObjectStore, target: &Path, length: u64) -> Result<(), Failure> {
    match store.head(target).await {
        Ok(about) if about.size == length => Ok(()),
        Ok(about) => {
            let what = format!("the store has {} bytes of a file of {length}", about.size);
            Err(Failure::Unconfirmed(what))
        }
        Err(error) if is_about_credentials(&error) => Ok(()),
        Err(Error::NotFound { .. }) => {
            Err(Failure::Unconfirmed("the store does not have what it took".into()))
        }
        Err(error) => Err(Failure::Store(error)),
    }
}
