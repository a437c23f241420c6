//! A version in this process: loaded, checked and batched as the gateway does it, with nobody at
//! the doors, no limits of callers and no circuit breaker.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use engine::{Engine, Tensor};
use tokio::time::Instant;

use super::Asked;
use crate::config::{self, BreakerSettings, Config};
use crate::error::Rejection;
use crate::limits::Limiter;
use crate::models::{LoadRequest, Loader, Repository, ServedVersion};
use crate::overload::Overload;
use crate::pipeline::Pipeline;
use crate::shadow::Comparer;
use crate::snapshot::{ServedModel, SnapshotCell};
use crate::tasks;
use crate::telemetry::WireMetrics;
use crate::types::{
    Call, Caller, Identity, Inputs, ModelName, NamedTensor, Origin, Patience, Peer, Protocol,
    Roles, Schedule, Signature, Version,
};

/// How often threads are looked at that may be stuck.
const WATCH: Duration = Duration::from_millis(250);
/// Longest wait at the end for engine threads.
const END: Duration = Duration::from_secs(2);
/// Rows and bytes that may wait: what is under way is bounded before.
const ROWS: usize = 1 << 30;
const BYTES: usize = 1 << 40;
/// Calls under way, at least and at most.
const LEAST: usize = 16;
const MOST: usize = 4096;

/// A version that was loaded for replays.
#[derive(Debug)]
pub struct Local {
    pipeline: Pipeline,
    loader: Arc<Loader>,
    served: Arc<ServedVersion>,
    limiter: Arc<Limiter>,
    caller: Caller,
    version: String,
    threads: usize,
}

impl Local {
    /// Loads a version from the repository, whether or not its policy serves it. Without a version:
    /// the highest.
    ///
    /// # Errors
    /// What is wrong with the repository, the model or the version.
    pub async fn load(
        config: &Config,
        engines: Vec<Arc<dyn Engine>>,
        model: &ModelName,
        version: Option<&str>,
    ) -> anyhow::Result<Self> {
        let mut limits = config.limits.clone();
        limits.timeouts = Patience::default();
        (limits.queue_rows, limits.queue_bytes) = (ROWS, BYTES);
        let breaker = config::Breaker { enabled: false, ..config.breaker };
        let threads = config.engine.cpu_threads.max(config.engine.cuda_threads);
        let loader = Loader::new(engines, config.engine.clone(), limits.clone());
        let loader = Arc::new(loader.with_breaker(breaker));
        let request = find(config, &loader, model, version).await?;
        let watched = loader.clone();
        tasks::spawn("watch", async move {
            loop {
                tokio::time::sleep(WATCH).await;
                watched.watch();
            }
        });
        let label = format!("{model}/{}", request.version);
        let loaded = loader.load(request).await;
        let served = Arc::new(loaded.map_err(|error| anyhow!("{label}: {error}"))?);
        let snapshots = SnapshotCell::new();
        let ready = BTreeMap::from([(served.version, served.clone())]);
        snapshots.commit(model, Some(ServedModel { ready, ..ServedModel::default() }));
        let wire = Arc::new(WireMetrics::new());
        let pipeline = Pipeline {
            snapshots,
            overload: Overload::new(&limits, &config.overload, wire.clone()),
            wire,
            keys: None,
            log: None,
            comparer: Comparer::start().context("cannot start a thread")?,
            timeouts: Patience::default(),
        };
        let identity = Arc::new(Identity::anonymous(Roles::all()));
        let caller = Caller::new(identity, Peer::plain(Origin::Unix));
        let version = served.version.to_string();
        Ok(Self { pipeline, loader, served, limiter: Arc::default(), caller, version, threads })
    }

    #[must_use]
    pub fn signature(&self) -> &Arc<Signature> {
        self.served.signature()
    }

    /// Inputs that every call has to have, by name.
    pub(super) fn required(&self) -> Vec<String> {
        let is_optional = |index| {
            self.served
                .manifest
                .contract
                .as_ref()
                .is_some_and(|contract| contract.is_optional(index))
        };
        let inputs = self.signature().inputs.iter().enumerate();
        inputs
            .filter(|(index, _)| !is_optional(*index))
            .map(|(_, input)| input.name.clone())
            .collect()
    }

    pub(super) fn asked(&self) -> Asked {
        Asked {
            place: "here",
            model: self.served.model.to_string(),
            version: Some(self.version.clone()),
            sha256: self.served.sha256.clone(),
            device: Some(self.served.manifest.device.clone()),
            deterministic: Some(self.served.manifest.deterministic),
        }
    }

    /// Calls that keep its threads busy with full batches.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        let batch = self.signature().max_batch_size.max(1);
        (4 * batch * self.threads.max(1)).clamp(LEAST, MOST)
    }

    /// Answers a call as a gateway would.
    pub(super) async fn infer(&self, inputs: Vec<NamedTensor>) -> Result<Vec<Tensor>, Rejection> {
        let call = Call {
            caller: self.caller.clone(),
            id: None,
            model: self.served.model.as_str().to_owned(),
            version: Some(self.version.clone()),
            inputs: Inputs::Named(inputs),
            outputs: vec![],
            schedule: Schedule::default(),
            key: None,
            protocol: Protocol::Grpc,
            arrived: Instant::now(),
            headers: Arc::default(),
            parameters: vec![],
        };
        let mut reply = self.pipeline.infer(call, &self.limiter).await?;
        let outputs = std::mem::take(&mut reply.answer.outputs);
        reply.encoded();
        Ok(outputs.into_iter().map(|(_, tensor)| tensor).collect())
    }

    /// Ends the engine threads.
    pub async fn close(self) {
        let loader = self.loader;
        // Those that are stuck end with the process.
        let _all_ended = tasks::blocking(move || loader.close(END)).await;
    }
}

/// Reads a version's files.
async fn find(
    config: &Config,
    loader: &Loader,
    model: &ModelName,
    version: Option<&str>,
) -> anyhow::Result<LoadRequest> {
    let path = config.repository.path.clone();
    let repository = Repository::open(&path)
        .with_context(|| format!("repository.path: cannot open {}", path.display()))?;
    let folder = repository.model(model).map_err(|reason| anyhow!("{model}: {reason}"))?;
    let mut manifest = folder.manifest;
    // No recorded call is to be refused for the time it takes, nor for what became of others.
    manifest.timeouts = Patience::default();
    manifest.batching.refuse_late = false;
    manifest.breaker = BreakerSettings::default();
    let version: Version = match version {
        None => *folder.versions.keys().next_back().context("the model has no version")?,
        Some(text) => match manifest.labels.get(text) {
            Some(version) => *version,
            None => text.parse().map_err(|_| anyhow!("'{text}' is no version and no label"))?,
        },
    };
    if !folder.versions.contains_key(&version) {
        bail!("{model}: there is no version {version} in {}", path.display());
    }
    let needs_file = loader.engine(&manifest.platform).map_err(|error| anyhow!("{error}"))?;
    let needs_file = needs_file.needs_file();
    let (name, read) = (model.clone(), manifest.clone());
    let files = tasks::blocking(move || repository.read(&name, version, &read, needs_file)).await;
    let files = files.map_err(|reason| anyhow!("{model}/{version}: {reason}"))?;
    Ok(LoadRequest { model: model.clone(), version, manifest: Arc::new(manifest), files })
}
