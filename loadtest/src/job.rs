//! What `run`, `find-max` and `scenario` have in common: a load is put together from what the
//! user wants and what the server says, and performed on one target or on several in turns.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::time::sleep;

use crate::book::Check;
use crate::check::{Expected, Judge};
use crate::dataset::{Dataset, Recipe};
use crate::keys::Population;
use crate::payload::{Schedule, Shape};
use crate::plan::LoadStage;
use crate::recording::{Outcome, rate};
use crate::run::{Load, Protocol, Watch};
use crate::target::Target;

/// Of so many answers one is read as a whole, where nothing is expected of them.
pub const SAMPLE: u64 = 64;
/// How often the progress line changes.
const PROGRESS: Duration = Duration::from_secs(1);

/// A server with the name that reports call it by.
#[derive(Debug, Clone)]
pub struct Named {
    pub name: String,
    pub target: Target,
}

/// What the user wants.
#[derive(Debug, Clone)]
pub struct Job {
    pub targets: Vec<Named>,
    pub model: String,
    /// Empty: whichever serves.
    pub version: String,
    pub protocol: Protocol,
    pub connections: usize,
    pub threads: usize,
    pub patience: Duration,
    pub data: Option<PathBuf>,
    pub recipe: Recipe,
    /// Files of expected answers; none: what each version answers to every row alone.
    pub expect: Option<Vec<PathBuf>>,
    pub check_all: bool,
    pub keys: Option<Population>,
    pub seed: u64,
}

/// What one target gave, round by round.
#[derive(Debug, Clone)]
pub struct Rounds {
    pub name: String,
    pub outcomes: Vec<Outcome>,
}

impl Job {
    /// Asks a server about the model and puts the load together.
    ///
    /// # Errors
    /// When it does not answer, or the rows do not fit the model.
    pub async fn load(&self, target: &Target) -> anyhow::Result<Load> {
        let Self { model, version, .. } = self;
        let rows = self.recipe.rows;
        let metadata = match self.protocol {
            Protocol::Grpc => target.metadata_by_grpc(model, version).await?,
            _ => target.metadata(model, version).await?,
        };
        let data = Dataset::for_model(&metadata, self.data.as_deref(), &self.recipe)?;
        let data = Arc::new(data);
        let mut judge = Judge::new(&metadata, &data, rows, version);
        if let Some(files) = &self.expect {
            let expected = if files.is_empty() {
                let one = vec![version.clone()];
                let all = if version.is_empty() { &metadata.versions } else { &one };
                Expected::ask(target, model, all, &data).await?
            } else {
                Expected::read(files, &data)?
            };
            judge = judge.expecting(Arc::new(expected));
        }
        let shape = Shape {
            model: model.clone(),
            version: version.clone(),
            rows,
            schedule: Schedule::default(),
        };
        let mut load = Load::new(target.clone(), shape, self.protocol, data, judge);
        (load.connections, load.threads) = (self.connections, self.threads);
        (load.patience, load.seed) = (self.patience, self.seed);
        load.keys.clone_from(&self.keys);
        if !self.check_all && self.expect.is_none() {
            load.check = Check::Sample(SAMPLE);
        }
        Ok(load)
    }

    /// Performs the stages on every target, round after round, so that what changes on the
    /// machine meanwhile meets all of them.
    ///
    /// # Errors
    /// When a target cannot be reached. A call that fails is none.
    pub async fn perform(
        &self,
        stages: &[LoadStage],
        rounds: usize,
    ) -> anyhow::Result<Vec<Rounds>> {
        ensure!(rounds > 0, "there must be a round");
        let mut loads = Vec::with_capacity(self.targets.len());
        let mut all = Vec::with_capacity(self.targets.len());
        for Named { name, target } in &self.targets {
            let load = self.load(target).await.with_context(|| format!("target '{name}'"))?;
            loads.push(load);
            all.push(Rounds { name: name.clone(), outcomes: Vec::with_capacity(rounds) });
        }
        for _ in 0..rounds {
            for (load, target) in loads.iter().zip(&mut all) {
                let outcome = once(load, stages.to_vec(), &target.name).await;
                let outcome = outcome.with_context(|| format!("target '{}'", target.name))?;
                target.outcomes.push(outcome);
            }
        }
        Ok(all)
    }
}

/// Performs stages once, and tells a terminal how far it is.
///
/// # Errors
/// As for [`Job::perform`].
pub async fn once(load: &Load, stages: Vec<LoadStage>, name: &str) -> anyhow::Result<Outcome> {
    let running = load.begin(stages).await?;
    let watch = running.watch();
    let mut stderr = std::io::stderr();
    if !stderr.is_terminal() {
        return running.finish().await;
    }
    let outcome = tokio::select! {
        outcome = running.finish() => outcome,
        () = tell(&watch, name) => anyhow::bail!("the progress line ended"),
    };
    drop(write!(stderr, "\r\x1b[K"));
    outcome
}

/// Rewrites one line of the terminal for ever.
async fn tell(watch: &Watch, name: &str) {
    let (mut before, mut moment) = (0, Duration::ZERO);
    loop {
        sleep(PROGRESS).await;
        let (now, answered, failed) = watch.look();
        let line = progress(name, now, (answered - before, now - moment), (answered, failed));
        (before, moment) = (answered, now);
        drop(write!(std::io::stderr(), "\r\x1b[K{line}"));
    }
}

fn progress(
    name: &str,
    now: Duration,
    (lately, span): (u64, Duration),
    (answered, failed): (u64, u64),
) -> String {
    let seconds = now.as_secs_f64();
    let rate = rate(lately, span);
    format!("{name}: {seconds:.0} s, {rate:.0} answers/s, {answered} answered, {failed} failed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_progress_line_shows_the_latest_rate_and_the_sums() {
        let second = Duration::from_secs(1);
        let line = progress("a", Duration::from_secs(3), (500, second), (1200, 4));
        assert_eq!(line, "a: 3 s, 500 answers/s, 1200 answered, 4 failed");
    }
}
