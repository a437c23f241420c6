//! New certificates without a dropped connection: the files are looked at by their contents, so
//! that copies, renames and the symbolic links of mounted secrets all count.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::error;

use super::certificates::{Files, Generation};
use super::{Problem, Tls, metrics};
use crate::tasks;

/// Certificate and key are two files: only what two looks have seen alike is tried.
const SETTLE: Duration = Duration::from_secs(1);

impl Tls {
    /// Looks at the files every `tls.poll` and takes over what has changed; for ever.
    pub async fn follow(&self) -> Infallible {
        let Some(every) = self.settings.poll else { return std::future::pending().await };
        let mut seen = None;
        loop {
            sleep(if seen.is_some() { SETTLE.min(every) } else { every }).await;
            let found = self.look().await;
            if *self.tried.lock().await == found {
                seen = None;
            } else if seen.as_ref() == Some(&found) {
                seen = None;
                self.take(found).await;
            } else {
                seen = Some(found);
            }
        }
    }

    /// Looks now, and tries what is there even if nothing has changed.
    pub async fn reload(&self) {
        let found = self.look().await;
        self.take(found).await;
    }

    async fn look(&self) -> Result<Files, Vec<Problem>> {
        let settings = self.settings.clone();
        tasks::blocking(move || Files::read(&settings)).await
    }

    /// Serves what was found to new connections, or says why not and keeps what serves.
    async fn take(&self, found: Result<Files, Vec<Problem>>) {
        // Held to the end, so that takings do not overtake each other.
        let mut tried = self.tried.lock().await;
        let settings = self.settings.clone();
        let (found, built) = tasks::blocking(move || {
            let built = match &found {
                Ok(files) => Generation::build(files, &settings),
                Err(problems) => Err(problems.clone()),
            };
            (found, built)
        })
        .await;
        let result = match built {
            Ok(generation) => {
                generation.announce();
                self.current.send_replace(Arc::new(generation));
                "loaded"
            }
            Err(problems) => {
                for problem in problems {
                    error!(%problem, "new certificates cannot be used, the old ones serve on");
                }
                "failed"
            }
        };
        metrics::TLS_RELOADS.counter(&[result]).increment(1);
        *tried = found;
    }
}
