//! What to measure and for how long.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;

use crate::sections::Name;

/// The run's own options.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// Parts of the table, comma-separated; all if absent
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PARTS")]
    pub rows: Vec<Name>,
    /// How often each thing is measured, in turns
    #[arg(long, value_name = "NUMBER")]
    pub rounds: Option<usize>,
    /// How long each measurement takes
    #[arg(long, value_name = "SECONDS")]
    pub seconds: Option<f64>,
    /// A smoke run of less than two minutes; its figures mean little
    #[arg(long)]
    pub quick: bool,
    /// The gateway's program
    #[arg(long, value_name = "FILE", default_value = "target/release/penstock")]
    pub gateway: PathBuf,
    /// The load generator's program
    #[arg(long, value_name = "FILE", default_value = "target/release/penstock-loadtest")]
    pub loadtest: PathBuf,
    /// The program that runs a model in a bare libtorch loop
    #[arg(long, value_name = "FILE", default_value = "target/release/examples/ceiling")]
    pub torch_loop: PathBuf,
    /// The example models
    #[arg(long, value_name = "FOLDER", default_value = "models/repository")]
    pub repository: PathBuf,
    /// The larger example models; parts that need them are skipped when they are not there
    #[arg(long, value_name = "FOLDER", default_value = "models/extra")]
    pub extra: PathBuf,
    /// Rows for the digits models
    #[arg(long, value_name = "FILE", default_value = "models/digits_test.csv")]
    pub data: PathBuf,
    /// Where results lie, and where those of a full run are stored
    #[arg(long, value_name = "FOLDER", default_value = "benches/results")]
    pub results: PathBuf,
    /// Store the results of a quick or partial run too
    #[arg(long)]
    pub store: bool,
}

/// The options with every default filled in.
#[derive(Debug, Clone)]
pub struct Settings {
    pub rounds: usize,
    pub seconds: f64,
    pub sections: Vec<Name>,
    /// Whether the results go into the folder of results.
    pub store: bool,
    pub given: Arguments,
}

impl Settings {
    /// Fills in defaults and looks for what every part needs.
    ///
    /// # Errors
    /// When a number makes no sense or a program is not there.
    pub fn new(given: &Arguments) -> anyhow::Result<Self> {
        let rounds = given.rounds.unwrap_or(if given.quick { 1 } else { 5 });
        let seconds = given.seconds.unwrap_or(if given.quick { 0.5 } else { 3.0 });
        ensure!(rounds > 0, "--rounds must be at least 1");
        ensure!((0.1..=600.0).contains(&seconds), "--seconds must lie between 0.1 and 600");
        for (program, package) in
            [(&given.gateway, "penstock"), (&given.loadtest, "penstock-loadtest")]
        {
            ensure!(
                program.exists(),
                "{} is not there: 'cargo build --release -p {package}' builds it",
                program.display()
            );
        }
        let all = given.rows.is_empty();
        let sections = if all { Name::ALL.to_vec() } else { given.rows.clone() };
        let store = given.store || (all && !given.quick);
        Ok(Self { rounds, seconds, sections, store, given: given.clone() })
    }

    /// The length of a measurement, this many times the usual.
    #[must_use]
    pub fn window(&self, times: f64) -> Duration {
        Duration::from_secs_f64(self.seconds * times)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn settings(options: &[&str]) -> anyhow::Result<Settings> {
        // Any file that exists will do as a program here.
        let this = std::env::current_exe().unwrap().display().to_string();
        let programs = ["ratios", "--gateway", &this, "--loadtest", &this];
        let line = Line::try_parse_from(programs.iter().chain(options))?;
        Settings::new(&line.arguments)
    }

    #[test]
    fn only_a_full_run_is_stored_unless_it_is_asked_for() {
        assert!(settings(&[]).unwrap().store);
        assert!(!settings(&["--quick"]).unwrap().store);
        assert!(!settings(&["--rows", "grpc,http"]).unwrap().store);
        assert!(settings(&["--rows", "grpc,http", "--store"]).unwrap().store);
    }

    #[test]
    fn a_part_that_does_not_exist_is_refused() {
        assert!(settings(&["--rows", "grcp"]).is_err());
        assert_eq!(settings(&["--rows", "http"]).unwrap().sections, [Name::Http]);
    }

    #[test]
    fn numbers_that_make_no_sense_are_refused() {
        for wrong in [["--rounds", "0"], ["--seconds", "0"], ["--seconds", "NaN"]] {
            assert!(settings(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_named_with_what_builds_it() {
        let error = settings(&["--gateway", "/nonexistent"]);
        assert!(error.is_err());
        let line = Line::try_parse_from(["ratios", "--gateway", "/nonexistent"]).unwrap();
        let error = Settings::new(&line.arguments).unwrap_err().to_string();
        assert!(error.contains("/nonexistent") && error.contains("-p penstock"), "{error}");
    }
}
