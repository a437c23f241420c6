//! What a shadow costs: a place in its lane on the thread that answers, and comparing a pair on
//! one that does not, by size. Each bench asserts its result.
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use engine::{DataType, Tensor, TensorSpec};
use half::f16;
use penstock::config;
use penstock::shadow::{Answer, Comparer, Lane, Ledger, Pair};
use penstock::types::{OutputSpec, PredictionId, Share, Signature};
use tokio::time::Instant;

/// So many rows of one output on both sides, the largest value of each at `hot`.
fn pair(datatype: DataType, shape: &[usize], hot: usize) -> Pair {
    let width = shape[1];
    let declared = TensorSpec {
        name: "logits".into(),
        datatype,
        shape: vec![-1, i64::try_from(width).unwrap()],
    };
    let output = OutputSpec { spec: declared, labels: vec![], tolerance: 1e-5, finite: false };
    let (inputs, outputs) = (vec![], vec![output]);
    let signature = Arc::new(Signature { inputs, outputs, max_batch_size: 64, splits: true });
    let answer = |hot: usize| {
        let values = (0..shape[0] * width).map(|index| {
            let noise = f32::from(u16::try_from(index * 7 % 101).unwrap()) / 100.0;
            if index % width == hot { 9.0 } else { noise }
        });
        let data: Vec<u8> = match datatype {
            DataType::Fp16 => values.flat_map(|v| f16::from_f32(v).to_le_bytes()).collect(),
            _ => values.flat_map(f32::to_le_bytes).collect(),
        };
        let outputs = vec![Tensor::new(datatype, shape.to_vec(), data.into()).unwrap()];
        Answer { signature: signature.clone(), outputs, time: Duration::from_micros(150) }
    };
    let (live, mut shadow) = (answer(3), answer(hot));
    shadow.signature = live.signature.clone();
    Pair { prediction: PredictionId::new(), live, shadow: Ok(shadow) }
}

fn comparing(c: &mut Criterion) {
    let mut group = c.benchmark_group("shadow/compare");
    for (name, datatype, shape, hot) in [
        ("digits", DataType::Fp32, [1, 10], 3),
        ("digits, another label", DataType::Fp32, [1, 10], 8),
        ("digits FP16", DataType::Fp16, [1, 10], 3),
        ("digits, 32 rows", DataType::Fp32, [32, 10], 3),
        ("1000 classes", DataType::Fp32, [1, 1000], 3),
        ("a vector of 1 Mi", DataType::Fp32, [1, 1 << 20], 3),
    ] {
        let (ledger, pair) = (Ledger::new(), pair(datatype, &shape, hot));
        let elements = shape[0] * shape[1];
        group.throughput(Throughput::Elements(elements as u64));
        group.bench_function(BenchmarkId::new(name, elements), |b| {
            b.iter(|| assert!(ledger.compare(&pair)));
        });
        let agreement = ledger.report().outputs.first().and_then(|output| output.agreement);
        assert!(agreement.is_none_or(|found| (found.count == found.of) == (hot == 3)));
    }
    group.finish();
}

fn lane(name: &str) -> Arc<Lane> {
    let model: penstock::types::ModelName = "digits".parse().unwrap();
    let version = config::VersionChoice::Latest;
    let shadow = config::Shadow {
        name: name.parse().unwrap(),
        target: config::Target::Local { model: model.clone(), version },
        sample: Share::ALL,
        max_in_flight: 1 << 20,
        max_bytes: 1 << 30,
        timeout: Duration::from_secs(5),
    };
    Lane::new(&model, &shadow)
}

fn entering(c: &mut Criterion) {
    let (entered, handed) = (lane("entered"), lane("handed"));
    c.bench_function("shadow/enter and leave", |b| {
        b.iter(|| entered.try_enter(256).unwrap());
    });
    let (comparer, ledger) = (Comparer::start().unwrap(), Arc::new(Ledger::new()));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    c.bench_function("shadow/enter and hand over", |b| {
        b.iter_custom(|iterations| {
            let mut taken = Duration::ZERO;
            let mut left = iterations;
            // Never more than wait for the thread at most.
            while left > 0 {
                let count = left.min(1000);
                left -= count;
                let pairs: Vec<_> = (0..count).map(|_| pair(DataType::Fp32, &[1, 10], 3)).collect();
                let start = Instant::now();
                for pair in pairs {
                    comparer.submit(&ledger, handed.try_enter(256).unwrap(), pair);
                }
                taken += start.elapsed();
                runtime.block_on(comparer.flush());
            }
            taken
        });
    });
    let counts = handed.counts();
    assert_eq!((counts.sampled, counts.in_flight), (counts.compared, 0));
}

criterion_group!(benches, comparing, entering);
criterion_main!(benches);
