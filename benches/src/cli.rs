//! The command line: the run itself, and the bare servers as modes of the same program, so that
//! each is a process whose CPU time the kernel counts apart.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::ceilings::{Flavor, hyper_echo, tonic_echo};
use crate::run;
use crate::say::progress;
use crate::settings::Arguments;

#[derive(Debug, Parser)]
#[command(
    name = "ratios",
    version,
    about = "Penstock against its ceilings, as ratios of one run",
    args_conflicts_with_subcommands = true
)]
struct Cli {
    #[command(subcommand)]
    ceiling: Option<Ceiling>,
    #[command(flatten)]
    run: Arguments,
}

#[derive(Debug, Subcommand)]
enum Ceiling {
    /// A bare tonic server that answers the beginning of what it is sent
    ServeTonic {
        #[arg(long, value_enum)]
        flavor: Flavor,
    },
    /// A bare hyper server that reads requests and answers the bytes in a file
    ServeHyper {
        #[arg(long, value_enum)]
        flavor: Flavor,
        /// The answers, as captured from a gateway
        #[arg(long, value_name = "FILE")]
        answers: PathBuf,
    },
}

/// Parses the command line and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    let Cli { ceiling, run } = Cli::parse();
    let result = match ceiling {
        None => run::run(&run),
        Some(Ceiling::ServeTonic { flavor }) => tonic_echo::serve(flavor).map(|()| true),
        Some(Ceiling::ServeHyper { flavor, answers }) => {
            hyper_echo::serve(flavor, &answers).map(|()| true)
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            progress(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
