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
    pub way: &'a Way,
    pub duration: Duration,
    /// Idle time between two runs: what a model that is called now and then finds in its caches.
    pub pause: Duration,
}

/// How a gateway runs a model: the same optimisation is what the loop gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Forms of the graph, divided by commas where the batch decides.
    pub graphs: String,
    pub bf16: bool,
    pub channels_last: bool,
}

/// What it gave.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Loop {
    pub forms: Vec<Form>,
    /// Resident memory with the bare module alone.
    pub bare_resident_bytes: f64,
}

/// One form of the graph.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Form {
    pub graph: String,
    pub batches: Vec<Batch>,
    #[serde(default)]
    pub cold: Option<Cold>,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Batch {
    pub rows: usize,
    pub bare_items_per_s: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Cold {
    pub bare: Quantiles,
}

/// Of single runs with a pause before each.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Quantiles {
    pub p50_us: f64,
    pub p99_us: f64,
}

/// The form and batch size with the most items a second.
#[derive(Debug, Clone, PartialEq)]
pub struct Best {
    pub graph: String,
    pub rows: usize,
    pub items_per_second: f64,
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
        Err("engine-torch's example 'ceiling' is not built".to_owned())
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
        command.args(["--batches", &batches.join(","), "--graph", &forward.way.graphs]);
        if forward.way.bf16 {
            command.args(["--precision", "bf16"]);
        }
        if forward.way.channels_last {
            command.arg("--channels-last");
        }
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
    ensure!(!found.forms.is_empty(), "the bare libtorch loop ran nothing");
    for form in &found.forms {
        let rows: Vec<usize> = form.batches.iter().map(|batch| batch.rows).collect();
        ensure!(rows == batches, "the bare libtorch loop ran {rows:?}, not {batches:?}");
    }
    Ok(found)
}

impl Loop {
    /// The form and batch size with the most items a second.
    #[must_use]
    pub fn best(&self) -> Option<Best> {
        let of_form = |form: &Form| {
            let graph = form.graph.clone();
            form.batches.clone().into_iter().map(move |batch| Best {
                graph: graph.clone(),
                rows: batch.rows,
                items_per_second: batch.bare_items_per_s,
            })
        };
        let all = self.forms.iter().flat_map(of_form);
        all.max_by(|a, b| a.items_per_second.total_cmp(&b.items_per_second))
    }

    /// Single runs with a pause before each, of the form that is faster there.
    #[must_use]
    pub fn cold(&self) -> Option<Quantiles> {
        let runs = self.forms.iter().filter_map(|form| Some(form.cold?.bare));
        runs.min_by(|a, b| a.p50_us.total_cmp(&b.p50_us))
    }
}

impl Way {
    /// Read out of what a gateway's metadata says of a version's engine.
    #[must_use]
    pub fn of(engine: &str) -> Self {
        let named = engine.split_once("graph:").map_or("", |(_, rest)| rest.trim_start());
        let named = named.split(['(', ';', ',']).next().unwrap_or_default();
        let forms = ["plain", "frozen", "optimized"].into_iter();
        let forms: Vec<&str> =
            forms.filter(|form| named.split_whitespace().any(|word| word == *form)).collect();
        let graphs = if forms.is_empty() { "plain".to_owned() } else { forms.join(",") };
        let says = |what: &str| engine.split("; ").any(|note| note.starts_with(what));
        Self { graphs, bf16: says("precision: bf16"), channels_last: says("channels last") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &[u8] = br#"{"bare_resident_bytes": 1000, "device": "cpu", "forms": [
        {"graph": "plain", "best_bare_items_per_s": 70, "batches": [
            {"rows": 1, "bare_items_per_s": 10.5}, {"rows": 8, "bare_items_per_s": 70}],
         "cold": {"bare": {"p50_us": 20, "p99_us": 30, "runs": 9}}},
        {"graph": "optimized", "batches": [
            {"rows": 1, "bare_items_per_s": 9}, {"rows": 8, "bare_items_per_s": 90}],
         "cold": {"bare": {"p50_us": 25, "p99_us": 26, "runs": 9}}}]}"#;

    #[test]
    fn the_best_is_the_form_and_size_with_the_most_items() {
        let found = read(REPORT, &[1, 8]).unwrap();
        let best = found.best().unwrap();
        assert_eq!((best.graph.as_str(), best.rows), ("optimized", 8));
        assert_eq!(found.cold(), Some(Quantiles { p50_us: 20.0, p99_us: 30.0 }));
    }

    #[test]
    fn a_loop_that_ran_other_batches_is_refused() {
        assert!(read(REPORT, &[1, 8, 64]).is_err());
        assert!(read(br#"{"bare_resident_bytes": 1, "forms": []}"#, &[1]).is_err());
        assert!(read(b"{}", &[1]).is_err());
    }

    #[test]
    fn the_way_is_read_out_of_the_metadata() {
        let texts = [
            "graph: optimized (2.11 times as fast as plain)",
            "graph: frozen",
            "graph: plain (optimized failed: it differs)",
            "graph: both plain and optimized (by batch size)",
            "",
        ];
        let graphs = texts.map(|text| Way::of(text).graphs);
        assert_eq!(graphs, ["optimized", "frozen", "plain", "plain,optimized", "plain"]);
        let way = Way::of("channels last (checked); precision: bf16; graph: frozen");
        assert_eq!((way.graphs.as_str(), way.bf16, way.channels_last), ("frozen", true, true));
    }

    #[test]
    fn a_loop_that_is_not_built_says_what_builds_it() {
        let why = TorchLoop::new(Path::new("/nonexistent")).available().unwrap_err();
        assert!(why.contains("ceiling"), "{why}");
    }
}
