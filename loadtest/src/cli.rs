//! The command line.
#![expect(clippy::print_stderr, reason = "this module talks to a terminal")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::check::{Expected, Judge};
use crate::dataset::Dataset;
use crate::payload::Shape;
use crate::plan::Limit;
use crate::report::{self, say};
use crate::run::{Load, Protocol};
use crate::stage::Scene;
use crate::target::Target;
use crate::{demo, swap};

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
    /// Send requests in closed loops and print what came of them
    Run(RunArguments),
    /// Show the gateway's main job on real data
    Demo {
        #[command(flatten)]
        scene: Scene,
    },
    /// Swap a model again and again under load; check every answer and the memory
    Swap(swap::Arguments),
}

#[derive(Debug, clap::Args)]
struct RunArguments {
    /// The server's HTTP port
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000")]
    url: String,
    /// The server's gRPC port
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8001")]
    grpc: String,
    /// Which way the callers take
    #[arg(long, value_enum, default_value = "http-json")]
    protocol: Protocol,
    /// Which model to call
    #[arg(long, value_name = "NAME")]
    model: String,
    /// Which version of it; whichever serves if absent
    #[arg(long, value_name = "VERSION", default_value = "", hide_default_value = true)]
    version: String,
    /// Callers at the same time; each waits for its answer before it sends again
    #[arg(long, value_name = "NUMBER", default_value_t = 32)]
    callers: usize,
    /// gRPC connections that the callers share; over HTTP each caller has its own
    #[arg(long, value_name = "NUMBER", default_value_t = 4)]
    connections: usize,
    /// For how long
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    #[arg(default_value = "5s")]
    duration: Duration,
    /// How many requests, instead of a time
    #[arg(long, value_name = "NUMBER", conflicts_with = "duration")]
    requests: Option<u64>,
    /// Rows in each request
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    rows: usize,
    /// Rows of label,p0,p1,… to send, pixels from 0 to 16; random rows if absent
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Check every answer: against these files of {"version", "outputs": {name: [row, …]}}, or
    /// without a file against what each version answers to every row alone
    #[arg(long, value_name = "FILE", num_args = 0..)]
    expect: Option<Vec<PathBuf>>,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
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
        Command::Demo { scene } => Box::pin(demo::run(&scene)).await,
        Command::Swap(arguments) => Box::pin(swap::run(&arguments)).await,
    }
}

async fn run(arguments: RunArguments) -> anyhow::Result<bool> {
    let load = prepare(&arguments).await?;
    let limit = arguments.requests.map_or(Limit::Time(arguments.duration), Limit::Requests);
    let recording = load.run(limit).await?;
    if arguments.json {
        let mut report = report::recording_json(&recording);
        report["model"] = arguments.model.into();
        report["protocol"] = arguments.protocol.name().into();
        report["callers"] = arguments.callers.into();
        report["rows"] = arguments.rows.into();
        say(report);
    } else {
        say(format_args!(
            "{} over {}, {} callers, rows a request: {}",
            arguments.model,
            arguments.protocol.name(),
            arguments.callers,
            arguments.rows
        ));
        say(report::recording(&recording));
    }
    Ok(recording.recorder.total().is_clean())
}

/// Asks the server about the model and puts the load together.
async fn prepare(arguments: &RunArguments) -> anyhow::Result<Load> {
    let RunArguments { model, version, rows, .. } = arguments;
    let target = Target { http: arguments.url.clone(), grpc: arguments.grpc.clone() };
    let metadata = match arguments.protocol {
        Protocol::Grpc => target.metadata_by_grpc(model, version).await?,
        _ => target.metadata(model, version).await?,
    };
    let data = Arc::new(Dataset::for_model(&metadata, arguments.data.as_deref())?);
    let mut judge = Judge::new(&metadata, &data, *rows, version);
    if let Some(files) = &arguments.expect {
        let expected = if files.is_empty() {
            let all = if version.is_empty() { &metadata.versions } else { &vec![version.clone()] };
            Expected::ask(&target, model, all, &data).await?
        } else {
            Expected::read(files, &data)?
        };
        judge = judge.expecting(Arc::new(expected));
    }
    let shape = Shape { model: model.clone(), version: version.clone(), rows: *rows };
    let mut load = Load::new(target, shape, arguments.protocol, data, judge);
    (load.callers, load.connections) = (arguments.callers, arguments.connections);
    if arguments.expect.is_none() {
        load.check = crate::book::Check::Sample(64);
    }
    Ok(load)
}
