//! From the versions that serve to those that should: load what is missing or changed, then
//! swap once.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, PoisonError};

use futures_util::FutureExt;
use tokio::time::timeout;
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
        self.registry.set_problem(model, None);
        let current = self.snapshots.load().model(model.as_str()).cloned();
        let before: BTreeMap<Version, Arc<ServedVersion>> =
            current.as_ref().map(|served| served.ready.clone()).unwrap_or_default();
        let wanted: Vec<Version> = targets
            .iter()
            .copied()
            .filter(|version| {
                let stamp = folder.versions.get(version);
                let serves = before.contains_key(version) && intent.served.get(version) == stamp;
                anew || !(serves || intent.has_failed(*version, stamp))
            })
            .collect();
        self.show_loading(model, &before, &wanted);
        let manifest = Arc::new(folder.manifest.clone());
        let (mut loaded, mut failures) = (BTreeMap::new(), BTreeMap::new());
        for version in wanted {
            let loading = self.load_version(model, version, &manifest, upload.as_deref());
            // Whatever happens, the commit below has to come: else it would load for ever.
            let result = AssertUnwindSafe(loading)
                .catch_unwind()
                .await
                .unwrap_or_else(|_| Err(LoadFailure::new("the load panicked")));
            let outcome = if result.is_ok() { "ready" } else { "failed" };
            metrics::LOADS.counter(&[model.as_str(), outcome]).increment(1);
            match result {
                Ok(served) => drop(loaded.insert(version, Arc::new(served))),
                Err(failure) => {
                    error!(
                        model = %model, version = version.0, reason = %failure,
                        detail = failure.detail(), "cannot load, what served still does"
                    );
                    failures.insert(version, failure);
                }
            }
        }
        let mut ready = before;
        let mut keep = None;
        // Files of one call belong together: all of them serve, or none.
        if !anew || failures.is_empty() {
            for (version, served) in loaded {
                ready.insert(version, served);
                intent.failed.remove(&version);
                intent.served.extend(folder.versions.get(&version).map(|s| (version, s.clone())));
            }
            for (version, failure) in &failures {
                // Without the stamp of its files, a failure that may pass is tried again.
                let stamp = folder.versions.get(version).filter(|_| !failure.is_transient());
                let stamp = stamp.cloned().unwrap_or_default();
                intent.failed.insert(*version, (stamp, failure.to_string()));
            }
            // While something failed, what served before goes on, even beyond the targets: an
            // old version is better than none.
            if targets.iter().all(|version| ready.contains_key(version)) && failures.is_empty() {
                keep = Some(&targets);
            }
        }
        self.commit(model, ready, keep, intent);
        failures
            .into_iter()
            .map(|(version, reason)| format!("version {version}: {reason}"))
            .collect()
    }

    /// Takes every version but these, and those that routes name, out of the snapshot.
    pub(super) fn keep_only(
        &self,
        model: &ModelName,
        keep: &BTreeSet<Version>,
        intent: &mut Intent,
    ) {
        let current = self.snapshots.load().model(model.as_str()).cloned();
        let ready = current.map(|served| served.ready.clone()).unwrap_or_default();
        self.commit(model, ready, Some(keep), intent);
    }

    async fn load_version(
        &self,
        model: &ModelName,
        version: Version,
        manifest: &Arc<Manifest>,
        upload: Option<&Upload>,
    ) -> Result<ServedVersion, LoadFailure> {
        // Files are read in turn too: all of them at once would fill memory and the disk's time.
        let _turn = self.loader.turn().await?;
        let files = match upload {
            Some(upload) => upload.files(version),
            None => {
                let limit = self.loader.load_timeout();
                let reading = timeout(limit, self.read_files(model, version, manifest));
                reading.await.map_err(|_| {
                    LoadFailure::transient(format!("reading the files took longer than {limit:?}"))
                })??
            }
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
        let before = self.snapshots.load().model(model.as_str()).cloned().unwrap_or_default();
        let labels = self.labels_of(model, &before.labels, ready);
        self.snapshots.commit(model, Some(ServedModel { ready: ready.clone(), unready, labels }));
    }

    /// Makes `ready` what serves, of it only what is to be kept and what routes name where `keep`
    /// is given, and lets everybody know. The only place that stores a snapshot with other versions
    /// in it.
    fn commit(
        &self,
        model: &ModelName,
        mut ready: BTreeMap<Version, Arc<ServedVersion>>,
        keep: Option<&BTreeSet<Version>>,
        intent: &mut Intent,
    ) {
        let held = self.commit.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.snapshots.load().model(model.as_str()).cloned().unwrap_or_default();
        let mut labels = self.labels_of(model, &before.labels, &ready);
        if let Some(keep) = keep {
            // Read under the lock: who pins a version and finds it here must find it afterwards.
            let pinned = self.pinned_beside(model, Some(&labels));
            ready.retain(|version, _| keep.contains(version) || pinned.contains_key(version));
            labels = self.labels_of(model, &before.labels, &ready);
        }
        intent.served.retain(|version, _| ready.contains_key(version));
        let failures: BTreeMap<Version, String> =
            intent.failed.iter().map(|(version, (_, reason))| (*version, reason.clone())).collect();
        let unready: BTreeMap<Version, Unready> = failures
            .iter()
            .filter(|(version, _)| !ready.contains_key(version))
            .map(|(version, reason)| (*version, Unready::Failed(reason.clone())))
            .collect();
        let gone = ready.is_empty() && unready.is_empty();
        let served = ServedModel { ready: ready.clone(), unready, labels };
        // What was loaded before the settings changed and comes after has not heard of it.
        ready.values().for_each(|served| self.loader.settle_breaker(served));
        self.snapshots.commit(model, (!gone).then_some(served));
        drop(held);
        let is_in = |all: &BTreeMap<Version, Arc<ServedVersion>>, served: &Arc<ServedVersion>| {
            all.get(&served.version).is_some_and(|other| Arc::ptr_eq(other, served))
        };
        let left: Vec<_> =
            before.ready.values().filter(|old| !is_in(&ready, old)).cloned().collect();
        let came = ready.values().any(|new| !is_in(&before.ready, new));
        for old in &left {
            old.show_ready(false);
        }
        // After those that left: a newer file takes the place of the older in the same series.
        for served in ready.values() {
            served.show_ready(true);
        }
        self.registry.settle(model, &ready, &failures, &left);
        if came || !left.is_empty() {
            metrics::SWAPS.counter(&[model.as_str()]).increment(1);
            let serving: Vec<u64> = ready.keys().map(|version| version.0).collect();
            let left: Vec<u64> = left.iter().map(|served| served.version.0).collect();
            info!(model = %model, ?serving, ?left, "swapped");
        }
    }
}
