//! The only writer of snapshots: loads, swaps and unloads versions, following the folder and the
//! repository API.
//!
//! A change of one model is prepared whole (read, load, warm, check) while the old versions go on
//! serving, then committed by one pointer swap. What failed leaves the old in place.

mod change;
mod pins;
mod poll;
mod registry;
mod upload;

use change::Change;
pub use pins::{Folders, Missing, Pins};
pub use registry::{IndexEntry, State};
pub use upload::Upload;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, oneshot};
use tracing::{error, info, warn};

use crate::config::{self, Problem};
use crate::error::{Kind, Rejection};
use crate::limits::Limiter;
use crate::models::repository::Stamp;
use crate::models::{Loader, ModelFolder, Repository, unknown_names};
use crate::snapshot::{Routing, Snapshot, SnapshotCell};
use crate::tasks;
use crate::types::{ModelName, Version};

/// Keeps what is served in step with the repository. One per process.
#[derive(Debug)]
pub struct Control {
    repository: Repository,
    loader: Loader,
    snapshots: SnapshotCell,
    registry: registry::Registry,
    settings: config::Repository,
    /// One change of a model at a time; other models go on.
    locks: Mutex<HashMap<ModelName, Arc<AsyncMutex<Intent>>>>,
    /// Held between reading and storing the snapshot.
    commit: Mutex<()>,
    /// Versions that routes name.
    held: Mutex<pins::Held>,
}

/// What somebody asked of one model; guarded by the model's lock.
#[derive(Debug, Default)]
struct Intent {
    /// Versions set by the repository API, which the folder's policy then leaves alone.
    explicit: Option<BTreeSet<Version>>,
    /// The model came with a load call and not from the folder.
    upload: Option<Arc<Upload>>,
    /// What was tried and failed, and why, so that polling does not try it again.
    failed: HashMap<Version, (Stamp, String)>,
    /// What is served, to see changes.
    served: HashMap<Version, Stamp>,
}

impl Intent {
    /// Whether exactly these files of a version failed to load.
    fn has_failed(&self, version: Version, stamp: Option<&Stamp>) -> bool {
        stamp.is_some_and(|stamp| {
            self.failed.get(&version).is_some_and(|(failed, _)| failed == stamp)
        })
    }
}

/// A load call of the repository API.
#[derive(Debug, Default)]
pub struct LoadCall {
    pub version: Option<Version>,
    pub upload: Option<Upload>,
}

impl Control {
    #[must_use]
    pub fn new(
        repository: Repository,
        loader: Loader,
        snapshots: SnapshotCell,
        settings: config::Repository,
    ) -> Self {
        Self {
            repository,
            loader,
            snapshots,
            registry: registry::Registry::default(),
            settings,
            locks: Mutex::default(),
            commit: Mutex::default(),
            held: Mutex::default(),
        }
    }

    #[must_use]
    pub fn settings(&self) -> &config::Repository {
        &self.settings
    }

    #[must_use]
    pub fn loader(&self) -> &Loader {
        &self.loader
    }

    /// Warns of names in the rules of the prediction log that no model of the repository has: a rule
    /// that is misspelt leaves in clear what it was to hide. That is no reason to serve nobody.
    pub async fn check_rules(self: &Arc<Self>, rules: Option<config::PredictionLog>) {
        let Some(log) = rules else { return };
        let control = self.clone();
        let unknown = tasks::blocking(move || {
            let models = control.repository.scan();
            models.map(|models| unknown_names(&log, &models)).unwrap_or_default()
        });
        for Problem { path, message } in unknown.await {
            warn!(key = %path, "a rule of the prediction log is not for what is here: it {message}");
        }
    }

    /// Loads a model as its policy says, or one version of it beside those that serve.
    /// Returns when it serves.
    ///
    /// # Errors
    /// `NotFound` when it is not in the repository, `InvalidInput` when it cannot be loaded;
    /// what served before still does.
    pub async fn load(self: &Arc<Self>, name: &str, call: LoadCall) -> Result<(), Rejection> {
        let model: ModelName = name.parse()?;
        // Names nobody has are refused before anything is kept for them.
        if call.upload.is_none() && !self.is_known(&model) {
            return Err(ModelName::unknown(name));
        }
        let (sender, receiver) = oneshot::channel();
        let control = self.clone();
        // A caller that goes away must not leave a change half done.
        tasks::spawn("load", async move {
            drop(sender.send(control.load_now(model, call).await));
        });
        receiver.await.unwrap_or_else(|_| Err(Rejection::new(Kind::Internal, "the load failed")))
    }

    async fn load_now(&self, model: ModelName, call: LoadCall) -> Result<(), Rejection> {
        let lock = self.lock_of(&model);
        let mut intent = lock.lock().await;
        let upload = match (call.upload, call.version) {
            (Some(upload), _) => {
                upload.check_size(self.settings.uploads)?;
                Some(Arc::new(upload))
            }
            // A single version is one of those that came with the model.
            (None, Some(_)) => intent.upload.clone(),
            (None, None) => None,
        };
        let folder = match &upload {
            Some(upload) => upload.folder(&model)?,
            None => self.folder(&model).await?,
        };
        // Whatever is news is committed with the change below.
        let _news = self.note_labels(&folder);
        let available: BTreeSet<Version> = folder.versions.keys().copied().collect();
        let targets: BTreeSet<Version> = match call.version {
            None => {
                let mut chosen = folder.manifest.policy.choose(&available);
                chosen.extend(self.wanted(&model).intersection(&available));
                chosen
            }
            Some(version) if available.contains(&version) => {
                intent.served.keys().copied().chain([version]).collect()
            }
            Some(version) => {
                let text = format!("version {version} of model '{model}' is not found");
                return Err(Rejection::new(Kind::NotFound, text));
            }
        };
        if targets.is_empty() {
            let text = format!("model '{model}' has no version that its policy serves");
            return Err(Rejection::new(Kind::NotFound, text));
        }
        intent.failed.clear();
        // Files in memory have no stamp: what comes with a call, or replaces it, is new.
        let anew = call.version.is_none() && (upload.is_some() || intent.upload.is_some());
        let explicit = call.version.map(|_| targets.clone());
        let change = Change { folder: &folder, targets, upload: upload.clone(), anew };
        let failures = self.change(&model, change, &mut intent).await;
        if call.version.is_none() && !anew {
            // Who asks for the model wants its policy to hold again, whatever of it failed.
            intent.explicit = None;
        }
        if !failures.is_empty() {
            let text = format!("failed to load '{model}': {}", failures.join("; "));
            return Err(Rejection::invalid(text));
        }
        intent.explicit = explicit;
        intent.upload = upload;
        Ok(())
    }

    /// Unloads a model, or one version of it. Calls in flight are answered first; the memory is
    /// freed when the last of them has ended.
    ///
    /// # Errors
    /// `NotFound` when it is not loaded, `Conflict` when routes name it.
    pub async fn unload(&self, name: &str, version: Option<Version>) -> Result<(), Rejection> {
        let model: ModelName = name.parse()?;
        if self.snapshots.load().model(name).is_none() {
            return Err(ModelName::unknown(name));
        }
        let lock = self.lock_of(&model);
        let mut intent = lock.lock().await;
        let keep: BTreeSet<Version> = match version {
            None => BTreeSet::new(),
            Some(version) if intent.served.contains_key(&version) => {
                intent.served.keys().copied().filter(|other| *other != version).collect()
            }
            Some(version) => {
                let text = format!("version {version} of model '{model}' is not loaded");
                return Err(Rejection::new(Kind::NotFound, text));
            }
        };
        self.check_unpinned(&model, intent.served.keys().copied().filter(|v| !keep.contains(v)))?;
        if keep.is_empty() {
            intent.upload = None;
        }
        intent.failed.retain(|version, _| keep.contains(version));
        intent.explicit = Some(keep.clone());
        self.keep_only(&model, &keep, &mut intent);
        info!(model = %model, version = version.map(|v| v.0), "unloaded");
        Ok(())
    }

    /// What callers meet now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshots.load()
    }

    /// Makes these the routes and, where others are given, the limits of callers: one store, which
    /// cannot fail.
    pub fn commit_routing(&self, routing: Routing, limiter: Option<Arc<Limiter>>) {
        let _held = self.commit.lock().unwrap_or_else(PoisonError::into_inner);
        self.snapshots.commit_routing(routing, limiter);
    }

    /// As [`Control::commit_routing`], with everything else of a configuration file that takes effect
    /// together with the routes. Circuit breakers keep their state.
    pub fn commit_file(&self, routing: Routing, limiter: Arc<Limiter>, breaker: config::Breaker) {
        let _held = self.commit.lock().unwrap_or_else(PoisonError::into_inner);
        self.set_breaker(breaker);
        routing.upstreams.reconfigure(breaker);
        self.snapshots.commit_routing(routing, Some(limiter));
    }

    /// Whether anything serves, where anything should.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.registry.is_serving()
    }

    /// Every model in the repository or in memory, with the state of each version.
    #[must_use]
    pub fn index(&self, only_ready: bool) -> Vec<IndexEntry> {
        let mut entries = self.registry.index(only_ready);
        let snapshot = self.snapshots.load();
        for entry in entries.iter_mut().filter(|entry| entry.reason.is_empty()) {
            let served = entry
                .version
                .and_then(|version| snapshot.model(entry.name.as_str())?.ready.get(&version));
            if let Some(reason) = served.and_then(|served| served.breaker.trouble()) {
                entry.reason = reason;
            }
        }
        entries
    }

    /// Gives circuit breakers other settings, where their models leave them to the gateway. They
    /// keep their state.
    pub fn commit_breaker(&self, breaker: config::Breaker) {
        let _held = self.commit.lock().unwrap_or_else(PoisonError::into_inner);
        self.set_breaker(breaker);
    }

    /// With the commit lock held: no version comes meanwhile that has not heard of it.
    fn set_breaker(&self, breaker: config::Breaker) {
        self.loader.set_breaker(breaker);
        self.snapshots.load().ready().for_each(|served| self.loader.settle_breaker(served));
    }

    /// The revision of what is served.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.snapshots.load().revision
    }

    /// The limits of callers that are in force.
    #[must_use]
    pub fn limiter(&self) -> Arc<Limiter> {
        self.snapshots.limiter()
    }

    /// Ends the engine threads; the last step of a stop. Blocks for at most `limit`; `false` when
    /// some are still at work then.
    #[must_use]
    pub fn close(&self, limit: Duration) -> bool {
        self.loader.close(limit)
    }

    async fn folder(&self, model: &ModelName) -> Result<ModelFolder, Rejection> {
        let (repository, name) = (self.repository.clone(), model.clone());
        if !self.is_in_folder(model) {
            return Err(ModelName::unknown(name.as_str()));
        }
        let found = tasks::blocking(move || repository.model(&name)).await;
        found.map_err(|reason| {
            self.registry.set_problem(model, Some(reason.clone()));
            error!(model = %model, reason, "cannot load");
            Rejection::invalid(format!("failed to load '{model}': {reason}"))
        })
    }

    fn is_known(&self, model: &ModelName) -> bool {
        self.snapshots.load().model(model.as_str()).is_some() || self.is_in_folder(model)
    }

    fn is_in_folder(&self, model: &ModelName) -> bool {
        self.repository.root().join(model.as_str()).symlink_metadata().is_ok()
    }

    /// Models that were ever loaded or asked about.
    fn asked_about(&self) -> Vec<ModelName> {
        let locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.keys().cloned().collect()
    }

    fn lock_of(&self, model: &ModelName) -> Arc<AsyncMutex<Intent>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.entry(model.clone()).or_default().clone()
    }
}

#[cfg(test)]
mod tests;
