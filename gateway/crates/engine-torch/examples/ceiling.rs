//! What libtorch can do with a model, and how much of it the engine reaches:
//!
//! `cargo run --release -p engine-torch --example ceiling -- --model FILE --shape 64 --dtype FP32`
//!
//! For each form of the graph and each batch size a bare loop of libtorch's forward is measured
//! beside whole runs of the engine on stacked calls of one row. `--pause-us` measures single cold
//! runs at that cadence too. The resident memory is that of the bare module alone, warmed, before
//! anything else is loaded.

use std::error::Error;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::time::Duration;

use engine::{
    Batch, DataType, Engine, EngineError, EngineOptions, Graph, Model, ModelSource, Precision,
    Tensor, TensorSpec,
};
use engine_torch::TorchEngine;
use engine_torch::bare::{Bare, cold, measure};

const USAGE: &str = "usage: ceiling --model FILE --shape N[,N…] --dtype TYPE [options]
  --shape, --dtype    of one row of an input; once for each input of the model, in order
  --batches 1,8,64    batch sizes
  --graph plain       forms, divided by commas: plain, frozen, optimized
  --seconds 2         for each form and size
  --callers 1         threads that run the engine at the same time, such as 1,2
  --pause-us N        measures cold runs at the first size too, so many microseconds apart
  --device cpu        or cuda:N
  --precision fp32    or bf16
  --channels-last     for inputs of rank 4
  --threads 1         inside an operator
  --json              one JSON object instead of lines for people";

struct Arguments {
    model: String,
    shapes: Vec<Vec<usize>>,
    types: Vec<DataType>,
    batches: Vec<usize>,
    graphs: Vec<Graph>,
    callers: Vec<usize>,
    total: Duration,
    pause: Option<Duration>,
    device: String,
    options: EngineOptions,
    json: bool,
}

/// Figures of one form.
struct Form {
    graph: Graph,
    sizes: Vec<Size>,
    cold: Option<(Quantiles, Quantiles)>,
}

/// Figures of one form at one batch size.
struct Size {
    rows: usize,
    bare: f64,
    engines: Vec<Engines>,
}

/// What so many threads reach that run the engine at the same time.
struct Engines {
    callers: usize,
    rate: f64,
    /// Of the bare loop's rate.
    share: f64,
    /// The same by processor time, which is steadier; of one thread on the CPU only.
    thread_share: Option<f64>,
}

#[derive(Clone, Copy)]
struct Quantiles {
    runs: usize,
    p50: f64,
    p99: f64,
}

fn main() -> Result<(), Box<dyn Error>> {
    engine_torch::prepare_process();
    TorchEngine.prepare_thread();
    let arguments = parse(std::env::args().skip(1))?;
    TorchEngine.check_device(&arguments.device)?;
    let file = std::fs::read(&arguments.model)?;
    let resident = bare_memory(&arguments, &file)?;
    let forms: Vec<Form> = arguments
        .graphs
        .iter()
        .map(|&graph| form(&arguments, &file, graph))
        .collect::<Result<_, _>>()?;
    if arguments.json { json(&arguments, resident, &forms) } else { lines(resident, &forms) }
}

/// Resident memory with nothing but the first form, warmed at every size.
fn bare_memory(arguments: &Arguments, file: &[u8]) -> Result<usize, Box<dyn Error>> {
    let graph = arguments.graphs[0];
    let bare = Bare::load(file, cuda(&arguments.device), options(arguments, graph))?;
    for &rows in &arguments.batches {
        bare.run(&bare.inputs(&batch(arguments, rows)?)?, 3)?;
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
    let kilobytes: usize = line.split_whitespace().nth(1).ok_or("no VmRSS")?.parse()?;
    Ok(kilobytes * 1024)
}

fn form(arguments: &Arguments, file: &[u8], graph: Graph) -> Result<Form, Box<dyn Error>> {
    let bare = Bare::load(file, cuda(&arguments.device), options(arguments, graph))?;
    let engine = load(arguments, file, graph)?;
    let mut sizes = Vec::new();
    for &rows in &arguments.batches {
        let batch = batch(arguments, rows)?;
        let inputs = bare.inputs(&batch)?;
        let mut native = |times| bare.run(&inputs, times);
        let mut ours: Vec<_> = arguments
            .callers
            .iter()
            .map(|&callers| {
                let (engine, batch) = (&*engine, &batch);
                move |times: usize| together(callers, engine, batch, times)
            })
            .collect();
        let mut calls: Vec<&mut dyn FnMut(usize) -> Result<(), EngineError>> = vec![&mut native];
        calls.extend(ours.iter_mut().map(|call| call as &mut dyn FnMut(usize) -> _));
        let beside = measure(&mut calls, arguments.total)?;
        let rate = |index: usize| rows as f64 / beside.medians[index].as_secs_f64();
        let alone = arguments.device == "cpu" && arguments.options.threads == NonZeroUsize::MIN;
        let engines = arguments
            .callers
            .iter()
            .enumerate()
            .map(|(index, &callers)| Engines {
                callers,
                rate: callers as f64 * rate(index + 1),
                share: callers as f64 * beside.speeds[index + 1],
                thread_share: (alone && callers == 1).then(|| beside.thread_speeds[index + 1]),
            })
            .collect();
        sizes.push(Size { rows, bare: rate(0), engines });
    }
    let cold = match arguments.pause {
        None => None,
        Some(pause) => {
            let batch = batch(arguments, arguments.batches[0])?;
            let inputs = bare.inputs(&batch)?;
            let native = cold(|| bare.run(&inputs, 1), pause, arguments.total)?;
            let ours = cold(|| engine.run(&batch).map(drop), pause, arguments.total)?;
            Some((quantiles(native), quantiles(ours)))
        }
    };
    Ok(Form { graph, sizes, cold })
}

/// Runs a batch `times` over on each of so many threads.
fn together(
    callers: usize,
    engine: &dyn Model,
    batch: &Batch,
    times: usize,
) -> Result<(), EngineError> {
    let run = || (0..times).try_for_each(|_| engine.run(batch).map(drop));
    if callers == 1 {
        return run();
    }
    let prepared = || {
        TorchEngine.prepare_thread();
        run()
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..callers).map(|_| scope.spawn(prepared)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("runs do not panic"))
    })
}

/// The engine's own model; its outputs are what a first run shows.
fn load(
    arguments: &Arguments,
    file: &[u8],
    graph: Graph,
) -> Result<Box<dyn Model>, Box<dyn Error>> {
    let spec = |name: String, datatype: DataType, rank: usize| TensorSpec {
        name,
        datatype,
        shape: vec![-1; rank],
    };
    let inputs: Vec<TensorSpec> = arguments
        .types
        .iter()
        .zip(&arguments.shapes)
        .enumerate()
        .map(|(index, (&datatype, shape))| spec(index.to_string(), datatype, shape.len() + 1))
        .collect();
    let sample = [batch(arguments, arguments.batches[0])?];
    let mut source = ModelSource {
        label: "ceiling",
        file,
        inputs: &inputs,
        outputs: &[],
        device: &arguments.device,
        options: options(arguments, graph),
        samples: &[],
        tolerance: 1e-3,
    };
    let seen = TorchEngine.probe(&source, &sample[0])?;
    let outputs: Vec<TensorSpec> = seen
        .into_iter()
        .enumerate()
        .map(|(index, (name, tensor))| {
            let name = name.unwrap_or_else(|| index.to_string());
            spec(name, tensor.datatype(), tensor.shape().len())
        })
        .collect();
    source.outputs = &outputs;
    source.samples = &sample;
    Ok(TorchEngine.load(&source)?)
}

/// As many calls of one row, of ones: a token, a pixel, a mask that hides nothing.
fn batch(arguments: &Arguments, rows: usize) -> Result<Batch, Box<dyn Error>> {
    let mut row = Vec::new();
    for (shape, datatype) in arguments.shapes.iter().zip(&arguments.types) {
        let one = match datatype {
            DataType::Fp32 => 1_f32.to_le_bytes().to_vec(),
            DataType::Fp64 => 1_f64.to_le_bytes().to_vec(),
            DataType::Int64 => 1_i64.to_le_bytes().to_vec(),
            DataType::Int32 => 1_i32.to_le_bytes().to_vec(),
            DataType::Uint8 | DataType::Int8 | DataType::Bool => vec![1],
            other => return Err(format!("--dtype {other} is not supported here").into()),
        };
        let mut whole = vec![1];
        whole.extend_from_slice(shape);
        let data = one.repeat(shape.iter().product());
        row.push(Tensor::new(*datatype, whole, data.into())?);
    }
    Ok(Batch::stack(&vec![row.as_slice(); rows]))
}

fn options(arguments: &Arguments, graph: Graph) -> EngineOptions {
    EngineOptions { graph, ..arguments.options }
}

fn cuda(device: &str) -> Option<u8> {
    device.strip_prefix("cuda:").and_then(|index| index.parse().ok())
}

fn quantiles(mut times: Vec<Duration>) -> Quantiles {
    times.sort();
    let at = |percent: usize| {
        let index = times.len() * percent / 100;
        times[index.min(times.len() - 1)].as_secs_f64() * 1e6
    };
    Quantiles { runs: times.len(), p50: at(50), p99: at(99) }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, Box<dyn Error>> {
    let mut arguments = Arguments {
        model: String::new(),
        shapes: vec![],
        types: vec![],
        batches: vec![1, 8, 64],
        graphs: vec![Graph::Plain],
        callers: vec![1],
        total: Duration::from_secs(2),
        pause: None,
        device: "cpu".to_owned(),
        options: EngineOptions::default(),
        json: false,
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value\n{USAGE}"));
        match word.as_str() {
            "--model" => arguments.model = value()?,
            "--shape" => arguments.shapes.push(numbers(&value()?)?),
            "--dtype" => arguments.types.push(value()?.parse()?),
            "--batches" => arguments.batches = numbers(&value()?)?,
            "--graph" => arguments.graphs = graphs(&value()?)?,
            "--callers" => arguments.callers = numbers(&value()?)?,
            "--seconds" => arguments.total = Duration::try_from_secs_f64(value()?.parse()?)?,
            "--pause-us" => arguments.pause = Some(Duration::from_micros(value()?.parse()?)),
            "--device" => arguments.device = value()?,
            "--precision" => {
                let text = value()?;
                let known = Precision::NAMES.into_iter().find(|(name, _)| *name == text);
                arguments.options.precision = known.ok_or("--precision is fp32 or bf16")?.1;
            }
            "--channels-last" => arguments.options.channels_last = true,
            "--threads" => arguments.options.threads = value()?.parse::<NonZeroUsize>()?,
            "--json" => arguments.json = true,
            _ => return Err(format!("'{word}' is not known\n{USAGE}").into()),
        }
    }
    let inputs = arguments.shapes.len();
    if arguments.model.is_empty() || inputs == 0 || inputs != arguments.types.len() {
        return Err(USAGE.into());
    }
    if arguments.batches.contains(&0) || arguments.callers.contains(&0) {
        return Err("--batches and --callers are from 1".into());
    }
    Ok(arguments)
}

fn numbers(text: &str) -> Result<Vec<usize>, Box<dyn Error>> {
    Ok(text.split(',').map(str::parse).collect::<Result<_, _>>()?)
}

fn graphs(text: &str) -> Result<Vec<Graph>, Box<dyn Error>> {
    let single = [Graph::Plain, Graph::Frozen, Graph::Optimized];
    let graph = |word: &str| single.into_iter().find(|graph| graph.name() == word);
    let graphs: Option<Vec<Graph>> = text.split(',').map(graph).collect();
    graphs.ok_or_else(|| "--graph is plain, frozen or optimized, divided by commas".into())
}

fn lines(resident: usize, forms: &[Form]) -> Result<(), Box<dyn Error>> {
    let mut out = io::stdout().lock();
    writeln!(out, "resident, bare and warmed: {} MiB", resident >> 20)?;
    for Form { graph, sizes, cold } in forms {
        for Size { rows, bare, engines } in sizes {
            write!(out, "{:>9} {rows:>5} rows: bare {bare:.1} items/s", graph.name())?;
            for Engines { callers, rate, share, thread_share } in engines {
                write!(out, "; engine, {callers} at a time: {rate:.1}, share {share:.3}")?;
                if let Some(share) = thread_share {
                    write!(out, ", by processor time {share:.3}")?;
                }
            }
            writeln!(out)?;
        }
        if let Some((bare, engine)) = cold {
            let (name, Quantiles { p50, p99, runs }) = (graph.name(), *bare);
            writeln!(
                out,
                "{name:>9} cold: bare p50 {p50:.1} us, p99 {p99:.1} us; engine p50 {:.1} us, \
                 p99 {:.1} us ({runs} runs)",
                engine.p50, engine.p99
            )?;
        }
    }
    Ok(())
}

fn json(arguments: &Arguments, resident: usize, forms: &[Form]) -> Result<(), Box<dyn Error>> {
    let quantiles = |Quantiles { runs, p50, p99 }: Quantiles| serde_json::json!({ "runs": runs, "p50_us": p50, "p99_us": p99 });
    let forms: Vec<_> = forms
        .iter()
        .map(|Form { graph, sizes, cold }| {
            let sizes: Vec<_> = sizes
                .iter()
                .map(|Size { rows, bare, engines }| {
                    let engines: Vec<_> = engines
                        .iter()
                        .map(|Engines { callers, rate, share, thread_share }| {
                            serde_json::json!({
                                "callers": callers, "items_per_s": rate, "share": share,
                                "thread_share": thread_share,
                            })
                        })
                        .collect();
                    serde_json::json!({
                        "rows": rows, "bare_items_per_s": bare, "engine": engines,
                    })
                })
                .collect();
            let best = sizes
                .iter()
                .filter_map(|size| size["bare_items_per_s"].as_f64())
                .fold(0.0, f64::max);
            serde_json::json!({
                "graph": graph.name(), "batches": sizes, "best_bare_items_per_s": best,
                "cold": cold.map(|(bare, engine)| serde_json::json!({
                    "bare": quantiles(bare), "engine": quantiles(engine),
                })),
            })
        })
        .collect();
    let options = arguments.options;
    let whole = serde_json::json!({
        "model": arguments.model, "device": arguments.device, "threads": options.threads,
        "precision": options.precision.name(), "channels_last": options.channels_last,
        "pause_us": arguments.pause.map(|pause| pause.as_secs_f64() * 1e6),
        "bare_resident_bytes": resident, "bare_resident_graph": arguments.graphs[0].name(),
        "forms": forms,
    });
    writeln!(io::stdout(), "{whole}")?;
    Ok(())
}
