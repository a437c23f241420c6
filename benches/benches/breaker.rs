//! What a circuit breaker costs each call: letting it pass, counting its batch, refusing it, and
//! looking for NaN in its answer. Each bench asserts its result.
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use engine::{DataType, Tensor};
use penstock::breaker::{Breaker, Outcome, Sample, State};
use penstock::codec::finite;
use penstock::config;
use penstock::telemetry::BreakerMetrics;
use tokio::time::Instant;

const GOOD: Sample =
    Sample { outcome: Some(Outcome::Success), time: Duration::ZERO, with_nan: 0, without_nan: 1 };

fn breaker() -> Arc<Breaker> {
    Breaker::new("m/1", config::Breaker::default(), BreakerMetrics::new("m", "1"))
}

fn call(breaker: &Arc<Breaker>, now: Instant) {
    let permit = breaker.admit(now, None).unwrap();
    breaker.record(now, &permit, GOOD);
}

fn passing(c: &mut Criterion) {
    let breaker = breaker();
    let now = Instant::now();
    c.bench_function("breaker/admit", |b| b.iter(|| breaker.admit(now, None).unwrap()));
    c.bench_function("breaker/admit and record", |b| b.iter(|| call(&breaker, now)));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                call(&breaker, now);
            }
        });
        let name = "breaker/admit and record beside a thread that does nothing else";
        c.bench_function(name, |b| b.iter(|| call(&breaker, now)));
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(breaker.state(), State::Closed);
    breaker.hold_open();
    c.bench_function("breaker/refuse", |b| b.iter(|| breaker.admit(now, None).unwrap_err()));
}

fn looking(c: &mut Criterion) {
    let mut group = c.benchmark_group("nan");
    for bytes in [256_usize, 4 << 10, 1 << 20] {
        group.throughput(Throughput::Bytes(bytes as u64));
        for datatype in [DataType::Fp16, DataType::Fp32, DataType::Fp64] {
            let count = bytes / datatype.size().unwrap();
            let tensor = Tensor::new(datatype, vec![count], vec![7; bytes].into()).unwrap();
            let id = BenchmarkId::new(format!("has_nan {datatype}"), bytes);
            group.bench_function(id, |b| b.iter(|| assert!(!finite::has_nan(&tensor))));
            let id = BenchmarkId::new(format!("is_finite {datatype}"), bytes);
            group.bench_function(id, |b| b.iter(|| assert!(finite::is_finite(&tensor))));
        }
    }
    group.finish();
}

criterion_group!(benches, passing, looking);
criterion_main!(benches);
