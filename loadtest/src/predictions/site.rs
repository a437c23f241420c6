//! A gateway with a prediction log, started, killed and started again on the same folders.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::time::{Instant, sleep};

use crate::dataset::{Dataset, Recipe};
use crate::gateway::Gateway;
use crate::metrics::Metrics;
use crate::repository::RepositoryCopy;
use crate::stage::{DIGITS, Scene};
use crate::target::Target;

use super::shim::Shim;

/// The model that takes the place of digits where the gateway cannot run it.
const IDENTITY: &str = "identity";
/// As many numbers as a digit has.
const NUMBERS: u32 = 64;
/// How long conversion may take once there are no calls: after a minute it does not yield any more.
const CONVERSION: Duration = Duration::from_secs(180);

/// How a log promises to keep rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guarantee {
    Durable,
    Lossy,
}

impl Guarantee {
    pub(super) const BOTH: [Self; 2] = [Self::Durable, Self::Lossy];

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Durable => "durable",
            Self::Lossy => "lossy",
        }
    }
}

/// Where a gateway and its log are.
#[derive(Debug)]
pub(super) struct Site {
    // The gateway goes before the folder that it serves from.
    gateway: Option<Gateway>,
    repository: RepositoryCopy,
    program: PathBuf,
    shim: Option<Shim>,
    pub(super) model: &'static str,
    data: Option<PathBuf>,
}

impl Site {
    /// Makes the folders; nothing runs yet.
    ///
    /// # Errors
    /// When a file is missing or cannot be written.
    pub(super) fn new(scene: &Scene, identity: bool) -> anyhow::Result<Self> {
        ensure!(scene.gateway.exists(), "{} is not there: build it", scene.gateway.display());
        let (repository, model, data) = if identity {
            (RepositoryCopy::of_identity(IDENTITY, NUMBERS)?, IDENTITY, None)
        } else {
            // Alone, as the gateway is started very often.
            let repository = RepositoryCopy::empty()?;
            repository.add_model(&scene.repository, DIGITS)?;
            repository.serve_only(DIGITS, &[1])?;
            (repository, DIGITS, Some(scene.data.clone()))
        };
        let program = scene.gateway.clone();
        let site = Self { gateway: None, repository, program, shim: None, model, data };
        fs::create_dir(site.log())?;
        Ok(site)
    }

    /// Gives the next gateway a disk that may be told to be full, stall or fail.
    ///
    /// # Errors
    /// As [`Shim::build`].
    pub(super) async fn on_trial(mut self) -> anyhow::Result<Self> {
        let log = self.log();
        let place = log.parent().context("the log has a folder")?;
        self.shim = Some(Shim::build(place, &log).await?);
        Ok(self)
    }

    /// Does something there; what goes wrong comes with the end of the gateway's log.
    ///
    /// # Errors
    /// What `act` comes to.
    pub(super) async fn attempt<T>(
        mut self,
        act: impl AsyncFnOnce(&mut Self) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let result = act(&mut self).await;
        result.map_err(|error| self.explain(&error))
    }

    /// What tells the disk how to be.
    ///
    /// # Errors
    /// When it is [not on trial](Self::on_trial).
    pub(super) fn shim(&self) -> anyhow::Result<&Shim> {
        self.shim.as_ref().context("the disk is not on trial")
    }

    /// The log's folder.
    pub(super) fn log(&self) -> PathBuf {
        self.repository.beside("log")
    }

    /// Starts a gateway with these lines of `[prediction_log]`; without one, where there are none.
    ///
    /// # Errors
    /// When one runs, or none can be started.
    pub(super) async fn start(&mut self, log: &str) -> anyhow::Result<()> {
        ensure!(self.gateway.is_none(), "a gateway runs");
        let source = self.repository.beside("penstock.toml");
        let section = match log.is_empty() {
            true => String::new(),
            false => format!("[prediction_log]\npath = \"log\"\n{log}"),
        };
        let text = format!(
            "version = 1\n[repository]\npath = \"repository\"\npoll = \"off\"\n\
             [state]\npath = \"state\"\n{section}"
        );
        fs::write(&source, text)?;
        let environment = self.shim.as_ref().map(Shim::environment).unwrap_or_default();
        let own = self.repository.beside("gateway.log");
        let started = Gateway::start_with(&self.program, &source, own, &environment).await;
        self.gateway = Some(started?);
        Ok(())
    }

    /// The gateway that runs.
    ///
    /// # Errors
    /// When none does.
    pub(super) fn gateway(&self) -> anyhow::Result<&Gateway> {
        self.gateway.as_ref().context("no gateway runs")
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When none runs.
    pub(super) fn target(&self) -> anyhow::Result<Target> {
        Ok(self.gateway()?.target())
    }

    /// Waits for the end of a gateway that was killed.
    ///
    /// # Errors
    /// When it had ended by itself.
    pub(super) async fn bury(&mut self) -> anyhow::Result<()> {
        self.gateway.take().context("no gateway runs")?.wait_for_death().await
    }

    /// Ends the gateway in order.
    ///
    /// # Errors
    /// When it does not end, or says that something went wrong.
    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        let (status, _) = self.gateway.take().context("no gateway runs")?.stop().await?;
        ensure!(status.success(), "the gateway's {status}");
        Ok(())
    }

    /// What the gateway says of its log: the sum over the labels.
    ///
    /// # Errors
    /// When it does not answer.
    pub(super) async fn figure(&self, name: &str) -> anyhow::Result<f64> {
        let [figure] = self.figures([name]).await?;
        Ok(figure)
    }

    async fn figures<const N: usize>(&self, names: [&str; N]) -> anyhow::Result<[f64; N]> {
        let metrics = Metrics::scrape(&self.gateway()?.summary.metrics).await?;
        Ok(names.map(|name| metrics.sum(&format!("penstock_prediction_log_{name}"), &[])))
    }

    /// As [`figure`](Self::figure), of what is counted in ones.
    ///
    /// # Errors
    /// As there.
    pub(super) async fn count(&self, name: &str) -> anyhow::Result<u64> {
        let [count] = self.counts([name]).await?;
        Ok(count)
    }

    /// The same of several, asked at once.
    ///
    /// # Errors
    /// As there.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "they are counts")]
    pub(super) async fn counts<const N: usize>(
        &self,
        names: [&str; N],
    ) -> anyhow::Result<[u64; N]> {
        Ok(self.figures(names).await?.map(|figure| figure as u64))
    }

    /// Waits until a figure is at most so large; returns how long that took.
    ///
    /// # Errors
    /// When it does not come to that.
    pub(super) async fn falls(
        &self,
        name: &str,
        most: f64,
        patience: Duration,
    ) -> anyhow::Result<Duration> {
        let started = Instant::now();
        loop {
            let figure = self.figure(name).await?;
            if figure <= most {
                return Ok(started.elapsed());
            }
            ensure!(started.elapsed() < patience, "{name} is {figure} after {patience:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends the gateway and has another one convert all that there is.
    ///
    /// # Errors
    /// When segments are left.
    pub(super) async fn convert(&mut self, log: &str) -> anyhow::Result<()> {
        if self.gateway.is_some() {
            self.stop().await?;
        }
        self.start(log).await?;
        let (started, segments) = (Instant::now(), self.log().join("segments"));
        while !predlog::segment::list(&segments)?.is_empty() {
            ensure!(started.elapsed() < CONVERSION, "segments are left after {CONVERSION:?}");
            sleep(Duration::from_millis(50)).await;
        }
        self.stop().await
    }

    /// Rows for the model.
    ///
    /// # Errors
    /// When they do not fit it.
    pub(super) async fn rows(&self) -> anyhow::Result<Dataset> {
        let metadata = self.target()?.metadata(self.model, "").await?;
        Dataset::for_model(&metadata, self.data.as_deref(), &Recipe::default())
    }

    /// An error with the end of the gateway's log.
    pub(super) fn explain(&self, error: &anyhow::Error) -> anyhow::Error {
        let words = self.gateway.as_ref().map(Gateway::last_words).unwrap_or_default();
        anyhow::anyhow!("{error:#}{words}")
    }
}
