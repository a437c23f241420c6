//! The command line.
#![expect(clippy::print_stderr, reason = "this module talks to a terminal")]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use crate::job::Rounds;
use crate::recording::Outcome;
use crate::report::{self, say};
use crate::scenario::Scenario;
use crate::stage::Scene;
use crate::{
    assignment, compare, demo, find_max, html, overload, predictions, reload, rollback, routes,
    shadow, slo, swap,
};

mod arguments;

use arguments::{Amount, Common};

/// Exit status after a stop signal, as shells have it for SIGINT.
const INTERRUPTED: u8 = 130;

#[derive(Debug, Parser)]
#[command(
    name = "penstock-loadtest",
    version,
    about = "Load and checks for servers of the Open Inference Protocol"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send requests, from callers that wait or at a rate, and print what came of them
    Run(RunArguments),
    /// Look for the highest rate at which a promise holds
    FindMax(FindMaxArguments),
    /// Run what a TOML file says: targets, stages, and what has to hold
    Scenario(ScenarioArguments),
    /// Show the gateway's main job on real data
    Demo {
        #[command(flatten)]
        scene: Scene,
    },
    /// Swap a model again and again under load; check every answer and the memory
    Swap(swap::Arguments),
    /// Offer far more than a model can run; see who is answered, how others are told, and the end
    Overload(overload::Arguments),
    /// Change routes again and again under load; check that no call meets parts of two settings
    Reload(reload::Arguments),
    /// Have files with very many routes take effect; see how long it takes and who notices
    Routes(routes::Arguments),
    /// Go back by one call, and kill the gateway in the middle of it; see what is in force then
    Rollback(rollback::Arguments),
    /// Try good and bad shadows; see what they cost callers and what is told about them
    Shadow(shadow::Arguments),
    /// Ask as very many callers while an arm's share grows; see who belongs to it
    Assignment(assignment::Arguments),
    /// Kill the gateway, fill and stall its disk; see which answers are in the prediction log
    Predictions(predictions::Arguments),
}

#[derive(Debug, clap::Args)]
struct RunArguments {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    amount: Amount,
    /// Write a page with charts
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct FindMaxArguments {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    search: find_max::Arguments,
}

#[derive(Debug, clap::Args)]
struct ScenarioArguments {
    /// What to run
    file: PathBuf,
    /// Write the figures for scripts; '-' prints them instead of text
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page with charts
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Parses the command line and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(until_stopped(arguments.command)),
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(Some(true)) => ExitCode::SUCCESS,
        Ok(Some(false)) => ExitCode::FAILURE,
        Ok(None) => ExitCode::from(INTERRUPTED),
        Err(error) => {
            eprintln!("penstock-loadtest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a command, or drops it with its processes and folders on a stop signal.
async fn until_stopped(command: Command) -> anyhow::Result<Option<bool>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        good = execute(command) => good.map(Some),
        _ = interrupt.recv() => Ok(None),
        _ = terminate.recv() => Ok(None),
    }
}

async fn execute(command: Command) -> anyhow::Result<bool> {
    match command {
        Command::Run(arguments) => Box::pin(run(arguments)).await,
        Command::FindMax(arguments) => Box::pin(find(arguments)).await,
        Command::Scenario(arguments) => Box::pin(scenario(arguments)).await,
        Command::Demo { scene } => Box::pin(demo::run(&scene)).await,
        Command::Swap(arguments) => Box::pin(swap::run(&arguments)).await,
        Command::Overload(arguments) => Box::pin(overload::run(&arguments)).await,
        Command::Reload(arguments) => Box::pin(reload::run(&arguments)).await,
        Command::Routes(arguments) => Box::pin(routes::run(&arguments)).await,
        Command::Rollback(arguments) => Box::pin(rollback::run(&arguments)).await,
        Command::Shadow(arguments) => Box::pin(shadow::run(&arguments)).await,
        Command::Assignment(arguments) => Box::pin(assignment::run(&arguments)).await,
        Command::Predictions(arguments) => Box::pin(predictions::run(&arguments)).await,
    }
}

async fn run(arguments: RunArguments) -> anyhow::Result<bool> {
    let RunArguments { common, amount, html } = arguments;
    let job = common.job()?;
    let stages = amount.stages();
    let drive = stages.last().map(|stage| stage.drive.describe()).unwrap_or_default();
    let (model, protocol) = (&common.model, common.protocol.name());
    let heading = format!("{model} over {protocol}, {drive}, rows a request: {}", common.rows);
    let rounds = if job.targets.len() > 1 { amount.rounds } else { 1 };
    let targets = job.perform(&stages, rounds).await?;
    if let Some(file) = html {
        write(&file, &html::page(model, &heading, &targets, &[]))?;
    }
    if common.json {
        let mut report = figures(&targets);
        report["model"] = model.clone().into();
        report["protocol"] = protocol.into();
        report["callers"] = amount.callers.into();
        report["rows"] = common.rows.into();
        say(report);
    } else {
        say(heading);
        say(text(&targets));
    }
    Ok(outcomes(&targets).all(|outcome| outcome.measured().is_clean()))
}

async fn find(arguments: FindMaxArguments) -> anyhow::Result<bool> {
    let FindMaxArguments { common, search } = arguments;
    let (report, found) = find_max::run(&common.job()?, &search, common.json).await?;
    if common.json {
        say(report);
    }
    Ok(found)
}

async fn scenario(arguments: ScenarioArguments) -> anyhow::Result<bool> {
    let ScenarioArguments { file, json, html } = arguments;
    let Scenario { name, job, stages, rounds, bounds } = Scenario::read(&file)?;
    let targets = job.perform(&stages, rounds).await?;
    let mut breaches = Vec::new();
    for target in &targets {
        for (round, outcome) in target.outcomes.iter().enumerate() {
            for breach in slo::breaches(&bounds, &outcome.measured()) {
                breaches.push(format!("{}, round {}: {breach}", target.name, round + 1));
            }
        }
    }
    let drives: Vec<String> = stages.iter().map(|stage| stage.drive.describe()).collect();
    let heading = format!("{} over {}: {}", job.model, job.protocol.name(), drives.join(", then "));
    if let Some(file) = html {
        write(&file, &html::page(&name, &heading, &targets, &breaches))?;
    }
    let mut printed = false;
    if let Some(file) = json {
        let mut report = figures(&targets);
        report["scenario"] = name.clone().into();
        report["broken"] = breaches.clone().into();
        if file.as_os_str() == "-" {
            say(&report);
            printed = true;
        } else {
            write(&file, &report.to_string())?;
        }
    }
    if !printed {
        say(format_args!("{name}\n{heading}"));
        say(text(&targets));
        for breach in &breaches {
            say(format_args!("  FAIL  {breach}"));
        }
    }
    // Without anything that has to hold, nothing may go wrong.
    let clean = outcomes(&targets).all(|outcome| outcome.measured().is_clean());
    Ok(breaches.is_empty() && (clean || !bounds.is_empty()))
}

fn outcomes(targets: &[Rounds]) -> impl Iterator<Item = &Outcome> {
    targets.iter().flat_map(|target| &target.outcomes)
}

/// The figures of one run, or of several targets side by side.
fn figures(targets: &[Rounds]) -> Value {
    match targets {
        [Rounds { outcomes, .. }] if outcomes.len() == 1 => report::outcome_json(&outcomes[0]),
        targets => compare::json(targets),
    }
}

fn text(targets: &[Rounds]) -> String {
    match targets {
        [Rounds { outcomes, .. }] if outcomes.len() == 1 => {
            let outcome = &outcomes[0];
            let mut text = String::new();
            if outcome.stages.len() > 1 {
                for (stage, recording) in outcome.stages.iter().filter(|(stage, _)| !stage.warm_up)
                {
                    let load = stage.drive.describe();
                    text += &format!("stage '{}': {load}\n", stage.name);
                    text += &report::recording(recording);
                    text.push('\n');
                }
                if outcome.stages.iter().filter(|(stage, _)| !stage.warm_up).count() == 1 {
                    return text.trim_end().to_owned();
                }
                text += "all stages\n";
            }
            text + &report::recording(&outcome.measured())
        }
        targets => compare::text(targets),
    }
}

fn write(file: &std::path::Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}
