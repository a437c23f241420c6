//! `penstock reference`: prints the parts of docs/ that are written from the code's own tables.

use std::process::ExitCode;

use clap::ValueEnum;

use crate::config::reference::{self, CONFIG, MODEL};
use crate::telemetry::metrics;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Which table
    part: Part,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Part {
    Config,
    ConfigSchema,
    Model,
    ModelSchema,
    Metrics,
}

#[expect(clippy::unnecessary_wraps, reason = "every command has this signature")]
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let text = match arguments.part {
        Part::Config => reference::markdown(CONFIG),
        Part::Model => reference::markdown(MODEL),
        Part::Metrics => metrics::markdown(),
        Part::ConfigSchema => pretty(&reference::json_schema("Penstock configuration", CONFIG)),
        Part::ModelSchema => pretty(&reference::json_schema("Penstock model.toml", MODEL)),
    };
    print!("{text}");
    Ok(ExitCode::SUCCESS)
}

fn pretty(schema: &serde_json::Value) -> String {
    format!("{schema:#}\n")
}
