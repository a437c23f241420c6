//! Follows the folder: loads what appears, swaps what changes, unloads what leaves.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info};

use super::Control;
use super::change::Change;
use crate::models::ModelFolder;
use crate::tasks;
use crate::types::ModelName;

/// How often stuck threads are looked for.
const WATCH: Duration = Duration::from_millis(200);

impl Control {
    /// Looks at the folder once and brings every model in step with it.
    ///
    /// # Errors
    /// When the folder cannot be read; then nothing changes.
    pub async fn sync(self: &Arc<Self>) -> io::Result<()> {
        let repository = self.repository.clone();
        let found = tasks::blocking(move || repository.scan()).await?;
        self.registry.retain(|name| found.contains_key(name));
        for name in self.asked_about().into_iter().filter(|name| !found.contains_key(name)) {
            self.model_left(&name).await;
        }
        // Models load beside each other: a slow one must not hold up the rest.
        let changes = found.into_iter().map(|(name, found)| self.clone().sync_model(name, found));
        join_all(changes).await;
        Ok(())
    }

    /// Polls for as long as the process lives.
    pub async fn follow(self: Arc<Self>, every: Duration) -> Infallible {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            if let Err(error) = self.sync().await {
                error!(%error, "cannot read the repository, nothing changes");
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

    async fn sync_model(self: Arc<Self>, name: ModelName, found: Result<ModelFolder, String>) {
        let lock = self.lock_of(&name);
        let mut intent = lock.lock().await;
        if intent.upload.is_some() {
            return;
        }
        let folder = match found {
            Ok(folder) => folder,
            Err(reason) => {
                // A manifest that broke leaves what serves; it is only noted.
                if self.registry.note_problem(&name, &reason) {
                    error!(model = %name, reason, "cannot load, what served still does");
                }
                return;
            }
        };
        let available: BTreeSet<_> = folder.versions.keys().copied().collect();
        let targets = match &intent.explicit {
            Some(explicit) => explicit.intersection(&available).copied().collect(),
            None => folder.manifest.policy.choose(&available),
        };
        let failed = |version| intent.failed.get(version) == folder.versions.get(version);
        let in_step = targets.iter().all(|version| {
            failed(version) || intent.served.get(version) == folder.versions.get(version)
        });
        // An old version stays beyond the targets while a newer one fails.
        let none_to_go =
            intent.served.keys().all(|v| targets.contains(v)) || targets.iter().any(failed);
        if in_step && none_to_go {
            self.registry.set_model(&name, None);
            return;
        }
        if targets.is_empty() {
            self.registry.set_model(&name, None);
            if !intent.served.is_empty() {
                self.keep_only(&name, &targets, &mut intent);
            }
            return;
        }
        intent.failed.retain(|version, _| targets.contains(version));
        let change = Change { folder: &folder, targets, upload: None, anew: false };
        self.change(&name, change, &mut intent).await;
    }

    async fn model_left(&self, name: &ModelName) {
        let lock = self.lock_of(name);
        let mut intent = lock.lock().await;
        if intent.upload.is_some() {
            return;
        }
        intent.explicit = None;
        intent.failed.clear();
        if self.snapshots.load().model(name.as_str()).is_some() {
            self.keep_only(name, &BTreeSet::new(), &mut intent);
            info!(model = %name, "left the repository, unloaded");
        }
    }
}
