//! The bad day: what a model can run is found out, ten times of it is offered for a while, some of
//! it urgent, and then only half. Whoever can be answered must be, the others must be told at once,
//! and nothing may be left of it afterwards.

use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::arrivals::Arrivals;
use crate::dataset::Recipe;
use crate::job::{Job, Named};
use crate::memory::Memory;
use crate::payload::Schedule;
use crate::plan::{Drive, Limit, LoadStage};
use crate::recorder::Tally;
use crate::recording::Recording;
use crate::report::{micros, row, say, share, table};
use crate::run::{Load, Protocol};
use crate::stage::{Scene, Stage};
use crate::verdict::Verdict;

/// What has to hold.
const GOODPUT: f64 = 0.90;
const URGENT_ANSWERED: f64 = 0.99;
const REFUSAL: Duration = Duration::from_millis(5);
const RECOVERY: Duration = Duration::from_secs(2);

/// Priority of the urgent calls; the others have the default.
const URGENT: u8 = 1;
/// Calls in flight of each kind, at most.
const IN_FLIGHT: usize = 8192;
/// What memory gets to be given back.
const REST: Duration = Duration::from_secs(5);

/// What to overload, and how.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    pub scene: Scene,
    #[arg(long, value_name = "NAME", default_value = "digits_cnn")]
    pub model: String,
    /// Rows of each call: many make the engine and not the network the limit
    #[arg(long, value_name = "NUMBER", default_value_t = 32)]
    pub rows: usize,
    /// How many times of what it can run is offered
    #[arg(long, value_name = "NUMBER", default_value_t = 10.0)]
    pub factor: f64,
    /// The part of what is offered that is urgent; all of it must fit what the model can run
    #[arg(long, value_name = "PART", default_value_t = 0.05)]
    pub urgent: f64,
    /// How long
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    #[arg(default_value = "60s")]
    pub duration: Duration,
    /// How long what it can run is measured
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    #[arg(default_value = "10s")]
    pub measure: Duration,
    /// The deadline of each call
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    #[arg(default_value = "1s")]
    pub timeout: Duration,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// What it gave.
#[derive(Debug)]
struct Day {
    /// Answers a second of callers that wait for them.
    capacity: f64,
    urgent: Recording,
    others: Recording,
    /// Half of what it can run, from the recovery's end on.
    after: Recording,
    memory: Memory,
}

/// Overloads a gateway of its own, prints and says whether all is well.
///
/// # Errors
/// When the gateway does not start or the figures make no sense.
pub async fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    ensure!(arguments.factor > 1.0, "--factor lies above 1");
    ensure!((0.0..1.0).contains(&(arguments.urgent * arguments.factor)), "--urgent is too much");
    let stage = Stage::set(&arguments.scene).await?;
    let day = spend(&stage, arguments).await.map_err(|error| stage.explain(&error))?;
    let (status, _) = stage.gateway.stop().await?;
    let mut verdict = day.verdict();
    verdict.holds(status.success(), || format!("the gateway's {status}"));
    Ok(verdict.conclude(arguments.json, day.json(), &day.text()))
}

async fn spend(stage: &Stage, arguments: &Arguments) -> anyhow::Result<Day> {
    let load = load(stage, arguments).await?;
    let closed = |name: &str, time, warm_up| LoadStage {
        name: name.to_owned(),
        drive: Drive::callers(64),
        limit: Limit::Time(time),
        warm_up,
    };
    let measure = vec![
        closed("warm-up", Duration::from_secs(2), true),
        closed("capacity", arguments.measure, false),
    ];
    let measured = load.begin(measure).await?.finish().await?.measured();
    let total = measured.recorder.total();
    let capacity = measured.achieved_rate(&total);
    ensure!(
        total.is_clean() && capacity > 0.0,
        "calls fail without an overload: {:?}",
        total.errors
    );
    if !arguments.json {
        say(format_args!("{} runs {capacity:.1} calls a second", arguments.model));
    }
    let before = stage.gateway.resident_memory()?;
    let offered = capacity * arguments.factor;
    let begin = async |priority: u8, rate: f64| {
        let mut load = load.clone();
        load.shape.schedule = Schedule { priority, timeout: arguments.timeout };
        load.begin(vec![open("overload", rate, arguments.duration)]).await
    };
    let urgent = begin(URGENT, offered * arguments.urgent).await?;
    let others = begin(0, offered * (1.0 - arguments.urgent)).await?;
    let (urgent, others) = (urgent.finish().await?.measured(), others.finish().await?.measured());
    let mut recovery = open("recovery", capacity / 2.0, RECOVERY);
    recovery.warm_up = true;
    let after = vec![recovery, open("after", capacity / 2.0, Duration::from_secs(5))];
    let after = load.begin(after).await?.finish().await?.measured();
    sleep(REST).await;
    let memory = Memory { before, after: stage.gateway.resident_memory()? };
    Ok(Day { capacity, urgent, others, after, memory })
}

async fn load(stage: &Stage, arguments: &Arguments) -> anyhow::Result<Load> {
    let target = stage.target.clone();
    let job = Job {
        targets: vec![Named { name: "gateway".to_owned(), target: target.clone() }],
        model: arguments.model.clone(),
        version: String::new(),
        protocol: Protocol::Grpc,
        connections: 8,
        threads: 1,
        patience: Duration::from_secs(30),
        data: None,
        recipe: Recipe { rows: arguments.rows, ..Recipe::default() },
        expect: None,
        check_all: false,
        keys: None,
        seed: 1,
    };
    job.load(&target).await
}

fn open(name: &str, rate: f64, time: Duration) -> LoadStage {
    let (arrivals, bound) = (Arrivals::Poisson, IN_FLIGHT);
    let drive = Drive::Open { from: rate, to: rate, arrivals, bound };
    LoadStage { name: name.to_owned(), drive, limit: Limit::Time(time), warm_up: false }
}

impl Day {
    /// Answers a second while it was overloaded, as a part of the capacity.
    fn goodput(&self) -> f64 {
        let rate = |recording: &Recording| recording.achieved_rate(&recording.recorder.total());
        (rate(&self.urgent) + rate(&self.others)) / self.capacity
    }

    fn refusal(&self) -> Duration {
        let refused = self.others.recorder.total().refused;
        Duration::from_micros(refused.value_at_quantile(0.99))
    }

    /// What has to hold.
    fn verdict(&self) -> Verdict {
        let mut verdict = Verdict::default();
        let goodput = self.goodput();
        let low = || format!("goodput {goodput:.3} of capacity, below {GOODPUT}");
        verdict.holds(goodput >= GOODPUT, low);
        let urgent = answered(&self.urgent);
        let few = || format!("{urgent:.4} of the urgent calls answered");
        verdict.holds(urgent >= URGENT_ANSWERED, few);
        let refusal = self.refusal();
        let slow = || format!("p99 of refusals {refusal:?}, above {REFUSAL:?}");
        verdict.holds(refusal <= REFUSAL, slow);
        let refused = self.others.recorder.total().refused.len();
        verdict.holds(refused > 0, || "nobody was refused: it was no overload".to_owned());
        let errors = || format!("{:?} after {RECOVERY:?}", self.after.recorder.total().errors);
        verdict.holds(self.after.is_clean(), errors);
        verdict.excludes(self.memory.broken());
        verdict
    }

    fn text(&self) -> String {
        let line = |recording: &Recording| {
            let total = recording.recorder.total();
            format!(
                "{:.1}/s offered, {:.4} answered, p99 {}; {} refused, p99 {}",
                recording.offered_rate().unwrap_or_default(),
                answered(recording),
                micros(total.quantile(0.99)),
                total.refused.len(),
                micros(total.refused.value_at_quantile(0.99)),
            )
        };
        table(&[
            row(&["capacity", &format!("{:.1} calls/s", self.capacity)]),
            row(&["goodput", &format!("{:.3} of it", self.goodput())]),
            row(&["urgent", &line(&self.urgent)]),
            row(&["others", &line(&self.others)]),
            row(&["afterwards", &line(&self.after)]),
            row(&["memory", &self.memory.text()]),
        ])
    }

    fn json(&self) -> Value {
        let figures = |recording: &Recording| {
            let total = recording.recorder.total();
            json!({
                "offered_rate": recording.offered_rate(),
                "answered_share": answered(recording),
                "p99_us": total.quantile(0.99),
                "refused": total.refused.len(),
                "refused_p99_us": total.refused.value_at_quantile(0.99),
                "dropped": recording.sending.dropped,
                "errors": errors(&total),
            })
        };
        json!({
            "capacity": self.capacity,
            "goodput": self.goodput(),
            "urgent": figures(&self.urgent),
            "others": figures(&self.others),
            "after": figures(&self.after),
            "resident_bytes": self.memory.json(),
        })
    }
}

/// The part of the calls that were due that was answered.
fn answered(recording: &Recording) -> f64 {
    let total = recording.recorder.total();
    share(total.answered, total.requests() + recording.sending.dropped).unwrap_or_default()
}

fn errors(total: &Tally) -> Value {
    total.errors.iter().map(|(kind, error)| (kind.to_string(), json!(error.count))).collect()
}
