//! What reports say in plain sentences, and the names of their fields.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::{DataType, Tensor};
use serde_json::Value;

use super::{answer, compare, floats, output, pair, signature, singles};
use crate::error::Kind;
use crate::shadow::{LaneCounts, Ledger, Report, Verdict};
use crate::types::Signature;

/// A report of so many calls, each with a live and a shadow vector.
fn report(
    declared: &Arc<Signature>,
    calls: usize,
    vectors: impl Fn(usize) -> (Vec<f32>, Vec<f32>),
) -> Report {
    let ledger = Ledger::new();
    for index in 0..calls {
        let (live, shadow) = vectors(index);
        compare(&ledger, declared, &live, &shadow);
    }
    ledger.report()
}

fn one_hot(class: usize) -> Vec<f32> {
    (0..10).map(|index| if index == class { 4.0 } else { 0.0 }).collect()
}

#[test]
fn labels_that_flip_are_told_with_what_became_of_them() {
    let declared = floats(&[-1, 10]);
    let found = report(&declared, 450, |index| {
        let shadow = if index < 17 { 3 } else { usize::from(index >= 34) * 6 + 2 };
        (one_hot(8), one_hot(shadow))
    });
    assert_eq!(found.verdict, Verdict::Differs);
    assert_eq!(
        found.findings,
        ["labels of 'y' agree in 92.4 % (89.6–94.5 %) over 450; most often 8 → 2: 17"]
    );
    let flips = found.outputs[0].flips.as_ref().unwrap();
    assert_eq!((flips.total, flips.different), (34, 2));
    assert_eq!((flips.most[1].live.as_str(), flips.most[1].shadow.as_str()), ("8", "3"));
}

#[test]
fn a_shadow_that_answers_alike_is_alike() {
    let found =
        report(&floats(&[-1, 10]), 1000, |index| (one_hot(index % 10), one_hot(index % 10)));
    assert_eq!(found.verdict, Verdict::Alike, "{:?}", found.findings);
    assert_eq!(found.findings, ["labels of 'y' agree in 100 % (99.6–100.0 %) over 1000"]);
    assert!(found.worst.is_empty());
}

#[test]
fn few_calls_are_not_judged() {
    let found = report(&floats(&[-1, 10]), 29, |_| (one_hot(8), one_hot(3)));
    assert_eq!(found.verdict, Verdict::TooFew);
    assert_eq!(found.findings[0], "too few calls to judge: 29 of 30");
    assert_eq!(Ledger::new().report().verdict, Verdict::TooFew);
}

#[test]
fn a_shadow_that_fails_is_told_with_its_errors() {
    let ledger = Ledger::new();
    let declared = floats(&[-1, 2]);
    for index in 0..40 {
        let mut pair = pair(&declared, vec![singles(&[1, 2], &[0.0, 1.0])], vec![]);
        pair.shadow = Err(if index == 7 { Kind::DeadlineExceeded } else { Kind::EngineFailed });
        ledger.compare(&pair);
    }
    let found = ledger.report();
    assert_eq!(found.verdict, Verdict::Failing);
    let errors = "fails 100 % of its calls: engine_failed (39), deadline_exceeded (1)";
    assert_eq!(found.findings, [errors]);
    assert_eq!(found.latency, None);
}

#[test]
fn nan_counts_where_live_has_none() {
    let vectors = |index: usize| {
        let mut shadow = one_hot(8);
        shadow[1] = if index < 12 { f32::NAN } else { 0.0 };
        (one_hot(8), shadow)
    };
    let found = report(&floats(&[-1, 10]), 100, vectors);
    assert_eq!(found.verdict, Verdict::Differs);
    assert_eq!(found.findings[0], "NaN in 'y' in 12 % of rows (live: 0 %)");
    let found = report(&floats(&[-1, 10]), 1000, |index| (vectors(index).1, vectors(index).1));
    assert_eq!(found.verdict, Verdict::Alike, "{:?}", found.findings);
}

#[test]
fn a_shadow_that_takes_longer_is_slower() {
    let ledger = Ledger::new();
    let declared = floats(&[-1, 2]);
    let tensor = || vec![singles(&[1, 2], &[0.0, 1.0])];
    for index in 0..400 {
        let mut pair = pair(&declared, tensor(), vec![]);
        pair.live.time *= 1 + index % 7;
        let mut shadow = answer(&declared, tensor(), 0);
        shadow.time = pair.live.time.mul_f64(if index % 5 == 0 { 6.0 } else { 3.1 });
        pair.shadow = Ok(shadow);
        ledger.compare(&pair);
    }
    let found = ledger.report();
    assert_eq!(found.verdict, Verdict::Slower);
    let sentence = found.findings.last().unwrap();
    let times = ["3.1 times as slow (median; ", " at the 90th percentile)"];
    assert!(times.iter().all(|part| sentence.contains(part)), "{sentence}");
    let ratio = found.latency.unwrap().ratio.unwrap();
    assert!((ratio.p90 / 6.0 - 1.0).abs() < 0.033, "{ratio:?}");
}

#[test]
fn numbers_and_vectors_have_sentences_of_their_own() {
    let scalar = report(&floats(&[-1, 1]), 30, |_| (vec![2.0], vec![2.5]));
    assert_eq!(
        scalar.findings,
        ["'y' is off by 5.000e-1 on average (25 % of the value), 5.000e-1 at most"]
    );
    assert_eq!(scalar.verdict, Verdict::Differs);
    let vector = report(&floats(&[-1, -1]), 30, |index| {
        (vec![1.0, 0.0], if index == 0 { vec![0.6, 0.8] } else { vec![1.0, 0.0] })
    });
    assert_eq!(vector.findings, ["'y' has a cosine of 0.9867 on average, 0.6000 at least"]);
    assert_eq!(vector.verdict, Verdict::Differs);
}

#[test]
fn labels_and_types_that_are_declared_differently_are_told() {
    let live = signature(vec![output("y", DataType::Fp32, &[-1, 2], &["cat", "dog"])]);
    let shadow = signature(vec![output("y", DataType::Fp64, &[-1, 2], &["dog", "cat"])]);
    let ledger = Ledger::new();
    for _ in 0..400 {
        let mut pair = pair(&live, vec![singles(&[1, 2], &[0.0, 1.0])], vec![]);
        let data = [1.0_f64, 0.0].iter().flat_map(|value| value.to_le_bytes()).collect();
        let tensor = Tensor::new(DataType::Fp64, vec![1, 2], data).unwrap();
        pair.shadow = Ok(answer(&shadow, vec![tensor], 100));
        assert!(ledger.compare(&pair));
    }
    let found = ledger.report();
    assert_eq!(
        found.findings,
        [
            "the labels of 'y' are declared differently",
            "'y' is FP64, live it is FP32",
            "labels of 'y' agree in 0 % (0.0–1.0 %) over 400; most often dog → cat: 400",
        ]
    );
    assert_eq!(found.worst[0].summary, "dog → cat, largest difference 1.000e0");
}

#[test]
fn what_was_not_compared_is_told() {
    let counts = LaneCounts {
        sampled: 200,
        submitted: 180,
        in_flight: 0,
        in_flight_bytes: 0,
        compared: 176,
        failed: 0,
        dropped: BTreeMap::from([("expired", 4), ("full", 20)]),
    };
    let found = Ledger::new().report().with_lane(counts);
    let sentence = "12 % of the sampled calls were not compared: full (20), expired (4)";
    assert_eq!(found.findings.last().unwrap(), sentence);
}

#[test]
fn the_fields_keep_their_names() {
    let found = report(&floats(&[-1, 10]), 40, |_| (one_hot(8), one_hot(3)));
    let found = serde_json::to_value(found).unwrap();
    let keys = |value: &Value| -> Vec<String> {
        let mut keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
        keys.sort();
        keys
    };
    assert_eq!(
        keys(&found),
        [
            "calls",
            "errors",
            "failed",
            "findings",
            "lane",
            "latency",
            "outputs",
            "outputs_left_out",
            "rows",
            "seconds",
            "verdict",
            "worst"
        ]
    );
    assert_eq!(
        keys(&found["outputs"][0]),
        [
            "agreement",
            "cosine",
            "datatype",
            "difference",
            "equal_elements",
            "flips",
            "infinite",
            "kind",
            "labels_differ",
            "name",
            "nan",
            "rows",
            "shadow_datatype",
            "top_k",
            "within_tolerance"
        ]
    );
    assert_eq!(keys(&found["outputs"][0]["agreement"]), ["count", "high", "low", "of", "share"]);
    assert_eq!(keys(&found["worst"][0]), ["output", "prediction", "row", "score", "summary"]);
    assert_eq!(found["verdict"], "differs");
    assert_eq!(found["outputs"][0]["kind"], "classes");
}
