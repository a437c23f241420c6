//! A call through queue, engine thread and back, with an engine that does nothing: what batching
//! itself costs. Each bench asserts its result.
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::{DataType, Engine, EngineOptions, IdentityEngine, ModelSource, Tensor, TensorSpec};
use penstock::batching::{Device, Pool, Queue, QueueSettings, StuckThreads, Threads};
use penstock::telemetry::VersionMetrics;
use penstock::types::Schedule;

fn queue(pool: &Pool) -> Queue {
    let spec = [TensorSpec { name: "x".into(), datatype: DataType::Fp32, shape: vec![-1, 64] }];
    let model = IdentityEngine
        .load(&ModelSource {
            label: "identity/1",
            file: &[],
            inputs: &spec,
            outputs: &spec,
            device: "cpu",
            options: EngineOptions::default(),
            samples: &[],
            tolerance: 0.0,
        })
        .unwrap();
    let settings = QueueSettings::new("identity/1", 64);
    let metrics = Arc::new(VersionMetrics::new("identity", "1"));
    Queue::new(settings, model, Arc::new(IdentityEngine), metrics, pool)
}

fn calls(c: &mut Criterion) {
    let threads = Threads { live: 1, shadow: 1 };
    let pool = Pool::start(Device("cpu".into()), threads, StuckThreads::default()).unwrap();
    let queue = queue(&pool);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let input = Tensor::new(DataType::Fp32, vec![1, 64], vec![7; 256].into()).unwrap();
    let mut group = c.benchmark_group("queue");
    for callers in [1_usize, 16, 64] {
        group.throughput(Throughput::Elements(callers as u64));
        group.bench_function(format!("{callers} callers"), |b| {
            b.iter(|| {
                let submit = || queue.submit(vec![input.clone()], 1, Schedule::default()).unwrap();
                let waiting: Vec<_> = (0..callers).map(|_| submit()).collect();
                runtime.block_on(async {
                    for receiver in waiting {
                        let done = receiver.await.unwrap().unwrap();
                        assert_eq!(done.outputs[0], input);
                    }
                });
            });
        });
    }
    group.finish();
    pool.close();
}

criterion_group!(benches, calls);
criterion_main!(benches);
