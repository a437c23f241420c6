//! The soak: one model swapped between two versions again and again under load, with every
//! answer checked and the gateway's memory watched.

use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::plan::Limit;
use crate::recorder::Phase;
use crate::recording::Recording;
use crate::report::{self, mebibytes, micros, row, say, table};
use crate::run::Protocol;
use crate::stage::{DIGITS, Scene, Stage};

/// After so many swaps memory is taken as settled; it may grow by a tenth from there.
const SETTLED: usize = 10;
const ALLOWED_GROWTH: f64 = 1.10;
/// Load between two swaps.
const PAUSE: Duration = Duration::from_millis(20);
/// What a version that was swapped out gets to be freed before memory is read.
const REST: Duration = Duration::from_millis(300);
/// How often a line tells how far it is.
const PROGRESS: usize = 50;

/// What to soak, and for how long.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    pub scene: Scene,
    /// How often the model is swapped
    #[arg(long, value_name = "NUMBER", default_value_t = 200)]
    pub swaps: usize,
    /// Callers at the same time, half HTTP, half gRPC
    #[arg(long, value_name = "NUMBER", default_value_t = 32)]
    pub callers: usize,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// What the swaps gave.
#[derive(Debug)]
struct Soak {
    recording: Recording,
    /// How long each load call took.
    swaps: Vec<Duration>,
    /// Swaps after which another version than the new one answered.
    stale: usize,
    /// Resident bytes after the tenth and after the last swap.
    settled: u64,
    last: u64,
}

/// Soaks, prints and says whether all is well.
///
/// # Errors
/// When the gateway does not start or refuses a swap.
pub async fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    ensure!(arguments.swaps > 0, "there must be a swap");
    let stage = Stage::set(&arguments.scene).await?;
    if !arguments.json {
        say(format_args!(
            "{} swaps of {DIGITS} between 1 and 2 under {} callers",
            arguments.swaps, arguments.callers
        ));
    }
    let soak = soak(&stage, arguments).await.map_err(|error| stage.explain(&error))?;
    let (status, _) = stage.gateway.stop().await?;
    let mut report = soak.json();
    report["clean_exit"] = status.success().into();
    let good = soak.is_good() && status.success();
    report["ok"] = good.into();
    if arguments.json {
        say(report);
    } else {
        say(soak.text());
        say(format_args!("\n{}: the gateway's {status}", if good { "ok" } else { "FAILED" }));
    }
    Ok(good)
}

async fn soak(stage: &Stage, arguments: &Arguments) -> anyhow::Result<Soak> {
    let expected = stage.learn().await?;
    stage.serve(&[1]).await?;
    let load =
        stage.load((DIGITS, ""), Protocol::Mixed, arguments.callers, Some(&expected)).await?;
    let running = load.start(Limit::Stop).await?;
    let mut swaps = Vec::with_capacity(arguments.swaps);
    let (mut stale, mut settled) = (0, 0);
    for count in 1..=arguments.swaps {
        let version = if count % 2 == 1 { 2 } else { 1 };
        running.mark_change();
        swaps.push(stage.serve(&[version]).await?);
        running.mark_change();
        stale += usize::from(stage.answering().await? != version.to_string());
        if count == SETTLED.min(arguments.swaps) {
            sleep(REST).await;
            settled = stage.gateway.resident_memory()?;
        }
        if count % PROGRESS == 0 && !arguments.json {
            let memory = mebibytes(stage.gateway.resident_memory()?);
            say(format_args!("  {count} swaps, {memory} resident"));
        }
        sleep(PAUSE).await;
    }
    sleep(REST).await;
    let last = stage.gateway.resident_memory()?;
    Ok(Soak { recording: running.finish().await?.measured(), swaps, stale, settled, last })
}

impl Soak {
    fn growth(&self) -> f64 {
        report::share(self.last, self.settled).unwrap_or(f64::INFINITY)
    }

    fn is_good(&self) -> bool {
        let total = self.recording.recorder.total();
        // Both versions answered: the swaps met real load.
        let met_load = total.versions.len() == 2 && total.checked == total.answered;
        total.is_clean() && met_load && self.stale == 0 && self.growth() <= ALLOWED_GROWTH
    }

    fn median_and_longest(&self) -> (u64, u64) {
        let mut sorted: Vec<u64> =
            self.swaps.iter().map(|time| u64::try_from(time.as_micros()).unwrap_or(0)).collect();
        sorted.sort_unstable();
        (sorted[sorted.len() / 2], sorted[sorted.len() - 1])
    }

    fn text(&self) -> String {
        let (median, longest) = self.median_and_longest();
        let during = self.recording.recorder.phase(Phase::During);
        let memory = format!(
            "{} after swap {}, {} after the last: ratio {:.3}, at most {ALLOWED_GROWTH:.2} allowed",
            mebibytes(self.settled),
            SETTLED.min(self.swaps.len()),
            mebibytes(self.last),
            self.growth(),
        );
        let rows = [
            row(&["swaps", &format!("median {}, longest {}", micros(median), micros(longest))]),
            row(&["stale", &format!("{} swaps after which the old version answered", self.stale)]),
            row(&[
                "during",
                &format!("p99 {} of calls that met a swap", micros(during.quantile(0.99))),
            ]),
            row(&["memory", &memory]),
        ];
        format!("{}\n{}", report::recording(&self.recording), table(&rows))
    }

    fn json(&self) -> Value {
        let (median, longest) = self.median_and_longest();
        let during = self.recording.recorder.phase(Phase::During);
        json!({
            "swaps": self.swaps.len(),
            "swap_us": { "median": median, "longest": longest },
            "stale": self.stale,
            "load": report::recording_json(&self.recording),
            "during_swaps_p99_us": during.quantile(0.99),
            "resident_bytes": { "settled": self.settled, "last": self.last },
            "growth": self.growth(),
        })
    }
}
