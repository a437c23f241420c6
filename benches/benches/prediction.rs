//! What it costs each call to be named and recorded: a prediction's id, alone and beside a second
//! thread, its text, and its row in the prediction log. Each bench asserts its result.
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use engine::{DataType, Tensor, TensorSpec};
use http::HeaderValue;
use penstock::config;
use penstock::predictions::{About, Names, Notes, Of, PredictionLog, RowRef, Sides};
use penstock::types::{
    Call, Caller, Identity, Inputs, NamedTensor, Origin, OutputSpec, Peer, PredictionId, Protocol,
    Roles, Schedule, Signature,
};
use tokio::time::Instant;

fn naming(c: &mut Criterion) {
    let ids = || {
        let mut last = PredictionId::new();
        move || {
            let next = PredictionId::new();
            assert!(std::mem::replace(&mut last, next) < next);
        }
    };
    c.bench_function("prediction/new", |b| b.iter(ids()));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut next = ids();
            while !stop.load(Ordering::Relaxed) {
                next();
            }
        });
        c.bench_function("prediction/new beside a thread that does the same", |b| b.iter(ids()));
        stop.store(true, Ordering::Relaxed);
    });
    let id = PredictionId::new();
    c.bench_function("prediction/text", |b| {
        b.iter(|| assert_eq!(black_box(id).text().as_str().len(), 36));
    });
    c.bench_function("prediction/header", |b| {
        b.iter(|| HeaderValue::from_str(black_box(id).text().as_str()).unwrap());
    });
}

/// A call for a model that takes 64 floats and gives 10.
fn call() -> Call {
    let tensor = floats(64);
    let identity = Arc::new(Identity::anonymous(Roles::all()));
    Call {
        caller: Caller::new(identity, Peer::plain(Origin::Unix)),
        id: None,
        model: "digits".into(),
        version: None,
        inputs: Inputs::Named(vec![NamedTensor { name: "pixels".into(), tensor }]),
        outputs: vec![],
        schedule: Schedule::default(),
        key: None,
        protocol: Protocol::Grpc,
        arrived: Instant::now(),
        headers: Arc::default(),
        parameters: vec![],
    }
}

fn floats(count: usize) -> Tensor {
    let data = (0_u16..).take(count).flat_map(|value| f32::from(value).to_le_bytes());
    Tensor::new(DataType::Fp32, vec![1, count], data.collect::<Vec<_>>().into()).unwrap()
}

/// All that the log does on the path of a call, and what the thread that writes does meanwhile.
fn recording(c: &mut Criterion) {
    record(c, "row", "");
    // And the prediction is remembered for feedback.
    record(c, "row remembered", "[prediction_log.feedback]");
}

fn record(c: &mut Criterion, name: &str, more: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    let text = format!(
        "version = 1\n[prediction_log]\npath = '{path}'\nqueue_rows = 16000000\n\
                        queue_bytes = '1GiB'\n{more}"
    );
    let config = config::parse(&text, Path::new("")).unwrap().prediction_log.unwrap();
    let log = PredictionLog::start(&config).unwrap();
    let spec = |name: &str, size| TensorSpec {
        name: name.into(),
        datatype: DataType::Fp32,
        shape: vec![-1, size],
    };
    let output =
        OutputSpec { spec: spec("scores", 10), labels: vec![], tolerance: 0.0, finite: false };
    let signature = Arc::new(Signature {
        inputs: vec![spec("pixels", 64)],
        outputs: vec![output],
        max_batch_size: 64,
        splits: true,
    });
    let (call, outputs) = (call(), [floats(10)]);
    let prediction = PredictionId::new();
    // Half a gigabyte at most.
    let mut group = c.benchmark_group("prediction");
    group.warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_millis(500));
    group.sample_size(10).bench_function(name, |b| {
        b.iter(|| {
            let about = About { prediction, guarantee: None, sticky_key: None };
            let mut notes = Notes::take(&log, black_box(&call), about).unwrap();
            notes.keep_inputs(&call.inputs);
            let kept = outputs.to_vec();
            let row = RowRef { model: "digits", version: "1", items: 1, ..RowRef::default() };
            let (inputs, outputs) = (&signature, &signature);
            let of = Of { model: "digits", inputs, outputs, names: &Names::default };
            notes.push(row, Some(of), Sides { has_inputs: true, outputs: &kept }).unwrap()
        });
    });
    group.finish();
    assert!(log.stop(Duration::from_secs(60)));
}

criterion_group!(benches, naming, recording);
criterion_main!(benches);
