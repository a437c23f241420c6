//! Makes a version ready, off the request path: read, hash, load, try the graph, warm up on the
//! threads that will run it, check golden requests. Only then may anybody see it.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use engine::{Batch, Engine};
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio::time::{Instant, timeout};
use tracing::info;

use self::failure::describe;
use self::work::{LoadWork, Loaded, note_nan};
use super::golden::{self, Golden};
use super::manifest::Manifest;
use super::repository::{GOLDEN_FILE, VersionFiles};
use super::sample;
use super::stats::Stats;
use super::version::{Published, ServedVersion};
use crate::batching::{Device, Guard, Pool, Queue, QueueSettings, StuckThreads};
use crate::breaker::Breaker;
use crate::config;
use crate::contract::Checker;
use crate::overload::delay::Shedding;
use crate::tasks;
use crate::telemetry::{BreakerMetrics, VersionMetrics, metrics};
use crate::types::{ModelName, Schedule, Version};

mod failure;
mod padding;
mod settings;
mod work;

pub use failure::LoadFailure;

/// Loads versions with the engines and devices of this process.
#[derive(Debug)]
pub struct Loader {
    engines: Vec<Arc<dyn Engine>>,
    pools: Mutex<HashMap<Device, Pool>>,
    settings: config::Engine,
    limits: config::Limits,
    breaker: Mutex<config::Breaker>,
    shedding: Option<Shedding>,
    stuck: StuckThreads,
    /// Loads under way together: more would only compete for the cores, and for their own limits.
    turns: Semaphore,
}

/// What to load.
#[derive(Debug)]
pub struct LoadRequest {
    pub model: ModelName,
    pub version: Version,
    pub manifest: Arc<Manifest>,
    pub files: VersionFiles,
}

impl Loader {
    #[must_use]
    pub fn new(
        engines: Vec<Arc<dyn Engine>>,
        settings: config::Engine,
        limits: config::Limits,
    ) -> Self {
        let stuck = StuckThreads::default();
        let turns = Semaphore::new(settings.cpu_threads.max(2));
        let (pools, breaker, shedding) = (Mutex::default(), Mutex::default(), None);
        Self { engines, pools, settings, limits, breaker, shedding, stuck, turns }
    }

    /// The platform's engine.
    ///
    /// # Errors
    /// When this build has none.
    pub fn engine(&self, platform: &str) -> Result<&Arc<dyn Engine>, LoadFailure> {
        self.engines.iter().find(|engine| engine.platform() == platform).ok_or_else(|| {
            LoadFailure::new(format!("this build of penstock has no engine for '{platform}'"))
        })
    }

    /// Waits for a turn to load; whoever holds one reads and loads one version.
    ///
    /// # Errors
    /// Never while the loader lives.
    pub async fn turn(&self) -> Result<SemaphorePermit<'_>, LoadFailure> {
        let turn = self.turns.acquire().await;
        turn.map_err(|_| LoadFailure::transient("the gateway is stopping"))
    }

    /// Makes a version ready. Take a [`Loader::turn`] before.
    ///
    /// # Errors
    /// What is wrong with the version; nothing that serves is touched.
    pub async fn load(&self, request: LoadRequest) -> Result<ServedVersion, LoadFailure> {
        let started = Instant::now();
        let LoadRequest { model, version, manifest, mut files } = request;
        let label = format!("{model}/{version}");
        let engine = self.engine(&manifest.platform)?.clone();
        let (probed, device) = (engine.clone(), manifest.device.clone());
        tasks::blocking(move || probed.check_device(&device)).await?;
        let file = files.model.take();
        let (file, sha256) = match file {
            Some(file) => {
                let (file, hash) = tasks::blocking(move || hashed(file)).await;
                check_pin(&manifest, version, &hash)?;
                (file, Some(hash))
            }
            None => (vec![], None),
        };
        let hashes = hashes(&files);
        let samples = sample::batches(&manifest, files.sample.as_deref())?;
        let goldens = match &files.golden {
            Some(text) => golden::parse(text, &manifest.signature)
                .map_err(|error| LoadFailure::new(format!("golden.json: {error}")))?,
            None => vec![],
        };
        let pool = self.pool(&Device(manifest.device.clone()))?;
        let work = LoadWork {
            label: label.clone(),
            engine: engine.clone(),
            file,
            manifest: manifest.clone(),
            samples: samples.clone(),
        };
        let loaded = self.load_model(work).await?;
        let Loaded { model: loaded, mut watch_nan } = loaded;
        let device_bytes = loaded.device_bytes();
        let version_metrics = Arc::new(VersionMetrics::new(model.as_str(), &version.to_string()));
        let settings = self.queue_settings(&label, &manifest);
        let queue = Queue::new(settings, loaded, engine, version_metrics.clone(), &pool);
        self.warm(&queue, &manifest, &samples).await?;
        self.warm(&queue, &manifest, &sample::lengths(&manifest)?).await?;
        // From now on these inputs tell a broken model from a broken call.
        if let Some(sample) = samples.first() {
            queue.probe_with(sample.clone());
        }
        self.check_goldens(&queue, &manifest, &goldens, &mut watch_nan).await?;
        queue.reset_executions();
        let breaker = self.guard(&queue, (&model, version), &manifest, watch_nan);
        let load_time = started.elapsed();
        metrics::LOAD_SECONDS
            .gauge(&[model.as_str(), &version.to_string()])
            .set(load_time.as_secs_f64());
        metrics::show_model_memory(model.as_str(), version, device_bytes);
        info!(
            model = label,
            sha256 = sha256.as_deref().unwrap_or("none"),
            device = manifest.device,
            engine = queue.notes().join("; "),
            device_bytes,
            golden = goldens.len(),
            ?load_time,
            "loaded"
        );
        let contract = manifest.contract.clone();
        let contract =
            contract.map(|contract| Checker::new(contract, model.as_str(), &version.to_string()));
        Ok(ServedVersion {
            contract,
            model,
            version,
            timeouts: manifest.timeouts.within(self.limits.timeouts),
            manifest,
            sha256,
            hashes,
            queue,
            breaker,
            stats: Stats::default(),
            published: Published::default(),
            metrics: version_metrics,
            load_time,
        })
    }

    /// Lets calls pass a breaker from now on: what ran so far was nobody's call.
    fn guard(
        &self,
        queue: &Queue,
        (model, version): (&ModelName, Version),
        manifest: &Manifest,
        watch_nan: Vec<bool>,
    ) -> Arc<Breaker> {
        let breaker = Breaker::new(
            &format!("{model}/{version}"),
            self.breaker_of(manifest),
            BreakerMetrics::new(model.as_str(), &version.to_string()),
        );
        let signature = manifest.signature.clone();
        queue.guard_with(Guard { breaker: breaker.clone(), signature, watch_nan });
        breaker
    }

    /// Gives up threads past their time limits and publishes what devices hold; called several
    /// times a second.
    pub fn watch(&self) {
        for (device, pool) in &*self.lock() {
            pool.watch();
            let known = self.engines.iter().find_map(|engine| engine.device_memory(&device.0));
            if let Some(memory) = known {
                metrics::show_device_memory(&device.0, &memory);
            }
        }
    }

    /// A device that runs nothing any more, until the process is started again.
    #[must_use]
    pub fn failed_device(&self) -> Option<Device> {
        let pools = self.lock();
        let failed = pools.values().find(|pool| pool.failure().is_some());
        failed.map(|pool| pool.device().clone())
    }

    /// Brings the gauges of devices up to date; called before metrics are rendered.
    pub fn publish(&self) {
        for pool in self.lock().values() {
            pool.publish();
        }
    }

    /// The longest that reading and loading one version may take.
    #[must_use]
    pub fn load_timeout(&self) -> Duration {
        self.settings.load_timeout
    }

    /// Ends the engine threads once they have finished what they hold. Blocks for at most
    /// `limit`; `false` when some are still at work then.
    #[must_use]
    pub fn close(&self, limit: Duration) -> bool {
        let pools: Vec<Pool> = self.lock().values().cloned().collect();
        for pool in &pools {
            pool.close();
        }
        pools.iter().all(|pool| pool.wait_ended(limit))
    }

    /// Threads that were lost so far, all devices and loads together.
    #[must_use]
    pub fn stuck(&self) -> &StuckThreads {
        &self.stuck
    }

    /// Each device in use: its threads that take work, and how many there should be.
    #[must_use]
    pub fn threads(&self) -> Vec<(Device, (usize, usize))> {
        let pools = self.lock();
        let mut threads: Vec<_> =
            pools.iter().map(|(device, pool)| (device.clone(), pool.threads())).collect();
        threads.sort_unstable();
        threads
    }

    /// Whether so many threads are stuck in native code that only a restart helps.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.stuck.count() <= self.settings.max_stuck_threads
    }

    fn pool(&self, device: &Device) -> Result<Pool, LoadFailure> {
        let mut pools = self.lock();
        if let Some(pool) = pools.get(device) {
            return Ok(pool.clone());
        }
        let threads = match device.0.as_str() {
            "cpu" => self.settings.cpu_threads,
            _ => self.settings.cuda_threads,
        };
        let pool = Pool::start(device.clone(), threads, self.stuck.clone())
            .map_err(|error| LoadFailure::new(format!("cannot start engine threads: {error}")))?;
        pools.insert(device.clone(), pool.clone());
        Ok(pool)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Device, Pool>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loads on a thread of its own, which is given up when it takes too long.
    async fn load_model(&self, work: LoadWork) -> Result<Loaded, LoadFailure> {
        let (sender, mut receiver) = oneshot::channel();
        let stuck = self.stuck.clone();
        tasks::thread("load", move || {
            let result = catch_unwind(AssertUnwindSafe(|| work.run()))
                .unwrap_or_else(|_| Err(LoadFailure::new("the engine panicked while loading")));
            if sender.send(result).is_err() {
                stuck.recover();
            }
        })
        .map_err(|error| LoadFailure::transient(format!("cannot start a thread: {error}")))?;
        let limit = self.settings.load_timeout;
        match timeout(limit, &mut receiver).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(LoadFailure::new("the engine panicked while loading")),
            Err(_) => {
                // Counted before the door closes: the thread takes it back when it comes late.
                self.stuck.abandon("load");
                receiver.close();
                if let Ok(result) = receiver.try_recv() {
                    self.stuck.recover();
                    return result;
                }
                Err(LoadFailure::new(format!("loading took longer than {limit:?}, given up")))
            }
        }
    }

    async fn warm(
        &self,
        queue: &Queue,
        manifest: &Manifest,
        samples: &[Batch],
    ) -> Result<(), LoadFailure> {
        for batch in samples {
            for _ in 0..manifest.warmup.runs {
                queue.warm(batch, self.settings.warmup_timeout).await.map_err(|failure| {
                    describe(&format!("warm-up with {} rows", batch.rows()), failure)
                })?;
            }
        }
        Ok(())
    }

    async fn check_goldens(
        &self,
        queue: &Queue,
        manifest: &Manifest,
        goldens: &[Golden],
        watch_nan: &mut [bool],
    ) -> Result<(), LoadFailure> {
        for (index, golden) in goldens.iter().enumerate() {
            let name = format!("golden request {index}");
            let submitted = queue.submit(golden.inputs.clone(), golden.rows, Schedule::default());
            let receiver =
                submitted.map_err(|error| LoadFailure::new(format!("{name}: {error}")))?;
            let outputs = match timeout(self.settings.warmup_timeout, receiver).await {
                Ok(Ok(Ok(done))) => done.outputs,
                Ok(Ok(Err(failure))) => return Err(describe(&name, failure)),
                Ok(Err(_)) | Err(_) => {
                    return Err(LoadFailure::transient(format!("{name}: no answer in time")));
                }
            };
            golden
                .check(&manifest.signature, &outputs)
                .map_err(|error| LoadFailure::new(format!("{name}: {error}")))?;
            note_nan(watch_nan, &outputs);
        }
        Ok(())
    }
}

/// Hashes of the files beside the model's, by name.
fn hashes(files: &VersionFiles) -> Vec<(String, String)> {
    [(GOLDEN_FILE, &files.golden), ("sample", &files.sample)]
        .into_iter()
        .filter_map(|(name, file)| Some((name.to_owned(), hex(&Sha256::digest(file.as_ref()?)))))
        .collect()
}

fn hashed(file: Vec<u8>) -> (Vec<u8>, String) {
    let hash = hex(&Sha256::digest(&file));
    (file, hash)
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn check_pin(manifest: &Manifest, version: Version, hash: &str) -> Result<(), LoadFailure> {
    match manifest.facts(version).sha256 {
        Some(pinned) if pinned != hash => Err(LoadFailure::new(format!(
            "the model file has SHA-256 {hash}, model.toml pins {pinned}: refused"
        ))),
        _ => Ok(()),
    }
}
