//! The command line. Every command prints a table for people and, with `--json`, one JSON value
//! for scripts; it ends with one clear line and a status above zero when it fails.
#![expect(clippy::print_stderr, reason = "this module talks to a terminal")]

/// As those of the standard library, which panic when nobody reads what they print: `head` has what
/// it wanted.
macro_rules! println {
    () => { $crate::cli::say(format_args!("\n")) };
    ($($text:tt)*) => { $crate::cli::say(format_args!("{}\n", format_args!($($text)*))) };
}
macro_rules! print {
    ($($text:tt)*) => { $crate::cli::say(format_args!($($text)*)) };
}

mod check;
mod client;
mod feedback;
mod inspect;
mod key;
mod log;
mod models;
mod reference;
mod reload;
mod replay;
mod revisions;
mod rollback;
mod route;
mod serve;
mod shadow_report;
mod status;
mod table;

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::telemetry::logging;

/// What the process found out about libtorch before it did anything else.
#[cfg(feature = "torch")]
pub type Libtorch = &'static engine_torch::Prepared;
/// This build has no libtorch.
#[cfg(not(feature = "torch"))]
pub type Libtorch = std::convert::Infallible;

/// Exit status for a command that was understood and failed.
const FAILED: u8 = 1;
/// Exit status for a configuration with problems, as `sysexits.h` has it.
const BAD_CONFIG: u8 = 64;

#[derive(Debug, Parser)]
#[command(
    name = "penstock",
    version,
    about = "High-throughput inference gateway for PyTorch models"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve models: from a configuration file, or from a folder with every default
    Serve(serve::Arguments),
    /// Check a configuration file and its models; prints every problem
    Check(check::Arguments),
    /// Run a TorchScript file once, print its signature and write a first model.toml
    Inspect(inspect::Arguments),
    /// List, show, load and unload the models of a running gateway
    Models(models::Arguments),
    /// Show the routes of a running gateway, and give their arms other shares
    Route(route::Arguments),
    /// Put the routes of an earlier revision in force again
    Rollback(rollback::Arguments),
    /// List which routes were in force when, who changed them and why
    Revisions(revisions::Arguments),
    /// Let a running gateway read its configuration file again
    Reload(reload::Arguments),
    /// Send feedback about predictions, and write rows with what is known of them
    Feedback(feedback::Arguments),
    /// Ask another version, or the same one, what a prediction log holds, and compare the answers
    Replay(Box<replay::Arguments>),
    /// Make an API key; prints it once, with the hash for the configuration
    Key(key::Arguments),
    /// Look into a prediction log: what it holds, whether it is whole, its rows for others
    Log(log::Arguments),
    /// Show what a running gateway does
    Status(status::Arguments),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Print the reference that docs/ is written from
    #[command(hide = true)]
    Reference(reference::Arguments),
}

/// Parses the command line and does what it says.
#[must_use]
pub fn main(libtorch: Option<Libtorch>) -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Command::Serve(arguments) => serve::run(&arguments, libtorch.as_ref()),
        Command::Check(arguments) => check::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Models(arguments) => models::run(&arguments),
        Command::Route(arguments) => route::run(&arguments),
        Command::Rollback(arguments) => rollback::run(&arguments),
        Command::Revisions(arguments) => revisions::run(&arguments),
        Command::Reload(arguments) => reload::run(&arguments),
        Command::Feedback(arguments) => feedback::run(&arguments),
        Command::Replay(arguments) => replay::run(&arguments),
        Command::Key(arguments) => key::run(&arguments),
        Command::Log(arguments) => log::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Completions { shell } => {
            let mut command = Arguments::command();
            clap_complete::generate(shell, &mut command, "penstock", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Reference(arguments) => reference::run(&arguments),
    };
    let status = result.unwrap_or_else(|error| {
        logging::last_words(&format!("penstock: {error:#}"));
        ExitCode::from(FAILED)
    });
    logging::flush();
    status
}

/// Prints every problem of a file, one a line.
fn report(path: &Path, problems: &[crate::config::Problem]) -> ExitCode {
    for problem in problems {
        eprintln!("{}: {problem}", path.display());
    }
    ExitCode::from(BAD_CONFIG)
}

/// Runs one asynchronous command to its end.
fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(future);
    // What had to be waited for has been: a file that hangs on a network must not hold the end.
    runtime.shutdown_background();
    result
}

/// A path as the user gave it, for messages.
fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Prints what somebody may read.
fn say(text: fmt::Arguments<'_>) {
    // Nobody is left to be told that nobody reads it.
    let _ = io::stdout().write_fmt(text);
}
