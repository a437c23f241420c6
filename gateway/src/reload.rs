//! The configuration file is followed while the gateway runs: what it says is applied whole, or
//! not at all.
//!
//! A [`Reloader`] reads the file again, compares it with what is in force and hands it to an
//! [`Apply`], which prepares everything before it changes anything. [`Reloader::follow`] does so
//! whenever the file changed and has settled; nothing that it reads twice is told twice.

mod apply;
mod follow;
mod hints;
mod live;
mod preview;
mod source;
mod status;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Mutex as AsyncMutex;
use tracing::{error, info};

use crate::config::{Config, Difference, Problem};
use crate::tasks;

pub use apply::{Applied, Apply, Asked, Prepared};
pub use follow::Timing;
pub use hints::Hints;
pub use live::Live;
pub use preview::{Preview, preview};
pub use source::{Source, Text};
pub use status::Status;

use status::Standing;

/// Reads the configuration file again and applies it. One per process.
#[derive(Debug)]
pub struct Reloader {
    source: Arc<Source>,
    apply: Box<dyn Apply>,
    /// Held while what is in force changes, so that changes do not overtake each other.
    turn: AsyncMutex<()>,
    /// What is in force.
    running: Mutex<Arc<Config>>,
    standing: Mutex<Standing>,
}

/// A file that was read again and is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    pub revision: u64,
    /// Whether it said anything else than before.
    pub changed: bool,
    /// What became different, a line for each key.
    pub diff: Vec<String>,
}

impl Reloader {
    /// A reloader of the file that `config` was read from; `text` is what stood there.
    #[must_use]
    pub fn new(source: Source, config: Config, text: Text, apply: Box<dyn Apply>) -> Self {
        let standing = Standing::new(text, apply.revision());
        let source = Arc::new(source);
        let (running, standing) = (Mutex::new(Arc::new(config)), Mutex::new(standing));
        Self { source, apply, turn: AsyncMutex::default(), running, standing }
    }

    /// The file that is followed.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.source.path()
    }

    /// Reads the file now and applies it, whether or not it has settled.
    ///
    /// # Errors
    /// Everything that is wrong with it; then nothing has changed.
    pub async fn reload(&self, asked: &Asked) -> Result<Reloaded, Vec<Problem>> {
        let _turn = self.turn.lock().await;
        // Not before: of two that wait, the later one must not find what the file held earlier.
        let text = self.look().await;
        self.take(text, asked).await
    }

    /// What a reload would change, were this the file's text. Changes nothing, loads nothing and
    /// waits for no reload that does.
    pub async fn preview(&self, text: &str) -> Preview {
        let running = self.running();
        let (source, text) = (self.source.clone(), text.to_owned());
        let new = match tasks::yielding(move || source.parse(&text)).await {
            Ok(new) => new,
            Err(problems) => return Preview { problems, ..Preview::default() },
        };
        if *running == new {
            return Preview::default();
        }
        let mut preview = preview(&running, &new);
        match self.apply.preview(&new).await {
            Ok(of_routes) => preview.tell_routes(of_routes),
            Err(problems) => preview.problems.extend(problems),
        }
        preview
    }

    /// How the file stands, for operators.
    #[must_use]
    pub fn status(&self) -> Status {
        self.standing().status(self.source.path())
    }

    /// What the file holds now.
    async fn look(&self) -> Text {
        let source = self.source.clone();
        tasks::blocking(move || source.read()).await
    }

    /// Applies what the file was found to say, unless it says something else by now.
    async fn take_found(&self, text: Text) {
        let _turn = self.turn.lock().await;
        if self.look().await == text {
            drop(self.take(text, &Asked::by_file()).await);
        }
    }

    /// Applies what a look has found, and says so where it is news. For who has the turn: what is
    /// told comes in the order of what was done.
    async fn take(&self, text: Text, asked: &Asked) -> Result<Reloaded, Vec<Problem>> {
        let result = self.try_to_apply(&text, asked).await;
        let is_news = self.standing().note(&text, &result);
        let path = self.source.path().display();
        match &result {
            Ok(done) if done.changed => {
                let Reloaded { revision, diff, .. } = done;
                info!(%path, revision, by = asked.author, from = asked.from, ?diff, "configuration applied");
            }
            Err(problems) if is_news => {
                for problem in problems {
                    error!(%path, %problem, "configuration not applied, nothing has changed");
                }
            }
            Ok(_) | Err(_) => {}
        }
        result
    }

    async fn try_to_apply(&self, text: &Text, asked: &Asked) -> Result<Reloaded, Vec<Problem>> {
        let running = self.running();
        let hash = text.hash().unwrap_or_default();
        let (new, prepared) = match self.prepare(&running, (text, &hash), asked).await {
            Ok(Some(found)) => found,
            Ok(None) => {
                self.apply.set_hash(&hash).await;
                let revision = self.apply.revision();
                return Ok(Reloaded { revision, changed: false, diff: Vec::new() });
            }
            Err(problems) => {
                self.apply.refused(&hash, asked, &problems).await;
                return Err(problems);
            }
        };
        let Applied { revision, diff: of_routes } = prepared.await?;
        let differences = match of_routes.as_slice() {
            [] => running.differences(&new),
            _ => running.differences_beside_routes(&new),
        };
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        let diff = differences.iter().map(Difference::to_string).chain(of_routes).collect();
        Ok(Reloaded { revision, changed: true, diff })
    }

    /// What a text says and what that needs; `None` where it says what is in force.
    async fn prepare(
        &self,
        running: &Config,
        (text, hash): (&Text, &str),
        asked: &Asked,
    ) -> Result<Option<(Config, Prepared)>, Vec<Problem>> {
        let (source, text) = (self.source.clone(), text.clone());
        let new = tasks::yielding(move || source.config(&text)).await?;
        let needs_restart = running.needs_restart(&new);
        if !needs_restart.is_empty() {
            return Err(needs_restart);
        }
        if *running == new {
            return Ok(None);
        }
        let prepared = self.apply.prepare(&new, hash, asked).await?;
        Ok(Some((new, prepared)))
    }

    /// Whether this is what was tried last, and how that went.
    fn has_tried(&self, text: &Text) -> Option<bool> {
        self.standing().has_tried(text)
    }

    fn running(&self) -> Arc<Config> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
