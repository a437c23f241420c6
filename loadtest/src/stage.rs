//! What the demonstration and the soak have in common: a gateway of their own on a copy of the
//! example repository, with `digits` to be swapped between its versions.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::time::Instant;

use crate::check::{Expected, Judge};
use crate::client::Client;
use crate::dataset::{Dataset, Recipe};
use crate::gateway::Gateway;
use crate::payload::{self, Schedule, Shape, Wire};
use crate::repository::RepositoryCopy;
use crate::run::{Load, Protocol};
use crate::target::Target;

/// The model that is swapped.
pub const DIGITS: &str = "digits";

/// gRPC connections that the callers share.
const CONNECTIONS: usize = 4;

/// What a stage is made from.
#[derive(Debug, Clone, clap::Args)]
pub struct Scene {
    /// The gateway's program
    #[arg(long, value_name = "FILE", default_value = "target/release/penstock")]
    pub gateway: PathBuf,
    /// The example models; they are copied and stay as they are
    #[arg(long, value_name = "FOLDER", default_value = "models/repository")]
    pub repository: PathBuf,
    /// Rows of label,p0,p1,… to send
    #[arg(long, value_name = "FILE", default_value = "models/digits_test.csv")]
    pub data: PathBuf,
}

/// A running gateway with its own repository.
#[derive(Debug)]
pub struct Stage {
    // The gateway goes before the folder that it serves from.
    pub gateway: Gateway,
    pub repository: RepositoryCopy,
    pub target: Target,
    data: PathBuf,
}

impl Stage {
    /// Copies the repository, has it serve `digits` 1 and starts the gateway.
    ///
    /// # Errors
    /// When a file is missing or the gateway does not start.
    pub async fn set(scene: &Scene) -> anyhow::Result<Self> {
        ensure!(
            scene.gateway.exists(),
            "{} is not there: build it with 'cargo build --release'",
            scene.gateway.display()
        );
        let repository = RepositoryCopy::of(&scene.repository)?;
        repository.serve_only(DIGITS, &[1])?;
        let log = repository.beside("gateway.log");
        let gateway = Gateway::start(&scene.gateway, &repository.path(), log).await?;
        let target = gateway.target();
        Ok(Self { gateway, repository, target, data: scene.data.clone() })
    }

    /// Has exactly these versions of `digits` serve, as an operator would: by its manifest and a
    /// load call. Returns how long the load took.
    ///
    /// # Errors
    /// When the gateway refuses.
    pub async fn serve(&self, versions: &[u64]) -> anyhow::Result<Duration> {
        self.repository.serve_only(DIGITS, versions)?;
        let started = Instant::now();
        let loaded = self.target.load(DIGITS).await;
        loaded.with_context(|| format!("load of {DIGITS} {versions:?}"))?;
        Ok(started.elapsed())
    }

    /// An error with the end of the gateway's log, which may say more.
    #[must_use]
    pub fn explain(&self, error: &anyhow::Error) -> anyhow::Error {
        anyhow::anyhow!("{error:#}{}", self.gateway.last_words())
    }

    /// The rows for a model.
    ///
    /// # Errors
    /// When they do not fit it.
    pub async fn data(&self, model: &str) -> anyhow::Result<Arc<Dataset>> {
        let metadata = self.target.metadata(model, "").await?;
        Ok(Arc::new(Dataset::for_model(&metadata, Some(&self.data), &Recipe::default())?))
    }

    /// What versions 1 and 2 of `digits` answer to every row alone. Both serve from then on.
    ///
    /// # Errors
    /// When one of them does not serve.
    pub async fn learn(&self) -> anyhow::Result<Arc<Expected>> {
        self.serve(&[1, 2]).await?;
        let data = self.data(DIGITS).await?;
        let versions = ["1".to_owned(), "2".to_owned()];
        Ok(Arc::new(Expected::ask(&self.target, DIGITS, &versions, &data).await?))
    }

    /// Which version answers calls that name none.
    ///
    /// # Errors
    /// When none does.
    pub async fn answering(&self) -> anyhow::Result<String> {
        let shape = Shape {
            model: DIGITS.to_owned(),
            version: String::new(),
            rows: 1,
            schedule: Schedule::default(),
        };
        let data = self.data(DIGITS).await?;
        let payloads = payload::build(&data, &shape, Wire::HttpJson)?;
        let mut client = Client::http(&self.target.http, DIGITS, "").await?;
        Ok(client.ask(&payloads[0]).await?.version)
    }

    /// A load of single rows for a model, checked where expectations are given.
    ///
    /// # Errors
    /// When the model does not serve.
    pub async fn load(
        &self,
        (model, version): (&str, &str),
        protocol: Protocol,
        callers: usize,
        expected: Option<&Arc<Expected>>,
    ) -> anyhow::Result<Load> {
        let metadata = self.target.metadata(model, version).await?;
        let data = self.data(model).await?;
        let mut judge = Judge::new(&metadata, &data, 1, version);
        if let Some(expected) = expected {
            judge = judge.expecting(expected.clone());
        }
        let shape = Shape {
            model: model.to_owned(),
            version: version.to_owned(),
            rows: 1,
            schedule: Schedule::default(),
        };
        let mut load = Load::new(self.target.clone(), shape, protocol, data, judge);
        (load.callers, load.connections) = (callers, CONNECTIONS);
        Ok(load)
    }
}
