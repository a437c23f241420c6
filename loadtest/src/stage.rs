//! What the programs around the load have in common: a gateway of their own on a copy of the
//! example repository, with `digits` to be swapped between its versions, or with routes before it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use http::{HeaderName, HeaderValue};
use prost::Message as _;
use proto::inference::ModelInferRequest;
use tokio::process::Command;
use tokio::time::Instant;

use crate::admin::Admin;
use crate::answer::Answer;
use crate::check::{Arms, Expected, Judge};
use crate::client::Client;
use crate::configuration::{self, Configuration, KEY_HEADER, Route};
use crate::dataset::{Dataset, Recipe};
use crate::gateway::Gateway;
use crate::grpc_client::GrpcClient;
use crate::keys::{self, Distribution, Population};
use crate::payload::{self, Payload, Schedule, Shape, Wire};
use crate::repository::RepositoryCopy;
use crate::run::{Load, Protocol};
use crate::target::Target;

/// The model that is swapped.
pub const DIGITS: &str = "digits";

/// The configuration file beside the copy.
const FILE: &str = "penstock.toml";

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
    scene: Scene,
    /// What the gateway was started on: the repository, or a configuration file.
    source: PathBuf,
}

impl Stage {
    /// Copies the repository, has it serve `digits` 1 and starts the gateway.
    ///
    /// # Errors
    /// When a file is missing or the gateway does not start.
    pub async fn set(scene: &Scene) -> anyhow::Result<Self> {
        let repository = RepositoryCopy::of(&scene.repository)?;
        repository.serve_only(DIGITS, &[1])?;
        let source = repository.path();
        Self::start(scene.clone(), repository, source).await
    }

    /// Starts the gateway on a copy with a configuration file beside it.
    ///
    /// # Errors
    /// As for [`Self::set`].
    pub async fn with_routes(
        scene: &Scene,
        repository: RepositoryCopy,
        routes: Vec<Route>,
    ) -> anyhow::Result<Self> {
        let source = repository.beside(FILE);
        Configuration::of(routes).write(&source)?;
        Self::start(scene.clone(), repository, source).await
    }

    async fn start(
        scene: Scene,
        repository: RepositoryCopy,
        source: PathBuf,
    ) -> anyhow::Result<Self> {
        ensure!(
            scene.gateway.exists(),
            "{} is not there: build it with 'cargo build --release'",
            scene.gateway.display()
        );
        let log = repository.beside("gateway.log");
        let gateway = Gateway::start(&scene.gateway, &source, log).await?;
        let target = gateway.target();
        Ok(Self { gateway, repository, target, scene, source })
    }

    /// Waits until a gateway that was killed is gone and starts another one in its place.
    ///
    /// # Errors
    /// When it had ended by itself, or the new one does not start.
    pub async fn revive(self) -> anyhow::Result<Self> {
        self.gateway.wait_for_death().await?;
        Self::start(self.scene, self.repository, self.source).await
    }

    /// Writes the configuration file anew; the gateway may see it at once.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_routes(&self, routes: Vec<Route>) -> anyhow::Result<()> {
        self.write(&Configuration::of(routes))
    }

    /// Replaces the configuration file; the gateway is not told.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, configuration: &Configuration) -> anyhow::Result<()> {
        configuration.write(&self.source)
    }

    /// As [`Self::write`], for a text that was made before.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_text(&self, text: &str) -> anyhow::Result<()> {
        configuration::replace(&self.source, text)
    }

    /// Runs the gateway's program as an operator would type it, for this gateway's admin port;
    /// returns what it prints.
    ///
    /// # Errors
    /// What it prints when it fails.
    pub async fn command(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let url = format!("http://{}", self.gateway.summary.admin);
        let mut command = Command::new(&self.scene.gateway);
        command.args(arguments).args(["--url", &url]).kill_on_drop(true);
        let output = command.output().await?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "penstock {}: {errors}", arguments.join(" "));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The admin port.
    ///
    /// # Errors
    /// When the gateway did not say where it is.
    pub fn admin(&self) -> anyhow::Result<Admin> {
        Admin::new(&self.gateway.summary.admin)
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
        Ok(Arc::new(Dataset::for_model(&metadata, Some(&self.scene.data), &Recipe::default())?))
    }

    /// What versions 1 and 2 of `digits` answer to every row alone. Both serve from then on.
    ///
    /// # Errors
    /// When one of them does not serve.
    pub async fn learn(&self) -> anyhow::Result<Arc<Expected>> {
        self.serve(&[1, 2]).await?;
        self.answers_of(&["1", "2"]).await
    }

    /// What versions of `digits` that serve answer to every row alone.
    ///
    /// # Errors
    /// When one of them does not serve.
    pub async fn answers_of(&self, versions: &[&str]) -> anyhow::Result<Arc<Expected>> {
        let data = self.data(DIGITS).await?;
        let versions: Vec<String> = versions.iter().map(|text| (*text).to_owned()).collect();
        Ok(Arc::new(Expected::ask(&self.target, DIGITS, &versions, &data).await?))
    }

    /// Which version answers calls that name none.
    ///
    /// # Errors
    /// When none does.
    pub async fn answering(&self) -> anyhow::Result<String> {
        Ok(self.caller(DIGITS).await?.ask(None).await?.version)
    }

    /// Someone who sends digits to a route, one after the other.
    ///
    /// # Errors
    /// When the gateway cannot be reached.
    pub async fn caller(&self, route: &str) -> anyhow::Result<Caller> {
        let data = self.data(DIGITS).await?;
        let payloads = payload::build(&data, &shape(route, ""), Wire::HttpJson)?;
        Ok(Caller { client: Client::http(&self.target.http, route, "").await?, payloads })
    }

    /// Someone who does the same over gRPC.
    ///
    /// # Errors
    /// When the gateway cannot be reached.
    pub async fn grpc_caller(&self, route: &str) -> anyhow::Result<GrpcCaller> {
        let data = self.data(DIGITS).await?;
        let payloads = payload::build(&data, &shape(route, ""), Wire::Grpc)?;
        let request = ModelInferRequest::decode(payloads[0].body.clone())?;
        Ok(GrpcCaller { client: GrpcClient::connect(&self.target.grpc).await?, request })
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
        let shape = shape(model, version);
        let mut load = Load::new(self.target.clone(), shape, protocol, data, judge);
        (load.callers, load.connections) = (callers, CONNECTIONS);
        Ok(load)
    }

    /// A load of digits for a route, from so many callers with keys; every answer must come from
    /// one of these arms, as these versions answer.
    ///
    /// # Errors
    /// When `digits` does not serve.
    pub async fn route_load(
        &self,
        route: &str,
        keys: usize,
        arms: Arms,
        expected: &Arc<Expected>,
    ) -> anyhow::Result<Load> {
        let metadata = self.target.metadata(DIGITS, "").await?;
        let data = self.data(DIGITS).await?;
        let judge = Judge::new(&metadata, &data, 1, "");
        let judge = judge.expecting(expected.clone()).from_arms(Arc::new(arms));
        let target = self.target.clone();
        let mut load = Load::new(target, shape(route, ""), Protocol::Mixed, data, judge);
        load.connections = CONNECTIONS;
        let (header, distribution) = (KEY_HEADER.to_owned(), Distribution::Uniform);
        load.keys = Some(Population { size: keys, distribution, header });
        Ok(load)
    }
}

fn shape(model: &str, version: &str) -> Shape {
    let (model, version) = (model.to_owned(), version.to_owned());
    Shape { model, version, rows: 1, schedule: Schedule::default() }
}

/// One caller, one request after the other.
#[derive(Debug)]
pub struct Caller {
    client: Client,
    /// One for each digit.
    payloads: Vec<Payload>,
}

impl Caller {
    /// Asks as the owner of a key, each with another digit, or as nobody in particular.
    ///
    /// # Errors
    /// When no answer came, or one that refuses or is none.
    pub async fn ask(&mut self, key: Option<u64>) -> anyhow::Result<Answer> {
        let who = key.map(|key| {
            let value = HeaderValue::try_from(keys::text(key));
            value.map(|value| (HeaderName::from_static(KEY_HEADER), value))
        });
        let at = key.unwrap_or(0) % self.payloads.len() as u64;
        let payload = &self.payloads[usize::try_from(at)?];
        Ok(self.client.ask_as(payload, who.transpose()?).await?)
    }

    /// The arm that answers the owner of a key.
    ///
    /// # Errors
    /// When no answer came, or one that names none.
    pub async fn arm(&mut self, key: Option<u64>) -> anyhow::Result<String> {
        self.ask(key).await?.origin.arm.context("an answer of a route names its arm")
    }
}

/// One caller over gRPC.
#[derive(Debug)]
pub struct GrpcCaller {
    client: GrpcClient,
    request: ModelInferRequest,
}

impl GrpcCaller {
    /// The arm that answers the owner of a key.
    ///
    /// # Errors
    /// When no answer came, or one that names none.
    pub async fn arm(&mut self, key: u64) -> anyhow::Result<String> {
        let who = (KEY_HEADER, keys::text(key));
        let answer = self.client.infer(self.request.clone(), (who.0, &who.1)).await?;
        answer.origin.arm.context("an answer of a route names its arm")
    }
}
