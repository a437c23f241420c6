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
use crate::payload::Schedule;
use crate::plan::{Drive, Limit, LoadStage};
use crate::recorder::Tally;
use crate::recording::Recording;
use crate::report::{mebibytes, micros, row, say, share, table};
use crate::run::{Load, Protocol};
use crate::stage::{Scene, Stage};

/// What has to hold.
const GOODPUT: f64 = 0.90;
const URGENT_ANSWERED: f64 = 0.99;
const REFUSAL: Duration = Duration::from_millis(5);
const RECOVERY: Duration = Duration::from_secs(2);
/// Resident memory afterwards, as a part of that before, beside what a quiet process may differ by.
const MEMORY: f64 = 1.10;
const MEMORY_SLACK: u64 = 32 << 20;

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
    before_bytes: u64,
    after_bytes: u64,
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
    let mut broken = day.broken();
    if !status.success() {
        broken.push(format!("the gateway's {status}"));
    }
    if arguments.json {
        let mut report = day.json();
        report["broken"] = broken.clone().into();
        say(report);
    } else {
        say(day.text());
        broken.iter().for_each(|what| say(format_args!("  FAIL  {what}")));
        say(if broken.is_empty() { "\nok" } else { "\nFAILED" });
    }
    Ok(broken.is_empty())
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
    let before_bytes = stage.gateway.resident_memory()?;
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
    let after_bytes = stage.gateway.resident_memory()?;
    Ok(Day { capacity, urgent, others, after, before_bytes, after_bytes })
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

    fn memory_allowed(&self) -> u64 {
        #[expect(clippy::cast_precision_loss, reason = "a size is far below 2^53")]
        #[expect(clippy::cast_possible_truncation, reason = "a size is far below 2^53")]
        #[expect(clippy::cast_sign_loss, reason = "sizes are positive")]
        let grown = (self.before_bytes as f64 * MEMORY) as u64;
        grown + MEMORY_SLACK
    }

    /// What does not hold.
    fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let mut holds = |good: bool, text: String| {
            if !good {
                broken.push(text);
            }
        };
        let goodput = self.goodput();
        holds(goodput >= GOODPUT, format!("goodput {goodput:.3} of capacity, below {GOODPUT}"));
        let urgent = answered(&self.urgent);
        holds(urgent >= URGENT_ANSWERED, format!("{urgent:.4} of the urgent calls answered"));
        let refusal = self.refusal();
        holds(refusal <= REFUSAL, format!("p99 of refusals {refusal:?}, above {REFUSAL:?}"));
        let refused = self.others.recorder.total().refused.len();
        holds(refused > 0, "nobody was refused: it was no overload".to_owned());
        holds(
            self.after.is_clean(),
            format!("{:?} after {RECOVERY:?}", self.after.recorder.total().errors),
        );
        let (bytes, allowed) = (self.after_bytes, self.memory_allowed());
        holds(bytes <= allowed, format!("{} resident afterwards", mebibytes(bytes)));
        broken
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
        let memory = format!(
            "{} before, {} after",
            mebibytes(self.before_bytes),
            mebibytes(self.after_bytes)
        );
        table(&[
            row(&["capacity", &format!("{:.1} calls/s", self.capacity)]),
            row(&["goodput", &format!("{:.3} of it", self.goodput())]),
            row(&["urgent", &line(&self.urgent)]),
            row(&["others", &line(&self.others)]),
            row(&["afterwards", &line(&self.after)]),
            row(&["memory", &memory]),
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
            "resident_bytes": { "before": self.before_bytes, "after": self.after_bytes },
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
