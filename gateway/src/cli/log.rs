//! `penstock log`: what a prediction log holds, whether it is whole, and its rows for others. It
//! reads the log's folder, beside a gateway that writes there or after it has ended.

pub(super) mod export;
mod stats;
pub(super) mod time;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Subcommand;

use super::report;
use crate::config;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what the log holds, by model and version
    Stats(stats::Arguments),
    /// Read every segment and file, and name what is damaged or missing
    Verify(verify::Arguments),
    /// Write rows as Parquet, CSV or JSON lines
    Export(export::Arguments),
}

/// Where a log is.
#[derive(Debug, clap::Args)]
pub(super) struct Source {
    /// Folder of the log
    #[arg(long, value_name = "FOLDER", conflicts_with = "config")]
    path: Option<PathBuf>,
    /// Configuration file whose [prediction_log] says where it is
    #[arg(long, value_name = "FILE", default_value = "penstock.toml")]
    config: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match &arguments.command {
        Command::Stats(arguments) => arguments.source.read(|log| stats::run(arguments, log)),
        Command::Verify(arguments) => arguments.source.read(|log| verify::run(arguments, log)),
        Command::Export(arguments) => arguments.source.read(|log| export::run(arguments, log)),
    }
}

impl Source {
    /// Does something with the folder of the log, or prints what is wrong with the configuration.
    pub(super) fn read(
        &self,
        what: impl FnOnce(PathBuf) -> anyhow::Result<ExitCode>,
    ) -> anyhow::Result<ExitCode> {
        let path = match &self.path {
            Some(path) => path.clone(),
            None => match config::load(&self.config) {
                Err(problems) => return Ok(report(&self.config, &problems)),
                Ok(config) => {
                    let file = self.config.display();
                    let log = config.prediction_log;
                    log.with_context(|| format!("{file} has no [prediction_log]"))?.path
                }
            },
        };
        // Not to be taken for a log without rows.
        if !["segments", "files"].iter().any(|part| path.join(part).is_dir()) {
            bail!("{}: here is no prediction log", path.display());
        }
        what(path)
    }
}

/// Bytes as people read them.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let (mut shown, mut unit) = (count as f64, "B");
    for next in UNITS {
        if shown < 1024.0 {
            break;
        }
        (shown, unit) = (shown / 1024.0, next);
    }
    if unit == "B" { format!("{count} B") } else { format!("{shown:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_the_unit_that_suits_them() {
        let shown = [0, 1023, 1024, 1536 << 10, 3 << 30, 1 << 60].map(bytes);
        let expected = ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "3.0 GiB", "1048576.0 TiB"];
        assert_eq!(shown, expected);
    }
}
