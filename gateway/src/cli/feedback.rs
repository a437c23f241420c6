//! `penstock feedback`: tells a running gateway what became of its predictions, and writes rows of
//! a prediction log beside what was told of them.

mod export;
mod lines;
mod patience;
mod send;

use std::process::ExitCode;

use clap::Subcommand;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send one feedback, or those of a file, to a running gateway
    Send(Box<send::Arguments>),
    /// Write rows of a prediction log with what is known of each of their items
    Export(Box<export::Arguments>),
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match &arguments.command {
        Command::Send(arguments) => send::run(arguments),
        Command::Export(arguments) => export::run(arguments),
    }
}
