//! What it costs each call to be named: a prediction's id, alone and beside a second thread, and
//! its text. Each bench asserts its result.
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};

use criterion::{Criterion, criterion_group, criterion_main};
use http::HeaderValue;
use penstock::types::PredictionId;

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

criterion_group!(benches, naming);
criterion_main!(benches);
