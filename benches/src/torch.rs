//! The bare libtorch loop: a model run again and again on one thread, without a server. It is a
//! program of its own, so that this driver links no libtorch.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Deserialize;

/// The program of the loop.
#[derive(Debug, Clone)]
pub struct TorchLoop {
    program: PathBuf,
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Forward<'a> {
    pub model: &'a Path,
    /// Shape of one row and datatype, for each input.
    pub inputs: &'a [(&'a str, &'a str)],
    pub batches: &'a [usize],
    /// `plain`, `frozen` or `optimized`.
    pub graph: &'a str,
    pub duration: Duration,
    /// Idle time between two runs: what a model that is called now and then finds in its caches.
    pub pause: Duration,
}

/// What it gave.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Loop {
    pub batches: Vec<Batch>,
    /// Resident memory of the process at its end.
    pub rss_bytes: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Batch {
    pub rows: usize,
    pub items_per_second: f64,
    pub p50_us: f64,
    pub p99_us: f64,
}

impl TorchLoop {
    #[must_use]
    pub fn new(program: &Path) -> Self {
        Self { program: program.to_owned() }
    }

    /// Whether it is there.
    ///
    /// # Errors
    /// With the reason why lines of the table that need it are skipped.
    pub fn available(&self) -> Result<(), String> {
        if self.program.exists() {
            return Ok(());
        }
        Err("the bare libtorch loop is not built: 'cargo build --release -p engine-torch \
             --example ceiling'"
            .to_owned())
    }

    /// Runs a model.
    ///
    /// # Errors
    /// When the program fails or answers something else.
    pub fn run(&self, forward: &Forward<'_>) -> anyhow::Result<Loop> {
        let mut command = Command::new(&self.program);
        command.arg("--model").arg(forward.model);
        for (shape, datatype) in forward.inputs {
            command.args(["--shape", shape, "--dtype", datatype]);
        }
        let batches: Vec<String> = forward.batches.iter().map(ToString::to_string).collect();
        command.args(["--batches", &batches.join(","), "--graph", forward.graph]);
        command.args(["--seconds", &forward.duration.as_secs_f64().to_string()]);
        if !forward.pause.is_zero() {
            command.args(["--pause-us", &forward.pause.as_micros().to_string()]);
        }
        let output = command.arg("--json").stdin(Stdio::null()).output();
        let output = output.context("the bare libtorch loop")?;
        let words = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "the bare libtorch loop failed: {}", words.trim());
        read(&output.stdout, forward.batches)
    }
}

fn read(text: &[u8], batches: &[usize]) -> anyhow::Result<Loop> {
    let found: Loop = serde_json::from_slice(text).context("the bare libtorch loop's report")?;
    let rows: Vec<usize> = found.batches.iter().map(|batch| batch.rows).collect();
    ensure!(rows == batches, "the bare libtorch loop ran batches of {rows:?}, not {batches:?}");
    Ok(found)
}

impl Loop {
    /// The batch size with the most items a second.
    #[must_use]
    pub fn best(&self) -> Option<Batch> {
        let by_items = |a: &&Batch, b: &&Batch| a.items_per_second.total_cmp(&b.items_per_second);
        self.batches.iter().max_by(by_items).copied()
    }
}

/// The graph that a gateway runs, out of what its metadata says of a version's engine.
#[must_use]
pub fn graph(engine: &str) -> &'static str {
    let named = engine.split_once("graph:").map(|(_, rest)| rest.trim_start());
    let named = named.and_then(|rest| rest.split(|c: char| !c.is_ascii_alphabetic()).next());
    match named {
        Some("frozen") => "frozen",
        Some("optimized") => "optimized",
        _ => "plain",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &[u8] = br#"{"model": "digits", "graph": "plain", "rss_bytes": 1000, "batches": [
        {"rows": 1, "items_per_second": 10.5, "p50_us": 95, "p99_us": 120},
        {"rows": 8, "items_per_second": 70, "p50_us": 110, "p99_us": 140},
        {"rows": 64, "items_per_second": 60, "p50_us": 1000, "p99_us": 1400}]}"#;

    #[test]
    fn the_best_batch_size_is_the_one_with_the_most_items() {
        let found = read(REPORT, &[1, 8, 64]).unwrap();
        assert_eq!(found.best().unwrap().rows, 8);
    }

    #[test]
    fn a_loop_that_ran_other_batches_is_refused() {
        assert!(read(REPORT, &[1, 8]).is_err());
        assert!(read(b"{}", &[1]).is_err());
    }

    #[test]
    fn the_graph_is_read_out_of_the_metadata() {
        let texts = [
            "graph: optimized (2.11 times as fast as plain)",
            "graph: frozen",
            "graph: plain, since the optimized one differs",
            "",
        ];
        assert_eq!(texts.map(graph), ["optimized", "frozen", "plain", "plain"]);
    }

    #[test]
    fn a_loop_that_is_not_built_says_what_builds_it() {
        let why = TorchLoop::new(Path::new("/nonexistent")).available().unwrap_err();
        assert!(why.contains("--example ceiling"), "{why}");
    }
}
