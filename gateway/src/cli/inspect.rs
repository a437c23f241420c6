//! `penstock inspect`: runs a TorchScript file on made-up inputs, prints what it gives, and
//! writes a first `model.toml`, since TorchScript itself carries no shapes.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use engine::{Batch, DataType, Engine, EngineOptions, Graph, ModelSource, Tensor, TensorSpec};
use serde_json::json;

use super::{shown, table};
use crate::app;
use crate::models::Manifest;
use crate::models::repository::{MANIFEST, MODEL_FILE};
use crate::models::sample;

/// Batches of this size are a good start for small models and harmless for large ones.
const FIRST_MAX_BATCH: usize = 32;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The TorchScript file
    file: PathBuf,
    /// An input in the order of the model's arguments; -1 is any size: pixels=FP32[-1,64]
    #[arg(long = "input", required = true, value_name = "NAME=DTYPE[SHAPE]")]
    inputs: Vec<String>,
    /// Where to write model.toml; absent: beside the version's folder if the file lies in one
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Overwrite an existing model.toml
    #[arg(long)]
    force: bool,
    /// Print the signature as JSON
    #[arg(long)]
    json: bool,
}

/// One output as two runs of different sizes showed it.
struct Seen {
    name: String,
    datatype: DataType,
    shape: Vec<i64>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let inputs =
        arguments.inputs.iter().map(|text| parse_input(text)).collect::<Result<Vec<_>, _>>()?;
    let file = std::fs::read(&arguments.file)
        .with_context(|| format!("cannot read {}", shown(&arguments.file)))?;
    let engines = app::engines();
    let engine = engines
        .iter()
        .find(|engine| engine.platform() == "torchscript")
        .context("this build of penstock has no engine for TorchScript")?;
    let batches = inputs.iter().all(|input| input.shape.first() == Some(&-1));
    let outputs = probe(engine.as_ref(), &file, &inputs, batches)?;
    let batches = batches && outputs.iter().all(|output| output.shape.first() == Some(&-1));
    let max_batch_size = if batches { FIRST_MAX_BATCH } else { 0 };
    let text = manifest(&inputs, &outputs, max_batch_size);
    // What is written is read back by the same code that will serve it.
    Manifest::parse(&text).map_err(|problems| anyhow!("{}", problems[0]))?;
    let written = write(arguments, &text)?;
    if arguments.json {
        print_json(&inputs, &outputs, max_batch_size, written.as_deref());
    } else {
        print(&inputs, &outputs, &text, written.as_deref());
    }
    Ok(ExitCode::SUCCESS)
}

/// `pixels=FP32[-1,64]`
fn parse_input(text: &str) -> anyhow::Result<TensorSpec> {
    let wrong =
        || anyhow!("--input '{text}' is not of the form NAME=DTYPE[SHAPE], as pixels=FP32[-1,64]");
    let (name, rest) = text.split_once('=').ok_or_else(wrong)?;
    let (datatype, dimensions) = rest.split_once('[').ok_or_else(wrong)?;
    let dimensions = dimensions.strip_suffix(']').ok_or_else(wrong)?;
    let shape = dimensions
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| part.parse::<i64>().ok().filter(|&size| size == -1 || size > 0))
        .collect::<Option<Vec<_>>>()
        .ok_or_else(wrong)?;
    let datatype = datatype.trim().parse().with_context(|| format!("--input '{text}'"))?;
    if name.is_empty() {
        return Err(wrong());
    }
    Ok(TensorSpec { name: name.to_owned(), datatype, shape })
}

/// Runs the model at two sizes: what differs between the answers is of any size.
fn probe(
    engine: &dyn Engine,
    file: &[u8],
    inputs: &[TensorSpec],
    batches: bool,
) -> anyhow::Result<Vec<Seen>> {
    let source = ModelSource {
        label: "the model",
        file,
        inputs,
        outputs: &[],
        device: "cpu",
        options: EngineOptions { graph: Graph::Plain, ..EngineOptions::default() },
        samples: &[],
        tolerance: 0.0,
    };
    engine.prepare_thread();
    let run = |rows: usize, variable: usize| {
        let batch = made_up(inputs, batches.then_some(rows), variable)?;
        engine.probe(&source, &batch).map_err(|error| match error.detail() {
            // Whoever inspects a model may read what it says.
            Some(detail) => anyhow!("{}\n{detail}", error.message()),
            None => anyhow!("{}", error.message()),
        })
    };
    let first = run(2, 16)?;
    let fixed = inputs.iter().all(|input| !input.shape.contains(&-1));
    let second = if fixed { first.clone() } else { run(3, 17).context("at another size")? };
    if first.len() != second.len() {
        bail!("the model gives {} outputs, at another size {}", first.len(), second.len());
    }
    first
        .iter()
        .zip(&second)
        .enumerate()
        .map(|(index, ((name, a), (_, b)))| {
            let name = name.clone().unwrap_or_else(|| match first.len() {
                1 => "output".to_owned(),
                _ => format!("output_{index}"),
            });
            if a.shape().len() != b.shape().len() {
                bail!("output '{name}' changes its rank with the size of the inputs");
            }
            Ok(Seen { name, datatype: a.datatype(), shape: generalised(a, b) })
        })
        .collect()
}

fn generalised(a: &Tensor, b: &Tensor) -> Vec<i64> {
    a.shape()
        .iter()
        .zip(b.shape())
        .map(|(&x, &y)| if x == y { i64::try_from(x).unwrap_or(-1) } else { -1 })
        .collect()
}

fn made_up(inputs: &[TensorSpec], rows: Option<usize>, variable: usize) -> anyhow::Result<Batch> {
    let tensors = inputs
        .iter()
        .map(|spec| sample::generated(spec, rows, variable).map_err(anyhow::Error::msg))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Batch::single(&tensors, rows.unwrap_or(1)))
}

fn manifest(inputs: &[TensorSpec], outputs: &[Seen], max_batch_size: usize) -> String {
    let mut text = format!("platform = \"torchscript\"\nmax_batch_size = {max_batch_size}\n");
    let mut tensor = |key: &str, name: &str, datatype: DataType, shape: &[i64]| {
        let name = toml::Value::String(name.to_owned());
        let written =
            write!(text, "\n[[{key}]]\nname = {name}\ndtype = \"{datatype}\"\nshape = {shape:?}\n");
        debug_assert!(written.is_ok(), "text takes every character");
    };
    for input in inputs {
        tensor("input", &input.name, input.datatype, &input.shape);
    }
    for output in outputs {
        tensor("output", &output.name, output.datatype, &output.shape);
    }
    text
}

fn write(arguments: &Arguments, text: &str) -> anyhow::Result<Option<PathBuf>> {
    let in_repository = || {
        let version = arguments.file.parent()?;
        let is_version = version.file_name()?.to_str()?.parse::<crate::types::Version>().is_ok();
        let is_model = arguments.file.file_name()? == MODEL_FILE;
        let path = version.parent()?.join(MANIFEST);
        (is_version && is_model && (arguments.force || !path.exists())).then_some(path)
    };
    let path = match &arguments.output {
        Some(path) if path.exists() && !arguments.force => {
            bail!("{} exists: --force overwrites it", path.display());
        }
        Some(path) => path.clone(),
        None => match in_repository() {
            Some(path) => path,
            None => return Ok(None),
        },
    };
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Some(path))
}

fn print(inputs: &[TensorSpec], outputs: &[Seen], text: &str, written: Option<&Path>) {
    let mut rows = vec![table::row(&["", "NAME", "DATATYPE", "SHAPE"])];
    let cells = |kind: &str, name: &str, datatype: DataType, shape: &[i64]| {
        vec![kind.to_owned(), name.to_owned(), datatype.to_string(), format!("{shape:?}")]
    };
    rows.extend(inputs.iter().map(|i| cells("input", &i.name, i.datatype, &i.shape)));
    rows.extend(outputs.iter().map(|o| cells("output", &o.name, o.datatype, &o.shape)));
    print!("{}", table::render(&rows));
    match written {
        Some(path) => println!("\nwrote {}", path.display()),
        None => println!("\n# {MANIFEST}\n{text}"),
    }
}

fn print_json(
    inputs: &[TensorSpec],
    outputs: &[Seen],
    max_batch_size: usize,
    written: Option<&Path>,
) {
    let tensor = |name: &str, datatype: DataType, shape: &[i64]| json!({ "name": name, "datatype": datatype.name(), "shape": shape });
    let shown = json!({
        "max_batch_size": max_batch_size,
        "inputs": inputs.iter().map(|i| tensor(&i.name, i.datatype, &i.shape)).collect::<Vec<_>>(),
        "outputs": outputs.iter().map(|o| tensor(&o.name, o.datatype, &o.shape)).collect::<Vec<_>>(),
        "written": written.map(|path| path.display().to_string()),
    });
    println!("{shown}");
}
