//! Tensors to and from JSON, and a call against its signature. Each bench asserts its result.
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::{DataType, Tensor, TensorSpec};
use penstock::codec::json::{parse_data, write_data};
use penstock::types::{NamedTensor, OutputSpec, Signature};

/// One digit: 64 numbers as a client's JSON library writes them.
fn digit() -> String {
    let numbers: Vec<String> =
        (0..64_u8).map(|i| format!("{}", f64::from(i % 17) / 16.0)).collect();
    format!("[{}]", numbers.join(","))
}

fn json(c: &mut Criterion) {
    let mut group = c.benchmark_group("json");
    for (name, rows) in [("64 numbers", 1), ("150,000 numbers", 2344)] {
        let row = digit();
        let text = format!("[{}]", vec![row.trim_matches(['[', ']']); rows].join(","));
        let shape = vec![rows, 64];
        let tensor = parse_data(&text, DataType::Fp32, shape.clone()).unwrap();
        assert_eq!(tensor.elements(), rows * 64);
        let singles: Vec<f32> = serde_json::from_str(&text).unwrap();
        let bytes: Vec<u8> = singles.iter().flat_map(|single| single.to_le_bytes()).collect();
        assert_eq!(tensor.data()[..], bytes);
        group.throughput(Throughput::Elements(rows as u64 * 64));
        group.bench_function(format!("parse {name}"), |b| {
            b.iter(|| parse_data(black_box(&text), DataType::Fp32, shape.clone()).unwrap());
        });
        group.bench_function(format!("parse {name}, serde_json"), |b| {
            b.iter(|| serde_json::from_str::<Vec<f32>>(black_box(&text)).unwrap());
        });
        let mut out = Vec::new();
        write_data(&tensor, &mut out).unwrap();
        assert_eq!(out, serde_json::to_vec(&singles).unwrap());
        group.bench_function(format!("write {name}"), |b| {
            b.iter(|| {
                out.clear();
                write_data(black_box(&tensor), &mut out).unwrap();
            });
        });
        group.bench_function(format!("write {name}, serde_json"), |b| {
            b.iter(|| {
                out.clear();
                serde_json::to_writer(&mut out, black_box(&singles)).unwrap();
            });
        });
    }
    group.finish();
}

fn signature(c: &mut Criterion) {
    let spec = |name: &str, width| TensorSpec {
        name: name.into(),
        datatype: DataType::Fp32,
        shape: vec![-1, width],
    };
    let signature = Signature {
        inputs: vec![spec("pixels", 64)],
        outputs: vec![OutputSpec {
            spec: spec("logits", 10),
            labels: vec![],
            tolerance: 1e-5,
            finite: false,
        }],
        max_batch_size: 64,
        splits: true,
    };
    let tensor = Tensor::new(DataType::Fp32, vec![1, 64], vec![0; 256].into()).unwrap();
    let call = || vec![NamedTensor { name: "pixels".into(), tensor: tensor.clone() }];
    assert_eq!(signature.order(call()).unwrap().rows, 1);
    c.bench_function("order one input", |b| b.iter(|| signature.order(black_box(call())).unwrap()));
}

criterion_group!(benches, json, signature);
criterion_main!(benches);
