//! The one immutable picture of what is served. A request loads it once; only `control` stores
//! a new one, by one pointer swap that cannot fail.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::error::{Kind, Rejection};
use crate::limits::Limiter;
use crate::models::ServedVersion;
use crate::types::{ModelName, Version};

/// Every model that callers can reach, or could if it were ready.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub revision: u64,
    /// The limits of callers. A call takes them once, at its head.
    pub limiter: Arc<Limiter>,
    models: HashMap<ModelName, Arc<ServedModel>>,
}

/// The versions of one model.
#[derive(Debug, Default)]
pub struct ServedModel {
    pub ready: BTreeMap<Version, Arc<ServedVersion>>,
    /// Versions that should serve but do not.
    pub unready: BTreeMap<Version, Unready>,
}

/// Why a version does not serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unready {
    Loading,
    Failed(String),
}

impl Snapshot {
    /// The version that a call reaches: the named one, or the highest ready one.
    ///
    /// # Errors
    /// `NotFound` for what is not there, `NotReady` for what should be but is not.
    pub fn find(
        &self,
        model: &str,
        version: Option<&str>,
    ) -> Result<&Arc<ServedVersion>, Rejection> {
        let served = self.models.get(model).ok_or_else(|| ModelName::unknown(model))?;
        let Some(text) = version.filter(|text| !text.is_empty()) else {
            return served.ready.values().next_back().ok_or_else(|| {
                Rejection::new(Kind::NotReady, format!("model '{model}' has no ready version"))
            });
        };
        let version: Version = text.parse()?;
        if let Some(served) = served.ready.get(&version) {
            return Ok(served);
        }
        Err(match served.unready.get(&version) {
            // The reason of a failed load is for operators: it may name files.
            Some(Unready::Loading) => Rejection::new(
                Kind::NotReady,
                format!("version {version} of model '{model}' is loading"),
            ),
            Some(Unready::Failed(_)) => Rejection::new(
                Kind::NotReady,
                format!("version {version} of model '{model}' failed to load"),
            ),
            None => Rejection::new(
                Kind::NotFound,
                format!("version {version} of model '{model}' is not found"),
            ),
        })
    }

    /// One model, if it is known.
    #[must_use]
    pub fn model(&self, name: &str) -> Option<&Arc<ServedModel>> {
        self.models.get(name)
    }

    /// Every known model, in the order of names.
    #[must_use]
    pub fn models(&self) -> Vec<(&ModelName, &Arc<ServedModel>)> {
        let mut models: Vec<_> = self.models.iter().collect();
        models.sort_unstable_by_key(|(name, _)| *name);
        models
    }

    /// Every ready version of every model.
    pub fn ready(&self) -> impl Iterator<Item = &Arc<ServedVersion>> {
        self.models().into_iter().flat_map(|(_, model)| model.ready.values())
    }
}

/// Holds the current snapshot.
#[derive(Debug, Clone)]
pub struct SnapshotCell {
    current: Arc<ArcSwap<Snapshot>>,
    revision: watch::Sender<u64>,
}

impl SnapshotCell {
    #[must_use]
    pub fn new() -> Self {
        Self { current: Arc::default(), revision: watch::Sender::new(0) }
    }

    /// The snapshot of this moment; a request calls this once.
    #[must_use]
    pub fn load(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// The limits of this moment; a call takes them once, at its head, and meets no others.
    #[must_use]
    pub fn limiter(&self) -> Arc<Limiter> {
        self.current.load().limiter.clone()
    }

    /// Replaces the versions of one model; `None` forgets it. Callers hold the one commit lock
    /// of `control`, so no commit is lost between reading and storing.
    pub fn commit(&self, name: &ModelName, model: Option<ServedModel>) {
        let before = self.load();
        let mut models = before.models.clone();
        match model {
            Some(model) => models.insert(name.clone(), Arc::new(model)),
            None => models.remove(name),
        };
        self.store(Snapshot { revision: 0, limiter: before.limiter.clone(), models });
    }

    /// Replaces what callers are held to; the models stay. Callers hold the commit lock, as for
    /// [`Self::commit`].
    pub fn commit_settings(&self, limiter: Arc<Limiter>) {
        let models = self.load().models.clone();
        self.store(Snapshot { revision: 0, limiter, models });
    }

    /// The one place where a snapshot becomes the current one.
    fn store(&self, next: Snapshot) {
        let revision = self.load().revision + 1;
        self.current.store(Arc::new(Snapshot { revision, ..next }));
        self.revision.send_replace(revision);
    }

    /// Tells when the snapshot changed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }
}

impl Default for SnapshotCell {
    fn default() -> Self {
        Self::new()
    }
}
