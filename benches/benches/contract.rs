//! What checking the values of a call costs, by value: calls that keep their contract, and calls
//! that are mended. Each bench asserts its result.
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use engine::{DataType, Tensor};
use half::f16;
use penstock::contract::Checker;
use penstock::models::Manifest;
use penstock::types::{Inputs, NamedTensor};

/// A contract for one input of any size in both dimensions, with the manifest that has it.
fn contract(datatype: DataType, rules: &str) -> (Checker, Manifest) {
    let tensor = format!("dtype = '{datatype}'\nshape = [-1, -1]\n");
    let text = format!(
        "platform = 'identity'\nmax_batch_size = 4096\n[[input]]\nname = 'x'\n{tensor}\
         [input.contract]\n{rules}\n[[output]]\nname = 'y'\n{tensor}"
    );
    let manifest = Manifest::parse(&text).unwrap();
    (Checker::new(manifest.contract.clone().unwrap(), "m", "1"), manifest)
}

fn tensor(datatype: DataType, rows: usize, value: &[u8]) -> Tensor {
    let width = 64;
    let data = value.repeat(rows * width);
    Tensor::new(datatype, vec![rows, width], data.into()).unwrap()
}

fn checks(c: &mut Criterion) {
    let feature = "[[input.contract.feature]]\nindex = 3\nrange = [0, 9]\n";
    let range = "range = [0.0, 255.0]";
    let imputed = "range = [2.0, 255.0]\naction = 'impute'\ndefault = 2";
    let one = 1.0_f32.to_le_bytes();
    let text = engine::tensor::frame_strings(&["red"]);
    let cases: [(&str, DataType, &str, &[u8]); 8] = [
        ("FP32 range", DataType::Fp32, range, &one),
        ("FP32 range, one feature", DataType::Fp32, &format!("{range}\n{feature}"), &one),
        ("FP32 imputed", DataType::Fp32, imputed, &one),
        ("FP16 range", DataType::Fp16, range, &f16::ONE.to_le_bytes()),
        ("UINT8 range", DataType::Uint8, "range = [0, 200]", &[1]),
        ("INT64 range", DataType::Int64, "range = [0, 200]", &1_i64.to_le_bytes()),
        ("INT64 categories", DataType::Int64, "categories = [1, 2, 3]", &1_i64.to_le_bytes()),
        ("BYTES categories", DataType::Bytes, "categories = ['red', 'green']", &text),
    ];
    let mut group = c.benchmark_group("contract");
    for (name, datatype, rules, value) in cases {
        let (checker, manifest) = contract(datatype, rules);
        for rows in [1, 256] {
            let given = tensor(datatype, rows, value);
            group.throughput(Throughput::Elements(given.elements() as u64));
            group.bench_with_input(BenchmarkId::new(name, rows * 64), &given, |b, given| {
                b.iter(|| {
                    let input = NamedTensor { name: "x".into(), tensor: given.clone() };
                    let inputs = Inputs::Named(vec![input]);
                    let (inputs, _) = checker.check(&manifest.signature, inputs).unwrap();
                    assert_eq!(inputs.tensors[0].data() == given.data(), name != "FP32 imputed");
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, checks);
criterion_main!(benches);
