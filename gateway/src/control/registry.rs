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

impl IndexEntry {
    /// As operators and scripts read it.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "name": self.name.as_str(),
            "version": self.version.map(|version| version.0),
            "state": self.state.map(|state| state.name()),
            "reason": self.reason,
        })
    }
}

#[derive(Debug, Default)]
struct Model {
    /// Why the model as a whole cannot be served.
    problem: Option<String>,
    versions: BTreeMap<Version, Entry>,
}

/// One version. It may serve and load at once: a newer file of the same number is coming.
#[derive(Debug, Default)]
struct Entry {
    serves: bool,
    loading: bool,
    /// Why the last load failed.
    failure: Option<String>,
    /// Out of the snapshot; calls in flight may still hold it.
    leaving: Option<Weak<ServedVersion>>,
}

/// States by model and version.
#[derive(Debug, Default)]
pub(super) struct Registry {
    models: Mutex<BTreeMap<ModelName, Model>>,
}

impl Registry {
    /// Notes a model and what is wrong with it as a whole; `false` when that was known already.
    pub(super) fn set_problem(&self, model: &ModelName, problem: Option<String>) -> bool {
        let mut models = self.lock();
        let known = &mut models.entry(model.clone()).or_default().problem;
        let is_new = *known != problem;
        *known = problem;
        is_new
    }

    /// Notes that a version is being loaded, whether or not an older file of it serves.
    pub(super) fn loading(&self, model: &ModelName, version: Version) {
        let mut models = self.lock();
        let versions = &mut models.entry(model.clone()).or_default().versions;
        versions.entry(version).or_default().loading = true;
    }

    /// Notes what serves, what failed and what has just left; forgets everything else but
    /// versions that left before.
    pub(super) fn settle(
        &self,
        model: &ModelName,
        ready: &BTreeMap<Version, Arc<ServedVersion>>,
        failures: &BTreeMap<Version, String>,
        left: &[Arc<ServedVersion>],
    ) {
        let mut models = self.lock();
        let versions = &mut models.entry(model.clone()).or_default().versions;
        versions.retain(|_, entry| {
            entry.serves = false;
            entry.loading = false;
            entry.failure = None;
            entry.leaving.is_some()
        });
        for served in left {
            versions.entry(served.version).or_default().leaving = Some(Arc::downgrade(served));
        }
        for version in ready.keys() {
            let entry = versions.entry(*version).or_default();
            *entry = Entry { serves: true, ..Entry::default() };
        }
        for (version, reason) in failures {
            versions.entry(*version).or_default().failure = Some(reason.clone());
        }
    }

    /// Forgets models that are neither in the folder nor in memory.
    pub(super) fn retain(&self, keep: impl Fn(&ModelName) -> bool) {
        self.lock().retain(|name, model| {
            keep(name) || model.versions.values().any(|entry| entry.is_in_memory())
        });
    }

    /// Whether at least one version is ready, unless none is wanted. One broken model must not
    /// take the others off the air, but a gateway that can serve nothing is not ready.
    pub(super) fn is_serving(&self) -> bool {
        let models = self.lock();
        let entries = || models.values().flat_map(|model| model.versions.values());
        let wanted = models.values().any(|model| model.problem.is_some())
            || entries().any(|entry| entry.loading || entry.failure.is_some());
        !wanted || entries().any(|entry| entry.serves)
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

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ModelName, Model>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn is_in_memory(&self) -> bool {
        let leaves = self.leaving.as_ref().is_some_and(|served| served.strong_count() > 0);
        self.serves || self.loading || leaves
    }

    fn state(&self) -> (State, &str) {
        let failure = self.failure.as_deref();
        match self {
            Self { serves: true, .. } => (State::Ready, failure.unwrap_or("")),
            Self { loading: true, .. } => (State::Loading, ""),
            Self { leaving: Some(served), .. } if served.strong_count() > 0 => {
                (State::Unloading, failure.unwrap_or(""))
            }
            _ => (State::Unavailable, failure.unwrap_or("unloaded")),
        }
    }
}
