//! Follows the folder: loads what appears, swaps what changes, unloads what leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info};

use super::change::Change;
use super::{Control, Intent};
use crate::models::ModelFolder;
use crate::tasks;
use crate::types::{ModelName, Version};

/// Models by name, each with why it cannot be served if it cannot.
type Found = BTreeMap<ModelName, Result<ModelFolder, String>>;

/// How often stuck threads are looked for.
const WATCH: Duration = Duration::from_millis(200);

impl Control {
    /// Looks at the folder once and brings every model in step with it; returns when all are.
    ///
    /// # Errors
    /// When the folder cannot be read; then nothing changes.
    pub async fn sync(self: &Arc<Self>) -> io::Result<()> {
        let found = self.look().await?;
        // Models load beside each other: a slow one must not hold up the rest.
        join_all(found.into_iter().map(|(name, found)| async move {
            let lock = self.lock_of(&name);
            let mut intent = lock.lock().await;
            self.sync_model(&name, found, &mut intent).await;
        }))
        .await;
        Ok(())
    }

    /// Polls for as long as the process lives. A model whose last change is still under way is
    /// left to it and looked at again the next time.
    pub async fn follow(self: Arc<Self>, every: Duration) -> Infallible {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let found = match self.look().await {
                Ok(found) => found,
                Err(error) => {
                    error!(%error, "cannot read the repository, nothing changes");
                    continue;
                }
            };
            for (name, found) in found {
                let (control, lock) = (self.clone(), self.lock_of(&name));
                let Ok(mut intent) = lock.try_lock_owned() else { continue };
                tasks::spawn("sync", async move {
                    control.sync_model(&name, found, &mut intent).await;
                });
            }
        }
    }

    /// Looks for threads stuck in native code for as long as the process lives.
    pub async fn watch(self: Arc<Self>) -> Infallible {
        let mut ticks = interval(WATCH);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.loader.watch();
        }
    }

    /// What is in the folder now; models that left it are unloaded.
    async fn look(&self) -> io::Result<Found> {
        let repository = self.repository.clone();
        let found = tasks::blocking(move || repository.scan()).await?;
        for name in self.asked_about().into_iter().filter(|name| !found.contains_key(name)) {
            self.model_left(&name);
        }
        self.registry.retain(|name| found.contains_key(name));
        Ok(found)
    }

    pub(super) async fn sync_model(
        &self,
        name: &ModelName,
        found: Result<ModelFolder, String>,
        intent: &mut Intent,
    ) {
        if intent.upload.is_some() {
            return;
        }
        let folder = match found {
            Ok(folder) => folder,
            Err(reason) => {
                // A manifest that broke leaves what serves; it is only noted.
                if self.registry.set_problem(name, Some(reason.clone())) {
                    error!(model = %name, reason, "cannot load, what served still does");
                }
                return;
            }
        };
        self.registry.set_problem(name, None);
        let relabelled = self.note_labels(&folder);
        let available: BTreeSet<_> = folder.versions.keys().copied().collect();
        let mut targets: BTreeSet<Version> = match &intent.explicit {
            Some(explicit) => explicit.intersection(&available).copied().collect(),
            None => folder.manifest.policy.choose(&available),
        };
        let pinned = self.pinned(name);
        targets.extend(self.wanted(name).intersection(&available));
        let known_failures = intent.failed.len();
        intent.failed.retain(|version, _| targets.contains(version));
        let forgotten = intent.failed.len() != known_failures;
        let failed = |version: &Version| intent.has_failed(*version, folder.versions.get(version));
        let in_step = targets.iter().all(|version| {
            failed(version) || intent.served.get(version) == folder.versions.get(version)
        });
        // An old version stays beyond the targets while a newer one fails.
        let none_to_go =
            intent.served.keys().all(|v| targets.contains(v) || pinned.contains_key(v))
                || targets.iter().any(failed);
        if in_step && none_to_go && !forgotten {
            if relabelled && self.snapshots.load().model(name.as_str()).is_some() {
                let served = intent.served.keys().copied();
                let has_failed = targets.iter().any(failed);
                let keep = if has_failed { served.collect() } else { targets };
                self.keep_only(name, &keep, intent);
            }
            return;
        }
        if targets.is_empty() {
            self.keep_only(name, &targets, intent);
            return;
        }
        let change = Change { folder: &folder, targets, upload: None, anew: false };
        self.change(name, change, intent).await;
    }

    pub(super) fn model_left(&self, name: &ModelName) {
        // A change under way finds out by itself; the next look sees what it left.
        let lock = self.lock_of(name);
        let Ok(mut intent) = lock.try_lock() else { return };
        if intent.upload.is_some() {
            return;
        }
        let pinned = self.pinned(name);
        let mut served = std::mem::take(&mut intent.served);
        served.retain(|version, _| pinned.contains_key(version));
        *intent = Intent { served, ..Intent::default() };
        let Some(model) = self.snapshots.load().model(name.as_str()).cloned() else { return };
        let is_needed = |version: &Version| pinned.contains_key(version);
        let none_to_go = !model.ready.is_empty() && model.ready.keys().all(is_needed);
        if !none_to_go || !model.unready.is_empty() {
            self.keep_only(name, &BTreeSet::new(), &mut intent);
            let still: Vec<u64> = intent.served.keys().map(|version| version.0).collect();
            info!(model = %name, ?still, "left the repository, unloaded but for what routes name");
        }
    }
}
