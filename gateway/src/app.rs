//! Builds every part in order, runs them, and stops them in order.

mod descriptors;
mod supervisor;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use engine::{Engine, IdentityEngine};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::api::{Api, Health, Stage};
use crate::config::{Config, Problem};
use crate::control::Control;
use crate::delivery::Delivery;
use crate::feedback::Intake;
use crate::identity::Identities;
use crate::limits::Limiter;
use crate::models::{Loader, Repository};
use crate::overload::{Overload, memory};
use crate::pipeline::{Keys, Pipeline};
use crate::predictions::PredictionLog;
use crate::reload::{Asked, Hints, Live, Reloader, Source, Text, Timing};
use crate::server::{Addresses, Listeners, Server, Tls};
use crate::shadow::Comparer;
use crate::snapshot::{Routing, SnapshotCell};
use crate::tasks::{self, Home};
use crate::telemetry::{WireMetrics, logging, metrics};
use crate::traffic::{Served, Traffic};
use crate::upstream::Upstreams;

/// Longest wait for engine threads at the end: the calls they work for are gone by then.
const ENGINES_END: Duration = Duration::from_secs(2);

/// Longest wait at the end for a disk that the prediction log is written to.
const LOG_END: Duration = Duration::from_secs(5);

/// Longest wait at the end for its files to reach their store.
const DELIVERY_END: Duration = Duration::from_secs(5);

/// A gateway that serves.
#[derive(Debug)]
pub struct App {
    config: Config,
    api: Api,
    server: Server,
    addresses: Addresses,
}

/// Signals that ask the process to stop. Taken before anything else, so that none is missed
/// while models load.
#[derive(Debug)]
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Starts listening.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn listen() -> std::io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { terminate, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next one; returns its name.
    pub async fn recv(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// The engines of this build.
#[must_use]
pub fn engines() -> Vec<Arc<dyn Engine>> {
    vec![
        Arc::new(IdentityEngine),
        #[cfg(feature = "torch")]
        Arc::new(engine_torch::TorchEngine),
    ]
}

/// Everybody who may call.
fn identities(config: &Config) -> anyhow::Result<Arc<Identities>> {
    let identities = Identities::new(&config.auth, config.repository.control);
    identities.map(Arc::new).map_err(listed)
}

/// What loads models into the snapshots.
fn control(
    config: &Config,
    engines: Vec<Arc<dyn Engine>>,
    (repository, snapshots): (Repository, SnapshotCell),
) -> Arc<Control> {
    let loader = Loader::new(engines, config.engine.clone(), config.limits.clone())
        .with_breaker(config.breaker)
        .with_overload(&config.overload);
    Arc::new(Control::new(repository, loader, snapshots, config.repository.clone()))
}

/// The prediction log, where there is one, and what becomes of its segments.
async fn prediction_log(config: &Config) -> anyhow::Result<Option<(Arc<PredictionLog>, Delivery)>> {
    let Some(config) = config.prediction_log.clone() else { return Ok(None) };
    // Both look through folders.
    let started = tasks::blocking(move || {
        let log = PredictionLog::start(&config).map_err(|problem| listed(vec![problem]))?;
        let delivery = Delivery::of(&log, &config).context("prediction_log.path")?;
        Ok(Some((log, delivery)))
    });
    started.await
}

/// Every problem in one line.
fn listed(problems: Vec<Problem>) -> anyhow::Error {
    anyhow::Error::msg(problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("; "))
}

impl App {
    /// Binds, loads every model and opens for calls. While models load the doors answer, and
    /// say that the gateway is not ready. Follows the file that the configuration was read from, if
    /// there is one.
    ///
    /// # Errors
    /// When an address is taken or the repository cannot be read. A model that cannot be loaded
    /// is no error: it is shown as unavailable.
    pub async fn start(
        config: Config,
        file: Option<(Source, Text)>,
        engines: Vec<Arc<dyn Engine>>,
        libtorch: Option<&str>,
    ) -> anyhow::Result<Self> {
        metrics::recorder();
        descriptors::raise(config.limits.max_connections);
        logging::init(&config.log).context("cannot start the log's thread")?;
        metrics::BUILD.gauge(&[env!("CARGO_PKG_VERSION"), libtorch.unwrap_or("none")]).set(1.0);
        let path = &config.repository.path;
        let repository = Repository::open(path)
            .with_context(|| format!("repository.path: cannot open {}", path.display()))?;
        let hangups = signal(SignalKind::hangup())?;
        let identities = identities(&config)?;
        let listeners = Listeners::bind(&config.listen).map_err(anyhow::Error::msg)?;
        let addresses = listeners.addresses();
        let snapshots = SnapshotCell::new();
        let limiter = Limiter::start(&config.rates, None).map_err(anyhow::Error::msg)?;
        let control = control(&config, engines, (repository, snapshots.clone()));
        let keys = config.idempotency.enabled.then(|| Keys::new(config.idempotency.clone()));
        let wire = Arc::new(WireMetrics::new());
        let overload = Overload::new(&config.limits, &config.overload, wire.clone());
        let (overloaded, repeats) = (overload.clone(), keys.clone());
        let upstreams = Upstreams::start_with(&config.upstreams, &config.breaker, None);
        let upstreams = upstreams.map_err(listed)?;
        control.commit_routing(Routing { upstreams, ..Routing::default() }, Some(limiter));
        let target = Arc::new(Served { control: control.clone() });
        let hash = file.as_ref().and_then(|(_, text)| text.hash()).unwrap_or_default();
        let traffic = Traffic::start(target, &config.state, config.routes.clone(), hash).await;
        let traffic = traffic.map_err(anyhow::Error::msg)?;
        let watched = overload.clone();
        let (log, delivery) = prediction_log(&config).await?.unzip();
        let taken = log.clone().zip(config.prediction_log.as_ref());
        let feedback = taken.map(|(log, config)| Intake::start(log, config));
        let api = Api {
            pipeline: Pipeline {
                snapshots,
                wire,
                overload,
                keys,
                log: log.clone(),
                comparer: Comparer::start().context("cannot start a thread")?,
                timeouts: config.limits.timeouts,
            },
            control: control.clone(),
            identities: identities.clone(),
            health: Health::new(),
            limits: config.limits.clone(),
            traffic: traffic.clone(),
            home: Home::here(),
            delivery,
            feedback,
            reloader: file.map(|(source, text)| {
                let (control, traffic) = (control.clone(), traffic.clone());
                let live = Box::new(Live { control, traffic, log });
                Arc::new(Reloader::new(source, config.clone(), text, live))
            }),
        };
        let server = Server::start(listeners, api.clone(), &config)?;
        tasks::spawn("metrics", async { match metrics::upkeep().await {} });
        tasks::spawn("memory", async { match memory::watch(overloaded).await {} });
        follow_certificates(server.tls().cloned());
        let kept = traffic.clone();
        tasks::spawn("revisions", async { match kept.upkeep(watched).await {} });
        follow_keys(identities, api.pipeline.log.clone());
        if let Some(keys) = repeats {
            tasks::spawn("idempotency", async { match keys.upkeep().await {} });
        }
        let watched = control.clone();
        tasks::spawn("watch", async move { match watched.watch().await {} });
        control.sync().await.context("cannot read the repository")?;
        control.check_rules(config.rules_to_check()).await;
        traffic.settle().await;
        if let Some(every) = config.repository.poll {
            tasks::spawn("poll", async move { match control.follow(every).await {} });
        }
        on_hangups(hangups, server.tls().cloned(), api.reloader.clone());
        follow_configuration(&api, &config);
        api.health.enter(Stage::Open);
        supervisor::ready();
        supervisor::guard(api.clone());
        info!(?addresses, "ready");
        Ok(Self { config, api, server, addresses })
    }

    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    #[must_use]
    pub fn api(&self) -> &Api {
        &self.api
    }

    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Serves until a stop signal, then stops: not ready → doors closed → calls in flight end →
    /// engine threads end.
    ///
    /// # Errors
    /// When a second signal cut the stop short.
    pub async fn run(self, mut signals: StopSignals) -> anyhow::Result<()> {
        let name = signals.recv().await;
        info!("stopping on {name}");
        let in_order = self.stop();
        tokio::select! {
            () = in_order => Ok(()),
            name = signals.recv() => anyhow::bail!("a second signal, {name}: stopped at once"),
        }
    }

    /// Stops in order.
    pub async fn stop(self) {
        self.api.health.enter(Stage::Stopping);
        supervisor::stopping();
        tokio::time::sleep(self.config.server.stop_delay).await;
        self.api.health.enter(Stage::Draining);
        self.server.stop(self.config.server.drain).await;
        let control = self.api.control.clone();
        if !tasks::blocking(move || control.close(ENGINES_END)).await {
            warn!(limit = ?ENGINES_END, "engine threads are still at work, left behind");
        }
        if let Some(log) = self.api.pipeline.log.clone()
            && !tasks::blocking(move || log.stop(LOG_END)).await
        {
            warn!(limit = ?LOG_END, "the prediction log is not written, rows are lost");
        }
        if let Some(delivery) = self.api.delivery.clone() {
            delivery.finish(DELIVERY_END).await;
        }
        info!("stopped");
    }
}

/// Follows the configuration's file, if there is one and it is to be.
fn follow_configuration(api: &Api, config: &Config) {
    if let Some((reloader, every)) = api.reloader.clone().zip(config.state.watch) {
        let hints = Hints::about(reloader.path());
        tasks::spawn("configuration", async move {
            match reloader.follow(hints, Timing::polling(every)).await {}
        });
    }
}

/// Follows files of callers' keys and of the key of hashes.
fn follow_keys(identities: Arc<Identities>, log: Option<Arc<PredictionLog>>) {
    tasks::spawn("identities", async { match identities.follow().await {} });
    if let Some(log) = log {
        tasks::spawn("predictions", async { match log.follow().await {} });
    }
}

/// Follows the certificates' files.
fn follow_certificates(tls: Option<Arc<Tls>>) {
    if let Some(tls) = tls {
        tasks::spawn("certificates", async move { match tls.follow().await {} });
    }
}

/// Looks at certificates and the configuration anew on SIGHUP. The signal is taken without either
/// too: it must not end a gateway that has nothing to look at.
fn on_hangups(mut hangups: Signal, tls: Option<Arc<Tls>>, reloader: Option<Arc<Reloader>>) {
    tasks::spawn("hangup", async move {
        while hangups.recv().await.is_some() {
            supervisor::reloading();
            if tls.is_none() && reloader.is_none() {
                info!("SIGHUP: no certificates and no configuration file to look at");
            }
            if let Some(tls) = &tls {
                tls.reload().await;
            }
            if let Some(reloader) = &reloader {
                // What is wrong is in the log and the metrics.
                drop(reloader.reload(&Asked::by_signal()).await);
            }
            supervisor::ready();
        }
    });
}
