//! Laws of the comparison, what reports say, and where the budgets end.

mod budget;
mod detach;
mod sentences;

use std::sync::Arc;
use std::time::Duration;

use engine::{DataType, Tensor, TensorSpec};
use half::{bf16, f16};
use proptest::prelude::*;

use super::{Answer, Ledger, OutputKind, OutputReport, Pair};
use crate::error::Kind;
use crate::types::{OutputSpec, PredictionId, Signature};

const TOLERANCE: f64 = 1e-5;

fn output(name: &str, datatype: DataType, shape: &[i64], labels: &[&str]) -> OutputSpec {
    OutputSpec {
        spec: TensorSpec { name: name.into(), datatype, shape: shape.into() },
        labels: labels.iter().map(|&label| label.into()).collect(),
        tolerance: TOLERANCE,
        finite: false,
    }
}

fn signature(outputs: Vec<OutputSpec>) -> Arc<Signature> {
    Arc::new(Signature { inputs: vec![], outputs, max_batch_size: 8, splits: true })
}

/// A signature with the one output `y` of floats.
fn floats(shape: &[i64]) -> Arc<Signature> {
    signature(vec![output("y", DataType::Fp32, shape, &[])])
}

fn singles(shape: &[usize], values: &[f32]) -> Tensor {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor::new(DataType::Fp32, shape.into(), data.into()).unwrap()
}

fn answer(signature: &Arc<Signature>, outputs: Vec<Tensor>, micros: u64) -> Answer {
    let time = Duration::from_micros(micros);
    Answer { signature: signature.clone(), outputs, time }
}

fn pair(signature: &Arc<Signature>, live: Vec<Tensor>, shadow: Vec<Tensor>) -> Pair {
    Pair {
        prediction: PredictionId::new(),
        live: answer(signature, live, 100),
        shadow: Ok(answer(signature, shadow, 100)),
    }
}

/// Compares rows of floats, each a call of its own.
fn compare(ledger: &Ledger, signature: &Arc<Signature>, live: &[f32], shadow: &[f32]) -> Pair {
    let mut shape = vec![1];
    shape.extend(signature.outputs[0].spec.shape.iter().skip(1).map(|_| live.len()));
    let pair = pair(signature, vec![singles(&shape, live)], vec![singles(&shape, shadow)]);
    assert!(ledger.compare(&pair));
    pair
}

fn only(ledger: &Ledger) -> OutputReport {
    let mut outputs = ledger.report().outputs;
    assert_eq!(outputs.len(), 1);
    outputs.remove(0)
}

fn close(one: f64, other: f64) -> bool {
    (one - other).abs() <= 1e-9 * one.abs().max(other.abs()).max(1.0)
}

#[test]
fn outputs_are_matched_by_their_names() {
    let scores = output("scores", DataType::Fp32, &[-1, 3], &[]);
    let count = output("count", DataType::Int64, &[-1, 1], &[]);
    let live = signature(vec![scores.clone(), count.clone()]);
    let extra = output("extra", DataType::Bool, &[-1, 1], &[]);
    let shadow = signature(vec![extra, count, scores]);
    let scores = singles(&[1, 3], &[1.0, 3.0, 2.0]);
    let count = Tensor::new(DataType::Int64, vec![1, 1], vec![7; 8].into()).unwrap();
    let extra = Tensor::new(DataType::Bool, vec![1, 1], vec![1].into()).unwrap();
    let ledger = Ledger::new();
    assert!(ledger.compare(&Pair {
        prediction: PredictionId::new(),
        live: answer(&live, vec![scores.clone(), count.clone()], 1),
        shadow: Ok(answer(&shadow, vec![extra, count, scores], 1)),
    }));
    let report = ledger.report();
    assert!(report.errors.is_empty());
    let agree: Vec<_> = report.outputs.iter().map(|output| output.agreement.unwrap()).collect();
    assert!(agree.iter().all(|agreement| (agreement.count, agreement.of) == (1, 1)));
}

#[test]
fn answers_of_another_form_are_errors_of_the_shadow() {
    let live = signature(vec![
        output("a", DataType::Fp32, &[-1, 2], &[]),
        output("b", DataType::Int32, &[-1], &[]),
    ]);
    let bytes = |datatype, shape: &[usize], size| {
        Tensor::new(datatype, shape.into(), vec![0; size].into()).unwrap()
    };
    let (a, b) = (bytes(DataType::Fp32, &[1, 2], 8), bytes(DataType::Int32, &[1], 4));
    let longs = bytes(DataType::Int64, &[1], 8);
    let halves = bytes(DataType::Fp16, &[1, 2], 4);
    let ledger = Ledger::new();
    for (outputs, right) in [
        (vec![a.clone(), b.clone()], true),
        (vec![halves, b.clone()], true),
        (vec![a.clone()], false),
        (vec![bytes(DataType::Fp32, &[2, 2], 16), b], false),
        (vec![a.clone(), longs], false),
    ] {
        let mut pair = pair(&live, vec![a.clone(), bytes(DataType::Int32, &[1], 4)], vec![]);
        pair.shadow = Ok(answer(&live, outputs, 1));
        assert_eq!(ledger.compare(&pair), right);
    }
    let mut failed = pair(&live, vec![a], vec![]);
    failed.shadow = Err(Kind::EngineFailed);
    assert!(!ledger.compare(&failed));
    let report = ledger.report();
    let kinds = ["engine_failed", "missing_output", "wrong_datatype", "wrong_shape"];
    assert_eq!(report.errors, kinds.into_iter().map(|kind| (kind, 1)).collect());
    assert_eq!((report.calls, report.failed.unwrap().count), (6, 4));
    assert_eq!(report.latency.unwrap().pairs, 5, "errors have no time to compare");
}

#[test]
fn what_is_no_float_is_equal_or_not() {
    let declared = signature(vec![
        output("flag", DataType::Bool, &[-1, 2], &[]),
        output("id", DataType::Int16, &[-1], &[]),
        output("text", DataType::Bytes, &[-1, 2], &[]),
    ]);
    let flags =
        |values: [u8; 4]| Tensor::new(DataType::Bool, vec![2, 2], values.to_vec().into()).unwrap();
    let ids = |values: [i16; 2]| {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor::new(DataType::Int16, vec![2], data.into()).unwrap()
    };
    let texts = |values: [&str; 4]| Tensor::from_strings(vec![2, 2], &values).unwrap();
    let live = vec![flags([0, 1, 1, 1]), ids([-3, 9]), texts(["a", "", "c", "dd"])];
    let shadow = vec![flags([0, 1, 0, 1]), ids([-3, 8]), texts(["a", "bb", "x", "y"])];
    let ledger = Ledger::new();
    assert!(ledger.compare(&pair(&declared, live, shadow)));
    let report = ledger.report();
    let figures = report.outputs.iter().map(|output| {
        assert_eq!(output.kind, OutputKind::Exact);
        (output.agreement.unwrap().count, output.equal_elements.unwrap().count)
    });
    assert_eq!(figures.collect::<Vec<_>>(), [(1, 3), (1, 1), (0, 1)]);
    assert_eq!(report.worst.len(), 3);
    assert!(report.worst.iter().any(|worst| worst.summary == "9 → 8" && worst.row == 1));
}

#[test]
fn each_shape_is_compared_in_its_own_way() {
    for (declared, shape, labels, kind) in [
        (vec![-1, 10], vec![2, 10], vec![], OutputKind::Classes),
        (vec![-1, 4, 10], vec![2, 4, 10], vec![], OutputKind::Classes),
        (vec![-1, 3, 8, 8], vec![2, 3, 8, 8], vec![], OutputKind::Vector),
        (vec![-1, -1], vec![2, 10], vec![], OutputKind::Vector),
        (vec![-1, -1], vec![2, 2], vec!["no", "yes"], OutputKind::Classes),
        (vec![-1, 10_001], vec![1, 10_001], vec![], OutputKind::Vector),
        (vec![-1, 1], vec![2, 1], vec![], OutputKind::Scalar),
        (vec![-1], vec![2], vec![], OutputKind::Scalar),
        (vec![-1, 0], vec![2, 0], vec![], OutputKind::Scalar),
    ] {
        let declared = signature(vec![output("y", DataType::Fp32, &declared, &labels)]);
        let tensor = singles(&shape, &vec![1.0; shape.iter().product()]);
        let ledger = Ledger::new();
        ledger.compare(&pair(&declared, vec![tensor.clone()], vec![tensor]));
        let found = only(&ledger);
        assert_eq!((found.kind, found.rows), (kind, shape[0] as u64), "{shape:?}");
    }
}

#[test]
fn all_sizes_of_floats_are_compared_as_numbers() {
    let values = [0.5_f32, -2.0, 1.5];
    let bytes = |datatype| -> Vec<u8> {
        let wide = values.iter().map(|&value| f64::from(value));
        match datatype {
            DataType::Fp16 => wide.flat_map(|value| f16::from_f64(value).to_le_bytes()).collect(),
            DataType::Bf16 => wide.flat_map(|value| bf16::from_f64(value).to_le_bytes()).collect(),
            DataType::Fp32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            _ => wide.flat_map(f64::to_le_bytes).collect(),
        }
    };
    let all = [DataType::Fp16, DataType::Bf16, DataType::Fp32, DataType::Fp64];
    for (live, shadow) in all.iter().flat_map(|live| all.map(|shadow| (*live, shadow))) {
        let ledger = Ledger::new();
        let tensor = |datatype| Tensor::new(datatype, vec![1, 3], bytes(datatype).into()).unwrap();
        let declared = signature(vec![output("y", live, &[-1, 3], &[])]);
        assert!(ledger.compare(&pair(&declared, vec![tensor(live)], vec![tensor(shadow)])));
        let found = only(&ledger);
        assert_eq!(found.within_tolerance.unwrap().count, 1, "{live} and {shadow}");
        assert_eq!(found.agreement.unwrap().count, 1);
        assert_eq!(found.shadow_datatype, (live != shadow).then(|| shadow.name()));
    }
}

#[test]
fn cosines_tell_vectors_apart() {
    let declared = floats(&[-1, -1]);
    let ledger = Ledger::new();
    for (live, shadow) in [
        ([1.0, 0.0], [2.0, 0.0]),
        ([1.0, 0.0], [0.0, 1.0]),
        ([1.0, 0.0], [-1.0, 0.0]),
        ([0.0, 0.0], [0.0, 0.0]),
        ([0.0, 0.0], [0.0, 1.0]),
    ] {
        compare(&ledger, &declared, &live, &shadow);
    }
    let cosine = only(&ledger).cosine.unwrap();
    assert!(close(cosine.mean, 0.2) && close(cosine.min, -1.0), "{cosine:?}");
    assert!((cosine.median - 0.0).abs() < 0.04 && (cosine.p1 + 1.0).abs() < 0.07, "{cosine:?}");
}

#[test]
fn the_worst_are_kept_by_name_the_worst_first() {
    let declared = floats(&[-1, 3]);
    let ledger = Ledger::new();
    let mut expected = Vec::new();
    for index in 0..40_u16 {
        let difference = f32::from((index * 7) % 40) / 100.0;
        let pair = compare(&ledger, &declared, &[1.0, 0.0, 0.0], &[1.0, difference, 0.0]);
        expected.push((difference, pair.prediction.to_string()));
    }
    let flip = compare(&ledger, &declared, &[1.0, 0.0, 0.0], &[0.0, 0.0, 0.5]);
    let nan = compare(&ledger, &declared, &[1.0, 0.0, 0.0], &[1.0, f32::NAN, 0.0]);
    expected.sort_by(|one, other| other.0.total_cmp(&one.0));
    let mut expected: Vec<_> = expected.into_iter().take(18).map(|(_, id)| id).collect();
    expected.insert(0, flip.prediction.to_string());
    expected.insert(0, nan.prediction.to_string());
    let worst = ledger.report().worst;
    assert_eq!(worst.iter().map(|one| one.prediction.clone()).collect::<Vec<_>>(), expected);
    assert_eq!(worst[1].summary, "0 → 2, largest difference 1.000e0");
}

#[test]
fn memory_stays_bounded_whatever_comes() {
    let names: Vec<_> = (0..100).map(|index| format!("y{index}")).collect();
    let many = names.iter().map(|name| output(name, DataType::Fp32, &[-1, 200], &[]));
    let many = signature(many.collect());
    let ledger = Ledger::new();
    for step in 0..200_usize {
        let one_hot = |hot: usize| {
            let mut values = vec![0.0; 200];
            values[hot % 200] = 1.0;
            singles(&[1, 200], &values)
        };
        let outputs = |factor: usize| -> Vec<_> {
            (0..100).map(|index| one_hot(step * factor + index)).collect()
        };
        ledger.compare(&pair(&many, outputs(1), outputs(3)));
    }
    let report = ledger.report();
    assert_eq!(report.outputs.len(), 32);
    assert_eq!(report.outputs_left_out, 200 * 68);
    assert_eq!(report.worst.len(), 20);
    assert!(report.outputs.iter().all(|output| output.flips.as_ref().unwrap().most.len() <= 50));
    assert!(serde_json::to_string(&report).unwrap().len() < 256 << 10);
    ledger.reset();
    assert_eq!(ledger.report().calls, 0);
    assert!(ledger.report().outputs.is_empty());
}

/// Vectors with a few classes, so that there are ties and agreement, some of them not finite.
fn element() -> impl Strategy<Value = f32> {
    prop_oneof![
        20 => (-3_i8..4).prop_map(f32::from),
        4 => -1e3_f32..1e3,
        1 => prop_oneof![Just(f32::NAN), Just(f32::INFINITY), Just(f32::NEG_INFINITY)],
    ]
}

/// All values of both sides of a call.
type Values = (Vec<f32>, Vec<f32>);

/// A number of classes, and calls of some rows.
fn calls() -> impl Strategy<Value = (usize, Vec<Values>)> {
    (2_usize..9).prop_flat_map(|classes| {
        let call = (0_usize..4).prop_flat_map(move |rows| {
            let values = || prop::collection::vec(element(), rows * classes);
            (values(), values())
        });
        (Just(classes), prop::collection::vec(call, 0..20))
    })
}

/// The class of the first largest value; none with NaN.
fn label(values: &[f32]) -> Option<usize> {
    let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let has_nan = values.iter().any(|value| value.is_nan());
    (!has_nan).then(|| values.iter().position(|value| value.total_cmp(&largest).is_eq()))?
}

/// The classes of the largest values.
fn largest(values: &[f32], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|one, other| values[*other].partial_cmp(&values[*one]).unwrap());
    order.truncate(count);
    order
}

proptest! {
    #[test]
    fn figures_are_those_of_a_direct_computation((classes, calls) in calls()) {
        let declared = floats(&[-1, classes as i64]);
        let ledger = Ledger::new();
        let (mut agree, mut of, mut overlap, mut overlaps) = (0, 0, 0.0, 0_u32);
        let (mut differences, mut relative, mut within) = (vec![], vec![], 0);
        let (mut odd, mut rows) = ([0; 4], 0);
        for (live, shadow) in &calls {
            let shape = [live.len() / classes, classes];
            let outputs = (singles(&shape, live), singles(&shape, shadow));
            prop_assert!(ledger.compare(&pair(&declared, vec![outputs.0], vec![outputs.1])));
            for (live, shadow) in live.chunks(classes).zip(shadow.chunks(classes)) {
                rows += 1;
                if let Some(one) = label(live) {
                    of += 1;
                    agree += u64::from(label(shadow) == Some(one));
                    if label(shadow).is_some() {
                        let k = (classes - 1).min(5);
                        let (one, other) = (largest(live, k), largest(shadow, k));
                        let both = one.iter().filter(|class| other.contains(class)).count();
                        overlap += both as f64 / (2 * k - both) as f64;
                        overlaps += 1;
                    }
                }
                let has = |values: &[f32], is: fn(f32) -> bool| values.iter().any(|v| is(*v));
                for (count, found) in odd.iter_mut().zip([
                    has(live, f32::is_nan), has(shadow, f32::is_nan),
                    has(live, f32::is_infinite), has(shadow, f32::is_infinite),
                ]) {
                    *count += u64::from(found);
                }
                let pairs: Vec<_> = live.iter().zip(shadow).collect();
                let finite: Vec<f64> = pairs.iter().filter(|(l, s)| l.is_finite() && s.is_finite())
                    .map(|(l, s)| f64::from(**s) - f64::from(**l)).collect();
                let magnitude = pairs.iter().filter(|(l, s)| l.is_finite() && s.is_finite())
                    .map(|(l, _)| f64::from(l.abs())).fold(0.0, f64::max);
                let sum: f64 = finite.iter().map(|d| d.abs()).sum();
                let most = finite.iter().map(|d| d.abs()).fold(0.0, f64::max);
                if !finite.is_empty() && (sum == 0.0 || magnitude > 0.0) {
                    let mean = sum / finite.len() as f64;
                    relative.push(if sum == 0.0 { 0.0 } else { mean / magnitude });
                }
                let same = pairs.iter().all(|(l, s)| {
                    (l.is_finite() && s.is_finite()) || l.total_cmp(s).is_eq()
                        || (l.is_nan() && s.is_nan())
                });
                within += u64::from(same && (most == 0.0 || (magnitude > 0.0
                    && most / magnitude <= TOLERANCE)));
                differences.extend(finite);
            }
        }
        let report = ledger.report();
        prop_assert_eq!((report.calls, report.rows), (calls.len() as u64, rows));
        if calls.is_empty() {
            return Ok(());
        }
        let found = only(&ledger);
        prop_assert_eq!(found.agreement.map_or((0, 0), |a| (a.count, a.of)), (agree, of));
        prop_assert_eq!(found.within_tolerance.map_or((0, 0), |w| (w.count, w.of)), (within, rows));
        if let Some(top) = found.top_k {
            prop_assert!(close(top.overlap, overlap / f64::from(overlaps)), "{top:?}");
        } else {
            prop_assert_eq!(overlaps, 0);
        }
        let found_odd = [found.nan.live, found.nan.shadow, found.infinite.live, found.infinite.shadow];
        prop_assert_eq!(found_odd, odd);
        let count = differences.len() as f64;
        prop_assert_eq!(found.difference.is_some(), count > 0.0);
        if let Some(difference) = found.difference {
            prop_assert!(close(difference.mean, differences.iter().map(|d| d.abs()).sum::<f64>() / count));
            prop_assert!(close(difference.mean_signed, differences.iter().sum::<f64>() / count));
            prop_assert!(close(difference.max, differences.iter().map(|d| d.abs()).fold(0.0, f64::max)));
            let mean = relative.iter().sum::<f64>() / relative.len() as f64;
            prop_assert!(difference.mean_relative.map_or(relative.is_empty(), |r| close(r, mean)));
        }
    }

    #[test]
    fn the_order_of_pairs_changes_nothing((classes, calls) in calls(), seed in any::<u64>()) {
        let declared = floats(&[-1, classes as i64]);
        let mut pairs: Vec<_> = calls.iter().map(|(live, shadow)| {
            let shape = [live.len() / classes, classes];
            pair(&declared, vec![singles(&shape, live)], vec![singles(&shape, shadow)])
        }).collect();
        let report = |pairs: &[Pair]| {
            let ledger = Ledger::new();
            assert!(pairs.iter().all(|pair| ledger.compare(pair)));
            ledger.report()
        };
        let before = report(&pairs);
        pairs.sort_by_key(|pair| {
            let bytes = pair.prediction.as_bytes().last_chunk::<8>().unwrap();
            u64::from_le_bytes(*bytes).wrapping_mul(seed | 1)
        });
        let after = report(&pairs);
        prop_assert_eq!(&before.worst, &after.worst);
        prop_assert_eq!(before.verdict, after.verdict);
        for (one, other) in before.outputs.iter().zip(&after.outputs) {
            prop_assert_eq!(&one.flips, &other.flips);
            prop_assert_eq!((one.agreement, one.within_tolerance, one.nan, one.infinite),
                (other.agreement, other.within_tolerance, other.nan, other.infinite));
            for (one, other) in [
                (one.difference.map(|d| d.mean), other.difference.map(|d| d.mean)),
                (one.difference.map(|d| d.max), other.difference.map(|d| d.max)),
                (one.cosine.map(|c| c.mean), other.cosine.map(|c| c.mean)),
                (one.cosine.map(|c| c.median), other.cosine.map(|c| c.median)),
                (one.top_k.map(|t| t.overlap), other.top_k.map(|t| t.overlap)),
            ] {
                prop_assert!(one.is_some() == other.is_some());
                prop_assert!(one.zip(other).is_none_or(|(one, other)| close(one, other)));
            }
        }
    }

    #[test]
    fn nothing_that_a_model_gives_makes_it_panic(
        sides in prop::collection::vec(
            (0_usize..14, prop::collection::vec(0_usize..4, 0..4), any::<[u8; 8]>()), 2..8),
        same in any::<bool>(), batches in any::<bool>(), missing in 0_usize..3,
        fail in prop::option::of(0_usize..17),
    ) {
        let tensors: Vec<Tensor> = sides.iter().map(|(datatype, shape, pattern)| {
            let datatype = DataType::ALL[*datatype];
            let elements: usize = shape.iter().product();
            match datatype.size() {
                None => Tensor::from_strings(shape.clone(), &vec![pattern; elements]).unwrap(),
                Some(size) => {
                    let flag = datatype == DataType::Bool;
                    let data = pattern.iter().cycle().map(|byte| if flag { byte & 1 } else { *byte });
                    let data: Vec<u8> = data.take(elements * size).collect();
                    Tensor::new(datatype, shape.clone(), data.into()).unwrap()
                }
            }
        }).collect();
        let half = tensors.len() / 2;
        let (live, rest) = tensors.split_at(half);
        let mut shadow = if same { live.to_vec() } else { rest.to_vec() };
        shadow.truncate(shadow.len().saturating_sub(missing));
        let outputs = live.iter().enumerate().map(|(index, tensor)| {
            let shape: Vec<i64> = tensor.shape().iter().map(|size| *size as i64).collect();
            output(&format!("y{}", index % 2), tensor.datatype(), &shape, &["a", "b"])
        });
        let max_batch_size = if batches { 8 } else { 0 };
        let signature = Signature {
            inputs: vec![], outputs: outputs.collect(), max_batch_size, splits: true,
        };
        let mut pair = pair(&Arc::new(signature), live.to_vec(), shadow);
        if let Some(kind) = fail {
            pair.shadow = Err(Kind::ALL[kind]);
        }
        let ledger = Ledger::new();
        for _ in 0..40 {
            ledger.compare(&pair);
        }
        let report = ledger.report();
        prop_assert_eq!(report.calls, 40);
        prop_assert!(serde_json::to_string(&report).is_ok());
        // Two outputs of one name cannot be told apart.
        if same && missing == 0 && fail.is_none() && live.len() <= 2 {
            prop_assert!(report.errors.is_empty());
            prop_assert!(report.worst.is_empty(), "{:?}", report.worst);
            prop_assert!(report.outputs.iter().all(|output| output.within_tolerance
                .or(output.agreement).is_none_or(|all| all.count == all.of)));
        }
    }
}
