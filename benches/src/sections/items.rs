//! Items a second of a model that keeps its engine thread busy, against the same graph in a bare
//! loop with the batch size that suits it best.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use crate::bench::{Bench, figures};
use crate::http;
use crate::load::{Load, Protocol};
use crate::process::Server;
use crate::report::number;
use crate::row::{Demand, Row};
use crate::say::progress;
use crate::stats::Spread;
use crate::torch::{Forward, Way};

/// One engine thread, as the loop has.
const OPTIONS: &str = "[engine]\ncpu_threads = 1\n";

/// A model with the load that saturates it.
struct Subject {
    model: &'static str,
    /// Lies in the folder of the larger models.
    extra: bool,
    inputs: &'static [(&'static str, &'static str)],
    batches: &'static [usize],
    callers: usize,
    /// Rows of each call.
    rows: usize,
    demand: Option<f64>,
    /// Windows are this many times the usual: a batch may take a second.
    longer: f64,
}

const SUBJECTS: [Subject; 3] = [
    Subject {
        model: "resnet18",
        extra: true,
        inputs: &[("3,224,224", "FP32")],
        batches: &[1, 4, 8],
        callers: 16,
        rows: 1,
        demand: Some(0.97),
        longer: 3.0,
    },
    Subject {
        model: "digits_cnn",
        extra: false,
        inputs: &[("64", "FP32")],
        batches: &[1, 8, 32, 64],
        callers: 16,
        rows: 16,
        demand: Some(0.9),
        longer: 1.0,
    },
    Subject {
        model: "minilm",
        extra: true,
        inputs: &[("16", "INT64"), ("16", "INT64")],
        batches: &[1, 8, 16, 32],
        callers: 64,
        rows: 1,
        demand: None,
        longer: 2.0,
    },
];

pub(super) fn rows(bench: &mut Bench) -> anyhow::Result<Vec<Row>> {
    SUBJECTS.iter().map(|subject| row(bench, subject)).collect()
}

fn row(bench: &Bench, subject: &Subject) -> anyhow::Result<Row> {
    let &Subject { model, extra, callers, rows, .. } = subject;
    let given = &bench.settings.given;
    let source = if extra { &given.extra } else { &given.repository };
    let what = format!("{model}, {callers} callers with {rows}");
    let blank = Row::new(format!("items/{model}"), what)
        .in_unit("×")
        .demand(subject.demand.map(Demand::AtLeast));
    let skipped = |why: String| Ok(Row { skipped: Some(why), ..blank.clone() });
    if !source.join(model).join("model.toml").exists() {
        return skipped("the model is not there: 'make models' exports it".to_owned());
    }
    if let Err(why) = bench.torch.available() {
        return skipped(why);
    }
    progress(format_args!("{model}: items a second"));
    measure(bench, subject, source, blank)
}

fn measure(bench: &Bench, subject: &Subject, source: &Path, row: Row) -> anyhow::Result<Row> {
    let &Subject { model, inputs, callers, rows, .. } = subject;
    let part = format!("items-{model}");
    let (server, repository) = bench.gateway(&part, (source, &[model]), OPTIONS, |_| Ok(()))?;
    let way = way(&server, model)?;
    let duration = bench.settings.window(subject.longer);
    let file = repository.file(model, 1);
    let forward = Forward {
        model: &file,
        inputs,
        batches: subject.batches,
        way: &way,
        duration: bench.settings.window(0.5),
        pause: Duration::ZERO,
    };
    let best = bench.torch.run(&forward)?.best().context("no batch was run")?;
    let fastest = Way { graphs: best.graph.clone(), ..way.clone() };
    let forward = Forward { batches: &[best.rows], way: &fastest, duration, ..forward };
    // gRPC carries raw tensors; one connection for every four callers.
    let connections = callers.div_ceil(4);
    let load = Load { callers, connections, rows, ..Load::new(Protocol::Grpc, model, duration) };
    let (mut penstock, mut ceiling) = (Vec::new(), Vec::new());
    bench.loadtest.run(
        &server,
        &Load { check: true, duration: bench.settings.window(0.5), ..load.clone() },
    )?;
    for _ in 0..bench.settings.rounds {
        penstock.push(bench.loadtest.run(&server, &load)?);
        ceiling.extend(bench.torch.run(&forward)?.best());
    }
    let items = figures(&penstock, |window| window.report.items_per_second);
    let bare: Vec<f64> = ceiling.iter().map(|best| best.items_per_second).collect();
    let client = Spread::of(&figures(&penstock, |window| window.client_us));
    let client = client.map_or_else(|| "?".to_owned(), |client| number(client.median));
    Ok(row.measured("/s", &items).against(&bare).value("×", Spread::ratio(&items, &bare)).note(
        format!(
            "graph {}, loop {} in batches of {}; client {client} µs a call",
            way.graphs, best.graph, best.rows
        ),
    ))
}

/// How a gateway runs a model, by its metadata.
pub(super) fn way(server: &Server, model: &str) -> anyhow::Result<Way> {
    let path = format!("/v2/models/{model}");
    let answer = http::call(&server.http, "GET", &path, &[], b"")?;
    let metadata: Value = serde_json::from_slice(&answer.body).context("the model's metadata")?;
    let engine = metadata.pointer("/properties/engine").and_then(Value::as_str);
    Ok(Way::of(engine.context("the metadata does not name the engine's graph")?))
}
