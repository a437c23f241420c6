//! Measures what each option of `[engine]` gives, beside each other, and prints the table of
//! `docs/engine-options.md`:
//!
//! `cargo run --release -p engine-torch --example options -- [--seconds N] FOLDER…`
//!
//! A folder is that of a model, with `model.toml`; its newest version is measured, whole runs of
//! the engine on stacked calls of one row, at 1, 8 and the largest batch. Dimensions of any size
//! are 32.

use std::error::Error;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use engine::{
    Batch, DataType, Engine, EngineError, EngineOptions, Graph, Model, ModelSource, Precision,
    Tensor, TensorSpec,
};
use engine_torch::TorchEngine;
use engine_torch::bare::measure;

/// Size of dimensions that may have any.
const VARIABLE: usize = 32;

type Failed = Box<dyn Error>;

/// A model of a repository.
struct Subject {
    name: String,
    file: Vec<u8>,
    largest: usize,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    tolerance: f64,
}

/// A column of the table.
struct Column {
    name: &'static str,
    options: EngineOptions,
}

fn main() -> Result<(), Failed> {
    engine_torch::prepare_process();
    TorchEngine.prepare_thread();
    let mut seconds = 10.0;
    let mut folders = Vec::new();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--seconds" => seconds = words.next().ok_or("--seconds needs a number")?.parse()?,
            _ => folders.push(word),
        }
    }
    if folders.is_empty() {
        return Err("usage: options [--seconds N] FOLDER…".into());
    }
    let columns = columns();
    let mut out = io::stdout().lock();
    write!(out, "| model | rows | `plain`, items/s |")?;
    for column in &columns[1..] {
        write!(out, " {} |", column.name)?;
    }
    writeln!(out, "\n|---|---|---|{}", "---|".repeat(columns.len() - 1))?;
    let mut notes = Vec::new();
    for folder in &folders {
        let subject = read(Path::new(folder))?;
        let total = Duration::try_from_secs_f64(seconds)?;
        table(&subject, &columns, total, &mut out)?;
        let auto = load(&subject, EngineOptions::default())?;
        notes.push(format!("{}: {}", subject.name, auto.notes()[0]));
    }
    writeln!(out)?;
    for note in notes {
        writeln!(out, "- {note}")?;
    }
    Ok(())
}

fn columns() -> Vec<Column> {
    let plain = EngineOptions { graph: Graph::Plain, ..EngineOptions::default() };
    let optimized = EngineOptions { graph: Graph::Optimized, ..plain };
    let bf16 = EngineOptions { precision: Precision::Bf16, ..plain };
    let two = NonZeroUsize::MIN.saturating_add(1);
    [
        ("`plain`", plain),
        ("`frozen`", EngineOptions { graph: Graph::Frozen, ..plain }),
        ("`optimized`", optimized),
        ("`both`", EngineOptions { graph: Graph::Both, ..plain }),
        ("bf16", bf16),
        ("bf16, `optimized`", EngineOptions { graph: Graph::Optimized, ..bf16 }),
        ("channels last", EngineOptions { channels_last: true, ..plain }),
        ("channels last, `optimized`", EngineOptions { channels_last: true, ..optimized }),
        ("2 threads", EngineOptions { threads: two, ..plain }),
    ]
    .map(|(name, options)| Column { name, options })
    .into()
}

/// Measures every column of a model and writes a line for each size.
fn table(
    subject: &Subject,
    columns: &[Column],
    total: Duration,
    out: &mut impl Write,
) -> Result<(), Failed> {
    let models: Vec<Option<Box<dyn Model>>> =
        columns.iter().map(|column| usable(subject, column)).collect();
    let mut sizes = vec![1, 8, subject.largest];
    sizes.retain(|&size| size <= subject.largest);
    sizes.dedup();
    for rows in sizes {
        let batch = subject.batch(rows)?;
        let mut runs: Vec<_> = models
            .iter()
            .flatten()
            .map(|model| {
                let (model, batch) = (&**model, &batch);
                move |times: usize| (0..times).try_for_each(|_| model.run(batch).map(drop))
            })
            .collect();
        let mut calls: Vec<&mut dyn FnMut(usize) -> Result<(), EngineError>> = Vec::new();
        calls.extend(runs.iter_mut().map(|run| run as &mut dyn FnMut(usize) -> _));
        let beside = measure(&mut calls, total)?;
        let plain = rows as f64 / beside.medians[0].as_secs_f64();
        write!(out, "| {} | {rows} | {plain:.0} |", subject.name)?;
        let mut index = 0;
        for (model, column) in models.iter().zip(columns).skip(1) {
            if model.is_none() {
                write!(out, " – |")?;
                continue;
            }
            index += 1;
            // What one thread does is steadier by its own time; two threads share theirs.
            let alone = column.options.threads == NonZeroUsize::MIN;
            let speeds = if alone { &beside.thread_speeds } else { &beside.speeds };
            write!(out, " {:.2} |", speeds[index])?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// The model under these options; `None` where they do not suit it or it runs otherwise.
fn usable(subject: &Subject, column: &Column) -> Option<Box<dyn Model>> {
    let rank_4 = subject.inputs.iter().any(|spec| spec.shape.len() == 4);
    if column.options.channels_last && !rank_4 {
        return None;
    }
    let model = load(subject, column.options);
    let model = model
        .map_err(|error| complain(&format!("{}, {}: {error}", subject.name, column.name)))
        .ok()?;
    let note = &model.notes()[0];
    let expected = format!("graph: {}", column.options.graph.name());
    if !note.starts_with(&expected) {
        complain(&format!("{}, {}: {note}", subject.name, column.name));
        return None;
    }
    Some(model)
}

fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

fn load(subject: &Subject, options: EngineOptions) -> Result<Box<dyn Model>, Failed> {
    let mut sizes = vec![1, subject.largest.isqrt().max(1), subject.largest];
    sizes.dedup();
    let samples: Vec<Batch> =
        sizes.into_iter().map(|rows| subject.batch(rows)).collect::<Result<_, _>>()?;
    Ok(TorchEngine.load(&ModelSource {
        label: &subject.name,
        file: &subject.file,
        inputs: &subject.inputs,
        outputs: &subject.outputs,
        device: "cpu",
        options,
        samples: &samples,
        tolerance: subject.tolerance,
    })?)
}

impl Subject {
    /// As many calls of one row: made-up fractions, and ones for whole numbers.
    fn batch(&self, rows: usize) -> Result<Batch, Failed> {
        let mut row = Vec::new();
        for spec in &self.inputs {
            let shape: Vec<usize> = spec
                .shape
                .iter()
                .enumerate()
                .map(|(axis, &size)| match usize::try_from(size) {
                    Ok(size) => size,
                    Err(_) if axis == 0 => 1,
                    Err(_) => VARIABLE,
                })
                .collect();
            let count: usize = shape.iter().product();
            let data: Vec<u8> = match spec.datatype {
                DataType::Fp32 => (0..count)
                    .flat_map(|index| ((index * 7919 % 1000) as f32 / 1000.0).to_le_bytes())
                    .collect(),
                DataType::Int64 => 1_i64.to_le_bytes().repeat(count),
                other => return Err(format!("{other} inputs are not supported here").into()),
            };
            row.push(Tensor::new(spec.datatype, shape, data.into())?);
        }
        Ok(Batch::stack(&vec![row.as_slice(); rows]))
    }
}

fn read(folder: &Path) -> Result<Subject, Failed> {
    let manifest: toml::Table = std::fs::read_to_string(folder.join("model.toml"))?.parse()?;
    let versions = std::fs::read_dir(folder)?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let newest = versions.max().ok_or("the folder holds no version")?;
    let tensors = |key: &str| -> Result<Vec<&toml::Table>, Failed> {
        let list = manifest.get(key).and_then(toml::Value::as_array).ok_or("no tensors")?;
        Ok(list.iter().filter_map(toml::Value::as_table).collect())
    };
    let spec = |table: &toml::Table| -> Result<TensorSpec, Failed> {
        let text = |key: &str| table.get(key).and_then(toml::Value::as_str).unwrap_or_default();
        let shape = table.get("shape").and_then(toml::Value::as_array).ok_or("no shape")?;
        Ok(TensorSpec {
            name: text("name").to_owned(),
            datatype: text("dtype").parse()?,
            shape: shape.iter().filter_map(toml::Value::as_integer).collect(),
        })
    };
    let specs = |key| tensors(key)?.into_iter().map(spec).collect::<Result<Vec<_>, Failed>>();
    let tolerances = tensors("output")?;
    let tolerance = |table: &&toml::Table| table.get("tolerance").and_then(toml::Value::as_float);
    let largest = manifest.get("max_batch_size").and_then(toml::Value::as_integer).unwrap_or(1);
    Ok(Subject {
        name: folder.file_name().ok_or("no folder")?.to_string_lossy().into_owned(),
        file: std::fs::read(folder.join(newest.to_string()).join("model.pt"))?,
        largest: usize::try_from(largest)?.max(1),
        inputs: specs("input")?,
        outputs: specs("output")?,
        tolerance: tolerances.iter().filter_map(tolerance).fold(1e-3, f64::min),
    })
}
