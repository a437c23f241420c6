//! What the prediction log keeps when the gateway is killed and when its disk is full, stalls or
//! fails; and what it costs.

use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};

use crate::report::table;
use crate::run::Protocol;
use crate::stage::Scene;
use crate::verdict::Verdict;

mod callers;
mod disk;
mod kills;
mod ledger;
mod room;
mod shim;
mod site;
mod throughput;

use site::Guarantee;

/// What is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// `kill -9` at random moments under load
    Kills,
    /// A disk that is full, stalls, or does not sync, and is well again
    Disk,
    /// Less room than `min_free`, and then enough
    Room,
    /// Calls a second with and without the log
    Throughput,
}

/// What is shown, and how often.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    pub scene: Scene,
    /// What is shown; everything unless said otherwise
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    #[arg(default_values = ["kills", "disk", "room", "throughput"])]
    pub parts: Vec<Part>,
    /// A model that answers its input in the place of digits: every build of the gateway runs it
    #[arg(long)]
    pub identity: bool,
    /// How often the process is killed, for each guarantee
    #[arg(long, value_name = "NUMBER", default_value_t = 10)]
    pub kills: usize,
    /// Callers meanwhile, over both protocols
    #[arg(long, value_name = "NUMBER", default_value_t = 24)]
    pub callers: usize,
    /// How long the disk stalls
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    #[arg(default_value = "5s")]
    pub stall: Duration,
    /// How often calls a second are measured with each kind of log
    #[arg(long, value_name = "NUMBER", default_value_t = 5)]
    pub rounds: usize,
    /// How long each time
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    #[arg(default_value = "5s")]
    pub measure: Duration,
    /// How the callers of that ask
    #[arg(long, value_enum, default_value = "grpc")]
    pub protocol: Protocol,
    /// What the moments of the kills are drawn with
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
    /// Print times and rates, but do not hold them against what is demanded
    #[arg(long)]
    pub lenient: bool,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// Shows the parts, prints and says whether all is well.
///
/// # Errors
/// When a gateway does not start or come back, or a log cannot be read.
pub async fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    ensure!(arguments.callers > 0, "there must be a caller");
    let (mut verdict, mut rows) = (Verdict::default(), Vec::new());
    let mut figures = json!({});
    let lenient = arguments.lenient;
    let wants = |part: Part| arguments.parts.contains(&part);
    if wants(Part::Kills) && arguments.kills > 0 {
        let mut told = Vec::new();
        for guarantee in Guarantee::BOTH {
            let kills = kills::perform(arguments, guarantee).await?;
            verdict.excludes(kills.broken(lenient));
            rows.push(kills.line());
            told.push(kills.json());
        }
        figures["kills"] = Value::from(told);
    }
    if wants(Part::Disk) {
        let mut told = Vec::new();
        for guarantee in Guarantee::BOTH {
            let disk = disk::perform(arguments, guarantee).await?;
            verdict.excludes(disk.broken(lenient));
            rows.extend(disk.lines());
            told.push(disk.json());
        }
        figures["disk"] = Value::from(told);
    }
    if wants(Part::Room) {
        let room = room::perform(arguments).await?;
        verdict.excludes(room.broken());
        rows.push(room.line());
        figures["room"] = room.json();
    }
    if wants(Part::Throughput) {
        let throughput = throughput::perform(arguments).await?;
        verdict.excludes(throughput.broken(lenient));
        rows.extend(throughput.lines());
        figures["throughput"] = throughput.json();
    }
    Ok(verdict.conclude(arguments.json, figures, &table(&rows)))
}
