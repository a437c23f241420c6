//! Shadows: what they cost the callers, whatever is wrong with them, and what is told about them.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::arrivals::Arrivals;
use crate::book::Check;
use crate::check::Arms;
use crate::configuration::Route;
use crate::job::SAMPLE;
use crate::plan::{Drive, Limit, LoadStage};
use crate::recording::Recording;
use crate::report::{row, say, table};
use crate::repository::RepositoryCopy;
use crate::run::{Load, Protocol};
use crate::stage::{DIGITS, Scene, Stage};
use crate::stats;
use crate::verdict::Verdict;

mod kind;
mod spinner;
mod wrong;

use kind::Kind;
use spinner::Spinner;
use wrong::Wrong;

/// What has to hold of the p99 with a shadow beside that without.
const P99_RATIO: f64 = 1.10;
/// The part of the maximum that is offered.
const PART: f64 = 0.30;
/// Callers that find out the maximum.
const CALLERS: usize = 64;
const IN_FLIGHT: usize = 512;
const KEYS: usize = 1000;
const WARM_UP: Duration = Duration::from_secs(1);
/// Calls by which a shadow is judged, and how long the last of them may take to be compared.
const CALM: u64 = 100;
const PATIENCE: Duration = Duration::from_secs(120);

/// Which shadows, and for how long.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    pub scene: Scene,
    /// The folder that `fixtures` of engine-torch wrote: models that are slow, fail and answer
    /// NaN; without it only good models are shadows
    #[arg(long, value_name = "FOLDER")]
    pub fixtures: Option<std::path::PathBuf>,
    /// How often each shadow is tried, in turns
    #[arg(long, value_name = "NUMBER", default_value_t = 5)]
    pub rounds: usize,
    /// How long each time
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    #[arg(default_value = "5s")]
    pub duration: Duration,
    /// How long the maximum is measured
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    #[arg(default_value = "5s")]
    pub measure: Duration,
    /// Print the times, but do not hold them against what is demanded
    #[arg(long)]
    pub lenient: bool,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// One window under load.
#[derive(Debug)]
struct Window {
    recording: Recording,
    /// What the gateway spent meanwhile.
    cpu: Duration,
}

/// All windows with one shadow, or none.
#[derive(Debug)]
struct Tried {
    kind: Kind,
    windows: Vec<Window>,
    /// What the gateway tells about the shadow without other load.
    report: Value,
}

#[derive(Debug)]
struct Trial {
    lenient: bool,
    maximum: f64,
    tried: Vec<Tried>,
    wrong: Wrong,
}

/// Tries shadows, prints and says whether all is well.
///
/// # Errors
/// When the gateway does not start or a model is missing.
pub async fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    ensure!(arguments.rounds > 0, "there must be a round");
    let repository = RepositoryCopy::of(&arguments.scene.repository)?;
    repository.serve_only(DIGITS, &[1, 2, 3])?;
    let mut kinds = vec![Kind::None, Kind::Spinner, Kind::Same];
    if let Some(folder) = &arguments.fixtures {
        for kind in Kind::BAD {
            let (model, _) = kind.target().context("a bad shadow is a model")?;
            repository.add_model(folder, model)?;
            kinds.push(kind);
        }
    }
    let stage = Stage::with_routes(&arguments.scene, repository, vec![live()]).await?;
    let trial = trial(&stage, arguments, &kinds).await.map_err(|error| stage.explain(&error))?;
    let (status, _) = stage.gateway.stop().await?;
    let mut verdict = trial.verdict();
    verdict.holds(status.success(), || format!("the gateway's {status}"));
    Ok(verdict.conclude(arguments.json, trial.json(), &trial.text()))
}

/// The route without a shadow.
fn live() -> Route {
    Route::named(DIGITS).arm("stable", (DIGITS, "2"), "100%")
}

async fn trial(stage: &Stage, arguments: &Arguments, kinds: &[Kind]) -> anyhow::Result<Trial> {
    let wrong = wrong::find(stage).await?;
    let load = load(stage).await?;
    apply(stage, Kind::None).await?;
    let maximum = maximum(&load, arguments.measure).await?;
    if !arguments.json {
        say(format_args!("{DIGITS} runs {maximum:.0} calls a second; {PART} of that is offered"));
    }
    let mut tried: Vec<Tried> = kinds
        .iter()
        .map(|kind| Tried { kind: *kind, windows: Vec::new(), report: Value::Null })
        .collect();
    for round in 0..arguments.rounds {
        for turn in 0..tried.len() {
            // Another one is first in every round.
            let at = (turn + round) % tried.len();
            let kind = tried[at].kind;
            apply(stage, kind).await?;
            let spinner = (kind == Kind::Spinner).then(Spinner::start).transpose()?;
            drop(open(&load, maximum * PART, WARM_UP).await?);
            let before = stage.gateway.cpu_time()?;
            let recording = open(&load, maximum * PART, arguments.duration).await?;
            let cpu = stage.gateway.cpu_time()?.saturating_sub(before);
            tried[at].windows.push(Window { recording, cpu });
            spinner.map(Spinner::stop).transpose()?;
        }
    }
    for shadow in &mut tried {
        if let Some(target) = shadow.kind.target() {
            shadow.report = calm_report(stage, target, CALM).await?;
        }
    }
    Ok(Trial { lenient: arguments.lenient, maximum, tried, wrong })
}

/// Has the route shadowed by this, with a report that counts from nothing.
async fn apply(stage: &Stage, kind: Kind) -> anyhow::Result<()> {
    let mut route = live();
    if let Some(target) = kind.target() {
        route = route.shadow(SHADOW, target);
    }
    stage.write_routes(vec![route])?;
    let mut admin = stage.admin()?;
    admin.reload().await.with_context(|| kind.name())?;
    Ok(admin.reset_report(DIGITS).await?)
}

/// What is told about a shadow that is given time for so many calls, one after the other: under
/// load it gets what live calls leave, which may be nothing.
///
/// # Errors
/// When a call fails or the shadow does not come to an end.
async fn calm_report(stage: &Stage, target: (&str, &str), calls: u64) -> anyhow::Result<Value> {
    stage.write_routes(vec![live().shadow(SHADOW, target).patient(calls)])?;
    let mut admin = stage.admin()?;
    admin.reload().await.with_context(|| format!("{target:?} as a shadow"))?;
    admin.reset_report(DIGITS).await?;
    let one = Load { callers: 1, ..load(stage).await? };
    let total = one.run(Limit::Requests(calls)).await?.recorder.total();
    ensure!(total.is_clean(), "{:?}, mismatch {:?}", total.errors, total.mismatch);
    let started = Instant::now();
    loop {
        let report = shadow_report(stage).await?;
        let lane = &report["lane"];
        if lane["sampled"].as_u64() >= Some(calls) && lane["in_flight"] == 0 {
            return Ok(report);
        }
        ensure!(started.elapsed() < PATIENCE, "the shadow is still at work: {report}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// The name of every shadow here.
const SHADOW: &str = "candidate";

/// What the gateway tells about the shadow.
async fn shadow_report(stage: &Stage) -> anyhow::Result<Value> {
    let report = stage.admin()?.report(DIGITS).await?;
    let shadows = report["shadows"].as_array();
    let ours = shadows.into_iter().flatten().find(|shadow| shadow["name"] == SHADOW);
    ours.cloned().with_context(|| format!("no shadow {SHADOW} in {report}"))
}

async fn load(stage: &Stage) -> anyhow::Result<Load> {
    let expected = stage.answers_of(&["2"]).await?;
    let mut arms = Arms::of(DIGITS);
    arms.add("stable", "2");
    let mut load = stage.route_load(DIGITS, KEYS, arms, &expected).await?;
    // The gateway is to be measured, and not how fast answers are read.
    (load.protocol, load.check) = (Protocol::Grpc, Check::Sample(SAMPLE));
    load.callers = CALLERS;
    Ok(load)
}

/// Answers a second to callers that wait for them.
async fn maximum(load: &Load, time: Duration) -> anyhow::Result<f64> {
    drop(load.run(Limit::Time(WARM_UP)).await?);
    let recording = load.run(Limit::Time(time)).await?;
    let total = recording.recorder.total();
    ensure!(total.is_clean(), "{:?}, mismatch {:?}", total.errors, total.mismatch);
    Ok(recording.achieved_rate(&total))
}

async fn open(load: &Load, rate: f64, time: Duration) -> anyhow::Result<Recording> {
    let (arrivals, bound) = (Arrivals::Poisson, IN_FLIGHT);
    let drive = Drive::Open { from: rate, to: rate, arrivals, bound };
    let limit = Limit::Time(time);
    let stage = LoadStage { name: "window".to_owned(), drive, limit, warm_up: false };
    Ok(load.begin(vec![stage]).await?.finish().await?.measured())
}

impl Window {
    fn p99(&self) -> u64 {
        self.recording.recorder.total().quantile(0.99)
    }

    /// The latency below which that part of the answers stayed, in microseconds.
    fn quantile(&self, part: f64) -> f64 {
        stats::ratio(self.recording.recorder.total().quantile(part), 1)
    }

    /// What the gateway spent on a call, with all its shadows, in microseconds.
    fn cpu(&self) -> f64 {
        let calls = self.recording.recorder.total().requests().max(1);
        stats::ratio(u64::try_from(self.cpu.as_micros()).unwrap_or(u64::MAX), calls)
    }
}

impl Tried {
    /// In each round, the p99 beside that without a shadow.
    fn ratios(&self, without: &Self) -> Vec<f64> {
        let pairs = self.windows.iter().zip(&without.windows);
        pairs.map(|(with, without)| stats::ratio(with.p99(), without.p99())).collect()
    }

    fn median(&self, figure: impl Fn(&Window) -> f64) -> f64 {
        stats::median(&self.windows.iter().map(figure).collect::<Vec<f64>>())
    }
}

impl Trial {
    fn verdict(&self) -> Verdict {
        let mut verdict = Verdict::default();
        let Some((without, shadows)) = self.tried.split_first() else { return verdict };
        for tried in &self.tried {
            let name = tried.kind.name();
            for window in &tried.windows {
                let total = window.recording.recorder.total();
                verdict.holds(window.recording.is_clean(), || {
                    let dropped = window.recording.sending.dropped;
                    format!("{name}: {:?}, {dropped} dropped, {:?}", total.errors, total.mismatch)
                });
            }
        }
        for tried in shadows {
            let name = tried.kind.name();
            verdict.excludes(tried.kind.untold(&tried.report));
            let ratio = stats::median(&tried.ratios(without));
            // What others on the machine cost is shown, and is no shadow's fault.
            let is_judged = !self.lenient && tried.kind.target().is_some();
            verdict.holds(!is_judged || ratio <= P99_RATIO, || {
                format!("{name}: p99 is {ratio:.2} of that without a shadow")
            });
        }
        verdict.excludes(self.wrong.broken());
        verdict
    }

    fn text(&self) -> String {
        let mut rows = vec![row(&["SHADOW", "P50", "P99", "RATIO", "CPU/CALL", "REPORT"])];
        for tried in &self.tried {
            let quantile = |part: f64| tried.median(|window| window.quantile(part));
            let shown = |value: f64| format!("{value:.0} µs");
            let ratio = stats::median(&tried.ratios(&self.tried[0]));
            rows.push(row(&[
                tried.kind.name(),
                &shown(quantile(0.5)),
                &shown(quantile(0.99)),
                &format!("{ratio:.3}"),
                &format!("{:.1} µs", tried.median(Window::cpu)),
                &kind::told(&tried.report),
            ]));
        }
        format!("{}\n{}", table(&rows), self.wrong.text())
    }

    fn json(&self) -> Value {
        let tried = self.tried.iter().map(|tried| {
            let p99: Vec<u64> = tried.windows.iter().map(Window::p99).collect();
            json!({
                "shadow": tried.kind.name(),
                "p99_us": p99,
                "p99_ratio": stats::median(&tried.ratios(&self.tried[0])),
                "cpu_us_per_call": tried.median(Window::cpu),
                "report": tried.report,
            })
        });
        json!({
            "maximum": self.maximum,
            "offered": self.maximum * PART,
            "shadows": tried.collect::<Vec<_>>(),
            "wrong": self.wrong.json(),
        })
    }
}
