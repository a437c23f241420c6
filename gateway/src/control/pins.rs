//! Versions that routes name: they stay loaded, whatever the policy and the repository API say.
//!
//! Pins stand beside what else decides which versions serve: the policy of the manifest, or the
//! versions that a load call set. A pinned version serves if its files are there, or were when it
//! was loaded: taking away a file never takes away what callers are sent to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, MutexGuard, PoisonError};

use futures_util::future::join_all;

use super::Control;
use crate::config::{Target, VersionChoice};
use crate::error::{Kind, Rejection};
use crate::models::{ModelFolder, ServedVersion};
use crate::routing::RoutePlan;
use crate::tasks;
use crate::types::{ModelName, Signature, Version};

/// What must stay loaded, with the newest revision that names it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pins {
    models: HashMap<ModelName, BTreeMap<Pinned, u64>>,
}

/// How a version is named. `latest` names none: it is whichever serves.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Pinned {
    Number(Version),
    Label(String),
}

/// A pinned version that does not serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    pub model: ModelName,
    /// `digits/2`, or `digits/stable` for a label that stands for nothing.
    pub name: String,
    /// Why, as far as that is known.
    pub reason: String,
}

impl Pins {
    /// Adds the local versions that the arms and shadows of a route name.
    pub fn add(&mut self, revision: u64, plan: &RoutePlan) {
        let shadows = plan.route.shadows.iter().map(|shadow| &shadow.target);
        for target in plan.route.arms.iter().map(|arm| &arm.target).chain(shadows) {
            self.add_target(revision, target);
        }
    }

    /// Adds the version that one arm or shadow names, if it is a local one.
    pub fn add_target(&mut self, revision: u64, target: &Target) {
        let Target::Local { model, version } = target else { return };
        let pinned = match version {
            VersionChoice::Latest => return,
            VersionChoice::Number(version) => Pinned::Number(*version),
            VersionChoice::Label(label) => Pinned::Label(label.clone()),
        };
        let newest = self.models.entry(model.clone()).or_default().entry(pinned).or_default();
        *newest = revision.max(*newest);
    }

    /// Whether this is one of them.
    #[must_use]
    pub fn names(&self, missing: &Missing) -> bool {
        let pinned = self.models.get(&missing.model);
        let is_it = |pinned: &Pinned| format!("{}/{pinned}", missing.model) == missing.name;
        pinned.is_some_and(|pinned| pinned.keys().any(is_it))
    }

    #[cfg(test)]
    pub(crate) fn contains(&self, other: &Self) -> bool {
        other.models.iter().all(|(model, pinned)| {
            let own = self.models.get(model);
            pinned.keys().all(|pinned| own.is_some_and(|own| own.contains_key(pinned)))
        })
    }

    pub(super) fn add_all(&mut self, other: &Self) {
        for (model, pinned) in &other.models {
            let own = self.models.entry(model.clone()).or_default();
            for (pinned, revision) in pinned {
                let newest = own.entry(pinned.clone()).or_default();
                *newest = (*revision).max(*newest);
            }
        }
    }
}

impl fmt::Display for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(version) => version.fmt(f),
            Self::Label(label) => f.write_str(label),
        }
    }
}

/// Folders of models, as they were found.
#[derive(Debug)]
pub struct Folders(BTreeMap<ModelName, Result<ModelFolder, String>>);

impl Folders {
    /// What a version would take and give; `None` where its folder was not read.
    #[must_use]
    pub fn signature(&self, target: &Target) -> Option<Arc<Signature>> {
        let Target::Local { model, .. } = target else { return None };
        Some(self.0.get(model)?.as_ref().ok()?.manifest.signature.clone())
    }
}

/// Why a folder has no version of that name.
fn reason_in(folder: &Result<ModelFolder, String>, pinned: &Pinned) -> Option<String> {
    let folder = match folder {
        Ok(folder) => folder,
        Err(reason) => return Some(reason.clone()),
    };
    let version = match pinned {
        Pinned::Number(version) => *version,
        Pinned::Label(label) => match folder.manifest.labels.get(label) {
            Some(version) => *version,
            None => return Some(format!("the model has no label '{label}'")),
        },
    };
    let is_there = folder.versions.contains_key(&version);
    (!is_there).then(|| format!("the folder has no version {version}"))
}

/// What is pinned, and what labels stand for.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) pins: Pins,
    /// As each model's manifest said when its folder was last read.
    labels: HashMap<ModelName, BTreeMap<String, Version>>,
}

impl Held {
    /// `None` for a label that stands for nothing.
    fn version(&self, model: &ModelName, pinned: &Pinned) -> Option<Version> {
        match pinned {
            Pinned::Number(version) => Some(*version),
            Pinned::Label(label) => self.labels.get(model)?.get(label).copied(),
        }
    }

    fn is_pinned(&self, model: &ModelName, label: &str) -> bool {
        let pinned = self.pins.models.get(model);
        pinned.is_some_and(|pinned| pinned.contains_key(&Pinned::Label(label.to_owned())))
    }
}

impl Control {
    /// Replaces what must stay loaded, and brings the models in step with that in the background:
    /// what is pinned is loaded, what is no longer pinned goes if nothing else wants it.
    pub fn pin(self: &Arc<Self>, pins: Pins) {
        let mut held = self.held();
        let models = pins.models.keys().chain(held.pins.models.keys());
        let differs = |model: &&ModelName| pins.models.get(*model) != held.pins.models.get(*model);
        let changed: BTreeSet<ModelName> = models.filter(differs).cloned().collect();
        held.pins = pins;
        drop(held);
        if !changed.is_empty() {
            let control = self.clone();
            tasks::spawn("pins", async move { control.sync_models(changed).await });
        }
    }

    /// Pins these beside what is pinned, and loads and warms what of them does not serve yet.
    /// Returns when they serve; [`Control::pin`] says later what stays pinned.
    ///
    /// # Errors
    /// What does not serve, and why.
    pub async fn hold(self: &Arc<Self>, pins: &Pins) -> Result<(), Vec<Missing>> {
        {
            // Whatever is taken out of the snapshot meanwhile, is so before the pins are here, and
            // found missing below, or after it, and then stays.
            let _commit = self.commit.lock().unwrap_or_else(PoisonError::into_inner);
            self.held().pins.add_all(pins);
        }
        let wanted = self.missing(pins).into_iter().map(|missing| missing.model).collect();
        self.sync_models(wanted).await;
        let missing = self.missing(pins);
        if missing.is_empty() { Ok(()) } else { Err(missing) }
    }

    /// What of these does not serve now: what [`Control::hold`] would have to load.
    #[must_use]
    pub fn missing(&self, pins: &Pins) -> Vec<Missing> {
        let snapshot = self.snapshots.load();
        let mut missing = Vec::new();
        for (model, pinned) in &pins.models {
            let served = snapshot.model(model.as_str());
            for pinned in pinned.keys() {
                let version = self.held().version(model, pinned);
                // A label that is about to move serves as what it stood for.
                let published = match pinned {
                    Pinned::Number(_) => None,
                    Pinned::Label(label) => served.and_then(|s| s.labels.get(label)).copied(),
                };
                let serves = |version| served.is_some_and(|s| s.ready.contains_key(&version));
                if version.is_some_and(serves) || published.is_some_and(serves) {
                    continue;
                }
                let (name, reason) = (format!("{model}/{pinned}"), self.reason(model, version));
                missing.push(Missing { model: model.clone(), name, reason });
            }
        }
        missing.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        missing
    }

    /// What of these [`Control::hold`] could not even begin to load: its files are not there, or
    /// not as they must be. Reads the folders of models that do not serve all of it; loads nothing.
    pub async fn inspect(&self, pins: &Pins) -> (Folders, Vec<Missing>) {
        let models: BTreeSet<ModelName> =
            self.missing(pins).into_iter().map(|missing| missing.model).collect();
        let repository = self.repository.clone();
        let folders = tasks::blocking(move || {
            let read = models.into_iter().map(|name| {
                let folder = repository.model(&name);
                (name, folder)
            });
            Folders(read.collect())
        });
        let (folders, mut missing) = (folders.await, Vec::new());
        for (model, folder) in &folders.0 {
            for pinned in pins.models.get(model).into_iter().flat_map(BTreeMap::keys) {
                if let Some(reason) = reason_in(folder, pinned) {
                    let name = format!("{model}/{pinned}");
                    missing.push(Missing { model: model.clone(), name, reason });
                }
            }
        }
        // A version serves on when its files have gone.
        let absent = self.missing(pins);
        missing.retain(|found| absent.iter().any(|other| other.name == found.name));
        (folders, missing)
    }

    /// The versions of a model that routes name, with the newest revision that names each. A label
    /// that is about to move names two: what it stands for, and what it will.
    pub(super) fn pinned(&self, model: &ModelName) -> BTreeMap<Version, u64> {
        let snapshot = self.snapshots.load();
        let served = snapshot.model(model.as_str());
        self.pinned_beside(model, served.map(|served| &served.labels))
    }

    /// The versions of a model that routes name and that should be loaded: a label stands for what
    /// the manifest says.
    pub(super) fn wanted(&self, model: &ModelName) -> BTreeSet<Version> {
        self.pinned_beside(model, None).into_keys().collect()
    }

    /// What is pinned where callers are told of these labels.
    pub(super) fn pinned_beside(
        &self,
        model: &ModelName,
        published: Option<&BTreeMap<String, Version>>,
    ) -> BTreeMap<Version, u64> {
        let held = self.held();
        let mut versions = BTreeMap::new();
        for (pinned, revision) in held.pins.models.get(model).into_iter().flatten() {
            let published = match pinned {
                Pinned::Number(_) => None,
                Pinned::Label(label) => published.and_then(|labels| labels.get(label)).copied(),
            };
            for version in held.version(model, pinned).into_iter().chain(published) {
                let newest = versions.entry(version).or_default();
                *newest = (*revision).max(*newest);
            }
        }
        versions
    }

    /// Remembers what the labels of a model stand for; says whether that is news.
    pub(super) fn note_labels(&self, folder: &ModelFolder) -> bool {
        let (mut held, labels) = (self.held(), &folder.manifest.labels);
        if labels.is_empty() {
            return held.labels.remove(&folder.name).is_some();
        }
        let is_news = held.labels.get(&folder.name) != Some(labels);
        if is_news {
            held.labels.insert(folder.name.clone(), labels.clone());
        }
        is_news
    }

    /// What callers are told that the labels of a model stand for, once `ready` serves: what the
    /// manifest says, but a label goes on standing for what it did until its new version serves,
    /// and one that the manifest drops until no route names it.
    pub(super) fn labels_of(
        &self,
        model: &ModelName,
        before: &BTreeMap<String, Version>,
        ready: &BTreeMap<Version, Arc<ServedVersion>>,
    ) -> BTreeMap<String, Version> {
        let held = self.held();
        let mut labels = held.labels.get(model).cloned().unwrap_or_default();
        for (label, old) in before.iter().filter(|(_, old)| ready.contains_key(old)) {
            match labels.get_mut(label) {
                Some(version) if !ready.contains_key(version) => *version = *old,
                None if held.is_pinned(model, label) => drop(labels.insert(label.clone(), *old)),
                Some(_) | None => {}
            }
        }
        labels
    }

    /// Refuses to take a version away that routes name.
    pub(super) fn check_unpinned(
        &self,
        model: &ModelName,
        mut leaving: impl Iterator<Item = Version>,
    ) -> Result<(), Rejection> {
        let pinned = self.pinned(model);
        let held = leaving.find_map(|version| Some((version, pinned.get(&version)?)));
        held.map_or(Ok(()), |(version, revision)| {
            let text = format!(
                "version {version} of model '{model}' stays: revision {revision} of the routes \
                 names it"
            );
            Err(Rejection::new(Kind::Conflict, text))
        })
    }

    /// Brings some models in step with the folder and the pins.
    async fn sync_models(self: &Arc<Self>, models: BTreeSet<ModelName>) {
        join_all(models.into_iter().map(|name| async move {
            if !self.is_in_folder(&name) {
                self.model_left(&name);
                return;
            }
            let lock = self.lock_of(&name);
            let mut intent = lock.lock().await;
            let (repository, model) = (self.repository.clone(), name.clone());
            let found = tasks::blocking(move || repository.model(&model)).await;
            self.sync_model(&name, found, &mut intent).await;
        }))
        .await;
    }

    /// Why a version does not serve, for operators.
    fn reason(&self, model: &ModelName, version: Option<Version>) -> String {
        let entries = self.registry.index(false).into_iter();
        let known: Vec<_> =
            entries.filter(|entry| entry.name == *model && !entry.reason.is_empty()).collect();
        let of = |version| known.iter().find(|entry| entry.version == version);
        let found = version.and_then(|version| of(Some(version))).or_else(|| of(None));
        match (found, version) {
            (Some(entry), _) => entry.reason.clone(),
            (None, Some(_)) => "it is not loaded, and its files are not in the repository".into(),
            (None, None) => "no label of that name is in the model's model.toml".into(),
        }
    }

    pub(super) fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
