//! The state of every version that anybody has asked about: what the repository index shows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::models::ServedVersion;
use crate::types::{ModelName, Version};

/// State of a version, in the words of the repository extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Loading,
    Ready,
    Unloading,
    Unavailable,
}

impl State {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Loading => "LOADING",
            Self::Ready => "READY",
            Self::Unloading => "UNLOADING",
            Self::Unavailable => "UNAVAILABLE",
        }
    }
}

/// One line of the repository index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    pub name: ModelName,
    /// `None`: the model as a whole, which has no version to speak of.
    pub version: Option<Version>,
    pub state: Option<State>,
    pub reason: String,
}

#[derive(Debug, Default)]
struct Model {
    /// Why the model as a whole cannot be served.
    problem: Option<String>,
    versions: BTreeMap<Version, Entry>,
}

#[derive(Debug)]
enum Entry {
    Loading,
    /// Serves; the text says what went wrong with a newer file of the same version.
    Ready(String),
    /// Out of the snapshot; calls in flight may still hold it.
    Leaving(Weak<ServedVersion>),
    Failed(String),
}

/// States by model and version.
#[derive(Debug, Default)]
pub(super) struct Registry {
    models: Mutex<BTreeMap<ModelName, Model>>,
}

impl Registry {
    /// Notes a model and what is wrong with it as a whole.
    pub(super) fn set_model(&self, model: &ModelName, problem: Option<String>) {
        self.lock().entry(model.clone()).or_default().problem = problem;
    }

    /// Notes what is wrong with a model; `false` when that was known already.
    pub(super) fn note_problem(&self, model: &ModelName, problem: &str) -> bool {
        let mut models = self.lock();
        let known = &mut models.entry(model.clone()).or_default().problem;
        let is_new = known.as_deref() != Some(problem);
        *known = Some(problem.to_owned());
        is_new
    }

    pub(super) fn loading(&self, model: &ModelName, version: Version) {
        self.set(model, version, Entry::Loading);
    }

    pub(super) fn ready(&self, model: &ModelName, version: Version) {
        self.set(model, version, Entry::Ready(String::new()));
    }

    /// Notes a failed load of a version that may still serve from its older file.
    pub(super) fn failed(&self, model: &ModelName, version: Version, reason: String, serves: bool) {
        let entry = if serves { Entry::Ready(reason) } else { Entry::Failed(reason) };
        self.set(model, version, entry);
    }

    pub(super) fn leaving(&self, served: &Arc<ServedVersion>) {
        self.set(&served.model, served.version, Entry::Leaving(Arc::downgrade(served)));
    }

    /// Forgets models that are neither in the folder nor loaded.
    pub(super) fn retain(&self, keep: impl Fn(&ModelName) -> bool) {
        self.lock().retain(|name, model| {
            let in_memory = model.versions.values().any(|entry| match entry {
                Entry::Loading | Entry::Ready(_) => true,
                Entry::Leaving(served) => served.strong_count() > 0,
                Entry::Failed(_) => false,
            });
            keep(name) || in_memory
        });
    }

    /// Whether at least one version is ready, unless none is wanted. One broken model must not
    /// take the others off the air, but a gateway that can serve nothing is not ready.
    pub(super) fn is_serving(&self) -> bool {
        let models = self.lock();
        let entries = || models.values().flat_map(|model| model.versions.values());
        let wanted = models.values().any(|model| model.problem.is_some())
            || entries().any(|entry| matches!(entry, Entry::Loading | Entry::Failed(_)));
        !wanted || entries().any(|entry| matches!(entry, Entry::Ready(_)))
    }

    pub(super) fn index(&self, only_ready: bool) -> Vec<IndexEntry> {
        let mut entries = Vec::new();
        for (name, model) in self.lock().iter() {
            let line = |version, state, reason: &str| IndexEntry {
                name: name.clone(),
                version,
                state,
                reason: reason.to_owned(),
            };
            let mut lines = Vec::new();
            for (version, entry) in &model.versions {
                let (state, reason) = entry.state();
                lines.push(line(Some(*version), Some(state), reason));
            }
            if let Some(problem) = &model.problem {
                lines.push(line(None, Some(State::Unavailable), problem));
            }
            if lines.is_empty() {
                lines.push(line(None, None, ""));
            }
            entries.extend(
                lines.into_iter().filter(|line| !only_ready || line.state == Some(State::Ready)),
            );
        }
        entries
    }

    fn set(&self, model: &ModelName, version: Version, entry: Entry) {
        self.lock().entry(model.clone()).or_default().versions.insert(version, entry);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ModelName, Model>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn state(&self) -> (State, &str) {
        match self {
            Self::Loading => (State::Loading, ""),
            Self::Ready(reason) => (State::Ready, reason),
            Self::Leaving(served) if served.strong_count() > 0 => (State::Unloading, ""),
            Self::Leaving(_) => (State::Unavailable, "unloaded"),
            Self::Failed(reason) => (State::Unavailable, reason),
        }
    }
}
