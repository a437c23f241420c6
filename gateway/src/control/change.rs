//! From the versions that serve to those that should: load what is missing or changed, then
//! swap once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use tracing::{error, info};

use super::{Control, Intent, Upload};
use crate::models::{LoadFailure, LoadRequest, Manifest, ModelFolder, ServedVersion, VersionFiles};
use crate::snapshot::{ServedModel, Unready};
use crate::tasks;
use crate::telemetry::metrics;
use crate::types::{ModelName, Version};

/// What one model should become.
#[derive(Debug)]
pub(super) struct Change<'a> {
    pub(super) folder: &'a ModelFolder,
    pub(super) targets: BTreeSet<Version>,
    /// Where the files come from, if not from the repository.
    pub(super) upload: Option<Arc<Upload>>,
    /// Load every target, whatever is served under its number.
    pub(super) anew: bool,
}

impl Control {
    /// Makes exactly `targets` serve, as far as they load. Returns what failed, by version.
    pub(super) async fn change(
        &self,
        model: &ModelName,
        change: Change<'_>,
        intent: &mut Intent,
    ) -> Vec<String> {
        let Change { folder, targets, upload, anew } = change;
        self.registry.set_model(model, None);
        let current = self.snapshots.load().model(model.as_str()).cloned();
        let mut ready: BTreeMap<Version, Arc<ServedVersion>> =
            current.as_ref().map(|served| served.ready.clone()).unwrap_or_default();
        let wanted: Vec<Version> = targets
            .iter()
            .copied()
            .filter(|version| {
                let stamp = folder.versions.get(version);
                let served =
                    !anew && ready.contains_key(version) && intent.served.get(version) == stamp;
                !served && (stamp.is_none() || intent.failed.get(version) != stamp)
            })
            .collect();
        self.show_loading(model, &ready, &wanted);
        let manifest = Arc::new(folder.manifest.clone());
        let mut failures = Vec::new();
        for version in wanted {
            let stamp = folder.versions.get(&version).cloned();
            match self.load_version(model, version, &manifest, upload.as_deref()).await {
                Ok(served) => {
                    ready.insert(version, Arc::new(served));
                    intent.failed.remove(&version);
                    intent.served.extend(stamp.map(|stamp| (version, stamp)));
                    metrics::LOADS.counter(&[model.as_str(), "ready"]).increment(1);
                }
                Err(failure) => {
                    metrics::LOADS.counter(&[model.as_str(), "failed"]).increment(1);
                    error!(
                        model = %model, version = version.0, reason = %failure,
                        detail = failure.detail(), "cannot load, what served still does"
                    );
                    failures.push((version, failure.to_string()));
                    intent.failed.extend(stamp.map(|stamp| (version, stamp)));
                }
            }
        }
        // While something failed, what served before goes on, even beyond the targets: an old
        // version is better than none. Only what left the folder for good has to go.
        if failures.is_empty() && targets.iter().all(|version| ready.contains_key(version)) {
            ready.retain(|version, _| targets.contains(version));
        }
        self.commit(model, ready, &failures, intent);
        failures
            .into_iter()
            .map(|(version, reason)| format!("version {version}: {reason}"))
            .collect()
    }

    /// Takes every version but these out of the snapshot.
    pub(super) fn keep_only(
        &self,
        model: &ModelName,
        keep: &BTreeSet<Version>,
        intent: &mut Intent,
    ) {
        let current = self.snapshots.load().model(model.as_str()).cloned();
        let mut ready = current.map(|served| served.ready.clone()).unwrap_or_default();
        ready.retain(|version, _| keep.contains(version));
        self.commit(model, ready, &[], intent);
    }

    async fn load_version(
        &self,
        model: &ModelName,
        version: Version,
        manifest: &Arc<Manifest>,
        upload: Option<&Upload>,
    ) -> Result<ServedVersion, LoadFailure> {
        let files = match upload {
            Some(upload) => upload.files(version),
            None => self.read_files(model, version, manifest).await?,
        };
        let request =
            LoadRequest { model: model.clone(), version, manifest: manifest.clone(), files };
        self.loader.load(request).await
    }

    async fn read_files(
        &self,
        model: &ModelName,
        version: Version,
        manifest: &Arc<Manifest>,
    ) -> Result<VersionFiles, LoadFailure> {
        let needs_model = self.loader.engine(&manifest.platform)?.needs_file();
        let (repository, model, manifest) =
            (self.repository.clone(), model.clone(), manifest.clone());
        let read =
            tasks::blocking(move || repository.read(&model, version, &manifest, needs_model)).await;
        read.map_err(LoadFailure::from)
    }

    /// Lets callers of a version that is not there yet know that it is coming.
    fn show_loading(
        &self,
        model: &ModelName,
        ready: &BTreeMap<Version, Arc<ServedVersion>>,
        wanted: &[Version],
    ) {
        if wanted.is_empty() {
            return;
        }
        for &version in wanted {
            self.registry.loading(model, version);
        }
        let unready = wanted
            .iter()
            .filter(|version| !ready.contains_key(version))
            .map(|version| (*version, Unready::Loading))
            .collect();
        let _held = self.commit.lock().unwrap_or_else(PoisonError::into_inner);
        self.snapshots.commit(model, Some(ServedModel { ready: ready.clone(), unready }));
    }

    fn commit(
        &self,
        model: &ModelName,
        ready: BTreeMap<Version, Arc<ServedVersion>>,
        failures: &[(Version, String)],
        intent: &mut Intent,
    ) {
        let unready: BTreeMap<Version, Unready> = failures
            .iter()
            .filter(|(version, _)| !ready.contains_key(version))
            .map(|(version, reason)| (*version, Unready::Failed(reason.clone())))
            .collect();
        intent.served.retain(|version, _| ready.contains_key(version));
        let held = self.commit.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.snapshots.load().model(model.as_str()).cloned().unwrap_or_default();
        let gone = ready.is_empty() && unready.is_empty();
        let served = ServedModel { ready: ready.clone(), unready };
        self.snapshots.commit(model, (!gone).then_some(served));
        drop(held);
        for served in ready.values() {
            self.registry.ready(model, served.version);
            served.show_ready(true);
        }
        for (version, reason) in failures {
            let serves = ready.contains_key(version);
            self.registry.failed(model, *version, reason.clone(), serves);
        }
        let mut left = Vec::new();
        for (version, old) in &before.ready {
            match ready.get(version) {
                Some(new) if Arc::ptr_eq(old, new) => {}
                Some(new) => {
                    // Another file under the same number: its series lives on, the hash's ends.
                    old.show_ready(false);
                    new.show_ready(true);
                    left.push(version.0);
                }
                None => {
                    old.show_ready(false);
                    self.registry.leaving(old);
                    left.push(version.0);
                }
            }
        }
        let came = ready.values().any(|served| {
            before.ready.get(&served.version).is_none_or(|old| !Arc::ptr_eq(old, served))
        });
        if came || !left.is_empty() {
            metrics::SWAPS.counter(&[model.as_str()]).increment(1);
            let serving: Vec<u64> = ready.keys().map(|version| version.0).collect();
            info!(model = %model, ?serving, ?left, "swapped");
        }
    }
}
